package durable_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// Close forwards what waits while there is time, and stops at once where nothing goes.
func TestCloseDrains(t *testing.T) {
	for name, tt := range map[string]struct {
		publish func(ctx context.Context, n int) error
		time    time.Duration
		left    func(n int) bool
		after   func(took time.Duration) bool
	}{
		"all": {
			func(context.Context, int) error { time.Sleep(100 * time.Millisecond); return nil },
			10 * time.Second, func(n int) bool { return n == 0 }, func(took time.Duration) bool { return took == 400*time.Millisecond },
		},
		"as many as there is time for": {
			func(ctx context.Context, _ int) error {
				select {
				case <-time.After(500 * time.Millisecond):
					return nil
				case <-ctx.Done():
					return sinks.ErrUnknown
				}
			},
			1600 * time.Millisecond, func(n int) bool { return n == 1000-2*256 }, func(took time.Duration) bool { return took == 1200*time.Millisecond },
		},
		"sink down": {
			func(context.Context, int) error { return errBroken },
			10 * time.Second, func(n int) bool { return n == 1000 }, func(took time.Duration) bool { return took == 0 },
		},
		"sink silent": {
			func(ctx context.Context, _ int) error { <-ctx.Done(); return sinks.ErrUnknown },
			10 * time.Second, func(n int) bool { return n == 1000 }, func(took time.Duration) bool { return took <= 2*time.Second },
		},
		"now and then": {
			func(_ context.Context, n int) error {
				if n%3 == 0 {
					return errBroken
				}
				return nil
			},
			10 * time.Second, func(n int) bool { return n == 0 }, func(took time.Duration) bool { return took < 7*time.Second },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open atomic.Bool
				var n atomic.Int64
				f := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) {
					if !open.Load() {
						return sinks.Ack{}, errBroken
					}
					return sinks.Ack{}, tt.publish(ctx, int(n.Add(1)))
				}}
				var events []*schema.Event
				for i := range 1000 {
					events = append(events, keyed(fmt.Sprint(i), fmt.Sprint(i)))
				}
				m := filled(t, events...)
				r := newRig(t, f, m, durable.JournaledConfig{})
				time.Sleep(time.Minute)
				open.Store(true)
				ctx, cancel := context.WithTimeout(t.Context(), tt.time)
				defer cancel()
				start := time.Now()
				if err := r.Close(ctx); err != nil {
					t.Errorf("got %v, want nil: what waits is in the journal", err)
				}
				took := time.Since(start)
				left := r.Stats().Waiting
				if !tt.left(left) || !tt.after(took) {
					t.Errorf("%d left after %v", left, took)
				}
				if _, records := m.count(); records != left {
					t.Errorf("%d records unsettled, %d wait", records, left)
				}
				if said := r.log.count("for the next start"); said != min(left, 1) {
					t.Errorf("said %d times that events wait", said)
				}
				if f.closings() != 1 || !m.closed {
					t.Errorf("sink closed %d times, journal %v", f.closings(), m.closed)
				}
				time.Sleep(time.Minute)
				if r.Stats().Waiting != left {
					t.Error("forwarded after the end")
				}
			})
		})
	}
}

// Deliveries under way are waited for; new ones are refused; the sink is closed after the last sync, the journal last.
func TestCloseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		s := &syncing{fake: &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) { return acks(ctx) }}}
		s.sync = func(context.Context) error { order = append(order, "sync"); return nil }
		m := &memory{}
		s.close = func(context.Context) error {
			order = append(order, "sink")
			if m.closed {
				t.Error("the journal was closed before the sink")
			}
			return errBroken
		}
		r := newRig(t, s, m, durable.JournaledConfig{CheckpointEvery: time.Hour})
		c := r.deliver(t.Context(), keyed("a", "k"))
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- r.Close(t.Context()) }()
		synctest.Wait()
		for _, id := range []string{"a", "b"} {
			if _, err := r.Deliver(t.Context(), keyed(id, "k")); !errors.Is(err, sinks.ErrClosed) {
				t.Errorf("got %v, want ErrClosed", err)
			}
		}
		if got := <-c; got.result != schema.Published || got.after != time.Second {
			t.Errorf("got %+v, want published", got)
		}
		if err := <-closed; !errors.Is(err, errBroken) {
			t.Errorf("got %v, want the sink's error", err)
		}
		if !slices.Equal(order, []string{"sync", "sink"}) || !m.closed {
			t.Errorf("got %q, journal closed %v", order, m.closed)
		}
		if got := m.ids(t); len(got) != 0 {
			t.Errorf("unsettled: %q, want none after a clean stop", got)
		}
	})
}

