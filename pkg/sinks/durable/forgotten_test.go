package durable_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// All that is kept is offered again when the sink forgot it, in its order, before what comes later, and only then.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		takes := time.Duration(0)
		f := &forgetful{fake: &fake{publish: func(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
			mu.Lock()
			d := takes
			mu.Unlock()
			select {
			case <-time.After(d):
				return sinks.Ack{}, nil
			case <-ctx.Done():
				return sinks.Ack{}, ctx.Err()
			}
		}}}
		m := &memory{}
		r := newRig(t, f, m, durable.JournaledConfig{Keep: time.Hour})
		for i := range 6 {
			<-r.deliver(t.Context(), keyed(fmt.Sprint("a", i), fmt.Sprint(i%2)))
		}
		r.holds(t, 0, 6)
		mu.Lock()
		takes = 100 * time.Millisecond
		mu.Unlock()
		same := r.deliver(t.Context(), keyed("same key", "0"))
		other := r.deliver(t.Context(), keyed("other key", "new"))
		time.Sleep(50 * time.Millisecond)
		before := len(f.published()) // before it forgets: what is offered again may be on its way at once
		f.forget()
		if got := <-same; got.result != schema.Spooled || got.after != 50*time.Millisecond {
			t.Errorf("got %+v, want spooled at once: it would overtake", got)
		}
		if got := <-other; got.result != schema.Published || got.after != 100*time.Millisecond {
			t.Errorf("got %+v, want published", got)
		}
		// The ack of the other one may be from before the loss, so it is offered again.
		time.Sleep(time.Second)
		got := ids(f.published())[before:]
		var zeros []string
		for _, id := range got {
			if id == "a0" || id == "a2" || id == "a4" || id == "same key" {
				zeros = append(zeros, id)
			}
		}
		if want := []string{"a0", "a2", "a4", "same key"}; !slices.Equal(zeros, want) || len(got) != 8 || !slices.Contains(got, "other key") {
			t.Errorf("offered again: %q, want a0 … a5, the same key behind its own, the other key", got)
		}
		r.holds(t, 0, 8)
		if n := r.log.count("lost events"); n != 1 {
			t.Errorf("said %d times, want once: %s", n, r.log.all.String())
		}
		r.close(t)
	})
}

// While events are being offered again, it forgets once more; nothing that was acknowledged before that counts.
func TestForgottenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var takes atomic.Int64
		f := &forgetful{fake: &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
			time.Sleep(time.Duration(takes.Load())) // whatever ctx says
			return sinks.Ack{}, nil
		}}}
		r := newRig(t, f, &memory{}, durable.JournaledConfig{Keep: time.Hour})
		<-r.deliver(t.Context(), keyed("a", "k"))
		<-r.deliver(t.Context(), keyed("b", "k"))
		takes.Store(int64(100 * time.Millisecond))
		f.forget()
		time.Sleep(50 * time.Millisecond)
		f.forget()
		time.Sleep(time.Second)
		if got := ids(f.published()); !slices.Equal(got, []string{"a", "b", "a", "a", "b"}) {
			t.Errorf("published %q, want a twice again, for its ack came from before the second loss", got)
		}
		r.holds(t, 0, 2)
		f.forget()
		time.Sleep(50 * time.Millisecond)
		r.holds(t, 2, 0)
		time.Sleep(time.Second)
		r.close(t)
	})
}

// Without the journal, an ack from before a loss is worth nothing.
func TestForgottenWithoutJournal(t *testing.T) {
	for name, lazy := range map[string]bool{"acked": false, "synced": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &forgetful{fake: &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
					time.Sleep(time.Second)
					return sinks.Ack{}, nil
				}}}
				var sink sinks.Sink = f
				if lazy {
					f.publish = nil
					sink = &both{f, &syncing{sync: func(context.Context) error { time.Sleep(time.Second); return nil }}}
				}
				r := newRig(t, sink, &memory{append: writes(0, errDisk)}, durable.JournaledConfig{})
				c := r.deliver(t.Context(), keyed("a", "k"))
				time.Sleep(quick)
				f.forget()
				if got := <-c; !errors.Is(got.err, sinks.ErrUnknown) || got.after != time.Second {
					t.Errorf("got %+v, want ErrUnknown", got)
				}
				r.close(t)
			})
		})
	}
}

// both is a lazily syncing sink that forgets.
type both struct {
	*forgetful
	syncing *syncing
}

func (b *both) Sync(ctx context.Context) error { return b.syncing.Sync(ctx) }
