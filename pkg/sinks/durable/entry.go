package durable

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
)

// digest stands for a schema.Key: a journal may hold a million of them.
type digest [16]byte

func digestOf(key schema.Key) digest {
	b := make([]byte, 0, 320) // ids have up to 256 bytes
	b = append(b, 0)
	if key.Dead {
		b[0] = 1
	}
	sum := sha256.Sum256(append(b, key.ID...))
	return digest(sum[:16])
}

type state uint8

const (
	live    state = iota // its delivery is under way
	waiting              // the sink has not acknowledged it
	kept                 // acknowledged, not past doubt
)

// entry is one record of the journal that is not settled.
type entry struct {
	seq        uint64
	id         digest
	lane       uint64
	at         time.Duration // since the deliverer's start: when it began to wait, or was acknowledged
	mark       uint64        // of a kept one: the number of its ack, or how long the sink had been seen alive
	prev, next *entry        // in the list of its state
	state      state
	dead       bool
	air        bool // a publish of it is under way
}

// list is a queue of entries that are all waiting, or all kept, in order of at.
type list struct {
	first, last *entry
	len         int
}

func (l *list) push(e *entry) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.len++
}

func (l *list) remove(e *entry) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	l.len--
}

// lane is what waits of one partition key, in order of seq. It exists while something waits.
type lane struct {
	queue    []*entry
	route    *route
	failures int    // in a row
	ready    bool   // it stands in route.ready
	busy     bool   // one of it is being forwarded
	parked   bool   // it waits for its back-off to end
	cancel   func() // ends the attempt under way
	one      [1]*entry
}

func newLane(r *route) *lane {
	l := &lane{route: r}
	l.queue = l.one[:0] // most lanes have one entry
	return l
}

func (l *lane) insert(e *entry) {
	i := len(l.queue)
	if i > 0 && l.queue[i-1].seq > e.seq { // seldom: those of one group commit may come in any order
		i, _ = slices.BinarySearchFunc(l.queue, e.seq, func(e *entry, seq uint64) int { return cmp.Compare(e.seq, seq) })
	}
	l.queue = slices.Insert(l.queue, i, e)
}

func (l *lane) remove(e *entry) {
	if l.queue[0] == e { // as a rule; a queue may be long
		l.queue[0] = nil
		l.queue = l.queue[1:]
		return
	}
	i := slices.Index(l.queue, e)
	l.queue = slices.Delete(l.queue, i, i+1)
}
