package durable_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// seeds is how many runs there are of each kind.
const seeds = 20

// world is a broker, and one bridge after the other on one journal.
type world struct {
	t      *testing.T
	seed   uint64
	dice   *dice
	broker *broker
	lazy   bool // the broker syncs lazily, and is killed together with the bridge
	rude   bool
	open   func() durable.Journal
	copy   func(durable.Journal) durable.Journal // as a kill would leave it

	mu   sync.Mutex
	now  *rig
	conn *conn
	log  durable.Journal
}

func (w *world) start(log durable.Journal) {
	c := w.broker.connect(w.t, w.dice, w.rude)
	var sink sinks.Sink = c
	if w.lazy {
		sink = lazyConn{c}
	}
	r := newRig(w.t, sink, log, durable.JournaledConfig{Keep: time.Hour})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now, w.conn, w.log = r, c, log
}

func (w *world) bridge() *rig {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// kill ends the bridge at whatever it is doing, and starts another on what it left on the disk.
func (w *world) kill() {
	w.mu.Lock()
	old, oldConn, oldLog := w.now, w.conn, w.log
	oldConn.kill()
	log := w.copy(oldLog)
	w.mu.Unlock()
	if w.lazy { // the power failed
		w.broker.mu.Lock()
		w.broker.cut(w.broker.synced + w.dice.n(len(w.broker.log)-w.broker.synced+1))
		w.broker.mu.Unlock()
	}
	w.start(log)
	ctx, cancel := context.WithCancel(w.t.Context())
	cancel()
	_ = old.Close(ctx) // what is left of it
}

// run lets senders deliver in sequence, each event until it is accepted, while faults happen, and then sees that
// nothing is missing, doubled or out of order.
func (w *world) run(happen func(int)) {
	const senders, each = 18, 30
	w.start(w.open())
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(200+w.dice.n(1500)) * time.Millisecond):
				happen(i)
			}
		}
	})
	var mu sync.Mutex
	accepted := map[string][]string{} // by key, in order
	replies := map[schema.Result]int{}
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			key := fmt.Sprint("key ", s%(senders*2/3)) // some keys have two senders
			for i := range each {
				id := fmt.Sprintf("%d/%d", s, i)
				for {
					b := w.bridge()
					ctx, cancel := context.WithTimeout(w.t.Context(), time.Duration(100+w.dice.n(4000))*time.Millisecond)
					result, err := b.Deliver(ctx, keyed(id, key))
					cancel()
					if w.bridge() != b {
						err = errBroken // the reply never left
					}
					if err == nil {
						mu.Lock()
						accepted[key+fmt.Sprint("/", s)] = append(accepted[key+fmt.Sprint("/", s)], id)
						replies[result]++
						mu.Unlock()
						break
					}
					w.dice.pause(500 * time.Millisecond)
				}
				w.dice.pause(100 * time.Millisecond)
			}
		})
	}
	sending.Wait()
	close(stop)
	wg.Wait()
	w.broker.set(false)
	w.conn.calm()
	time.Sleep(15 * time.Second)
	if s := w.now.Stats(); s.Waiting != 0 {
		w.t.Errorf("seed %d: %d wait still", w.seed, s.Waiting)
	}
	w.now.close(w.t)

	seen := map[string]int{}
	orders := map[string][]string{}
	for _, e := range w.broker.log {
		if seen[e.ID]++; seen[e.ID] > 1 {
			w.t.Errorf("seed %d: %s is stored twice", w.seed, e.ID)
		}
		var s int
		if _, err := fmt.Sscanf(e.ID, "%d/", &s); err != nil {
			w.t.Fatal(err)
		}
		order := e.PartitionKey + fmt.Sprint("/", s)
		orders[order] = append(orders[order], e.ID)
	}
	for order, want := range accepted {
		if got := orders[order]; !slices.Equal(got, want) {
			w.t.Errorf("seed %d: %s: stored %q, accepted %q", w.seed, order, got, want)
		}
	}
	if replies[schema.Published] < 5 || replies[schema.Spooled] < 5 {
		w.t.Errorf("seed %d: %v, which shows little", w.seed, replies)
	}
}

func newWorld(t *testing.T, seed uint64) *world {
	d := newDice(seed)
	return &world{
		t: t, seed: seed, dice: d, broker: &broker{}, rude: seed%2 == 0,
		open: func() durable.Journal { return &memory{} },
		copy: func(log durable.Journal) durable.Journal {
			m := log.(*memory)
			m.mu.Lock()
			defer m.mu.Unlock()
			return &memory{append: m.append, last: m.last, records: maps.Clone(m.records)}
		},
	}
}

// outages lets the broker go away and come back.
func (w *world) outages(i int) { w.broker.set(i%4 == 0) }

func TestSimulationOutagesAndKills(t *testing.T) {
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.run(func(i int) {
				w.outages(i)
				if i%5 == 1 {
					w.kill()
				}
			})
		})
	}
}

// The journal fails and heals: what the broker alone acknowledged is there, for this broker keeps its word.
func TestSimulationJournalFails(t *testing.T) {
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			var mu sync.Mutex
			var broken error
			w.open = func() durable.Journal {
				return &memory{append: func() error {
					w.dice.pause(20 * time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					return broken
				}}
			}
			w.run(func(i int) {
				w.outages(i)
				mu.Lock()
				broken = []error{nil, nil, journal.ErrFailing, nil, journal.ErrFull}[i%5]
				mu.Unlock()
				if i%7 == 1 {
					w.kill()
				}
			})
		})
	}
}

func TestSimulationBrokerForgets(t *testing.T) {
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.run(func(i int) {
				w.outages(i)
				if i%3 == 1 {
					w.broker.lose(w.dice.n(w.broker.len() + 1))
				}
				if i%6 == 5 {
					w.kill()
				}
			})
		})
	}
}

// A broker that syncs lazily loses power together with the bridge, and the journal fails now and then.
func TestSimulationLazyBroker(t *testing.T) {
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.lazy = true
			var mu sync.Mutex
			var broken error
			w.open = func() durable.Journal {
				return &memory{append: func() error {
					w.dice.pause(20 * time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					return broken
				}}
			}
			w.run(func(i int) {
				w.outages(i)
				mu.Lock()
				broken = []error{nil, nil, journal.ErrFailing}[i%3]
				mu.Unlock()
				if i%4 == 1 {
					w.kill()
				}
			})
		})
	}
}

// The same over real files: each kill opens a copy of them as they are at that moment.
func TestSimulationRealJournal(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			root, dirs := t.TempDir(), 0
			at := map[durable.Journal]string{}
			open := func(dir string) durable.Journal {
				log, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 16 << 10})
				if err != nil {
					t.Fatal(err)
				}
				at[log] = dir
				return log
			}
			w.open = func() durable.Journal { return open(filepath.Join(root, "0")) }
			w.copy = func(log durable.Journal) durable.Journal {
				dirs++
				to := filepath.Join(root, fmt.Sprint(dirs))
				copyDir(t, at[log], to)
				return open(to)
			}
			w.run(func(i int) {
				w.outages(i)
				if i%3 == 1 {
					w.broker.lose(w.dice.n(w.broker.len() + 1))
				}
				if i%4 == 3 {
					w.kill()
				}
			})
		})
	}
}

// copyDir copies files while they are written to. One that was deleted meanwhile was settled.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(from, entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, entry.Name()), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
