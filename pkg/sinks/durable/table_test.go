package durable_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// What the sink does with an event and with a dead letter, each after a second.
func after(d time.Duration, ack sinks.Ack, err error) func(context.Context) (sinks.Ack, error) {
	return func(ctx context.Context) (sinks.Ack, error) {
		select {
		case <-time.After(d):
			return ack, err
		case <-ctx.Done():
			return sinks.Ack{}, fmt.Errorf("%w: %w", sinks.ErrUnknown, ctx.Err())
		}
	}
}

var (
	acks     = after(time.Second, sinks.Ack{}, nil)
	knows    = after(time.Second, sinks.Ack{Duplicate: true}, nil)
	notNow   = after(time.Second, sinks.Ack{}, errBroken)
	unknown  = after(time.Second, sinks.Ack{}, sinks.ErrUnknown)
	refuses  = after(time.Second, sinks.Ack{}, &sinks.RefusedError{Reason: "too large"})
	silent   = after(time.Hour, sinks.Ack{}, nil)
	panics   = func(context.Context) (sinks.Ack, error) { time.Sleep(time.Second); panic("oh") }
	deaf     = func(context.Context) (sinks.Ack, error) { time.Sleep(10 * time.Second); return sinks.Ack{}, nil }
	deafFail = func(context.Context) (sinks.Ack, error) {
		time.Sleep(10 * time.Second)
		return sinks.Ack{}, sinks.ErrUnknown
	}
)

// What the journal does.
func writes(d time.Duration, err error) func() error {
	return func() error {
		time.Sleep(d)
		return err
	}
}

const (
	quick = 500 * time.Millisecond
	slow  = 2 * time.Second
)

func TestTableOfReplies(t *testing.T) {
	type sink = func(context.Context) (sinks.Ack, error)
	const none = schema.Result(0)
	full := fmt.Errorf("wrapped: %w", journal.ErrFull)
	failing := fmt.Errorf("%w: %w", journal.ErrFailing, errDisk)
	for _, tt := range []struct {
		name   string
		sink   sink
		append func() error
		sync   error // of the sink, which is a Syncer if lazy
		lazy   bool

		want          schema.Result
		errs          []error
		after         time.Duration
		waiting, kept int // two seconds after the reply
	}{
		// Both fine: as quick as the slower one.
		{"acked, fsynced", acks, writes(quick, nil), nil, false, schema.Published, nil, time.Second, 0, 1},
		{"acked, fsynced later", acks, writes(slow, nil), nil, false, schema.Published, nil, slow, 0, 1},
		{"known, fsynced", knows, writes(slow, nil), nil, false, schema.Duplicate, nil, slow, 0, 1},
		{"lazy sink acked, fsynced", acks, writes(slow, nil), nil, true, schema.Published, nil, slow, 0, 0},

		// The journal alone.
		{"not now, fsynced", notNow, writes(quick, nil), nil, false, schema.Spooled, nil, time.Second, 1, 0},
		{"not now, fsynced later", notNow, writes(slow, nil), nil, false, schema.Spooled, nil, slow, 1, 0},
		{"unknown, fsynced", unknown, writes(quick, nil), nil, false, schema.Spooled, nil, time.Second, 1, 0},
		{"panic, fsynced", panics, writes(quick, nil), nil, false, schema.Spooled, nil, time.Second, 1, 0},
		{"silent, fsynced", silent, writes(quick, nil), nil, false, schema.Spooled, nil, ackTimeout, 1, 0},
		{"deaf, fsynced", deaf, writes(quick, nil), nil, false, schema.Spooled, nil, ackTimeout, 1, 0},
		{"lazy sink not now, fsynced", notNow, writes(quick, nil), nil, true, schema.Spooled, nil, time.Second, 1, 0},

		// The sink alone.
		{"acked, journal full", acks, writes(quick, full), nil, false, schema.Published, nil, time.Second, 0, 0},
		{"acked, journal failing", acks, writes(quick, failing), nil, false, schema.Published, nil, time.Second, 0, 0},
		{"acked, journal fails later", acks, writes(slow, failing), nil, false, schema.Published, nil, slow, 0, 0},
		{"acked, journal hangs", acks, writes(time.Minute, nil), nil, false, schema.Published, nil, ackTimeout, 0, 0},
		{"known, journal failing", knows, writes(quick, failing), nil, false, schema.Duplicate, nil, time.Second, 0, 0},
		{"lazy sink acked, journal full, synced", acks, writes(quick, full), nil, true, schema.Published, nil, time.Second, 0, 0},
		{"lazy sink knows, journal full, synced", knows, writes(quick, full), nil, true, schema.Duplicate, nil, time.Second, 0, 0},

		// Neither.
		{"not now, journal full", notNow, writes(quick, full), nil, false, none, []error{errBroken, journal.ErrFull}, time.Second, 0, 0},
		{"not now, journal failing", notNow, writes(slow, failing), nil, false, none, []error{errBroken, errDisk}, slow, 0, 0},
		{"not now, journal hangs", notNow, writes(time.Minute, nil), nil, false, none, []error{durable.ErrTimeout, errBroken}, ackTimeout, 0, 0},
		{"silent, journal failing", silent, writes(quick, failing), nil, false, none, nil, ackTimeout, 0, 0},
		{"deaf, journal failing", deaf, writes(quick, failing), nil, false, none, []error{durable.ErrTimeout}, ackTimeout, 0, 0},
		{"deaf, journal hangs", deaf, writes(time.Minute, nil), nil, false, none, []error{durable.ErrTimeout}, ackTimeout, 0, 0},
		{"panic, journal failing", panics, writes(quick, failing), nil, false, none, []error{sinks.ErrUnknown, errDisk}, time.Second, 0, 0},
		{"lazy sink acked, journal full, not synced", acks, writes(quick, full), errDisk, true, none, []error{errDisk, journal.ErrFull}, time.Second, 0, 0},
		{"lazy sink knows, journal full, not synced", knows, writes(quick, full), errDisk, true, none, []error{errDisk, journal.ErrFull}, time.Second, 0, 0},
		{"lazy sink acked, journal hangs", acks, writes(time.Minute, nil), nil, true, none, []error{durable.ErrTimeout}, ackTimeout, 0, 0},
		{"lazy sink not now, journal full", notNow, writes(quick, full), nil, true, none, []error{errBroken, journal.ErrFull}, time.Second, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) { return tt.sink(ctx) }}
				var s sinks.Sink = f
				if tt.lazy {
					s = &syncing{fake: f, sync: func(context.Context) error { return tt.sync }}
				}
				r := newRig(t, s, &memory{append: tt.append}, durable.JournaledConfig{Keep: time.Hour})
				got := <-r.deliver(t.Context(), keyed("a", "k"))
				if got.result != tt.want || got.after != tt.after || (got.err == nil) != (tt.want != none) {
					t.Errorf("got %+v, want %v after %v", got, tt.want, tt.after)
				}
				for _, want := range tt.errs {
					if !errors.Is(got.err, want) {
						t.Errorf("error %v does not match %v", got.err, want)
					}
				}
				time.Sleep(2 * time.Second)
				r.holds(t, tt.waiting, tt.kept)
				time.Sleep(2 * time.Minute) // whatever hangs has ended
				r.close(t)
			})
		})
	}
}

