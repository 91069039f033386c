package durable_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

func closing(ctx context.Context, d *durable.Deliverer) <-chan outcome {
	c := make(chan outcome, 1)
	start := time.Now()
	go func() {
		err := d.Close(ctx)
		c <- outcome{err: err, after: time.Since(start)}
	}()
	return c
}

func TestCloseWaitsForPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: g.publish}
		d := newDeliverer(t, sink)
		ctx, cancel := context.WithCancel(t.Context())
		left := deliver(ctx, d, event(t, "a"))
		stays := deliver(t.Context(), d, event(t, "b"))
		synctest.Wait()
		cancel()
		<-left
		closed := closing(t.Context(), d)
		synctest.Wait()
		pending(t, closed)

		// Nothing new comes in, not even a waiter for what is under way.
		for _, e := range []*schema.Event{event(t, "a"), event(t, "c"), deadLetter(t, "c")} {
			if result, err := d.Deliver(t.Context(), e); !errors.Is(err, sinks.ErrClosed) || result != 0 {
				t.Errorf("got %v, %v, want ErrClosed", result, err)
			}
		}
		g <- outcome{}
		synctest.Wait()
		pending(t, closed)
		if sink.closings() != 0 {
			t.Error("the sink was closed while a publish was under way")
		}
		g <- outcome{}
		if o := <-closed; o.err != nil {
			t.Errorf("got %v", o.err)
		}
		if o := <-stays; o.result != schema.Published || o.err != nil {
			t.Errorf("got %+v, want published", o)
		}
		if sink.closings() != 1 || len(sink.published()) != 2 {
			t.Errorf("closed %d times, %d publishes, want 1 and 2", sink.closings(), len(sink.published()))
		}
		if _, err := d.Deliver(t.Context(), event(t, "d")); !errors.Is(err, sinks.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

func TestCloseWaitsForADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: func(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
			if o := <-g; o.err != nil {
				return sinks.Ack{}, o.err
			}
			return sinks.Ack{}, nil
		}}
		d := newDeliverer(t, sink)
		c := deliver(t.Context(), d, event(t, "a"))
		synctest.Wait()
		closed := closing(t.Context(), d)
		g <- outcome{err: &sinks.RefusedError{}}
		synctest.Wait()
		pending(t, closed)
		g <- outcome{}
		if o := <-c; o.result != schema.DeadLettered || o.err != nil {
			t.Errorf("got %+v, want dead-lettered", o)
		}
		if o := <-closed; o.err != nil {
			t.Errorf("got %v", o.err)
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	for name, wait := range map[string]time.Duration{"ended": 0, "ends": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := make(gate)
				sink := &fake{publish: g.publish, close: func(context.Context) error { return errBroken }}
				d := newDeliverer(t, sink)
				c := deliver(t.Context(), d, event(t, "a"))
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				o := <-closing(ctx, d)
				if !errors.Is(o.err, context.DeadlineExceeded) || !errors.Is(o.err, errBroken) || o.after != wait {
					t.Errorf("got %+v, want ctx's error and the sink's after %v", o, wait)
				}
				if sink.closings() != 1 {
					t.Errorf("closed %d times, want once", sink.closings())
				}
				g <- outcome{}
				if o := <-c; o.result != schema.Published || o.err != nil {
					t.Errorf("got %+v, want published", o)
				}
			})
		})
	}
}

// With nothing under way there is nothing to wait for, however little time is left.
func TestCloseOfAnIdleDeliverer(t *testing.T) {
	for range 100 { // the two ways to end race
		sink := &fake{}
		d := newDeliverer(t, sink)
		if _, err := d.Deliver(t.Context(), event(t, "a")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Close(ctx); err != nil {
			t.Fatalf("got %v, want nil: nothing was under way", err)
		}
		if sink.closings() != 1 {
			t.Errorf("closed %d times, want once", sink.closings())
		}
	}
}

func TestCloseTellsTheSinksError(t *testing.T) {
	d := newDeliverer(t, &fake{close: func(ctx context.Context) error {
		if ctx.Value(errBroken) == nil {
			t.Error("not the caller's ctx")
		}
		return errBroken
	}})
	if err := d.Close(context.WithValue(t.Context(), errBroken, true)); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the sink's error", err)
	}
}
