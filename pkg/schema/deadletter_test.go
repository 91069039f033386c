package schema_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
)

func TestDeadLetterHeaders(t *testing.T) {
	j, d := newJudge(), delivery()
	headers := func(e *schema.Event) map[string]string {
		var data struct{ Headers map[string]string }
		unmarshal(t, e.Data, &data)
		return data.Headers
	}
	body := []byte("x")
	e := schema.DeadLetter(d, "", schema.ReasonInvalid, nil, body)
	j.aDeadLetter(t, e, d, schema.ReasonInvalid, body)
	want := map[string]string{
		"webhook-id": "msg_2f9a6c1e", "webhook-timestamp": "1769083201", "content-type": "application/json", "user-agent": "Google-Webhooks/1.0",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	if got := headers(e); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}

	d.Header = http.Header{"Content-Type": {"a", "b"}, "User-Agent": {"caf\xe9 \"\\"}, "Traceparent": {"garbage"}}
	d.TraceParent = ""
	e = schema.DeadLetter(d, "", schema.ReasonInvalid, nil, body)
	j.aDeadLetter(t, e, d, schema.ReasonInvalid, body)
	want = map[string]string{"content-type": "a, b", "user-agent": "caf\ufffd \"\\", "traceparent": "garbage"}
	if got := headers(e); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}

	// What has no room is left out; what comes behind it is not.
	d.Header = http.Header{"Webhook-Id": {d.ID}, "User-Agent": {strings.Repeat("x", 9000)}, "Traceparent": {"t"}}
	e = schema.DeadLetter(d, "", schema.ReasonInvalid, nil, body)
	j.aDeadLetter(t, e, d, schema.ReasonInvalid, body)
	want = map[string]string{"webhook-id": d.ID, "traceparent": "t"}
	if got := headers(e); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}

	d.Header = nil
	e = schema.DeadLetter(d, "", schema.ReasonInvalid, nil, body)
	j.aDeadLetter(t, e, d, schema.ReasonInvalid, body)
	if got := headers(e); len(got) != 0 {
		t.Errorf("got %q, want none", got)
	}
}

func TestRefused(t *testing.T) {
	r, j, d := registry(t, ""), newJudge(), delivery()
	e := normalize(t, r, " "+known(`{"id":"batches/1", "n":1.0}`))
	letter := e.Refused("refused by sink: \x00 too large")
	j.aDeadLetter(t, letter, d, schema.ReasonRefused, e.Original)
	var data struct {
		Errors  []struct{ Pointer, Message string }
		Headers map[string]string
	}
	unmarshal(t, letter.Data, &data)
	if len(data.Errors) != 1 || data.Errors[0].Pointer != "" || data.Errors[0].Message != "refused by sink: \x00 too large" {
		t.Errorf("errors %+v", data.Errors)
	}
	if want := map[string]string{"webhook-id": d.ID, "traceparent": d.TraceParent}; fmt.Sprint(data.Headers) != fmt.Sprint(want) {
		t.Errorf("headers: got %q, want %q", data.Headers, want)
	}
	if letter.Name != "batch.succeeded" {
		t.Errorf("name %q", letter.Name)
	}

	d.TraceParent = ""
	doc, _ := validate(t, r, []byte(known(`{"id":"x"}`)))
	e = schema.Normalize(doc, d)
	letter = e.Refused(strings.Repeat("é", 100_000) + "\xff")
	j.aDeadLetter(t, letter, d, schema.ReasonRefused, e.Original)
	unmarshal(t, letter.Data, &data)
	if got := len(data.Errors[0].Message); got == 0 || got > 256 {
		t.Errorf("message of %d bytes", got)
	}
	data.Headers = nil
	unmarshal(t, letter.Data, &data)
	if want := map[string]string{"webhook-id": d.ID}; fmt.Sprint(data.Headers) != fmt.Sprint(want) {
		t.Errorf("headers: got %q, want %q", data.Headers, want)
	}
}

func TestReasonsAndResults(t *testing.T) {
	if got, want := fmt.Sprint(schema.Reasons()), "[invalid_event unknown_type refused_by_sink]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	got := []schema.Result{0, schema.Published, schema.Duplicate, schema.DeadLettered, schema.Spooled}
	if want := "[none published duplicate dead-lettered spooled]"; fmt.Sprint(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
