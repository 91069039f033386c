package schema_test

import (
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
)

// judgeAny does with body what the bridge does with it, and judges what comes out: an event and the dead letters
// that a sink or a policy may make of it, or the dead letter of an invalid body.
func judgeAny(tb testing.TB, r *schema.Registry, body []byte) {
	tb.Helper()
	j, d := newJudge(), delivery()
	doc, invalid := validate(tb, r, body)
	if invalid != nil {
		j.aDeadLetter(tb, schema.DeadLetter(d, invalid.Type, schema.ReasonInvalid, invalid.Violations, body), d, schema.ReasonInvalid, body)
		return
	}
	e := schema.Normalize(doc, d)
	j.anEvent(tb, e, d, body)
	unknown := schema.DeadLetter(d, doc.Type, schema.ReasonUnknown, nil, body)
	j.aDeadLetter(tb, unknown, d, schema.ReasonUnknown, body)
	refused := e.Refused("message size exceeds maximum allowed")
	j.aDeadLetter(tb, refused, d, schema.ReasonRefused, e.Original)
	if refused.Name != e.Name || unknown.Name != e.Name {
		tb.Errorf("names %q, %q, want %q", refused.Name, unknown.Name, e.Name)
	}
}

func FuzzNormalize(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add(ex.body)
	}
	for _, tt := range oddBodies() {
		f.Add(tt.body)
	}
	for _, tt := range badBodies() {
		if len(tt.body) < 4096 { // the fuzzer is quicker with short seeds
			f.Add([]byte(tt.body))
		}
	}
	r := registry(f, "")
	f.Fuzz(func(t *testing.T, body []byte) { judgeAny(t, r, body) })
}
