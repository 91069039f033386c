package ingress_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
)

// accepting is a Deliverer that accepts everything and does nothing.
type accepting struct{}

func (accepting) Deliver(context.Context, *schema.Event) (schema.Result, error) {
	return schema.Published, nil
}

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct {
	code   int
	header http.Header
}

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(code int)        { n.code = code }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }

// ask returns a function that has a handler without a broker answer a draft again and again, and the status of it.
func ask(tb testing.TB, d draft) (r *rig, answer func() int) {
	tb.Helper()
	r = newDynamicRig(tb, func(c *ingress.Config) { c.Deliverer, c.Log = accepting{}, zerolog.New(io.Discard) })
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.text())))
	if err != nil {
		tb.Fatal(err)
	}
	body := strings.NewReader(d.body)
	request.Body = io.NopCloser(body)
	w := &nowhere{header: http.Header{}}
	return r, func() int {
		body.Reset(d.body)
		r.handler.ServeHTTP(w, request)
		return w.code
	}
}

func benchmark(b *testing.B, name string, d draft, code int) {
	b.Run(name, func(b *testing.B) {
		_, answer := ask(b, d)
		b.SetBytes(int64(len(d.body)))
		b.ReportAllocs()
		for b.Loop() {
			if got := answer(); got != code {
				b.Fatalf("got %d, want %d", got, code)
			}
		}
	})
}

// BenchmarkRoad is what the road costs beside net/http and the broker: the log line is written, to nowhere.
func BenchmarkRoad(b *testing.B) {
	benchmark(b, "known", draft{body: sized(700)}, 202)
	benchmark(b, "unknown", draft{body: `{"type":"x","data":{"id":"` + strings.Repeat("x", 670) + `"}}`}, 202)
	benchmark(b, "large", draft{body: sized(64 << 10)}, 202)
	benchmark(b, "dead letter", draft{body: sized(700)[1:]}, 202)
}

// BenchmarkRefusals is what refusing costs, beside accepting the same form.
func BenchmarkRefusals(b *testing.B) {
	for _, form := range prices() {
		b.Run(form.name, func(b *testing.B) {
			benchmark(b, "accepted", form.accepted, 202)
			for _, r := range form.refused {
				benchmark(b, r.name, r.draft, r.code)
			}
		})
	}
}
