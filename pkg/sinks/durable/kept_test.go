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

// What is acknowledged is kept for so long as the sink was seen alive, and no longer than it knows ids.
func TestKeepClock(t *testing.T) {
	for name, tt := range map[string]struct {
		ready  func(since time.Duration) error
		window time.Duration
		acks   bool // others go on being acknowledged
		kept   time.Duration
		gone   time.Duration
	}{
		"ready":            {func(time.Duration) error { return nil }, 0, false, 5 * time.Minute, 5*time.Minute + 15*time.Second},
		"degraded":         {func(time.Duration) error { return &sinks.DegradedError{} }, 0, false, 5 * time.Minute, 5*time.Minute + 15*time.Second},
		"acks are a sign":  {func(time.Duration) error { return errBroken }, 0, true, 5 * time.Minute, 5*time.Minute + 15*time.Second},
		"down":             {func(time.Duration) error { return errBroken }, 0, false, 24 * time.Hour, 25*time.Hour + time.Minute},
		"down, own window": {func(time.Duration) error { return errBroken }, time.Hour, false, time.Hour - time.Second, time.Hour + time.Minute},
		"down for an hour": {func(since time.Duration) error {
			if since < time.Hour {
				return errBroken
			}
			return nil
		}, 0, false, 65*time.Minute - time.Second, 65*time.Minute + 15*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				f := &fake{ready: func(context.Context) error { return tt.ready(time.Since(start)) }}
				m := &memory{}
				r := newRig(t, f, m, durable.JournaledConfig{Keep: 5 * time.Minute, DedupWindow: tt.window})
				<-r.deliver(t.Context(), keyed("a", "a"))
				until := func(since time.Duration) {
					for i := 0; time.Since(start) < since; i++ {
						if tt.acks {
							<-r.deliver(t.Context(), keyed(fmt.Sprint(time.Since(start)), "b"))
						}
						time.Sleep(min(since-time.Since(start), 4*time.Second))
					}
				}
				until(tt.kept)
				if got := m.ids(t); len(got) == 0 || got[0] != "a" {
					t.Errorf("after %v: %.3q is kept, want a", tt.kept, got)
				}
				until(tt.gone)
				if got := m.ids(t); slices.Contains(got, "a") {
					t.Errorf("after %v: %.3q is kept, want a gone", tt.gone, got)
				}
				r.close(t)
			})
		})
	}
}

// A checkpoint settles what was acknowledged before its Sync began; one that fails settles nothing.
func TestCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var fails error
		s := &syncing{fake: &fake{}, sync: func(context.Context) error {
			time.Sleep(500 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			return fails
		}}
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fails = err
		}
		m := &memory{}
		r := newRig(t, s, m, durable.JournaledConfig{Keep: time.Nanosecond}) // time is no matter
		want := func(ids ...string) {
			t.Helper()
			synctest.Wait()
			if got := m.ids(t); !slices.Equal(got, ids) {
				t.Errorf("unsettled: %q, want %q", got, ids)
			}
		}
		time.Sleep(3500 * time.Millisecond)
		if s.syncs != 0 {
			t.Errorf("%d syncs with nothing to sync", s.syncs)
		}
		<-r.deliver(t.Context(), keyed("a", "k"))
		want("a")
		time.Sleep(600 * time.Millisecond) // the sync began at 4 s
		<-r.deliver(t.Context(), keyed("b", "k"))
		want("a", "b")
		time.Sleep(500 * time.Millisecond)
		want("b")
		set(errDisk)
		time.Sleep(5 * time.Second)
		<-r.deliver(t.Context(), keyed("c", "k"))
		want("b", "c")
		set(nil)
		time.Sleep(2 * time.Second)
		want()
		if a, b := r.log.count("could not sync"), r.log.count("syncs again"); a != 1 || b != 1 {
			t.Errorf("said %d and %d times, want once each: %s", a, b, r.log.all.String())
		}
		r.close(t)
	})
}

