package schema_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
)

// TestReopen: a letter gives back what was put into it.
func TestReopen(t *testing.T) {
	d := delivery()
	for _, c := range []struct{ body, typ string }{
		{`{"type":"batch.succeeded"}`, "batch.succeeded"},
		{"", ""},
		{"hello", ""},
		{`{"type":"batch.succeeded",`, ""},
		{`{"Type":"batch.succeeded"}`, ""},
		{`{"type":7}`, ""},
		{`{"type":"a` + strings.Repeat("b", 200) + `"}`, ""},
		{`{"type":"a\u0000"}`, ""},
		{"{\"type\":\"ping\",\"s\":\"\u2028 \\ud83c \ufffd \"}", ""},
		{"{\"type\":\"ping\",\"s\":\"\u2028 \ufffd \\u00e9\"}", "ping"},
		{"\xff\xfe", ""},
		{strings.Repeat("\x01", 100), ""},
	} {
		violations := []schema.Violation{{Pointer: "/a~1b", Message: "is \"wrong\""}, {Message: "and so on"}}
		e := schema.DeadLetter(d, c.typ, schema.ReasonUnknown, violations, []byte(c.body))
		l, err := schema.Reopen(e.Structured)
		if err != nil {
			t.Errorf("%q: %v", c.body, err)
			continue
		}
		if string(l.Body) != c.body || l.Type != c.typ || l.Reason != schema.ReasonUnknown || len(l.Errors) != 2 || l.Errors[0] != violations[0] ||
			l.Errors[1] != violations[1] || l.Headers["user-agent"] != "Google-Webhooks/1.0" || len(l.Headers) != 5 {
			t.Errorf("%q: got %+v", c.body, l)
		}
		l.TraceParent = e.TraceParent
		got := l.Delivery()
		if got.ID != d.ID || got.Source != d.Source || got.Scheme != d.Scheme || !got.Received.Equal(d.Received) || got.TraceParent != d.TraceParent {
			t.Errorf("%q: got %+v, want %+v", c.body, got, d)
		}
	}
}

// TestReopenRefused: the event that a sink refused comes back byte by byte.
func TestReopenRefused(t *testing.T) {
	r := registry(t, "")
	e := normalize(t, r, known(`{"id":"batches/1","n":1.0}`))
	l, err := schema.Reopen(e.Refused("too large").Structured)
	if err != nil {
		t.Fatal(err)
	}
	l.TraceParent = e.TraceParent
	doc, invalid := validate(t, r, l.Body)
	if invalid != nil {
		t.Fatal(invalid)
	}
	if got := schema.Normalize(doc, l.Delivery()); string(got.Structured) != string(e.Structured) || got.TraceParent != e.TraceParent || !got.Received.Equal(e.Received) {
		t.Errorf("got %s, want %s", got.Structured, e.Structured)
	}
}

func TestReopenOther(t *testing.T) {
	e := normalize(t, registry(t, ""), known(`{"id":"x"}`))
	const letter = `{"id":"a","type":"bridge.dead_letter","data":{"body":"x"}}`
	if _, err := schema.Reopen([]byte(letter)); err != nil {
		t.Errorf("%s: %v", letter, err)
	}
	for _, event := range []string{
		string(e.Structured), "", "[", "null", "{}", strings.Replace(letter, `"a"`, `""`, 1), strings.Replace(letter, `"body":"x"`, "", 1),
		strings.Replace(letter, `"x"`, `"x","body_base64":""`, 1), strings.Replace(letter, `"body":"x"`, `"body_base64":"*"`, 1),
	} {
		if l, err := schema.Reopen([]byte(event)); !errors.Is(err, schema.ErrNoLetter) || l != nil {
			t.Errorf("%s: got %v, %v", event, l, err)
		}
	}
}

func TestMark(t *testing.T) {
	d := delivery()
	dead := schema.DeadLetter(d, "batch.succeeded", schema.ReasonInvalid, nil, []byte(`{"type":"batch.succeeded"}`))
	l, err := schema.Reopen(dead.Structured)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 22, 13, 0, 1, 5, time.UTC)
	for _, c := range []struct {
		event  string
		result schema.Result
		again  bool
		id     string
	}{
		{d.ID, schema.Published, false, d.ID + ".replayed"},
		{d.ID + ".replay-1", schema.Published, false, d.ID + ".replayed"},
		{d.ID + ".replay-1", schema.Duplicate, true, d.ID + ".replay-1.replayed"},
	} {
		e := l.Replayed(&schema.Event{ID: c.event}, c.result, c.again, now)
		want := schema.Mark{ID: c.id, Letter: d.ID, Event: c.event, Result: c.result.String(), Replayed: now}
		if got, ok := schema.ReadMark(e.Structured); !ok || got != want {
			t.Errorf("got %+v, %v, want %+v", got, ok, want)
		}
		// It goes where the letter is.
		if !e.Dead || e.ID != c.id || e.Name != dead.Name || e.PartitionKey != dead.PartitionKey || e.Source != d.Source || e.Type != schema.TypeReplayed {
			t.Errorf("got %+v", e)
		}
		var whole struct{ ID, Type, Source, PartitionKey string }
		unmarshal(t, e.Structured, &whole)
		if whole.ID != c.id || whole.Type != "bridge.dead_letter.replayed" || whole.Source != d.Source || whole.PartitionKey != d.ID {
			t.Errorf("got %s", e.Structured)
		}
		if _, err := e.MarshalBinary(); err != nil {
			t.Error(err)
		}
		if _, err := schema.Reopen(e.Structured); !errors.Is(err, schema.ErrNoLetter) {
			t.Errorf("a mark is no letter: %v", err)
		}
	}
	for _, event := range []string{string(dead.Structured), "", "{}", `{"type":"bridge.dead_letter.replayed","data":{}}`} {
		if m, ok := schema.ReadMark([]byte(event)); ok {
			t.Errorf("%s: got %+v", event, m)
		}
	}
}
