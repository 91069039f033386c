package durable_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// filled is a journal that has records of an earlier run.
func filled(t *testing.T, events ...*schema.Event) *memory {
	t.Helper()
	m := &memory{}
	for _, e := range events {
		b, err := e.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		m.put(b)
	}
	return m
}

// counting is a sink that counts what is in the air.
type counting struct {
	mu             sync.Mutex
	now, most, all int
	takes          time.Duration
	fails          bool
}

func (c *counting) publish(_ context.Context, e *schema.Event) (sinks.Ack, error) {
	c.mu.Lock()
	c.now++
	c.all++
	c.most = max(c.most, c.now)
	takes, fails := c.takes, c.fails
	c.mu.Unlock()
	time.Sleep(takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	if fails {
		return sinks.Ack{}, errBroken
	}
	return sinks.Ack{}, nil
}

// Forwarding is pipelined, in order per key, and live events of other keys do not wait for it.
func TestForwardingIsPipelined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []*schema.Event
		for i := range 2000 {
			events = append(events, keyed(fmt.Sprint(i), fmt.Sprint("key ", i%1000)))
		}
		c := &counting{takes: 100 * time.Millisecond}
		f := &fake{publish: c.publish}
		r := newRig(t, f, filled(t, events...), durable.JournaledConfig{Keep: time.Hour})
		r.holds(t, 2000, 0)
		time.Sleep(50 * time.Millisecond)
		if got := <-r.deliver(t.Context(), keyed("live", "live")); got.result != schema.Published || got.after != 100*time.Millisecond {
			t.Errorf("got %+v, want published as if nothing waited", got)
		}
		time.Sleep(700 * time.Millisecond) // 2000 ÷ 256 × 100 ms = 800 ms
		r.holds(t, 0, 2001)
		if c.most != 256+1 {
			t.Errorf("%d at once, want 256 and the live one", c.most)
		}
		at := map[string]int{}
		for i, id := range ids(f.published()) {
			at[id] = i
		}
		for i := range 1000 {
			if at[fmt.Sprint(i)] > at[fmt.Sprint(i+1000)] {
				t.Errorf("%d after %d", i, i+1000)
			}
		}
		if n := r.log.count("has been forwarded"); n != 1 {
			t.Errorf("said %d times that all is forwarded, want once: %s", n, r.log.all.String())
		}
		r.close(t)
	})
}

// One key's events go one by one, and a stream of new ones behind them neither stops that nor is stopped by it.
func TestForwardingUnderLiveLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []*schema.Event
		for i := range 100 {
			events = append(events, keyed(fmt.Sprint("old ", i), "k"))
		}
		c := &counting{takes: 10 * time.Millisecond}
		f := &fake{publish: c.publish}
		r := newRig(t, f, filled(t, events...), durable.JournaledConfig{})
		var wg sync.WaitGroup
		for s := range 8 {
			wg.Go(func() {
				for i := range 200 { // one in 160 ms, all of key k: a tenth of what fits through
					if got := <-r.deliver(t.Context(), keyed(fmt.Sprint("new ", s, " ", i), "k")); got.err != nil {
						t.Error(got.err)
					}
					time.Sleep(160 * time.Millisecond)
				}
			})
		}
		time.Sleep(3 * time.Second)
		r.holds(t, 0, 0)
		wg.Wait()
		time.Sleep(time.Second)
		got := ids(f.published())
		if len(got) != 100+8*200 {
			t.Errorf("%d publishes, want one of each", len(got))
		}
		for i := range 100 {
			if got[i] != fmt.Sprint("old ", i) {
				t.Fatalf("%q came as number %d", got[i], i)
			}
		}
		r.close(t)
	})
}

// While the sink is down it is asked now and then, not all the time, and the log has one line about it.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []*schema.Event
		for i := range 5000 {
			events = append(events, keyed(fmt.Sprint(i), fmt.Sprint(i)))
		}
		c := &counting{fails: true}
		r := newRig(t, &fake{publish: c.publish}, filled(t, events...), durable.JournaledConfig{Keep: time.Hour})
		time.Sleep(100 * time.Second)
		c.mu.Lock()
		if c.all < 100 || c.all > 256+16*150 {
			t.Errorf("%d attempts within 100 s, want about 16 a second", c.all)
		}
		c.fails = false
		c.mu.Unlock()
		time.Sleep(2 * time.Second)
		r.holds(t, 0, 5000)
		c.mu.Lock()
		c.fails = true
		c.mu.Unlock()
		for i := range 10 {
			if got := <-r.deliver(t.Context(), keyed(fmt.Sprint("new", i), "k")); got.result != schema.Spooled {
				t.Errorf("got %+v, want spooled", got)
			}
		}
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		c.fails = false
		c.mu.Unlock()
		time.Sleep(5 * time.Second)
		r.holds(t, 0, 5010)
		for words, want := range map[string]int{"events wait in the journal": 1, "does not take events now": 1, "has been forwarded": 2} {
			if n := r.log.count(words); n != want {
				t.Errorf("said %d times %q, want %d: %s", n, words, want, r.log.all.String())
			}
		}
		r.close(t)
	})
}

