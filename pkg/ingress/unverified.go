package ingress

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errCut appears when a body had to make room for others, or its connection for newer ones.
var errCut = errors.New("cut off: overload by bodies or connections that are not verified")

// settling is how long a body is not judged by its speed: a good one has arrived by then, or most of it.
const settling = time.Second

// judgement is how long the order of bodies by their speed is taken to stay what it was.
const judgement = 50 * time.Millisecond

// unverified is the account of the memory that bodies take before their signature is verified. Anyone can send
// them, so they share a fixed amount. When it is full, the slowest are cut: those with the fewest bytes per second
// since they began. Bodies that have just begun go last, the oldest of them first.
type unverified struct {
	limit int
	now   func() time.Time

	mu      sync.Mutex
	used    int
	readers []*reading
	serial  int
	queue   []judged // of the last judgement, those that were not cut; the slowest last
	judged  time.Time
}

type judged struct {
	in     *reading
	serial int
	age    time.Duration
	speed  float64 // bytes per second
}

// reading is one body on its way in.
type reading struct {
	first   [firstRead]byte // most bodies fit
	buffer  *[]byte         // lent, for what does not fit
	bytes   []byte          // what has arrived, in one of the two
	began   time.Time
	arrived atomic.Int64 // len(bytes), for those who judge

	// Under the account's lock.
	sender http.ResponseWriter // to interrupt it
	held   int                 // bytes of the account
	place  int                 // in readers, while it can be cut
	serial int                 // of the body: the reading is another one's later
	cut    bool
}

// begin opens the account of a body, with its first buffer.
func (u *unverified) begin(in *reading, w http.ResponseWriter) error {
	in.began = u.now()
	u.mu.Lock()
	u.serial++
	in.sender, in.place, in.serial = w, len(u.readers), u.serial
	u.readers = append(u.readers, in)
	u.mu.Unlock()
	return u.take(in, firstRead)
}

// take reserves n more bytes for a body, and cuts others, or that one, if there is no room. It returns errCut if the
// body itself is cut.
func (u *unverified) take(in *reading, n int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for !in.cut && u.used+n > u.limit {
		slowest := u.slowest()
		slowest.cut = true
		u.settle(slowest)
		// It may be between two reads, so it is the next one that fails. A test's writer may have no deadlines.
		_ = http.NewResponseController(slowest.sender).SetReadDeadline(past)
	}
	if in.cut {
		return errCut
	}
	u.used += n
	in.held += n
	return nil
}

var past = time.Unix(1, 0)

// arrive takes a body that is complete out of those that can be cut. Its bytes stay on the account.
func (u *unverified) arrive(in *reading) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if in.cut {
		return errCut
	}
	u.remove(in)
	return nil
}

// release closes the account of a body; again and again does no harm. It tells whether the body was cut.
func (u *unverified) release(in *reading) (cut bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.settle(in)
	return in.cut
}

// settle gives back what a body holds. A body that was cut gives back at once, before it has noticed: the one that
// it was cut for need not wait.
func (u *unverified) settle(in *reading) {
	u.used -= in.held
	in.held = 0
	u.remove(in)
	if u.used < u.limit/2 {
		u.queue = nil // it would keep readings from being freed
	}
}

func (u *unverified) remove(in *reading) {
	if in.place < 0 {
		return
	}
	last := len(u.readers) - 1
	u.readers[in.place] = u.readers[last]
	u.readers[in.place].place = in.place
	u.readers[last] = nil
	u.readers = u.readers[:last]
	in.place = -1
}

// slowest is who is cut next. Whoever asks for room is among those to choose from, so there is always one. With
// thousands of bodies it would cost too much to judge them all each time, so a judgement holds for a moment.
func (u *unverified) slowest() *reading {
	now := u.now()
	if now.Sub(u.judged) > judgement {
		u.queue = u.queue[:0]
	}
	for {
		for len(u.queue) > 0 {
			next := u.queue[len(u.queue)-1]
			u.queue = u.queue[:len(u.queue)-1]
			if next.in.place >= 0 && next.in.serial == next.serial {
				return next.in
			}
		}
		u.judge(now)
	}
}

// judge lists all bodies, the slowest last.
func (u *unverified) judge(now time.Time) {
	u.judged = now
	for _, in := range u.readers {
		age := now.Sub(in.began)
		u.queue = append(u.queue, judged{in, in.serial, age, float64(in.arrived.Load()) / age.Seconds()})
	}
	slices.SortFunc(u.queue, func(a, b judged) int {
		if min(a.age, b.age) < settling {
			return cmp.Compare(a.age, b.age)
		}
		return cmp.Compare(b.speed, a.speed)
	})
}

func (u *unverified) bytes() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.used
}
