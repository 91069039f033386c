package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Publish sends the event with whatever else waits for the same partition, and waits until all replicas in sync have
// it. An id that a topic holds within the dedup window is answered from the index, with nothing sent.
//
// While ctx is alive an event that is not stored is tried again, for at most two seconds; brokers that have been away
// for longer are an error at once. When ctx ends, an event that was not sent is withdrawn. One that was sent goes on
// being sent, and Publish returns when it is known what became of it: callers must not publish the same id meanwhile.
// Only Close ends that early, with sinks.ErrUnknown.
func (s *Sink) Publish(ctx context.Context, event *schema.Event) (sinks.Ack, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return sinks.Ack{}, sinks.ErrClosed
	}
	s.publishing.Add(1)
	s.mu.Unlock()
	defer s.publishing.Done()

	if err := ctx.Err(); err != nil {
		return sinks.Ack{}, err
	}
	t := s.events
	if event.Dead {
		t = s.dead
	}
	losses := t.lossesSoFar()
	if err := t.await(ctx); err != nil {
		return sinks.Ack{}, err
	}
	if pos, found := t.index.find(event.ID); found {
		return sinks.Ack{Position: pos, Duplicate: true}, nil
	}
	p := &pending{record: newRecord(event, s.cfg.ContentMode), id: event.ID, since: time.Now(), losses: losses, done: make(chan outcome, 1)}
	l := t.lane(p.key)
	if err := l.add(p); err != nil {
		return sinks.Ack{}, err
	}
	select {
	case o := <-p.done:
		return o.ack, o.err
	case <-ctx.Done():
		if l.withdraw(p) {
			return sinks.Ack{}, l.unsent(ctx.Err())
		}
		o := <-p.done
		return o.ack, o.err
	}
}

// await waits until the topic takes records, while it makes sense to wait.
func (t *topic) await(ctx context.Context) error {
	for {
		err := t.gate()
		if err == nil {
			return nil
		}
		if _, refused := errors.AsType[*sinks.RefusedError](err); refused || t.shutFor() > giveUp {
			return err
		}
		timer := time.NewTimer(poll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-t.sink.life.Done():
			timer.Stop()
			return sinks.ErrClosed
		}
	}
}
