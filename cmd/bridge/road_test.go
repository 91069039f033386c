package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gembridge/bridge/schemas"
)

// judges are the published schemas, compiled by a validator that asserts formats too.
var judges = sync.OnceValue(func() map[string]*jsonschema.Schema {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	all := map[string]*jsonschema.Schema{}
	for _, name := range []string{schemas.Event, schemas.DeadLetter} {
		text, err := schemas.FS.ReadFile(name)
		if err != nil {
			panic(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			panic(err)
		}
		if err := compiler.AddResource(schemas.BaseURI+name, doc); err != nil {
			panic(err)
		}
		all[name] = compiler.MustCompile(schemas.BaseURI + name)
	}
	return all
})

// received is a record as the CloudEvents SDK reads it.
type received struct {
	event.Event
	subject string
	data    struct {
		Kind, Status, Job, Reason string
		Original                  json.RawMessage
		Body                      string
	}
}

// read holds a record against what consumers are promised: the CloudEvents SDK and the schema take it, and it is in
// the content mode that was asked for.
func read(t *testing.T, msg jetstream.Msg, mode, schema string) received {
	t.Helper()
	got := received{subject: msg.Subject()}
	if mode == "structured" {
		for name := range msg.Headers() {
			if strings.HasPrefix(strings.ToLower(name), "ce") {
				t.Errorf("%s: header %s in structured mode", msg.Subject(), name)
			}
		}
		if err := json.Unmarshal(msg.Data(), &got.Event); err != nil {
			t.Fatalf("CloudEvents SDK: %v in %s", err, msg.Data())
		}
	} else {
		got.Event = fromHeaders(t, msg)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("CloudEvents SDK: %v in %s", err, msg.Data())
	}
	text, err := json.Marshal(got.Event)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := judges()[schema].Validate(doc); err != nil {
		t.Errorf("%s: %v\nin %s", msg.Subject(), err, text)
	}
	if err := json.Unmarshal(got.Data(), &got.data); err != nil {
		t.Fatal(err)
	}
	if got, want := msg.Headers().Get("webhook-id"), got.ID(); got != want {
		t.Errorf("header webhook-id %q, want the event's id %q", got, want)
	}
	if got := msg.Headers().Get("traceparent"); got != traceParent {
		t.Errorf("header traceparent %q, want the request's", got)
	}
	return got
}

// fromHeaders reads binary mode by the CloudEvents NATS binding, for which the SDK has no module in go.mod.
func fromHeaders(t *testing.T, msg jetstream.Msg) event.Event {
	t.Helper()
	attributes := map[string]any{}
	for name, values := range msg.Headers() {
		if name, found := strings.CutPrefix(name, "ce-"); found {
			value, err := url.PathUnescape(values[0])
			if err != nil {
				t.Fatal(err)
			}
			attributes[name] = value
		}
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		t.Fatal(err)
	}
	var e event.Event
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("CloudEvents SDK: %v in %s", err, text)
	}
	e.DataEncoded = msg.Data()
	return e
}

// rich is a sample with what a decoder could lose: white space, big numbers, escapes, fields that nobody has announced.
func rich(t *testing.T, typ string) string {
	return strings.Replace(sample(t, typ), "{", "{\n  \"not_announced\" : { \"n\": 12345678901234567890.10E+5, \"s\": \"\\u00e9\\/<\\\"\", \"z\": [ ] } ,\n\t", 1)
}

func TestRoad(t *testing.T) {
	for _, where := range []string{"embedded", "external"} {
		for _, mode := range []string{"structured", "binary"} {
			t.Run(where+" "+mode, func(t *testing.T) {
				t.Parallel()
				if where == "embedded" {
					b := launch(t, local(t, "BRIDGE_CONTENT_MODE="+mode)).up(t)
					travel(t, b, connect(t, b.nats), mode)
					return
				}
				url := startBroker(t).url()
				b := launch(t, remote(t, url, "BRIDGE_CONTENT_MODE="+mode)).up(t).connected(t)
				if b.nats != "" {
					t.Errorf("an embedded server at %s beside an external one", b.nats)
				}
				travel(t, b, connect(t, url), mode)
			})
		}
	}
}

