package durable_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ackTimeout = 3 * time.Second

// fake is a sink that does as a test says. The zero value acks everything at once.
type fake struct {
	publish func(ctx context.Context, e *schema.Event) (sinks.Ack, error)
	ready   func(ctx context.Context) error
	close   func(ctx context.Context) error

	mu     sync.Mutex
	events []*schema.Event // of every Publish, in order
	closed int
}

var _ sinks.Sink = (*fake)(nil)

func (f *fake) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	f.mu.Lock()
	f.events = append(f.events, e)
	f.mu.Unlock()
	if f.publish == nil {
		return sinks.Ack{}, nil
	}
	return f.publish(ctx, e)
}

func (f *fake) Ready(ctx context.Context) error {
	if f.ready == nil {
		return nil
	}
	return f.ready(ctx)
}

func (f *fake) Close(ctx context.Context) error {
	f.mu.Lock()
	f.closed++
	f.mu.Unlock()
	if f.close == nil {
		return nil
	}
	return f.close(ctx)
}

func (f *fake) published() []*schema.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clip(f.events)
}

func (f *fake) closings() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// outcome is what a caller of Deliver got, and when, counted from its call.
type outcome struct {
	result schema.Result
	err    error
	after  time.Duration
}

func deliver(ctx context.Context, d *durable.Deliverer, e *schema.Event) <-chan outcome {
	c := make(chan outcome, 1)
	start := time.Now()
	go func() {
		result, err := d.Deliver(ctx, e)
		c <- outcome{result, err, time.Since(start)}
	}()
	return c
}

// pending fails the test if the caller has got something already.
func pending(t *testing.T, c <-chan outcome) {
	t.Helper()
	select {
	case got := <-c:
		t.Errorf("got %+v, want nothing yet", got)
	default:
	}
}

func newDeliverer(t *testing.T, sink sinks.Sink) *durable.Deliverer {
	t.Helper()
	d := durable.New(sink, durable.Config{AckTimeout: ackTimeout})
	t.Cleanup(func() {
		if n, ids := d.Left(), d.Held(); n != 0 || len(ids) != 0 {
			t.Errorf("at the end: %d left, held %q", n, ids)
		}
	})
	return d
}

var registry = sync.OnceValues(func() (*schema.Registry, error) { return schema.NewRegistry("") })

const body = `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/1","n":1.0}}`

func delivery(id string) schema.Delivery {
	return schema.Delivery{
		ID: id, Source: "//generativelanguage.googleapis.com", Scheme: "v1", Received: time.Date(2026, 1, 22, 12, 0, 1, 0, time.UTC),
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Header:      http.Header{"Webhook-Id": {id}, "Content-Type": {"application/json"}},
	}
}

func event(t *testing.T, id string) *schema.Event {
	t.Helper()
	r, err := registry()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.Validate([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Normalize(doc, delivery(id))
}

func deadLetter(t *testing.T, id string) *schema.Event {
	t.Helper()
	return schema.DeadLetter(delivery(id), "", schema.ReasonInvalid, []schema.Violation{{Message: "empty body"}}, nil)
}
