package ingress_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/schemas"
)

// examples are the bodies of all nine types.
func examples(tb testing.TB) []string {
	tb.Helper()
	var bodies []string
	for _, typ := range schemas.Types() {
		body, err := schemas.Example(typ)
		if err != nil {
			tb.Fatal(err)
		}
		bodies = append(bodies, string(body))
	}
	return bodies
}

func TestEveryType(t *testing.T) {
	for i, body := range examples(t) {
		typ := schemas.Types()[i]
		t.Run(typ, func(t *testing.T) {
			r := newRig(t).serve(t)
			r.send(t, draft{id: "msg_" + typ, body: body}).want(t, 202, accepted("published", "msg_"+typ))
			e := r.one(t)
			if e.Name != typ || e.Dead || e.ID != "msg_"+typ || e.Source != source || e.Scheme != "v1" || !e.Received.Equal(signedAt) ||
				string(e.Original) != body || !json.Valid(e.Structured) {
				t.Errorf("got %+v", e)
			}
			if got := r.series(t)["bridge_deliveries_total{result=published,type="+typ+"}"]; got != 1 {
				t.Errorf("metric: got %v, want 1", got)
			}
		})
	}
}

// letter is the data of a dead letter.
type letter struct {
	Reason string `json:"reason"`
	Errors []struct {
		Pointer, Message string
	} `json:"errors"`
	Headers    map[string]string `json:"headers"`
	Body       *string           `json:"body"`
	BodyBase64 *string           `json:"body_base64"`
	Scheme     string            `json:"scheme"`
	Received   time.Time         `json:"received"`
}

func openLetter(tb testing.TB, e *schema.Event) (letter, []byte) {
	tb.Helper()
	var l letter
	if err := json.Unmarshal(e.Data, &l); err != nil {
		tb.Fatalf("%v: %.200s", err, e.Data)
	}
	switch {
	case l.Body != nil && l.BodyBase64 == nil:
		return l, []byte(*l.Body)
	case l.BodyBase64 != nil && l.Body == nil:
		body, err := base64.StdEncoding.DecodeString(*l.BodyBase64)
		if err != nil {
			tb.Fatal(err)
		}
		return l, body
	}
	tb.Fatalf("a dead letter with both bodies or none: %.200s", e.Data)
	return l, nil
}

