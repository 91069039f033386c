package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
)

const (
	// clockSkew is by how much the clocks of bridges may differ.
	clockSkew = 10 * time.Minute
	// followerQuiet is for how long an interruption is nobody's concern: leaders move, brokers are restarted.
	followerQuiet = time.Second
	// tailPatience is for how long records are waited for that not all replicas have. With too few of them in sync, they
	// cannot be read before others are back, and the other partitions shall not wait for that.
	tailPatience = 10 * time.Second
	// Bounds of the time between attempts. Most of them ask only what metadata says.
	minFollowerPause, maxFollowerPause = 25 * time.Millisecond, 250 * time.Millisecond
)

// errMoved ends a reading for no other reason than that another can begin at once: partitions were added or have
// other leaders, or a log is to be read anew.
var errMoved = errors.New("partitions have moved")

// followerConfig says what to follow. All of it but Lost is required.
type followerConfig struct {
	Transport *kafka.Transport // its metadata must have the topic
	Addr      net.Addr
	Topic     string
	Window    time.Duration // as the index has it
	Index     *index
	Lost      func() // called, before it has caught up again, when a log has lost what was in it
	Log       zerolog.Logger
}

// follower reads the ids of a topic into an index: those of the window first, then what is added.
//
// It reads a partition from the first record that is younger than the window and some minutes, by the records' time.
// Each session, which is the time from a connect to the next interruption, begins with a look at where every log
// ends, and the follower has caught up once all of that is read. The batch that was read last is then read again: if
// it is another, or the log ends before, what had been read is lost (by an unclean election, a broker whose store
// was set back, a topic that was deleted and created anew). The newest record that the bridge itself was acknowledged
// must be there too, for it may not have been read yet. If not, the index forgets the partition, the sink's owner hears
// of it, and the window is read again. That old records leave changes nothing.
//
// A log is read to its end on the leader. What a bridge that was killed had sent a moment before may be there, and
// cannot be read before the other replicas have it.
type follower struct {
	cfg   followerConfig
	again chan struct{} // asks the session to look at the ends

	mu      sync.Mutex
	parts   map[int32]part
	acked   map[int32]acked // the bridge's own newest records
	asked   int             // how often the ends were to be looked at
	seen    int             // asked, when the session's look at them began
	live    bool            // a session reads
	caught  bool            // it has read all that there was at its last look
	changed chan struct{}   // closed, and replaced, when caught becomes true
	why     error           // while not live
	since   time.Time       // when it was not caught up any more
	tell    bool            // log when it has caught up
	said    map[kafka.Error]bool
}

// part is how far a partition is read.
type part struct {
	goal
	next   int64 // offset of the record to read next; −1 when that is to be found by time
	marked bool  // mark is that of the batch before next
	mark   mark
	check  bool // that batch is to be read again first
}

// goal is how far a partition is to be read.
type goal struct {
	end      int64     // what next must reach
	readable int64     // where it ends for those who read
	tail     time.Time // since when the leader's log has gone on beyond that; zero if it does not
}

// aim takes over where the log ends, for those who read and on its leader. What only the leader has is waited for: it comes
// within moments, or not before a replica is back.
func (g *goal) aim(readable, appended int64, now time.Time) {
	if appended <= readable {
		g.tail = time.Time{}
	} else if g.tail.IsZero() || readable > g.readable {
		g.tail = now
	}
	g.readable = readable
	g.end = max(g.end, readable)
	if !g.tail.IsZero() && !g.overdue(now) {
		g.end = max(g.end, appended)
	}
}

func (g *goal) overdue(now time.Time) bool {
	return !g.tail.IsZero() && now.Sub(g.tail) >= tailPatience
}

// acked is a record that the broker has acknowledged to this process.
type acked struct {
	offset int64
	id     digest
}

