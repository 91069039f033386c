// Package durable stands between the ingress and one sink. It keeps one copy per id in the air, bounds how long a
// caller waits, and makes a dead letter of what the sink will never take. A [Deliverer] does that with the sink alone; a
// [Journaled] also has a journal, so that an event is durable while the sink is away, and forwards it later.
package durable

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// ErrTimeout appears when no outcome was known within the ack timeout. The event may be stored or not, so the
// caller says "not now" and lets the same id come again.
var ErrTimeout = errors.New("no outcome within the ack timeout")

// Config says how a Deliverer works.
type Config struct {
	// AckTimeout bounds how long a caller waits, and how long a publish may take. Required.
	AckTimeout time.Duration
	// Seconds observes how long each publish took, whatever came of it. Optional.
	Seconds prometheus.Observer
}

// Deliverer makes events durable through one sink, without a journal. It is safe for concurrent use.
type Deliverer struct {
	sink     sinks.Sink
	cfg      Config
	underway sync.WaitGroup

	mu     sync.Mutex
	holds  map[schema.Key]*hold
	left   int // holds whose first caller has gone
	closed bool
}

// hold keeps an id from its first publish until the outcome is known.
type hold struct {
	done   chan struct{} // closed when result and err are set
	result schema.Result
	err    error
	left   bool // the first caller has gone; guarded by Deliverer.mu
}

// New returns a Deliverer over sink, which it owns from then on.
func New(sink sinks.Sink, cfg Config) *Deliverer {
	return &Deliverer{sink: sink, cfg: cfg, holds: map[schema.Key]*hold{}}
}

// Deliver returns once the event is durable, at most after the ack timeout. An event whose id is in the air already
// is not published again: its caller waits for the first one's outcome, and hears Duplicate.
//
// A nil error means durable. Any other means not now: ErrTimeout, sinks.ErrUnknown, sinks.ErrClosed, ctx's error
// when the caller left, or the sink's own.
func (d *Deliverer) Deliver(ctx context.Context, event *schema.Event) (schema.Result, error) {
	h, first, err := d.hold(event)
	if err != nil {
		return 0, err
	}
	timeout := time.NewTimer(d.cfg.AckTimeout)
	defer timeout.Stop()
	select {
	case <-h.done:
	case <-timeout.C:
		err = ErrTimeout
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		if first {
			d.leave(h)
		}
		return 0, err
	}
	if !first {
		return forWaiter(h.result), h.err
	}
	return h.result, h.err
}

// hold returns the hold on the event's id. If there was none, it is the caller's own and the publish is under way.
func (d *Deliverer) hold(event *schema.Event) (h *hold, first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, false, sinks.ErrClosed
	}
	key := event.Key()
	if h, held := d.holds[key]; held {
		return h, false, nil
	}
	h = &hold{done: make(chan struct{})}
	d.holds[key] = h
	d.underway.Go(func() { d.carry(event, h) })
	return h, true, nil
}

// leave notes that the first caller stopped waiting: the publish goes on without anybody.
func (d *Deliverer) leave(h *hold) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-h.done: // it ended in the meantime
	default:
		h.left = true
		d.left++
	}
}

// carry publishes the event on a goroutine of its own, for a caller may leave before the outcome is known.
func (d *Deliverer) carry(event *schema.Event, h *hold) {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.AckTimeout)
	defer cancel()
	h.result, h.err = d.publishOrBury(ctx, event)

	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.holds, event.Key())
	if h.left {
		d.left--
	}
	close(h.done)
}

func (d *Deliverer) publishOrBury(ctx context.Context, event *schema.Event) (schema.Result, error) {
	ack, err := d.cfg.publish(ctx, d.sink, event)
	if refused, ok := errors.AsType[*sinks.RefusedError](err); ok && !event.Dead {
		event = event.Refused(refused.Error())
		if ack, err = d.cfg.publish(ctx, d.sink, event); err != nil {
			return 0, fmt.Errorf("dead letter of an event that was %w: %w", refused, err)
		}
	}
	if err != nil {
		return 0, err
	}
	return resultOf(event, ack), nil
}

// Left returns how many publishes are under way whose caller has gone.
func (d *Deliverer) Left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left
}

// Held returns the ids whose outcome is not known yet.
func (d *Deliverer) Held() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, 0, len(d.holds))
	for key := range d.holds {
		ids = append(ids, key.ID)
	}
	return ids
}

// Ready is the sink's.
func (d *Deliverer) Ready(ctx context.Context) error { return d.sink.Ready(ctx) }

// Close refuses what comes from now on, waits for publishes under way, at most until ctx ends, and closes the sink.
// It returns ctx's error when publishes were left behind, joined with the sink's.
func (d *Deliverer) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		d.underway.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		if left := len(d.Held()); left > 0 { // else ctx had ended before there was anything to wait for
			err = fmt.Errorf("%d publishes under way: %w", left, ctx.Err())
		}
	}
	return errors.Join(err, d.sink.Close(ctx))
}
