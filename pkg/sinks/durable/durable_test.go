package durable_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

var errBroken = errors.New("broken")

// gate is a publish that waits until the test gives an outcome. It does not look at its ctx.
type gate chan outcome

func (g gate) publish(context.Context, *schema.Event) (sinks.Ack, error) {
	o := <-g
	return sinks.Ack{Duplicate: o.result == schema.Duplicate}, o.err
}

func TestOutcomes(t *testing.T) {
	unknown := fmt.Errorf("no answer: %w", sinks.ErrUnknown)
	refused := &sinks.RefusedError{Reason: "too large"}
	for name, tt := range map[string]struct {
		dead bool
		ack  sinks.Ack
		err  error
		want schema.Result
	}{
		"acked":                  {want: schema.Published},
		"acked, position":        {ack: sinks.Ack{Position: sinks.Position{Sequence: 7}}, want: schema.Published},
		"there already":          {ack: sinks.Ack{Duplicate: true}, want: schema.Duplicate},
		"dead letter acked":      {dead: true, want: schema.DeadLettered},
		"dead letter there":      {dead: true, ack: sinks.Ack{Duplicate: true}, want: schema.Duplicate},
		"not now":                {err: errBroken},
		"not now, and an ack":    {ack: sinks.Ack{Duplicate: true}, err: errBroken},
		"unknown":                {err: unknown},
		"dead letter not now":    {dead: true, err: errBroken},
		"dead letter is refused": {dead: true, err: refused},
	} {
		t.Run(name, func(t *testing.T) {
			sink := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) { return tt.ack, tt.err }}
			d := newDeliverer(t, sink)
			e := event(t, "a")
			if tt.dead {
				e = deadLetter(t, "a")
			}
			result, err := d.Deliver(t.Context(), e)
			if result != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Errorf("got %v, %v, want %v, %v", result, err, tt.want, tt.err)
			}
			if got := sink.published(); len(got) != 1 || got[0] != e {
				t.Errorf("published %v, want the event itself, once", got)
			}
		})
	}
}

func TestOneCopyInTheAir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: g.publish}
		d := newDeliverer(t, sink)
		var callers []<-chan outcome
		for range 100 {
			callers = append(callers, deliver(t.Context(), d, event(t, "a")))
		}
		synctest.Wait()
		if got := len(sink.published()); got != 1 {
			t.Errorf("%d publishes, want 1", got)
		}
		if got := d.Held(); !slices.Equal(got, []string{"a"}) || d.Left() != 0 {
			t.Errorf("held %q, %d left, want a and none", got, d.Left())
		}
		g <- outcome{}
		synctest.Wait()
		counts := map[schema.Result]int{}
		for _, c := range callers {
			o := <-c
			if o.err != nil {
				t.Error(o.err)
			}
			counts[o.result]++
		}
		if counts[schema.Published] != 1 || counts[schema.Duplicate] != 99 {
			t.Errorf("got %v, want 1 published and 99 duplicates", counts)
		}
		if got := len(sink.published()); got != 1 {
			t.Errorf("%d publishes, want 1", got)
		}
	})
}

// An id is not remembered before its event is durable, nor after: whether it is there is the sink's to say.
func TestFailureIsEverybodysAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: g.publish}
		d := newDeliverer(t, sink)
		for round := range 3 {
			var callers []<-chan outcome
			for range 10 {
				callers = append(callers, deliver(t.Context(), d, event(t, "a")))
			}
			synctest.Wait()
			g <- outcome{err: errBroken}
			for _, c := range callers {
				if o := <-c; !errors.Is(o.err, errBroken) || o.result != 0 {
					t.Errorf("round %d: got %v, %v, want the sink's error", round, o.result, o.err)
				}
			}
		}
		for _, want := range []schema.Result{schema.Published, schema.Duplicate} {
			c := deliver(t.Context(), d, event(t, "a"))
			g <- outcome{result: want}
			if o := <-c; o.result != want || o.err != nil {
				t.Errorf("got %v, %v, want %v", o.result, o.err, want)
			}
		}
		if got := len(sink.published()); got != 5 {
			t.Errorf("%d publishes, want 5", got)
		}
	})
}

func TestEachCallerWaitsItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: g.publish}
		d := newDeliverer(t, sink)
		first := deliver(t.Context(), d, event(t, "a"))
		time.Sleep(2 * time.Second)
		second := deliver(t.Context(), d, event(t, "a"))
		synctest.Wait()
		if d.Left() != 0 {
			t.Errorf("%d left, want none", d.Left())
		}
		time.Sleep(2 * time.Second) // four seconds since the first
		third := deliver(t.Context(), d, event(t, "a"))
		if o := <-first; !errors.Is(o.err, durable.ErrTimeout) || o.after != ackTimeout || o.result != 0 {
			t.Errorf("first: got %+v, want ErrTimeout after %v", o, ackTimeout)
		}
		pending(t, second)
		if got := d.Held(); !slices.Equal(got, []string{"a"}) || d.Left() != 1 {
			t.Errorf("held %q, %d left, want a and 1", got, d.Left())
		}
		if o := <-second; !errors.Is(o.err, durable.ErrTimeout) || o.after != ackTimeout {
			t.Errorf("second: got %+v, want ErrTimeout after %v", o, ackTimeout)
		}
		pending(t, third)
		if d.Left() != 1 {
			t.Errorf("%d left, want 1: only the publish counts", d.Left())
		}
		time.Sleep(time.Second)
		g <- outcome{}
		if o := <-third; o.result != schema.Duplicate || o.err != nil || o.after != 2*time.Second {
			t.Errorf("third: got %+v, want a duplicate after 2s", o)
		}
		synctest.Wait()
		if got := len(sink.published()); got != 1 {
			t.Errorf("%d publishes, want 1", got)
		}
		if d.Left() != 0 || len(d.Held()) != 0 {
			t.Errorf("%d left, held %q, want none", d.Left(), d.Held())
		}
	})
}

// The publish that everybody left fails in the end: the next delivery publishes again.
func TestLeftPublishFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: g.publish}
		d := newDeliverer(t, sink)
		if o := <-deliver(t.Context(), d, event(t, "a")); !errors.Is(o.err, durable.ErrTimeout) {
			t.Errorf("got %+v, want ErrTimeout", o)
		}
		retry := deliver(t.Context(), d, event(t, "a"))
		synctest.Wait()
		g <- outcome{err: errBroken}
		if o := <-retry; !errors.Is(o.err, errBroken) {
			t.Errorf("retry: got %+v, want the sink's error", o)
		}
		again := deliver(t.Context(), d, event(t, "a"))
		g <- outcome{}
		if o := <-again; o.result != schema.Published || o.err != nil {
			t.Errorf("again: got %+v, want published", o)
		}
	})
}

func TestPublishEndsAtTheAckTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		sink := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) {
			if deadline, ok := ctx.Deadline(); !ok || deadline.Sub(start) != ackTimeout {
				t.Errorf("deadline %v, %v, want %v after the call", deadline, ok, ackTimeout)
			}
			<-ctx.Done()
			return sinks.Ack{}, sinks.ErrUnknown
		}}
		d := newDeliverer(t, sink)
		for range 2 {
			start = time.Now()
			o := <-deliver(t.Context(), d, event(t, "a"))
			if !errors.Is(o.err, durable.ErrTimeout) && !errors.Is(o.err, sinks.ErrUnknown) || o.after != ackTimeout {
				t.Errorf("got %+v, want an error after %v", o, ackTimeout)
			}
			synctest.Wait()
			if d.Left() != 0 || len(d.Held()) != 0 {
				t.Errorf("%d left, held %q, want none", d.Left(), d.Held())
			}
		}
		if got := len(sink.published()); got != 2 {
			t.Errorf("%d publishes, want 2", got)
		}
	})
}

func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		var ended error // of the publish, by its ctx
		sink := &fake{publish: func(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
			ack, err := g.publish(ctx, e)
			ended = ctx.Err()
			return ack, err
		}}
		d := newDeliverer(t, sink)
		ctx, cancel := context.WithCancel(t.Context())
		first := deliver(ctx, d, event(t, "a"))
		synctest.Wait()
		second := deliver(t.Context(), d, event(t, "a"))
		time.Sleep(time.Second)
		cancel()
		if o := <-first; !errors.Is(o.err, context.Canceled) || o.after != time.Second || o.result != 0 {
			t.Errorf("got %+v, want context.Canceled after 1s", o)
		}
		synctest.Wait()
		if got := d.Held(); !slices.Equal(got, []string{"a"}) || d.Left() != 1 {
			t.Errorf("held %q, %d left, want a and 1", got, d.Left())
		}
		g <- outcome{}
		if o := <-second; o.result != schema.Duplicate || o.err != nil {
			t.Errorf("second: got %+v, want a duplicate", o)
		}
		if ended != nil {
			t.Errorf("the publish was given up with its caller: %v", ended)
		}
	})
}