// Where the journal fails, each event waits for a Sync that began after its ack; those that come together share one.
func TestSyncForLackOfAJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &syncing{fake: &fake{}, sync: func(context.Context) error { time.Sleep(time.Second); return nil }}
		r := newRig(t, s, &memory{append: writes(0, errDisk)}, durable.JournaledConfig{})
		first := r.deliver(t.Context(), keyed("first", "k"))
		time.Sleep(quick)
		var more []<-chan outcome
		for i := range 100 {
			more = append(more, r.deliver(t.Context(), keyed(fmt.Sprint(i), "k")))
		}
		if got := <-first; got.result != schema.Published || got.after != time.Second {
			t.Errorf("got %+v, want published after the sync", got)
		}
		for _, c := range more {
			if got := <-c; got.result != schema.Published || got.after != 1500*time.Millisecond {
				t.Errorf("got %+v, want published after the next sync", got)
			}
		}
		if s.syncs != 2 {
			t.Errorf("%d syncs, want 2", s.syncs)
		}
		r.close(t)
	})
}

func TestSyncHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &syncing{fake: &fake{}, sync: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		r := newRig(t, s, &memory{append: writes(0, errDisk)}, durable.JournaledConfig{})
		if got := <-r.deliver(t.Context(), keyed("a", "k")); got.err == nil || got.after != ackTimeout {
			t.Errorf("got %+v, want an error after %v", got, ackTimeout)
		}
		synctest.Wait()
		r.close(t)
	})
}

// A full journal makes room from what is kept, oldest first, and never from what waits.
func TestFullJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		f := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
			if away.Load() {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		m := &memory{limit: 200}
		r := newRig(t, f, m, durable.JournaledConfig{Keep: time.Hour})
		for i := range 200 {
			<-r.deliver(t.Context(), keyed(fmt.Sprint(i), fmt.Sprint(i)))
		}
		r.holds(t, 0, 200)
		for i := range 10 {
			if got := <-r.deliver(t.Context(), keyed(fmt.Sprint("new ", i), fmt.Sprint(i))); got.result != schema.Published {
				t.Errorf("got %+v, want published", got)
			}
		}
		if s := r.Stats(); s.KeepCut != 64 || s.Kept != 200-64+10 {
			t.Errorf("got %+v, want 64 cut", s)
		}
		if got := m.ids(t); got[0] != "64" || got[len(got)-1] != "new 9" {
			t.Errorf("kept %q … %q, want 64 … new 9", got[0], got[len(got)-1])
		}
		away.Store(true)
		full := 0
		for i := range 300 {
			got := <-r.deliver(t.Context(), keyed(fmt.Sprint("later ", i), fmt.Sprint("later ", i)))
			if got.err != nil {
				full++
			} else if got.result != schema.Spooled {
				t.Errorf("got %+v, want spooled", got)
			}
		}
		r.holds(t, 200, 0)
		if full != 100 {
			t.Errorf("%d were not taken, want 100", full)
		}
		if n := r.log.count("the journal is full"); n != 1 {
			t.Errorf("said %d times, want once: %s", n, r.log.all.String())
		}
		away.Store(false)
		time.Sleep(5 * time.Second)
		r.holds(t, 0, 200)
		r.close(t)
	})
}

// With a lazily syncing sink, an early checkpoint makes room.
func TestFullJournalOfALazySink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails error
		s := &syncing{fake: &fake{}, sync: func(context.Context) error { time.Sleep(10 * time.Millisecond); return fails }}
		r := newRig(t, s, &memory{limit: 10}, durable.JournaledConfig{CheckpointEvery: time.Hour})
		var all []<-chan outcome
		for i := range 100 {
			all = append(all, r.deliver(t.Context(), keyed(fmt.Sprint(i), fmt.Sprint(i))))
		}
		for _, c := range all {
			if got := <-c; got.result != schema.Published {
				t.Errorf("got %+v, want published", got)
			}
		}
		synctest.Wait()
		for r.Stats().Kept < 10 {
			<-r.deliver(t.Context(), keyed(fmt.Sprint("more ", r.Stats().Kept), "k"))
		}
		fails = errDisk
		if got := <-r.deliver(t.Context(), keyed("z", "k")); !errors.Is(got.err, errDisk) {
			t.Errorf("got %+v, want the sync's error", got)
		}
		if s := r.Stats(); s.Kept != 10 || s.KeepCut != 0 {
			t.Errorf("%+v, want 10 kept and none cut", s)
		}
		fails = nil
		r.close(t)
	})
}
