package journal

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// index knows where every record is.
type index struct {
	segs    []*segment // by serial, and so by sequence
	next    uint64     // sequence of the next record
	acked   uint64     // all below it have been acknowledged, or given up
	damaged uint64
	torn    int64
}

// segment is one file.
type segment struct {
	header
	name      string
	file      File
	size      int64
	end       int64  // where the next record goes
	clean     bool   // nothing but zeros from there on, when it was opened
	group     int64  // where its last group begins, when it was opened; 0 without one
	next      uint64 // the sequence that follows its last record, when it was opened
	base      uint64
	entries   []entry // of base, base+1, …
	unsettled int
	damaged   int
}

// entry is where a record stands. The zero entry is one of which nothing is left.
type entry struct {
	where uint32 // offset, a multiple of 8, and the state in the low bits
	bytes uint32 // of the payload
}

const (
	stateSettled = 1 << iota
	stateDamaged
	stateMask = 7
)

func (e entry) at() int64     { return int64(e.where &^ stateMask) }
func (e entry) waiting() bool { return e.where != 0 && e.where&stateMask == 0 }

// segmentName is the name of the file with this serial.
func segmentName(dir string, serial uint64) string {
	digits := strconv.FormatUint(serial, 10)
	return filepath.Join(dir, strings.Repeat("0", 20-len(digits))+digits+segmentSuffix)
}

const (
	segmentSuffix = ".seg"
	damagedSuffix = ".damaged" // a segment that held damage, kept when its sound records are settled
	preparedName  = "next.tmp"
)

// serials returns those of the segment files among names, ascending.
func serials(names []string) []uint64 {
	var ns []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && segmentName("", n) == name {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns
}

// openSegment opens a segment and reads its header. Its error is errHeader when that does not hold.
func openSegment(fsys FS, name string, flag int) (*segment, error) {
	f, err := fsys.Open(name, flag)
	if err != nil {
		return nil, err
	}
	s := &segment{name: name, file: f}
	if s.size, err = f.Size(); err == nil {
		s.size = min(s.size, maxSegmentBytes)
		s.header, err = readHeader(f, s.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func readHeader(r io.ReaderAt, size int64) (header, error) {
	for _, at := range []int64{0, headerCopy} {
		if at+segmentHeader > size {
			continue
		}
		var b [segmentHeader]byte
		if _, err := r.ReadAt(b[:], at); err != nil {
			return header{}, err
		}
		if h, err := decodeHeader(b[:]); !errors.Is(err, errHeader) {
			return h, err
		}
	}
	return header{}, errHeader
}

// add reads a segment through, which comes after all that were added, and owns it from then on.
func (x *index) add(s *segment) error {
	w := walker{window: window{r: s.file, size: s.size}, salt: s.salt, end: firstRecord, next: max(x.next, s.floor)}
	x.segs = append(x.segs, s)
	var doubtful []record // sound headers with a damaged payload, and nothing sound behind them yet
	lost := false         // there are bytes before them that make no record
	for {
		r, skipped, err := w.record()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		lost = lost || skipped
		doubtful = append(doubtful, r)
		if r.damaged {
			continue
		}
		before := x.damaged
		for _, r := range doubtful {
			x.place(s, r)
		}
		if lost && x.damaged == before { // marks, or a record whose sequence nothing tells
			x.damaged++
			s.damaged++
		}
		doubtful, lost = doubtful[:0], false
	}
	s.end = w.end
	if len(doubtful) > 0 {
		s.end = doubtful[0].at
	}
	rest, err := w.rest(s.end)
	if err != nil {
		return err
	}
	s.clean, s.next = rest == s.end, x.next
	x.torn += rest - s.end
	return nil
}

// place enters a record of s, and counts those that are missing before it.
func (x *index) place(s *segment, r record) {
	if len(s.entries) == 0 {
		x.giveUp(r.acked)
	}
	missing := r.seq
	if len(s.entries) == 0 { // what had not been acknowledged when this segment began was given up
		missing = min(r.seq, r.acked)
	}
	if x.next != 0 && missing > x.next {
		x.damaged += missing - x.next
		s.damaged++
	}
	if s.group == 0 || r.acked == r.seq || r.acked != x.acked {
		s.group = r.at
	}
	x.acked = r.acked
	x.next = r.seq
	switch {
	case r.kind == kindMarks && r.damaged:
		x.damaged++
		s.damaged++
	case r.kind == kindMarks:
		for _, m := range decodeMarks(r.payload) {
			x.settle(m)
		}
	default:
		x.next++
		e := entry{where: uint32(r.at), bytes: uint32(len(r.payload))}
		if r.damaged {
			e.where |= stateDamaged
			x.damaged++
			s.damaged++
		}
		s.enter(r.seq, e)
	}
}

// enter adds an entry. Sequences between the last one and seq are missing.
func (s *segment) enter(seq uint64, e entry) {
	if len(s.entries) == 0 {
		s.base = seq
	}
	for s.base+uint64(len(s.entries)) < seq {
		s.entries = append(s.entries, entry{})
	}
	s.entries = append(s.entries, e)
	if e.waiting() {
		s.unsettled++
	}
}

// giveUp forgets records from seq on: their group failed, nobody was told that they are durable, and their bytes may be
// in the page cache only.
func (x *index) giveUp(seq uint64) {
	for _, s := range slices.Backward(x.segs) {
		for n := len(s.entries); n > 0 && s.base+uint64(n) > seq; n-- {
			if s.entries[n-1].waiting() {
				s.unsettled--
			}
			s.entries = s.entries[:n-1]
		}
	}
}

// settle marks those of a run that exist and wait.
func (x *index) settle(m run) {
	for _, s := range x.segs {
		if len(s.entries) == 0 || m.first+m.count < m.first {
			continue
		}
		from, to := max(m.first, s.base), min(m.first+m.count, s.base+uint64(len(s.entries)))
		for seq := from; seq < to; seq++ {
			s.settle(seq)
		}
	}
}

// settle marks a record of s and tells whether it had been waiting.
func (s *segment) settle(seq uint64) bool {
	e := &s.entries[seq-s.base]
	if !e.waiting() {
		return false
	}
	e.where |= stateSettled
	s.unsettled--
	return true
}

// find returns the segment that holds seq, nil if none does.
func (x *index) find(seq uint64) *segment {
	for _, s := range slices.Backward(x.segs) {
		if len(s.entries) > 0 && seq >= s.base {
			if seq-s.base < uint64(len(s.entries)) {
				return s
			}
			return nil
		}
	}
	return nil
}

// records returns how many are not settled.
func (x *index) records() int {
	n := 0
	for _, s := range x.segs {
		n += s.unsettled
	}
	return n
}