// A waiter that leaves, first or last, takes nothing with it.
func TestWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		d := newDeliverer(t, &fake{publish: g.publish})
		first := deliver(t.Context(), d, event(t, "a"))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		waiter := deliver(ctx, d, event(t, "a"))
		synctest.Wait()
		cancel()
		if o := <-waiter; !errors.Is(o.err, context.Canceled) {
			t.Errorf("got %+v, want context.Canceled", o)
		}
		if d.Left() != 0 {
			t.Errorf("%d left, want none: the first caller is there", d.Left())
		}
		pending(t, first)
		g <- outcome{}
		if o := <-first; o.result != schema.Published || o.err != nil {
			t.Errorf("got %+v, want published", o)
		}
	})
}

func TestSpacesOfIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: g.publish}
		d := newDeliverer(t, sink)
		callers := []<-chan outcome{
			deliver(t.Context(), d, event(t, "a")), deliver(t.Context(), d, deadLetter(t, "a")), deliver(t.Context(), d, event(t, "b")),
		}
		synctest.Wait()
		if got := len(sink.published()); got != 3 {
			t.Errorf("%d publishes at once, want 3", got)
		}
		held := d.Held()
		if slices.Sort(held); !slices.Equal(held, []string{"a", "a", "b"}) {
			t.Errorf("held %q", held)
		}
		for range 3 {
			g <- outcome{}
		}
		for i, want := range []schema.Result{schema.Published, schema.DeadLettered, schema.Published} {
			if o := <-callers[i]; o.result != want || o.err != nil {
				t.Errorf("%d: got %+v, want %v", i, o, want)
			}
		}
	})
}

func TestPanicCostsOneDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fake{}
		sink.publish = func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			time.Sleep(time.Second)
			if e.ID == "a" && len(sink.published()) <= 2 {
				panic(errBroken)
			}
			return sinks.Ack{}, nil
		}
		d := newDeliverer(t, sink)
		first, other := deliver(t.Context(), d, event(t, "a")), deliver(t.Context(), d, event(t, "b"))
		synctest.Wait()
		waiter := deliver(t.Context(), d, event(t, "a"))
		for _, c := range []<-chan outcome{first, waiter} {
			// The event may have been stored before the panic.
			o := <-c
			if !errors.Is(o.err, sinks.ErrUnknown) || o.result != 0 {
				t.Fatalf("got %+v, want ErrUnknown", o)
			}
			for _, words := range []string{"panicked: broken", "durable_test.go"} {
				if !strings.Contains(o.err.Error(), words) {
					t.Errorf("got %v, want %q in it", o.err, words)
				}
			}
		}
		if o := <-other; o.result != schema.Published || o.err != nil {
			t.Errorf("another id: got %+v, want published", o)
		}
		if d.Left() != 0 || len(d.Held()) != 0 {
			t.Errorf("%d left, held %q, want none", d.Left(), d.Held())
		}
		if o := <-deliver(t.Context(), d, event(t, "a")); o.result != schema.Published || o.err != nil {
			t.Errorf("again: got %+v, want published", o)
		}
	})
}

type observer struct {
	mu      sync.Mutex
	seconds []float64
}

func (o *observer) Observe(s float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seconds = append(o.seconds, s)
}

func TestSecondsOfEveryPublish(t *testing.T) {
	for name, tt := range map[string]struct {
		publish func(dead bool) error
		want    []float64
	}{
		"acked":    {func(bool) error { return nil }, []float64{1}},
		"not now":  {func(bool) error { return errBroken }, []float64{1}},
		"panicked": {func(bool) error { panic("oh") }, []float64{1}},
		"refused": {func(dead bool) error {
			if dead {
				return nil
			}
			return &sinks.RefusedError{}
		}, []float64{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &observer{}
				d := durable.New(&fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
					time.Sleep(time.Second)
					return sinks.Ack{}, tt.publish(e.Dead)
				}}, durable.Config{AckTimeout: ackTimeout, Seconds: o})
				callers := []<-chan outcome{deliver(t.Context(), d, event(t, "a")), deliver(t.Context(), d, event(t, "a"))}
				for _, c := range callers {
					<-c
				}
				synctest.Wait()
				if !slices.Equal(o.seconds, tt.want) {
					t.Errorf("got %v, want %v", o.seconds, tt.want)
				}
			})
		})
	}
}

func TestReadyIsTheSinks(t *testing.T) {
	for _, want := range []error{nil, errBroken, &sinks.DegradedError{Details: []string{"x"}}} {
		d := newDeliverer(t, &fake{ready: func(ctx context.Context) error {
			if ctx.Err() == nil {
				t.Error("not the caller's ctx")
			}
			return want
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Ready(ctx); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}
