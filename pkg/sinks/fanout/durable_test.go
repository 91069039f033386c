package fanout_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
)

const ackTimeout = 3 * time.Second

// broker is a sink that knows its duplicates. It answers after delay; while it is away, it refuses everything, and what
// takes longer than the publish may is stored all the same.
type broker struct {
	mu     sync.Mutex
	stored map[schema.Key]int
	delay  time.Duration
	away   bool
}

func newBroker() *broker { return &broker{stored: map[schema.Key]int{}} }

func (b *broker) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return sinks.Ack{}, errAway
	}
	known := b.stored[e.Key()] > 0
	if !known {
		b.stored[e.Key()]++
	}
	delay := b.delay
	b.mu.Unlock()
	defer b.mu.Lock()
	select {
	case <-time.After(delay):
		return sinks.Ack{Duplicate: known}, nil
	case <-ctx.Done():
		return sinks.Ack{}, sinks.ErrUnknown
	}
}

func (b *broker) Ready(context.Context) error { return nil }
func (b *broker) Close(context.Context) error { return nil }

func (b *broker) set(delay time.Duration, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delay, b.away = delay, away
}

func (b *broker) copies(e *schema.Event) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stored[e.Key()]
}

// overDurable is the fan-out as the bridge builds it.
func overDurable(nats, kafka sinks.Sink) *fanout.Fanout {
	cfg := durable.Config{AckTimeout: ackTimeout}
	return two(durable.New(nats, cfg), durable.New(kafka, cfg))
}

func TestRetriesAreNotDoubled(t *testing.T) {
	type state struct {
		delay time.Duration
		away  bool
	}
	up, away, slow := state{}, state{away: true}, state{delay: time.Hour}
	for _, tt := range []struct {
		name        string
		nats, kafka []state // at each try
		want        []schema.Result
	}{
		{"kafka away", []state{up, up, up}, []state{away, up, up}, []schema.Result{0, published, duplicate}},
		{"nats away", []state{away, up, up}, []state{up, up, up}, []schema.Result{0, published, duplicate}},
		{"away in turn", []state{away, up, up}, []state{up, away, up}, []schema.Result{0, 0, duplicate}},
		{"both away", []state{away, up}, []state{away, up}, []schema.Result{0, published}},
		{"kafka slow", []state{up, up}, []state{slow, up}, []schema.Result{0, duplicate}},
		{"kafka slow, then away", []state{up, up, up}, []state{slow, away, up}, []schema.Result{0, 0, duplicate}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nats, kafka := newBroker(), newBroker()
				f := overDurable(nats, kafka)
				event := &schema.Event{ID: "msg_1"}
				for i, want := range tt.want {
					nats.set(tt.nats[i].delay, tt.nats[i].away)
					kafka.set(tt.kafka[i].delay, tt.kafka[i].away)
					got := <-deliver(t.Context(), f, event)
					if got.result != want || (got.err == nil) != (want != 0) {
						t.Errorf("try %d: got %+v, want %v", i, got, want)
					}
					synctest.Wait()
				}
				if n, k := nats.copies(event), kafka.copies(event); n != 1 || k != 1 {
					t.Errorf("nats holds %d copies, kafka %d, want one each", n, k)
				}
			})
		})
	}
}

// An event that one broker will never take is a dead letter there, and an event in the other.
func TestRefusedByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nats, kafka := newBroker(), newBroker()
		f := overDurable(refuser{nats}, kafka)
		event := &schema.Event{ID: "msg_1", Name: "batch.succeeded", WebhookID: "msg_1", Original: []byte(`{"type":"batch.succeeded"}`)}
		for i, want := range []schema.Result{dead, duplicate} {
			if got := <-deliver(t.Context(), f, event); got.result != want || got.err != nil {
				t.Errorf("try %d: got %+v, want %v", i, got, want)
			}
		}
		letter := event.Refused("")
		if n, k := nats.copies(event), kafka.copies(event); n != 0 || k != 1 {
			t.Errorf("nats holds %d events, kafka %d, want none and one", n, k)
		}
		if n, k := nats.copies(letter), kafka.copies(letter); n != 1 || k != 0 {
			t.Errorf("nats holds %d dead letters, kafka %d, want one and none", n, k)
		}
	})
}

// refuser takes dead letters only.
type refuser struct{ *broker }

func (r refuser) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	if !e.Dead {
		return sinks.Ack{}, &sinks.RefusedError{Reason: "too large"}
	}
	return r.broker.Publish(ctx, e)
}
