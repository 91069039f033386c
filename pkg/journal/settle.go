package journal

import (
	"hash/crc32"
	"slices"
	"time"
)

const marksBytes = 64 << 10 // in one group

// Settle gives up the records: they are not read again, and their space is used again once all before them are settled too. It
// never waits for the disk and never fails. The mark is written with the next group, or within a second; a crash before
// that brings the record back. Sequences that are unknown or settled are ignored.
func (l *Log) Settle(seqs ...uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for _, seq := range seqs {
		if s := l.find(seq); s != nil && s.settle(seq) {
			l.pending = append(l.pending, seq)
		}
	}
	l.armFlush()
	if l.frontSettled() {
		l.tend()
	}
}

// armFlush has pending marks written if no group takes them along. l.mu is held.
func (l *Log) armFlush() {
	if len(l.pending) == 0 || l.flush != nil || l.closed {
		return
	}
	l.flush = time.AfterFunc(flushAfter, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.flush = nil
		if len(l.pending) > 0 && !l.closed {
			_ = l.join(l.collecting(0)) // after an error they are still pending
			l.armFlush()
		}
	})
}

// takeMarks adds a record with pending marks to the group, of at most room bytes. l.mu is held.
func (l *Log) takeMarks(g *group, room int64) {
	// What is gone needs no mark.
	l.pending = slices.DeleteFunc(l.pending, func(seq uint64) bool { return l.find(seq) == nil })
	n := int(min(room-recordHeader, marksBytes) / markBytes)
	if len(l.pending) == 0 || n <= 0 {
		return
	}
	rs := runs(l.pending)
	rs = rs[:min(n, len(rs))]
	last := rs[len(rs)-1]
	i, _ := slices.BinarySearch(l.pending, last.first+last.count)
	g.marks = slices.Clone(l.pending[:i])
	l.pending = slices.Delete(l.pending, 0, i)
	marks := encodeMarks(rs)
	g.buf = appendRecord(g.buf, kindMarks, marks, crc32.Checksum(marks, castagnoli))
}
