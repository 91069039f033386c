package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	recallTimeout = 2 * time.Second
	recallAgain   = 100 * time.Millisecond
	// A new leader may answer before it has applied all that its cluster knows, so it is asked twice.
	confirmAfter = 500 * time.Millisecond
	// A record that is so much younger than the stream's age limit cannot have been removed by it.
	clockSlack = 5 * time.Second
)

var errPondering = errors.New("NATS is being asked whether it still has what it acknowledged")

// memory is what becomes of what the broker acknowledged: JetStream acknowledges before it syncs, so a power failure may
// take it away, and so may whoever sets a store back or deletes a stream. All is guarded by Sink.mu, but for wake.
type memory struct {
	doubt chan struct{} // while it is not nil nothing is published; it is closed when it is known what is forgotten
	since time.Time     // when the doubt began
	found string        // what is known to be forgotten, and has not been told
	why   error         // why it is not known yet
	wake  chan struct{} // holds one word of a doubt
	// epoch changes whenever a connection is lost, and whenever something was forgotten. An ack that is read in
	// another epoch than that in which its event was sent says nothing: it may be of what is lost since.
	epoch int
}

// position is where an event stands that was acked.
type position struct {
	sequence uint64
	id       string
	server   string // that acked it
	at       time.Time
}

// OnForgotten implements [sinks.Forgetful]. The sink then compares after every reconnect, before it publishes anything
// else: the record at the newest position that was acked, of each of the two streams, must have its id still. A stream
// that was missing, made anew or set back counts as well, whenever it is noticed, and an embedded server's store that
// had to be mended. What has expired, or was purged from a server that was not restarted since, has not been forgotten;
// nor what a stream of another retention than limits, or one that discards old messages, no longer has.
//
// The user must be allowed to publish to $JS.API.STREAM.INFO.* and $JS.API.STREAM.MSG.GET.*; else every reconnect counts.
//
// An ack that Publish returned while forgotten was called may be of what was lost. Whoever counts acks counts only those
// of a Publish that was called after forgotten had returned.
func (s *Sink) OnForgotten(forgotten func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = forgotten
}

// remembers notes an ack. It returns false if the ack says nothing.
func (s *Sink) remembers(p *publication, sequence uint64, duplicate bool) bool {
	st := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgotten != nil {
		if p.epoch != s.memory.epoch {
			return false
		}
		// A stream never gives a sequence twice.
		if !duplicate && sequence <= p.acked {
			s.forget(fmt.Sprintf("stream %s has stored an event at %d, and had acknowledged another at %d before", st.name, sequence, p.acked))
		}
		st.acked = true
		if sequence > st.last.sequence {
			st.last = position{sequence, p.msg.Header.Get(headerMsgID), s.server, time.Now()}
		}
	}
	st.saw(sequence)
	return true
}

// saw notes what a look saw. Before it, acked had been the highest acked sequence.
func (s *Sink) saw(st *stream, info *jetstream.StreamInfo, acked uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.created.IsZero():
		st.created = info.Created
	case !info.Created.Equal(st.created):
		if st.acked {
			s.forget("stream " + st.name + " was deleted and made anew")
		}
		st.created, st.last = info.Created, position{}
		st.newest.Store(0)
	case info.State.LastSeq < acked && acked <= st.last.sequence:
		s.ponder()
	}
	st.saw(info.State.LastSeq)
}

// misses notes that a stream has to be made.
func (s *Sink) misses(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.acked {
		s.forget("stream " + st.name + " was missing")
	}
}

// forgot notes that something was forgotten, by a finding of somebody else's.
func (s *Sink) forgot(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(what)
}

// forget notes what is forgotten, and publishes nothing before it was told. The caller holds mu.
func (s *Sink) forget(what string) {
	s.memory.found = cmp.Or(s.memory.found, what)
	s.ponder()
}

// ponder publishes nothing until it is known what is forgotten. The caller holds mu.
func (s *Sink) ponder() {
	if s.forgotten == nil {
		return
	}
	if s.memory.doubt == nil {
		s.memory.doubt, s.memory.since, s.memory.why = make(chan struct{}), time.Now(), errPondering
	}
	select {
	case s.memory.wake <- struct{}{}:
	default:
	}
}

// pondering returns nil once it is known what is forgotten, or why it is not when that takes too long.
func (s *Sink) pondering(ctx context.Context) error {
	s.mu.Lock()
	doubt, since := s.memory.doubt, s.memory.since
	s.mu.Unlock()
	if doubt == nil {
		return nil
	}
	timer := time.NewTimer(patience - time.Since(since))
	defer timer.Stop()
	select {
	case <-doubt:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memory.why
}

// remember ends every doubt, as long as the sink lives.
func (s *Sink) remember() {
	for {
		s.mu.Lock()
		up, changed, doubt := s.up, s.changed, s.memory.doubt
		s.mu.Unlock()
		var again <-chan time.Time
		if up && doubt != nil {
			again = time.After(s.recall())
		}
		select {
		case <-changed:
		case <-s.memory.wake:
		case <-again:
		case <-s.life.Done():
			return
		}
	}
}

// recall finds out what is forgotten, tells it, and ends the doubt. Otherwise it is to be called again, after a while.
func (s *Sink) recall() (again time.Duration) {
	s.mu.Lock()
	epoch, found := s.memory.epoch, s.memory.found
	s.mu.Unlock()
	if found == "" {
		var err error
		if found, err = s.compareAll(); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.memory.why = fmt.Errorf("%w: %w", errPondering, err)
			if s.up && s.life.Err() == nil && s.memory.epoch == epoch {
				s.sayOnce(s.memory.why)
			}
			return recallAgain
		}
	}
	if found != "" {
		s.mu.Lock()
		found = cmp.Or(s.memory.found, found)
		s.memory.found = ""
		s.memory.epoch++ // from here on what was acked before counts no more
		epoch = s.memory.epoch
		for _, st := range []*stream{s.events, s.dead} {
			st.acked, st.last, st.created = false, position{}, time.Time{} // of a new one the next look may be the first
			st.newest.Store(0)
		}
		s.mu.Unlock()
		s.cfg.Log.Warn().Msgf("NATS at %s has forgotten events that it had acknowledged: %s", s.cfg.servers(), found)
		s.forgotten()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory.epoch == epoch && s.memory.found == "" {
		close(s.memory.doubt)
		s.memory.doubt = nil
	}
	return 0
}