// oddBodies are authentic and unusual. Where name is "-" the body is no event; any other is the event's type.
var oddBodies = []struct{ name, body, typ string }{
	{"empty", "", "-"},
	{"blanks", " \t\r\n", "-"},
	{"words", "hello", "-"},
	{"a form", "type=batch.succeeded&id=1", "-"},
	{"half of it", known[:50], "-"},
	{"two of them", known + known, "-"},
	{"something behind", known + "x", "-"},
	{"a comma too many", strings.Replace(known, `}}`, `},}`, 1), "-"},
	{"a comment", "/* */" + known, "-"},
	{"single quotes", strings.ReplaceAll(known, `"`, `'`), "-"},
	{"a byte order mark", "\ufeff" + known, "-"},
	{"UTF-16", "\xff\xfe{\x00}\x00", "-"},
	{"null", "null", "-"},
	{"a number", "12", "-"},
	{"a string", `"batch.succeeded"`, "-"},
	{"an array", "[" + known + "]", "-"},
	{"no members", "{}", "-"},
	{"a name twice", `{"type":"batch.succeeded",` + known[1:], "-"},
	{"a name twice, escaped", `{"t\u0079pe":"batch.failed",` + known[1:], "-"},
	{"a name twice, deeper", strings.Replace(known, `"id"`, `"id":"batches/2","id"`, 1), "-"},
	{"deep arrays", `{"type":"batch.succeeded","data":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}", "-"},
	{"deep objects", strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), "-"},
	{"deep and unclosed", strings.Repeat("[", maxBody), "-"},
	{"deep under an unknown type", `{"type":"x","data":{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}}", "-"},
	{"NUL bytes", "\x00\x00\x00\x00", "-"},
	{"a NUL byte behind", known + "\x00", "-"},
	{"a NUL byte in a string", strings.Replace(known, "batches/1", "batches\x001", 1), "-"},
	{"a NUL character in the id", strings.Replace(known, "batches/1", `batches\u00001`, 1), "-"},
	{"a NUL character in the type", `{"type":"a\u0000b"}`, "-"},
	{"a line break in the type", `{"type":"a\nb"}`, "-"},
	{"invalid UTF-8", strings.Replace(known, "batches/1", "\xff\xfe", 1), "-"},
	{"overlong UTF-8", strings.Replace(known, "batches/1", "\xc0\xaf", 1), "-"},
	{"a surrogate in UTF-8", strings.Replace(known, "batches/1", "\xed\xa0\x80", 1), "-"},
	{"half a surrogate pair", strings.Replace(known, "batches/1", `\ud800`, 1), "-"},
	{"a number that is none", `{"type":"x","data":{"n":NaN}}`, "-"},
	{"no type", strings.Replace(known, `"type":"batch.succeeded",`, "", 1), "-"},
	{"a null type", `{"type":null}`, "-"},
	{"a number as type", `{"type":1e999999}`, "-"},
	{"an object as type", `{"type":{"a":1}}`, "-"},
	{"an empty type", `{"type":""}`, "-"},
	{"a type of 300 characters", `{"type":"` + strings.Repeat("x", 300) + `"}`, "-"},
	{"a type of 100 characters and 200 bytes", `{"type":"` + strings.Repeat("é", 100) + `"}`, "-"},
	{"a date that is none", strings.Replace(known, "2026-01-22", "2026-02-30", 1), "-"},
	{"no version", strings.Replace(known, `"version":"v1",`, "", 1), "-"},
	{"a known type and nothing else", `{"type":"batch.succeeded"}`, "-"},
	{"an id of 2 KiB", strings.Replace(known, "batches/1", strings.Repeat("x", 2<<10), 1), "-"},
	{"control characters only, and many", strings.Repeat("\x01", 100_000), "-"},

	{"a large number", strings.Replace(known, `"id"`, `"n":1e999999,"m":-1E-999999,"id"`, 1), "batch.succeeded"},
	{"a long number", strings.Replace(known, `"id"`, `"n":`+strings.Repeat("9", 100_000)+`,"id"`, 1), "batch.succeeded"},
	{"a large number under an unknown type", `{"type":"x","data":{"n":1e999999}}`, "x"},
	{"a type of 128 characters", `{"type":"` + strings.Repeat("x", 128) + `"}`, strings.Repeat("x", 128)},
	{"dots", `{"type":"a..b.c."}`, "a..b.c."},
	{"spaces", `{"type":" a b "}`, " a b "},
	{"wildcards", `{"type":"a.>.*"}`, "a.>.*"},
	{"only a wildcard", `{"type":">"}`, ">"},
	{"a type not in ASCII", `{"type":"ééé.日本"}`, "ééé.日本"},
	{"a type with escapes", `{"type":"a\u002eb\/\"\\"}`, `a.b/"\`},
	{"a type like another subject", `{"type":"$JS.API.STREAM.DELETE.GEMINI"}`, "$JS.API.STREAM.DELETE.GEMINI"},
	{"a ping", `{"type":"ping"}`, "ping"},
	{"a version to come", strings.Replace(known, `"v1"`, `"v2"`, 1), "batch.succeeded"},
	{"fields to come", strings.Replace(known, `"data"`, `"new":[{"a":null}],"data"`, 1), "batch.succeeded"},
	{"depth 100", `{"type":"x","data":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}}", "x"},
	{"white space", "\n" + strings.NewReplacer(`,`, " ,\t", `:`, "\r\n: ").Replace(`{"type":"x","data":{"id":"1"}}`) + "  ", "x"},
}

// What is authentic is never lost: as an event or as a dead letter it reaches the Deliverer, byte for byte.
func TestAuthenticIsNeverLost(t *testing.T) {
	r := newRig(t).serve(t)
	for i, tt := range oddBodies {
		t.Run(tt.name, func(t *testing.T) {
			id := fmt.Sprint("msg_", i)
			before := len(r.delivered())
			got := r.send(t, draft{id: id, body: tt.body, lines: []string{"User-Agent: Gemini"}})
			events := r.delivered()[before:]
			if len(events) != 1 {
				t.Fatalf("%d events reached the Deliverer, want 1; got reply %+v", len(events), got)
			}
			e := events[0]
			if e.ID != id || e.Dead != (tt.typ == "-") || !json.Valid(e.Structured) || e.PartitionKey == "" {
				t.Errorf("got %+v", e)
			}
			if len(e.Structured) > 2*len(tt.body)+32<<10 {
				t.Errorf("an event of %d bytes from a body of %d", len(e.Structured), len(tt.body))
			}
			if tt.typ != "-" {
				got.want(t, 202, accepted("published", id))
				var compact bytes.Buffer
				if err := json.Compact(&compact, []byte(tt.body)); err != nil {
					t.Fatal(err)
				}
				if e.Name != tt.typ || !bytes.Equal(e.Original, compact.Bytes()) {
					t.Errorf("got event %q of %.200q, want %q of %.200q", e.Name, e.Original, tt.typ, compact.Bytes())
				}
				return
			}
			got.want(t, 202, accepted("dead-lettered", id))
			l, body := openLetter(t, e)
			if string(body) != tt.body || l.Reason != "invalid_event" || len(l.Errors) == 0 || l.Scheme != "v1" || !l.Received.Equal(e.Received) {
				t.Errorf("dead letter: got body %.100q, want %.100q, and %+v", body, tt.body, l)
			}
			want := map[string]string{"webhook-id": id, "webhook-timestamp": "1769083200", "user-agent": "Gemini"}
			if !maps.Equal(l.Headers, want) {
				t.Errorf("dead letter: got headers %v, want %v", l.Headers, want)
			}
		})
	}
}

// A body's buffer is used again while events are still about: none may change after it was handed over.
func TestEventsKeepTheirBytes(t *testing.T) {
	r := newRig(t).serve(t)
	want := sync.Map{}
	var senders sync.WaitGroup
	for sender := range 4 {
		senders.Go(func() {
			c := r.dial(t)
			for i := range 40 {
				id := fmt.Sprintf("msg_%d_%d", sender, i)
				body := strings.Replace(sized(200+i*977%5000), "batches/1", id, 1)
				if i%3 == 0 {
					body = strings.Repeat(id, 1+i*31) // no event
				}
				want.Store(id, body)
				status := map[bool]string{true: "dead-lettered", false: "published"}[i%3 == 0]
				c.send(t, draft{id: id, body: body, chunked: i%2 == 0}.text()).want(t, 202, accepted(status, id))
			}
		})
	}
	senders.Wait()
	events := r.delivered()
	if len(events) != 160 {
		t.Errorf("%d events, want 160", len(events))
	}
	for _, e := range events {
		got := e.Original
		if e.Dead {
			_, got = openLetter(t, e)
		}
		if body, _ := want.LoadAndDelete(e.ID); body != string(got) {
			t.Errorf("%s: got %.60q, want %.60q", e.ID, got, body)
		}
	}
}

// TestPolicies has every pair of policies judge every sort of body.
func TestPolicies(t *testing.T) {
	const (
		published = "published"
		dead      = "dead-lettered"
		rejected  = "" // 422
	)
	laterVersion := strings.Replace(known, `"v1"`, `"v2"`, 1)
	invalidUnknown := `{"type":"tuning.done","timestamp":"soon"}`
	for _, tt := range []struct {
		invalid, unknown                         ingress.Policy
		known, badKnown, new, later, badNew, not string
	}{
		{ingress.DeadLetter, ingress.Publish, published, dead, published, published, dead, dead},
		{ingress.DeadLetter, ingress.DeadLetter, published, dead, dead, dead, dead, dead},
		{ingress.DeadLetter, ingress.Reject, published, dead, rejected, rejected, dead, dead},
		{ingress.Reject, ingress.Publish, published, rejected, published, published, rejected, rejected},
		{ingress.Reject, ingress.DeadLetter, published, rejected, dead, dead, rejected, rejected},
		{ingress.Reject, ingress.Reject, published, rejected, rejected, rejected, rejected, rejected},
	} {
		for _, b := range []struct{ name, body, typ, reason, want string }{
			{"known", known, "batch.succeeded", "", tt.known},
			{"invalid", invalid, "batch.succeeded", "invalid_event", tt.badKnown},
			{"unknown", unknown, "tuning.done", "unknown_type", tt.new},
			{"of an unknown version", laterVersion, "batch.succeeded", "unknown_type", tt.later},
			{"unknown and invalid", invalidUnknown, "tuning.done", "invalid_event", tt.badNew},
			{"not JSON", "?", "", "invalid_event", tt.not},
		} {
			t.Run(fmt.Sprintf("%s/%s/%s", tt.invalid, tt.unknown, b.name), func(t *testing.T) {
				r := newRig(t, func(c *ingress.Config) { c.OnInvalid, c.OnUnknown = tt.invalid, tt.unknown })
				got := r.do(t, draft{body: b.body})
				if b.want == rejected {
					got.want(t, 422, invalidEvent)
					r.wantNothingDelivered(t)
					if reason := r.line(t)["reason"]; reason != nil {
						t.Errorf("log: got reason %v of a dead letter that there is not", reason)
					}
					return
				}
				got.want(t, 202, accepted(b.want, "msg_1"))
				e := r.one(t)
				if e.Name != b.typ || e.Dead != (b.want == dead) {
					t.Errorf("got event %q, dead %v", e.Name, e.Dead)
				}
				if !e.Dead {
					if string(e.Original) != b.body {
						t.Errorf("got original %s, want %s", e.Original, b.body)
					}
					return
				}
				l, body := openLetter(t, e)
				if string(body) != b.body || l.Reason != b.reason {
					t.Errorf("dead letter: got %q because of %s, want %q because of %s", body, l.Reason, b.body, b.reason)
				}
				if b.reason == "unknown_type" && (len(l.Errors) != 1 || l.Errors[0].Pointer != "/type") {
					t.Errorf("dead letter: got errors %+v, want one at /type", l.Errors)
				}
				if got := r.line(t)["reason"]; got != b.reason {
					t.Errorf("log: got reason %v, want %s", got, b.reason)
				}
			})
		}
	}
}

// The trace context is handed on as it came, or not at all.
func TestTraceParent(t *testing.T) {
	const (
		trace = "4bf92f3577b34da6a3ce929d0e0e4736"
		span  = "00f067aa0ba902b7"
		valid = "00-" + trace + "-" + span + "-01"
	)
	r := newRig(t).serve(t)
	for _, tt := range []struct {
		want  string
		lines []string
	}{
		{"", nil},
		{valid, []string{"traceparent: " + valid}},
		{valid, []string{"TraceParent:" + valid + " "}},
		{valid, []string{"traceparent: " + valid, "tracestate: a=b"}},
		{"00-" + trace + "-" + span + "-00", []string{"traceparent: 00-" + trace + "-" + span + "-00"}},
		{"00-" + trace + "-" + span + "-ff", []string{"traceparent: 00-" + trace + "-" + span + "-ff"}},
		{"", []string{"traceparent: " + valid, "traceparent: " + valid}},
		{"", []string{"traceparent: " + valid, "Traceparent: " + valid}},
		{"", []string{"traceparent: " + valid + ", " + valid}},
		{"", []string{"traceparent:"}},
		{"", []string{"traceparent: x"}},
		{"", []string{"traceparent: " + strings.ToUpper(valid)}},
		{"", []string{"traceparent: " + valid + "-"}},
		{"", []string{"traceparent: " + valid + "-00"}},
		{"", []string{"traceparent: " + valid[:54]}},
		{"", []string{"traceparent: 01" + valid[2:]}},
		{"", []string{"traceparent: ff" + valid[2:]}},
		{"", []string{"traceparent: 0 " + valid[2:]}},
		{"", []string{"traceparent: " + strings.Replace(valid, "-", "_", 1)}},
		{"", []string{"traceparent: " + strings.ReplaceAll(valid, "-", "0")}},
		{"", []string{"traceparent: 00-" + strings.Repeat("0", 32) + "-" + span + "-01"}},
		{"", []string{"traceparent: 00-" + trace + "-" + strings.Repeat("0", 16) + "-01"}},
		{"", []string{"traceparent: 00-" + strings.Replace(trace, "f", "g", 1) + "-" + span + "-01"}},
		{"", []string{"traceparent: 00-" + trace + "-" + strings.Replace(span, "f", "F", 1) + "-01"}},
		{"", []string{"traceparent: 00-" + trace + "-" + span + "-0x"}},
		{"", []string{"traceparent: 00-" + trace[1:] + "--" + span + "-01"}},
		{"", []string{"tracestate: a=b"}},
	} {
		for _, body := range []string{known, invalid} {
			before := len(r.delivered())
			r.send(t, draft{lines: tt.lines, body: body})
			events := r.delivered()[before:]
			if len(events) != 1 || events[0].TraceParent != tt.want {
				t.Errorf("%q, dead %v: got %+v, want %q", tt.lines, body == invalid, events, tt.want)
			}
		}
	}
}

// A dead letter keeps some of the headers as they came, and none that lets somebody in: not even the signature.
func TestDeadLetterHeaders(t *testing.T) {
	r := newRig(t).serve(t)
	r.send(t, draft{body: "?", lines: []string{
		"Content-Type: text/plain", "User-Agent: a", "user-agent: b", "Cookie: no", "Authorization: Bearer no", "X-Forwarded-For: 192.0.2.1",
		"traceparent: nonsense",
	}}).want(t, 202, accepted("dead-lettered", "msg_1"))
	l, _ := openLetter(t, r.one(t))
	want := map[string]string{
		"webhook-id": "msg_1", "webhook-timestamp": "1769083200", "content-type": "text/plain", "user-agent": "a, b", "traceparent": "nonsense",
	}
	if !maps.Equal(l.Headers, want) {
		t.Errorf("got %v, want %v", l.Headers, want)
	}
}
