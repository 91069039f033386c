package schema_test

import (
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/schemas"
)

func BenchmarkValidate(b *testing.B) {
	r, body := registry(b, ""), benchBody(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := r.Validate(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNormalize(b *testing.B) {
	body, d := benchBody(b), delivery()
	doc, err := registry(b, "").Validate(body)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		schema.Normalize(doc, d)
	}
}

func BenchmarkDeadLetter(b *testing.B) {
	body, d := benchBody(b), delivery()
	violations := []schema.Violation{{Pointer: "/data", Message: "missing property 'id'"}}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		schema.DeadLetter(d, "batch.succeeded", schema.ReasonInvalid, violations, body)
	}
}

func benchBody(b *testing.B) []byte {
	b.Helper()
	body, err := schemas.Example("batch.succeeded")
	if err != nil {
		b.Fatal(err)
	}
	return body
}
