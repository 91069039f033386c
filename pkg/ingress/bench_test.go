package ingress_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
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

// BenchmarkRoad is what the road costs beside net/http and the broker: the log line is written, to nowhere.
func BenchmarkRoad(b *testing.B) {
	for _, bench := range []struct {
		name  string
		draft draft
		code  int
	}{
		{"known", draft{body: sized(700)}, 202},
		{"unknown", draft{body: `{"type":"x","data":{"id":"` + string(bytes.Repeat([]byte("x"), 670)) + `"}}`}, 202},
		{"large", draft{body: sized(64 << 10)}, 202},
		{"dead letter", draft{body: sized(700)[1:]}, 202},
		{"bad signature", draft{body: sized(700), signature: sign("msg_2", "1769083200", sized(700))}, 401},
		{"refused by the head", draft{body: sized(700), timestamp: "1"}, 401},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r := newRig(b, func(c *ingress.Config) { c.Deliverer, c.Log = accepting{}, zerolog.New(io.Discard) })
			d := bench.draft
			timestamp := or(d.timestamp, fmt.Sprint(signedAt.Unix()))
			request, err := http.NewRequestWithContext(b.Context(), "POST", path, nil)
			if err != nil {
				b.Fatal(err)
			}
			request.Header = http.Header{
				"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {or(d.signature, sign("msg_1", timestamp, d.body))},
			}
			text := []byte(d.body)
			body := bytes.NewReader(text)
			request.Body, request.ContentLength = io.NopCloser(body), int64(len(d.body))
			w := &nowhere{header: http.Header{}}
			b.SetBytes(int64(len(d.body)))
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(text)
				r.handler.ServeHTTP(w, request)
				if w.code != bench.code {
					b.Fatalf("got %d, want %d", w.code, bench.code)
				}
			}
		})
	}
}
