package durable_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// A second delivery of an id never publishes nor appends again, wherever the first one is.
func TestSecondDelivery(t *testing.T) {
	for _, tt := range []struct {
		name   string
		sink   func(context.Context) (sinks.Ack, error)
		append func() error
		comes  time.Duration // after the first
		want   schema.Result
		err    error
		after  time.Duration
	}{
		{"in the air, then acked", acks, writes(quick, nil), quick, schema.Duplicate, nil, quick},
		{"in the air, then known", knows, writes(quick, nil), quick, schema.Duplicate, nil, quick},
		{"in the air, then not now", notNow, writes(quick, nil), quick, schema.Spooled, nil, quick},
		{"in the air, the first one's patience ends", silent, writes(quick, nil), time.Second, schema.Spooled, nil, 2 * time.Second},
		{"in the air, both fail", notNow, writes(quick, errDisk), quick, 0, errBroken, quick},
		{"in the air, nothing known in time", deaf, writes(time.Minute, nil), slow, 0, durable.ErrTimeout, ackTimeout},
		{"in the air, told spooled", deaf, writes(quick, nil), 5 * time.Second, schema.Spooled, nil, 0},
		{"waiting", notNow, writes(quick, nil), 1500 * time.Millisecond, schema.Spooled, nil, 0},
		{"kept", acks, writes(quick, nil), 5 * time.Second, schema.Duplicate, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{publish: func(ctx context.Context, _ *schema.Event) (sinks.Ack, error) { return tt.sink(ctx) }}
				m := &memory{append: tt.append}
				r := newRig(t, f, m, durable.JournaledConfig{Keep: time.Hour})
				first := r.deliver(t.Context(), keyed("a", "k"))
				time.Sleep(tt.comes)
				published := len(f.published())
				got := <-r.deliver(t.Context(), keyed("a", "k"))
				if got.result != tt.want || !errors.Is(got.err, tt.err) || got.after != tt.after {
					t.Errorf("got %+v, want %v, %v after %v", got, tt.want, tt.err, tt.after)
				}
				appends, _ := m.count()
				if tt.want == schema.Spooled && tt.after > 0 {
					published++ // forwarding began
				}
				synctest.Wait()
				if n := len(f.published()); n != published || appends != 1 {
					t.Errorf("%d publishes, %d appends, want %d and 1", n, appends, published)
				}
				<-first
				time.Sleep(2 * time.Minute)
				r.close(t)
			})
		})
	}
}

// Once nothing is held, an id is like any other: whether it is there is the sink's to say.
func TestDeliveryAfterSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		m := &memory{}
		r := newRig(t, f, m, durable.JournaledConfig{}) // keeps nothing
		for i := range 3 {
			if got := <-r.deliver(t.Context(), keyed("a", "k")); got.result != schema.Published {
				t.Errorf("got %+v, want published", got)
			}
			synctest.Wait()
			r.holds(t, 0, 0)
			if appends, records := m.count(); len(f.published()) != i+1 || appends != i+1 || records != 0 {
				t.Errorf("%d publishes, %d appends, %d unsettled, want %d, %[4]d and none", len(f.published()), appends, records, i+1)
			}
		}
		r.close(t)
	})
}

// A retry after both failed gets in.
func TestRetryAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := true
		f := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
			if bad {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		r := newRig(t, f, &memory{append: func() error {
			if bad {
				return errDisk
			}
			return nil
		}}, durable.JournaledConfig{})
		if got := <-r.deliver(t.Context(), keyed("a", "k")); got.err == nil {
			t.Errorf("got %+v, want an error", got)
		}
		bad = false
		if got := <-r.deliver(t.Context(), keyed("a", "k")); got.result != schema.Published {
			t.Errorf("got %+v, want published", got)
		}
		r.close(t)
	})
}

// An outage fills the journal with one copy of each id, however often it is delivered.
func TestOneCopyPerID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) { return sinks.Ack{}, errBroken }}
		m := &memory{}
		r := newRig(t, f, m, durable.JournaledConfig{})
		for range 1000 {
			if got := <-r.deliver(t.Context(), keyed("a", "k")); got.result != schema.Spooled {
				t.Fatalf("got %+v, want spooled", got)
			}
		}
		if appends, records := m.count(); appends != 1 || records != 1 {
			t.Errorf("%d appends, %d records, want one", appends, records)
		}
		r.close(t)
	})
}

// While an event waits, others of its key go behind it, and only those; without the journal they are not taken.
func TestBehindOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away, full bool
		f := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			if away && e.PartitionKey == "k" {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		m := &memory{append: func() error {
			if full {
				return errDisk
			}
			return nil
		}}
		r := newRig(t, f, m, durable.JournaledConfig{Keep: time.Hour})
		away = true
		want := func(id, key string, result schema.Result) {
			t.Helper()
			if got := <-r.deliver(t.Context(), keyed(id, key)); got.result != result || (got.err == nil) != (result != 0) || got.after != 0 {
				t.Errorf("%s: got %+v, want %v at once", id, got, result)
			}
		}
		want("a", "k", schema.Spooled)
		want("b", "k", schema.Spooled)
		want("other", "l", schema.Published)
		full = true
		want("c", "k", 0)
		want("another", "l", schema.Published)
		full, away = false, false
		want("c", "k", schema.Spooled) // the sink is back, but a and b wait still
		if n := slices.Index(ids(f.published()), "c"); n >= 0 {
			t.Error("c was published while a and b wait")
		}
		time.Sleep(2 * time.Second)
		r.holds(t, 0, 5-1) // "another" was not journaled
		if got := ids(f.published()); !slices.Equal(got[len(got)-3:], []string{"a", "b", "c"}) {
			t.Errorf("published %q, want a, b, c at the end", got)
		}
		want("d", "k", schema.Published)
		r.close(t)
	})
}
