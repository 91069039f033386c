package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"time"
)

const (
	groupBytes  = 1 << 20 // more in one write gains nothing
	slowSync    = time.Millisecond
	lingerShare = 8
	bufferBytes = 512 << 10 // larger buffers are not kept
)

// group is what is written and synced together. Its first member leads it.
type group struct {
	buf     []byte
	records int
	members int
	turn    chan struct{} // closed when the first member may lead
	full    chan struct{} // closed when nobody else is expected
	waiting bool          // for full
	done    chan struct{} // closed when first, err and entries are set
	first   uint64        // sequence
	err     error
	entries []entry
	marks   []uint64 // settled sequences that it takes along
}

// Append returns when payload is on the disk, with its sequence, which is higher than those of all that Append had
// returned before. It keeps no reference to payload. Appends that come while one is being synced are written
// and synced together.
//
// Errors are ErrFull, ErrFailing with its cause, ErrTooLarge and ErrClosed. After an error the record is not in the
// journal; only after a crash it may turn up.
func (l *Log) Append(payload []byte) (uint64, error) {
	if int64(recordSize(len(payload))) > l.cfg.SegmentBytes-firstRecord-l.reserve() {
		return 0, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload))
	}
	sum := crc32.Checksum(payload, castagnoli)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, ErrClosed
	}
	g := l.collecting(recordSize(len(payload)))
	g.buf = appendRecord(g.buf, kindRecord, payload, sum)
	i := g.records
	g.records++
	if err := l.join(g); err != nil {
		return 0, err
	}
	return g.first + uint64(i), nil
}

// reserve is the part of a segment that records leave to marks, so that settling goes on when the journal is full.
func (l *Log) reserve() int64 { return l.cfg.SegmentBytes / 16 }

func (l *Log) lastGroup() *group {
	if len(l.queue) == 0 {
		return nil
	}
	return l.queue[len(l.queue)-1]
}

// collecting returns the group that takes the next record, of so many bytes.
func (l *Log) collecting(size int) *group {
	limit := min(groupBytes, int(l.cfg.SegmentBytes-firstRecord-l.reserve()))
	g := l.lastGroup()
	if g != nil && len(g.buf) > 0 && len(g.buf)+size > limit {
		l.filled(g)
		g = nil
	}
	if g == nil {
		g = &group{turn: make(chan struct{}), full: make(chan struct{}), done: make(chan struct{})}
		if n := len(l.buffers); n > 0 {
			g.buf, l.buffers = l.buffers[n-1][:0], l.buffers[:n-1]
		}
		l.queue = append(l.queue, g)
	}
	return g
}

// join makes the caller a member of g and returns when g is done. l.mu is held on entry and on return.
func (l *Log) join(g *group) error {
	g.members++
	if g.members >= l.expected {
		l.filled(g)
	}
	if g.members > 1 || l.busy {
		first := g.members == 1
		l.mu.Unlock()
		if first {
			<-g.turn
		} else {
			<-g.done
		}
		l.mu.Lock()
		if !first {
			return g.err
		}
	}
	l.busy = true
	l.lead(g)
	return g.err
}

// filled ends the wait of g's leader for more members.
func (l *Log) filled(g *group) {
	if g.waiting {
		g.waiting = false
		close(g.full)
	}
}

// lead writes the group and hands over to the next. l.mu is held on entry and on return, not while the disk works.
func (l *Log) lead(g *group) {
	l.linger(g)
	l.queue = l.queue[1:]
	s, err := l.room(g)
	if err == nil {
		g.first = l.next
		l.takeMarks(g, s.size-s.end-int64(len(g.buf)))
		acked := l.acked
		l.mu.Unlock()
		err = l.commit(g, s, acked)
		l.mu.Lock()
		l.committed(g, s, err)
	}
	g.err = err
	if g.records > 0 || errors.Is(l.why, ErrFailing) && err == nil {
		l.why = err
	}
	if len(l.buffers) < 2 && cap(g.buf) <= bufferBytes {
		l.buffers = append(l.buffers, g.buf)
	}
	g.buf = nil
	close(g.done)
	l.released, l.expected = time.Now(), g.members
	l.busy = len(l.queue) > 0
	if l.busy {
		l.expected += l.queue[0].members
		close(l.queue[0].turn)
	}
}