// newFollower returns a follower that does nothing before run.
func newFollower(cfg followerConfig) *follower {
	if cfg.Lost == nil {
		cfg.Lost = func() {}
	}
	return &follower{
		cfg: cfg, again: make(chan struct{}, 1), parts: map[int32]part{}, acked: map[int32]acked{}, changed: make(chan struct{}), since: time.Now(), tell: true,
		said: map[kafka.Error]bool{}, why: fmt.Errorf("topic %s is not read yet", cfg.Topic),
	}
}

// run follows the topic until ctx ends. Whatever is in the way, a missing topic too, it tries again. It logs when it
// has caught up first, when it is interrupted for more than a second, once for each reason, and when it has caught up
// after that.
func (f *follower) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		s := session{follower: f}
		err := s.run(ctx)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if f.interrupted(err) {
			n = 0
		}
		if errors.Is(err, errMoved) {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(minFollowerPause<<min(n, 10), maxFollowerPause)):
		}
	}
}

// caughtUp returns nil when the index knows all ids that the topic held at the start of the session, or at the last
// reread. Otherwise the error says how far it is, or why it does not get on; it wraps the broker's or the network's
// own, such as [kafka.UnknownTopicOrPartition] for a missing topic.
func (f *follower) caughtUp() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state()
}

func (f *follower) state() error {
	switch {
	case f.caught:
		return nil
	case !f.live:
		return f.why
	}
	behind, records := 0, int64(0)
	for _, p := range f.parts {
		if !p.done() {
			behind++
			records += max(0, p.end-p.next)
		}
	}
	return fmt.Errorf("reading the ids of topic %s: %d of %d partitions, %d records to go", f.cfg.Topic, behind, len(f.parts), records)
}

// wait returns nil once caughtUp does. The error is ctx's, joined with the reason.
func (f *follower) wait(ctx context.Context) error {
	for {
		f.mu.Lock()
		err, changed := f.state(), f.changed
		f.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err := f.caughtUp(); err != nil {
				return fmt.Errorf("%w: %w", ctx.Err(), err)
			}
			return nil
		}
	}
}

// reread makes caughtUp and wait answer for what the topic holds from now on.
func (f *follower) reread() {
	f.mu.Lock()
	f.asked++
	if f.caught {
		f.caught, f.since = false, time.Now()
	}
	f.mu.Unlock()
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// ack notes the newest record that the broker has acknowledged. It must be there from now on.
func (f *follower) ack(partition int32, offset int64, id string) {
	a := acked{offset, digestOf(&f.cfg.Index.secret, id)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, known := f.acked[partition]; !known || a.offset > old.offset { // one before it means a loss, which the next session sees
		f.acked[partition] = a
	}
}

func (p part) done() bool { return !p.check && p.next >= 0 && p.next >= p.end }

// settle notes when all is read. The caller holds mu.
func (f *follower) settle() {
	if f.caught || !f.live || f.seen != f.asked {
		return
	}
	for _, p := range f.parts {
		if !p.done() {
			return
		}
	}
	if f.tell {
		f.cfg.Log.Info().Msgf("topic %s: all %d partitions are read after %s, %d ids are known",
			f.cfg.Topic, len(f.parts), time.Since(f.since).Round(time.Millisecond), f.cfg.Index.len())
	}
	f.tell = false
	clear(f.said)
	f.caught = true
	close(f.changed)
	f.changed = make(chan struct{})
}

// interrupted notes that a session has ended, and tells whether it had caught up.
func (f *follower) interrupted(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.caught
	if was {
		f.since = time.Now()
	}
	f.live, f.caught = false, false
	f.why = fmt.Errorf("topic %s is not read: %w", f.cfg.Topic, err)
	if time.Since(f.since) < followerQuiet || errors.Is(err, errMoved) || errors.Is(err, context.Canceled) {
		return was
	}
	kind, _ := errors.AsType[kafka.Error](err)
	if !f.said[kind] {
		f.said[kind], f.tell = true, true
		f.cfg.Log.Warn().Msg(f.why.Error())
	}
	return was
}