// travel sends one of everything, and everything twice.
func travel(t *testing.T, b *bridge, js jetstream.JetStream, mode string) {
	type delivery struct{ id, body, status, subject, typ string }
	var events, dead []delivery
	for _, typ := range schemas.Types() {
		events = append(events, delivery{"msg_" + typ, rich(t, typ), "published", "gemini." + typ, "com.google.gemini." + typ})
	}
	events = append(events,
		delivery{"msg_unknown", `{"type":"tuning.job > done","version":"v7","timestamp":"2026-01-22T12:00:00Z","data":{"id":"tuned/1"}}`, "published", "gemini.tuning.job-20-3e-20done", "com.google.gemini.tuning.job > done"},
		delivery{"msg_ping", `{"type":"ping"}`, "published", "gemini.ping", "com.google.gemini.ping"},
	)
	dead = append(dead,
		delivery{"msg_dead", `{"type":"batch.failed","data":{"id":""}}`, "dead-lettered", "gemini-dead.batch.failed", "bridge.dead_letter"},
		delivery{"msg_unreadable", "no JSON \x00 at all", "dead-lettered", "gemini-dead.unreadable", "bridge.dead_letter"},
	)
	for _, d := range append(events, dead...) {
		b.must(t, d.status, d.id, d.body)
	}
	for _, d := range append(events, dead...) {
		b.must(t, "duplicate", d.id, d.body)
	}

	for i, msg := range consume(t, js, "GEMINI", len(events)) {
		want := events[i]
		got := read(t, msg, mode, schemas.Event)
		if got.ID() != want.id || got.subject != want.subject || got.Type() != want.typ || got.Source() != "//generativelanguage.googleapis.com" {
			t.Errorf("got %s on %s of type %s from %s, want %+v", got.ID(), got.subject, got.Type(), got.Source(), want)
		}
		if got, want := string(got.data.Original), compact(t, want.body); got != want {
			t.Errorf("data.original:\ngot  %s\nwant %s", got, want)
		}
		kind, status, _ := strings.Cut(strings.TrimPrefix(want.typ, "com.google.gemini."), ".")
		if want.id == "msg_video.generated" {
			status = "succeeded"
		}
		if got.data.Kind != kind || got.data.Status != status {
			t.Errorf("%s: kind %q, status %q, want %q, %q", want.id, got.data.Kind, got.data.Status, kind, status)
		}
		if job := jobOf(t, want.body); got.data.Job != job || got.Subject() != job {
			t.Errorf("%s: job %q, subject %q, want %q", want.id, got.data.Job, got.Subject(), job)
		}
	}
	for i, msg := range consume(t, js, "GEMINI_DEAD", len(dead)) {
		want := dead[i]
		got := read(t, msg, mode, schemas.DeadLetter)
		if got.ID() != want.id || got.subject != want.subject || got.Type() != want.typ || got.data.Reason != "invalid_event" || got.data.Body != want.body {
			t.Errorf("got %s on %s of type %s, reason %s, body %q, want %+v", got.ID(), got.subject, got.Type(), got.data.Reason, got.data.Body, want)
		}
	}
}

func jobOf(t *testing.T, body string) string {
	t.Helper()
	var envelope struct{ Data struct{ ID string } }
	if err := json.Unmarshal([]byte(body), &envelope); err != nil {
		t.Fatal(err)
	}
	return envelope.Data.ID
}

// TestLargestBody: whatever BRIDGE_MAX_BODY lets in, the embedded server takes.
func TestLargestBody(t *testing.T) {
	for _, size := range []struct {
		setting string
		bytes   int
	}{{"384KiB", 384 << 10}, {"3MiB", 3 << 20}, {"32752KiB", 1 << 10}} {
		t.Run(size.setting, func(t *testing.T) {
			t.Parallel()
			b := launch(t, local(t, "BRIDGE_MAX_BODY="+size.setting)).up(t)
			b.becomes(t, http.StatusOK, "{Name:nats State:ok")
			// user_metadata stands in the event twice.
			body := `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/1"},"user_metadata":{"m":"%s"}}`
			body = fmt.Sprintf(body, strings.Repeat("m", size.bytes-len(body)+2))
			b.must(t, "published", "msg_large", body)
			if size.bytes == 1<<10 {
				return // the largest setting there is, which a server must start with
			}
			if r := b.post(t, "msg_larger", body+" "); r.code != http.StatusRequestEntityTooLarge {
				t.Errorf("one byte more: %v, want 413", r)
			}
			consume(t, connect(t, b.nats), "GEMINI", 1)
		})
	}
}
