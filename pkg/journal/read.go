package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// errRemoved says that a segment was settled and removed while it was read.
var errRemoved = errors.New("segment removed")

// Get returns the payload of a record that is not settled. The caller owns it.
//
// Errors are ErrGone, ErrDamaged, ErrClosed, and the file system's when the bytes could not be read this time. A record found
// damaged is counted, and no longer among those that wait.
func (l *Log) Get(seq uint64) ([]byte, error) {
	l.mu.Lock()
	s := l.find(seq)
	var e entry
	if s != nil {
		e = s.entries[seq-s.base]
	}
	closed := l.closed
	l.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClosed
	case s == nil || e.where&stateSettled != 0:
		return nil, ErrGone
	case !e.waiting():
		return nil, fmt.Errorf("%w: %d", ErrDamaged, seq)
	}
	b := make([]byte, recordSize(int(e.bytes)))
	if _, err := s.file.ReadAt(b, e.at()); err != nil {
		if err = l.unreadable(seq, err); errors.Is(err, errRemoved) {
			err = ErrGone
		}
		return nil, err
	}
	return l.check(s, seq, e, b)
}

// check returns the payload in b, which was read from e of s.
func (l *Log) check(s *segment, seq uint64, e entry, b []byte) ([]byte, error) {
	if r, ok := decodeRecord(b, s.salt, e.at()); ok && r.seq == seq && r.size == int64(len(b)) {
		if r.decodePayload(b); !r.damaged {
			return r.payload, nil
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := &s.entries[seq-s.base]; e.waiting() {
		e.where |= stateDamaged
		s.unsettled--
		s.damaged++
		l.damaged++
		if l.frontSettled() {
			l.tend()
		}
	}
	return nil, fmt.Errorf("%w: %d", ErrDamaged, seq)
}

// unreadable tells why a record could not be read: errRemoved, ErrClosed, or the file system's error.
func (l *Log) unreadable(seq uint64, err error) error {
	if !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("journal record %d: %w", seq, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return errRemoved
}

// Read calls fn with every record from sequence from on that is not settled, in order of sequence. It sees those that were
// appended before the call; one that is settled meanwhile may be among them. Damaged ones are left out and counted. The
// payload is valid during fn only. fn may call the Log.
//
// It returns fn's error at once, ErrClosed, or the file system's.
func (l *Log) Read(from uint64, fn func(seq uint64, payload []byte) error) error {
	l.mu.Lock()
	segs, closed := slices.Clone(l.segs), l.closed
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	for _, s := range segs {
		if err := l.readSegment(s, from, fn); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) readSegment(s *segment, from uint64, fn func(uint64, []byte) error) error {
	l.mu.Lock()
	base, entries := s.base, slices.Clone(s.entries)
	l.mu.Unlock()
	w := window{r: s.file, size: s.size}
	for i, e := range entries {
		seq := base + uint64(i)
		if seq < from || !e.waiting() {
			continue
		}
		b, err := w.peek(e.at(), recordSize(int(e.bytes)))
		if err != nil {
			if err = l.unreadable(seq, err); errors.Is(err, errRemoved) {
				return nil
			}
			return err
		}
		payload, err := l.check(s, seq, e, b)
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err := fn(seq, payload); err != nil {
			return err
		}
	}
	return nil
}