// What is told at the end of patience holds whatever the publish says afterwards, and the record follows that.
func TestLateOutcomes(t *testing.T) {
	for name, tt := range map[string]struct {
		late          func(context.Context) (sinks.Ack, error)
		waiting, kept int
	}{
		"acked":   {deaf, 0, 1},
		"unknown": {deafFail, 0, 1}, // and forwarded then
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{}
				f.publish = func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) {
					if len(f.published()) == 1 {
						return tt.late(ctx)
					}
					return sinks.Ack{}, nil
				}
				r := newRig(t, f, &memory{}, durable.JournaledConfig{Keep: time.Hour})
				if got := <-r.deliver(t.Context(), keyed("a", "k")); got.result != schema.Spooled {
					t.Errorf("got %+v, want spooled", got)
				}
				if r.Left() != 0 || len(r.Held()) != 0 {
					t.Errorf("%d left, held %q, want none, for the journal has it", r.Left(), r.Held())
				}
				r.holds(t, 1, 0)
				time.Sleep(6 * time.Second)
				if n := len(f.published()); n != 1 {
					t.Errorf("%d publishes while the first is in the air, want 1", n)
				}
				time.Sleep(2 * time.Second)
				r.holds(t, tt.waiting, tt.kept)
				r.close(t)
			})
		})
	}
}

func TestJournaledCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) { return notNow(ctx) }}
		m := &memory{append: writes(slow, nil)}
		r := newRig(t, f, m, durable.JournaledConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		c := r.deliver(ctx, keyed("a", "k"))
		time.Sleep(quick)
		cancel()
		if got := <-c; !errors.Is(got.err, context.Canceled) || got.after != quick {
			t.Errorf("got %+v, want context.Canceled after %v", got, quick)
		}
		synctest.Wait()
		if r.Left() != 1 || len(r.Held()) != 1 {
			t.Errorf("%d left, held %q, want one", r.Left(), r.Held())
		}
		time.Sleep(slow)
		synctest.Wait()
		r.holds(t, 1, 0) // it was made durable all the same, and goes on
		if r.Left() != 0 {
			t.Errorf("%d left", r.Left())
		}
		r.close(t)
	})
}

// An event of which Data is no part cannot be appended, which no sink minds.
func TestNotEncodable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &fake{}, &memory{}, durable.JournaledConfig{})
		e := keyed("a", "k")
		e.Data = []byte("elsewhere")
		if got := <-r.deliver(t.Context(), e); got.result != schema.Published || got.err != nil {
			t.Errorf("got %+v, want published", got)
		}
		r.close(t)
	})
}
