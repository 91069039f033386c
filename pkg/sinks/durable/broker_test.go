package durable_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// dice are random numbers for many goroutines. What they draw depends on the order in which they come.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{r: rand.New(rand.NewPCG(seed, 6))} }

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *dice) pause(most time.Duration) { time.Sleep(time.Duration(d.n(int(most)))) }

// broker is a log that knows its duplicates, and of which a part may be on disk only in memory.
type broker struct {
	mu     sync.Mutex
	log    []*schema.Event
	known  map[schema.Key]bool
	synced int // of log
	away   bool
	forget []func() // of the connections
}

func (b *broker) store(e *schema.Event) (duplicate bool) {
	if b.known[e.Key()] {
		return true
	}
	if b.known == nil {
		b.known = map[schema.Key]bool{}
	}
	b.known[e.Key()] = true
	b.log = append(b.log, e)
	return false
}

// lose sets the broker back to its first n events, and lets its clients find out.
func (b *broker) lose(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut(n)
	for _, forgotten := range b.forget {
		forgotten()
	}
}

func (b *broker) cut(n int) {
	b.log = slices.Clone(b.log[:n])
	b.known = map[schema.Key]bool{}
	for _, e := range b.log {
		b.known[e.Key()] = true
	}
	b.synced = min(b.synced, n)
}

func (b *broker) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.log)
}

func (b *broker) set(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
}

// conn is one bridge's connection to the broker: a sink with every fault that a sink may have.
type conn struct {
	*broker
	t      *testing.T
	dice   *dice
	faults bool
	rude   bool // some publishes outlast their ctx

	mu    sync.Mutex
	dead  bool // the process was killed
	inAir map[schema.Key]int
}

func (b *broker) connect(t *testing.T, d *dice, rude bool) *conn {
	return &conn{broker: b, t: t, dice: d, faults: true, rude: rude, inAir: map[schema.Key]int{}}
}

func (c *conn) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	c.mu.Lock()
	if c.inAir[e.Key()]++; c.inAir[e.Key()] > 1 {
		c.t.Errorf("%v is twice in the air", e.Key())
	}
	faults := c.faults
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.inAir[e.Key()]--
	}()
	fault := 10
	if faults {
		fault = c.dice.n(24)
		c.dice.pause(30 * time.Millisecond)
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	c.mu.Lock()
	dead := c.dead
	c.mu.Unlock()
	sleep := func(d time.Duration) {
		c.broker.mu.Unlock()
		defer c.broker.mu.Lock()
		if c.rude {
			time.Sleep(d)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	switch {
	case dead || c.away:
		return sinks.Ack{}, errBroken
	case ctx.Err() != nil:
		return sinks.Ack{}, ctx.Err()
	case fault == 0:
		return sinks.Ack{}, errBroken
	case fault == 1: // the answer is lost
		c.store(e)
		return sinks.Ack{}, sinks.ErrUnknown
	case fault == 2: // it comes too late
		c.store(e)
		sleep(5 * time.Second)
		return sinks.Ack{}, sinks.ErrUnknown
	case fault == 3: // or rather late
		epoch := len(c.log)
		duplicate := c.store(e)
		sleep(700 * time.Millisecond)
		if len(c.log) < epoch { // what was lost meanwhile is not acknowledged any more
			return sinks.Ack{}, sinks.ErrUnknown
		}
		return sinks.Ack{Duplicate: duplicate}, nil
	case fault == 4:
		panic("oh")
	}
	return sinks.Ack{Duplicate: c.store(e)}, nil
}

func (c *conn) Ready(context.Context) error {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	if c.away {
		return errBroken
	}
	return nil
}

func (c *conn) Close(context.Context) error { return nil }

func (c *conn) OnForgotten(forgotten func()) {
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	c.forget = []func(){forgotten}
}

func (c *conn) calm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = false
}

func (c *conn) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

// lazyConn is a connection to a broker that acknowledges before it syncs.
type lazyConn struct{ *conn }

func (c lazyConn) Sync(ctx context.Context) error {
	c.broker.mu.Lock()
	n := len(c.log)
	c.broker.mu.Unlock()
	c.dice.pause(50 * time.Millisecond)
	if c.dice.n(4) == 0 {
		return errDisk
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	c.synced = max(c.synced, min(n, len(c.log)))
	return nil
}