// Marks that could not be written make a clean stop no failure; whatever else the journal says does.
func TestCloseOfAJournal(t *testing.T) {
	for _, tt := range []struct{ journal, want error }{
		{fmt.Errorf("%w: input/output error", journal.ErrFailing), nil},
		{journal.ErrFull, nil},
		{errBroken, errBroken},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &fake{}, &memory{closeErr: tt.journal}, durable.JournaledConfig{})
			if err := r.Close(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("%v: got %v, want %v", tt.journal, err, tt.want)
			}
		})
	}
}

// What the journal does not have is left behind with an error, when time ends.
func TestCloseLeavesBehind(t *testing.T) {
	for name, tt := range map[string]struct {
		append func() error
		err    error
	}{
		"journaled":     {nil, nil},
		"not journaled": {func() error { return errDisk }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) { return deaf(ctx) }}
				r := newRig(t, f, &memory{append: tt.append}, durable.JournaledConfig{})
				c := r.deliver(t.Context(), keyed("a", "k"))
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := r.Close(ctx); !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				if got := <-c; (got.result == schema.Spooled) != (tt.err == nil) {
					t.Errorf("got %+v, want spooled only if the journal has it", got)
				}
				time.Sleep(10 * time.Second)
			})
		})
	}
}

// A sink that hangs with events that the journal has holds up nobody, and makes a stop no failure.
func TestCloseOfAHangingSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) { return deaf(ctx) }}
		f.close = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		r := newRig(t, f, &memory{}, durable.JournaledConfig{})
		if got := <-r.deliver(t.Context(), keyed("a", "k")); got.result != schema.Spooled {
			t.Errorf("got %+v, want spooled", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		start := time.Now()
		if err := r.Close(ctx); err != nil || time.Since(start) > 3*time.Second {
			t.Errorf("Close took %v: %v", time.Since(start), err)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestCloseWithoutTime(t *testing.T) {
	s := &syncing{fake: &fake{}}
	r := newRig(t, s, &memory{}, durable.JournaledConfig{CheckpointEvery: time.Hour})
	if got := <-r.deliver(t.Context(), keyed("a", "k")); got.err != nil {
		t.Error(got.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); err != nil {
		t.Errorf("got %v, want nil: nothing was under way", err)
	}
	r.holds(t, 0, 1)
}

func TestJournaledReady(t *testing.T) {
	degraded := &sinks.DegradedError{Details: []string{"replicas 1"}}
	for _, tt := range []struct {
		name  string
		sink  error
		usage journal.Usage
		want  string // "" for nil; else what it says
		down  bool
	}{
		{"fine", nil, journal.Usage{Bytes: 50, MaxBytes: 100}, "", false},
		{"sink degraded", degraded, journal.Usage{}, "replicas 1", false},
		{"sink down", errBroken, journal.Usage{}, "the sink is down, events are spooled: broken", false},
		{"journal nearly full", nil, journal.Usage{Bytes: 91, MaxBytes: 100}, "91 of 100 bytes: raise BRIDGE_JOURNAL_MAX_BYTES", false},
		{"sink down, journal nearly full", errBroken, journal.Usage{Bytes: 91, MaxBytes: 100}, "spooled: broken the journal has 91", false},
		{"journal full", nil, journal.Usage{Err: journal.ErrFull}, "the journal is full", false},
		{"journal failing", nil, journal.Usage{Err: errDisk}, "disk of BRIDGE_DATA_DIR: input/output error", false},
		{"journal failing, sink degraded", degraded, journal.Usage{Err: errDisk}, "replicas 1 the journal does not", false},
		{"both down", errBroken, journal.Usage{Err: errDisk}, "broken; input/output error", true},
		{"closed", sinks.ErrClosed, journal.Usage{}, "closed", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{ready: func(context.Context) error { return tt.sink }}
			r := newRig(t, f, &memory{usage: tt.usage}, durable.JournaledConfig{})
			err := r.Ready(t.Context())
			_, soft := errors.AsType[*sinks.DegradedError](err)
			if (err == nil) != (tt.want == "") || err != nil && (soft == tt.down || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q, down %v", err, tt.want, tt.down)
			}
			r.close(t)
		})
	}
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			if e.ID == "a" {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		r := newRig(t, f, &memory{usage: journal.Usage{Bytes: 7, MaxBytes: 100, Damaged: 3}}, durable.JournaledConfig{Keep: time.Hour})
		<-r.deliver(t.Context(), keyed("a", "a"))
		<-r.deliver(t.Context(), keyed("b", "b"))
		time.Sleep(time.Minute)
		want := durable.Stats{Waiting: 1, Kept: 1, Bytes: 7, OldestWaiting: time.Minute, Quarantined: 3}
		if got := r.Stats(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		r.close(t)
	})
}