// Publishes that hang for longer than an attempt may do not keep other keys waiting.
func TestHangingPublishesFreeTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []*schema.Event
		for i := range 300 {
			events = append(events, keyed(fmt.Sprint("hangs ", i), fmt.Sprint("hangs ", i)))
		}
		for i := range 300 {
			events = append(events, keyed(fmt.Sprint("goes ", i), fmt.Sprint("goes ", i)))
		}
		f := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			if e.ID[0] == 'h' {
				time.Sleep(10 * time.Minute)
			}
			return sinks.Ack{}, nil
		}}
		r := newRig(t, f, filled(t, events...), durable.JournaledConfig{})
		time.Sleep(2 * time.Minute)
		r.holds(t, 300, 0)
		time.Sleep(10 * time.Minute)
		r.holds(t, 0, 0)
		if n := len(f.published()); n != 600 {
			t.Errorf("%d publishes, want one of each", n)
		}
		r.close(t)
	})
}

// That dead letters cannot be stored does not keep events from it, nor the other way round.
func TestRoutesAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []*schema.Event
		for i := range 1000 {
			dead := keyed(fmt.Sprint(i), fmt.Sprint(i))
			dead.Dead = true
			events = append(events, dead)
		}
		for i := range 1000 {
			events = append(events, keyed(fmt.Sprint(i), fmt.Sprint(i)))
		}
		f := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			if e.Dead {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		r := newRig(t, f, filled(t, events...), durable.JournaledConfig{})
		synctest.Wait()
		r.holds(t, 1000, 0)
		r.close(t)
	})
}

// Of two records of one id the later one is forwarded: the earlier is of an append that failed.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := filled(t, keyed("a", "k"), keyed("b", "k"), keyed("a", "k"), keyed("c", "l"))
		f := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
			time.Sleep(time.Second)
			return sinks.Ack{Duplicate: true}, nil
		}}
		r := newRig(t, f, m, durable.JournaledConfig{})
		r.holds(t, 3, 0)
		if s := r.Stats(); s.OldestWaiting != time.Since(time.Unix(1_700_000_000, 0)) && s.OldestWaiting != 0 {
			t.Errorf("the oldest waits for %v", s.OldestWaiting)
		}
		if got := <-r.deliver(t.Context(), keyed("b", "k")); got.result != schema.Spooled {
			t.Errorf("got %+v, want spooled", got)
		}
		time.Sleep(3 * time.Second)
		got := ids(f.published())
		if i, j := slices.Index(got, "b"), slices.Index(got, "a"); len(got) != 3 || i > j {
			t.Errorf("published %q, want b before a, and c", got)
		}
		r.holds(t, 0, 0)
		if got := m.ids(t); len(got) != 0 {
			t.Errorf("unsettled: %q", got)
		}
		r.close(t)
	})
}

func TestStartFails(t *testing.T) {
	m := filled(t, keyed("a", "k"))
	m.damaged = map[uint64]error{1: errDisk}
	if _, err := durable.NewJournaled(&fake{}, m, durable.JournaledConfig{}); err == nil {
		t.Error("no error from a journal that cannot be read")
	}
}

// Reading may fail for a while. What is damaged or gone is no reason to stop.
func TestUnreadableRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := filled(t, keyed("a", "k"), keyed("b", "k"), keyed("c", "k"))
		var mu sync.Mutex
		away := true
		f := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		r := newRig(t, f, m, durable.JournaledConfig{})
		synctest.Wait()
		m.mu.Lock()
		m.damaged = map[uint64]error{1: errDisk}
		delete(m.records, 2)
		m.mu.Unlock()
		mu.Lock()
		away = false
		mu.Unlock()
		time.Sleep(5 * time.Second)
		r.holds(t, 3, 0) // order is kept, whatever is behind
		m.mu.Lock()
		m.damaged = nil
		m.mu.Unlock()
		time.Sleep(2 * time.Second)
		r.holds(t, 0, 0)
		if got := ids(f.published()); !slices.Equal(got[1:], []string{"a", "c"}) {
			t.Errorf("published %q, want a in vain, a and c", got)
		}
		if r.log.count("cannot be read") != 1 {
			t.Errorf("the log does not tell once of the lost one: %s", r.log.all.String())
		}
		r.close(t)
	})
}
