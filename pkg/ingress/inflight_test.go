package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
)

// broker is a Deliverer's answer that waits to be told. Whoever is asked says so first.
type broker struct {
	asked  chan context.Context
	answer chan error
}

func newBroker(tb testing.TB) *broker {
	tb.Helper()
	b := &broker{make(chan context.Context, 16), make(chan error)}
	tb.Cleanup(func() { close(b.answer) }) // a test that failed leaves nobody waiting
	return b
}

func (b *broker) deliver(ctx context.Context, _ *schema.Event) (schema.Result, error) {
	b.asked <- ctx
	select {
	case err := <-b.answer:
		return schema.Published, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func await[T any](tb testing.TB, what string, c <-chan T) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		tb.Fatalf("%s: still not there", what)
		panic("unreachable")
	}
}

func (r *rig) wantInflight(tb testing.TB, want float64) {
	tb.Helper()
	if got := r.series(tb)["bridge_inflight"]; got != want {
		tb.Errorf("bridge_inflight: got %v, want %v", got, want)
	}
}

// Verified deliveries count, up to the limit; strangers neither count nor notice.
func TestInflightLimit(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.MaxInflight = 2 }).serve(t)
	b := newBroker(t)
	r.deliverer.answer = b.deliver
	var senders sync.WaitGroup
	for i := range 2 {
		senders.Go(func() {
			id := fmt.Sprint("msg_", i)
			r.send(t, draft{id: id, body: known}).want(t, 202, accepted("published", id))
		})
	}
	for range 2 {
		await(t, "a delivery", b.asked)
	}
	r.wantInflight(t, 2)

	for _, body := range []string{known, invalid, unknown, "?"} {
		r.send(t, draft{id: "msg_3", body: body}).want(t, 503, unavailable)
	}
	r.send(t, draft{body: known, signature: sign("msg_2", "1769083200", known)}).want(t, 401, unauthenticated)
	r.send(t, draft{body: known, timestamp: "1"}).want(t, 401, unauthenticated)
	r.send(t, draft{target: "/"}).want(t, 404, notFound)
	r.send(t, draft{body: known, broken: true}).want(t, 400, badRequest)
	if got := len(r.delivered()); got != 2 {
		t.Errorf("%d events reached the Deliverer, want 2", got)
	}
	r.wantInflight(t, 2)

	b.answer <- nil
	b.answer <- nil
	senders.Wait()
	r.wantInflight(t, 0)
	r.deliverer.answer = nil
	r.send(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
	r.wantInflight(t, 0)
}

// However a delivery ends, its place is free afterwards.
func TestInflightReturnsToZero(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.MaxInflight, c.OnInvalid = 1, ingress.Reject }).serve(t)
	for range 3 {
		r.send(t, draft{body: "?"}).want(t, 422, invalidEvent)
		r.deliverer.answer = answering(0, errors.New("away"))
		r.send(t, draft{body: known}).want(t, 503, unavailable)
		r.deliverer.answer = answering(schema.DeadLettered, nil)
		r.send(t, draft{body: known}).want(t, 202, accepted("dead-lettered", "msg_1"))
		r.wantInflight(t, 0)
	}
}

// Publishes that go on without their caller count as well.
func TestLeftCountsAsInflight(t *testing.T) {
	left := 0
	r := newRig(t, func(c *ingress.Config) {
		c.MaxInflight = 3
		c.Left = func() int { return left }
	})
	for _, tt := range []struct {
		left int
		code int
		body string
	}{
		{0, 202, accepted("published", "msg_1")},
		{2, 202, accepted("published", "msg_1")},
		{3, 503, unavailable},
		{4, 503, unavailable},
		{1, 202, accepted("published", "msg_1")},
	} {
		left = tt.left
		r.do(t, draft{body: known}).want(t, tt.code, tt.body)
		r.wantInflight(t, float64(tt.left))
	}
}

// A sender that gives up is noticed: what waits for a broker on its behalf is told.
func TestSenderLeaves(t *testing.T) {
	r := newRig(t).serve(t)
	r.log.more = make(chan string, 1)
	b := newBroker(t)
	r.deliverer.answer = b.deliver
	c := r.dial(t)
	c.write(t, draft{body: known}.text())
	ctx := await(t, "the delivery", b.asked)
	if err := ctx.Err(); err != nil {
		t.Fatalf("the context had ended before the sender left: %v", err)
	}
	r.wantInflight(t, 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the context's end", ctx.Done())
	if line := await(t, "the log line", r.log.more); !strings.Contains(line, `"error":"not delivered: context canceled"`) {
		t.Errorf("log: got %s", line)
	}
	r.wantInflight(t, 0)
}

// The body's time-out is over with the body: it does not end the wait for the broker, which has its own.
func TestBodyTimeoutDoesNotEndADelivery(t *testing.T) {
	t.Parallel() // it waits
	const timeout = 500 * time.Millisecond
	r := newRig(t).serve(t, func(s *http.Server) { s.ReadTimeout = timeout })
	b := newBroker(t)
	r.deliverer.answer = b.deliver
	var clients []*client
	var contexts []context.Context
	for _, d := range []draft{{body: known}, {body: known, chunked: true}, {body: unknown, proto: "HTTP/1.0"}} {
		c := r.dial(t)
		c.write(t, d.text())
		clients = append(clients, c)
		contexts = append(contexts, await(t, "the delivery", b.asked))
	}
	<-time.After(2 * timeout)
	for i, ctx := range contexts {
		if err := ctx.Err(); err != nil {
			t.Fatalf("delivery %d ended with the body's time-out: %v", i, err)
		}
		b.answer <- nil // to any of them
	}
	for _, c := range clients {
		c.receive(t, "POST").want(t, 202, accepted("published", "msg_1"))
	}
}

// A defect in one delivery costs that delivery, which gets no reply and comes again.
func TestPanic(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.MaxInflight = 1 }).serve(t)
	r.log.more = make(chan string, 8)
	r.deliverer.answer = func(context.Context, *schema.Event) (schema.Result, error) { panic("a defect") }
	for range 3 {
		c := r.dial(t)
		c.write(t, draft{body: known}.text())
		c.wantClosed(t)
		line := await(t, "the log line", r.log.more)
		if !strings.Contains(line, `"level":"error"`) || !strings.Contains(line, "a defect") {
			t.Errorf("log: got %s, want the panic as an error", line)
		}
	}
	r.wantInflight(t, 0)
	r.deliverer.answer = nil
	r.send(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
}