// committed enters what the group wrote, or gives it up. l.mu is held.
func (l *Log) committed(g *group, s *segment, err error) {
	if len(g.entries)+len(g.marks) == 0 {
		return // there was nothing to write
	}
	l.next = g.first + uint64(g.records)
	if err != nil {
		// After a failed write or sync nobody knows what is on the disk and what only in the page cache. What stood in the
		// file is read on, but nothing is written behind it, and the group's sequences are not used again.
		l.active, l.stuck = nil, err
		l.pending = append(l.pending, g.marks...)
		l.armFlush()
		return
	}
	l.acked = l.next
	for i, e := range g.entries {
		s.enter(g.first+uint64(i), e)
	}
}

// linger waits for those whom the last group has just released: they come back at once, and without them the callers fall
// into two halves that take turns. Where syncs are slow that is an eighth of one at most; everywhere, those who are only waiting
// for a processor get it first.
func (l *Log) linger(g *group) {
	if !l.missing(g) {
		return
	}
	l.mu.Unlock()
	runtime.Gosched()
	l.mu.Lock()
	wait := time.Until(l.released.Add(l.took / lingerShare))
	if !l.missing(g) || l.took < slowSync || wait <= 0 {
		return
	}
	g.waiting = true
	l.mu.Unlock()
	timer := time.NewTimer(wait)
	select {
	case <-g.full:
	case <-timer.C:
	}
	timer.Stop()
	l.mu.Lock()
	g.waiting = false
}

// missing tells whether g will have more members soon.
func (l *Log) missing(g *group) bool { return g.members < l.expected && len(l.queue) == 1 }

// commit writes the group to the end of s and syncs it. Only the leader calls it, without l.mu.
func (l *Log) commit(g *group, s *segment, acked uint64) error {
	if len(g.buf) == 0 {
		return nil
	}
	g.entries = make([]entry, 0, g.records)
	end := s.end
	for rest := g.buf; len(rest) > 0; {
		n := sealRecord(rest, s.salt, end, g.first+uint64(len(g.entries)), acked)
		if rest[2] == kindRecord {
			g.entries = append(g.entries, entry{where: uint32(end), bytes: order.Uint32(rest[4:])})
		}
		end += int64(n)
		rest = rest[n:]
	}
	start := time.Now()
	_, err := s.file.WriteAt(g.buf, s.end)
	if err == nil {
		err = s.file.Sync()
	}
	l.took = time.Since(start)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFailing, err)
	}
	s.end = end
	return nil
}

// room returns a segment that takes the group. l.mu is held on entry and on return.
func (l *Log) room(g *group) (*segment, error) {
	size := int64(len(g.buf)) + l.reserve()
	if g.records == 0 {
		size = recordHeader + markBytes
	}
	if s := l.active; s != nil && s.size-s.end >= size {
		return s, nil
	}
	if l.stuck != nil {
		if time.Since(l.tried) < retryAfter {
			return nil, l.stuck
		}
		l.tried = time.Now()
	}
	if l.spare == nil {
		l.mu.Unlock()
		err := l.makeSpare()
		l.mu.Lock()
		if err == ErrFull { //nolint:errorlint // makeSpare's own, not one it wraps
			return nil, err
		}
		if err != nil {
			l.stuck = fmt.Errorf("%w: %w", ErrFailing, err)
			return nil, l.stuck
		}
	}
	s := l.spare
	l.spare, l.active, l.stuck = nil, s, nil
	l.segs = append(l.segs, s)
	l.tend()
	return s, nil
}
