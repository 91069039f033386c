package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const pageBytes = 4096

// recover reads what is there, and makes sure that it stays.
func (l *Log) recover() error {
	names, err := l.cfg.FS.List(l.cfg.Dir)
	if err != nil {
		return err
	}
	for _, n := range serials(names) {
		l.serial = n
		if err := l.recoverSegment(segmentName(l.cfg.Dir, n)); err != nil {
			return err
		}
	}
	if err := l.reassert(); err != nil {
		return err
	}
	l.acked = l.next
	for _, s := range l.segs { // a group that failed may have used sequences that no record shows
		l.next = max(l.next, s.floor)
	}
	l.next = max(l.next, 1)
	if l.acked == 0 { // no record at all
		l.acked = l.next
	}
	// What was made or removed by a process that was killed before its own sync.
	if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
		return err
	}
	l.resume()
	return nil
}

func (l *Log) recoverSegment(name string) error {
	s, err := openSegment(l.cfg.FS, name, os.O_RDWR)
	if errors.Is(err, errHeader) {
		// Without a header no record can be told from what only looks like one. How many there were shows in the
		// sequences that follow, if any do.
		l.damaged++
		return l.discard(name, true)
	}
	if err == nil {
		err = l.add(s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}

// reassert writes the last group again, byte for byte, and syncs it. The process that wrote it may have been killed before
// its sync, or the sync had failed, and then the kernel takes pages for clean that never reached the disk: only
// a new write makes it try again. Of every other group a later one says that it was synced or given up.
func (l *Log) reassert() error {
	for _, s := range slices.Backward(l.segs) {
		if s.group == 0 {
			continue
		}
		at := s.group &^ (pageBytes - 1)
		b := make([]byte, s.end-at)
		if _, err := s.file.ReadAt(b, at); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(b, at); err != nil {
			return err
		}
		return s.file.Sync()
	}
	return nil
}

// resume goes on in the newest segment, if nothing is behind its last record: what is there might be taken for damage
// once records follow it. Nor if the next sequence does not follow the last one there, for within a segment none is
// left out.
func (l *Log) resume() {
	if s := l.usable(); s != nil && s.end == firstRecord {
		l.segs, l.spare = l.segs[:len(l.segs)-1], s
	}
	if s := l.usable(); s != nil && s.next == l.next {
		l.active = s
	}
}

// usable returns the newest segment if there is nothing behind its end, else nil.
func (l *Log) usable() *segment {
	if n := len(l.segs); n > 0 && l.segs[n-1].clean && l.segs[n-1].size == l.cfg.SegmentBytes {
		return l.segs[n-1]
	}
	return nil
}

// makeSpare removes segments that are done with and prepares the next one, unless there is one. ErrFull says that there is
// no room for it within MaxBytes.
func (l *Log) makeSpare() error {
	l.files.Lock()
	defer l.files.Unlock()
	if err := l.removeSettled(); err != nil {
		return err
	}
	l.mu.Lock()
	there, full := l.spare != nil, l.bytes()+l.cfg.SegmentBytes > l.cfg.MaxBytes
	h := header{floor: l.next}
	l.mu.Unlock()
	if there {
		return nil
	}
	if full {
		return ErrFull
	}
	l.serial++ // one that failed may be there after a crash
	h.serial = l.serial
	s, err := l.newSegment(h)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = s
	return nil
}

// newSegment makes a segment in which all blocks are written, so that later a sync needs to write no more than the
// records, and a full disk shows now.
func (l *Log) newSegment(h header) (*segment, error) {
	var salt [8]byte
	_, _ = rand.Read(salt[:]) // never fails
	h.salt = order.Uint64(salt[:])
	prepared := filepath.Join(l.cfg.Dir, preparedName)
	_ = l.cfg.FS.Remove(prepared) // one that failed
	f, err := l.cfg.FS.Open(prepared, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	name := prepared
	err = func() error {
		for at := int64(0); at < l.cfg.SegmentBytes; {
			n, err := f.WriteAt(zeros[:min(int64(len(zeros)), l.cfg.SegmentBytes-at)], at)
			if err != nil {
				return err
			}
			at += int64(n)
		}
		for _, at := range []int64{0, headerCopy} {
			if _, err := f.WriteAt(h.encode(), at); err != nil {
				return err
			}
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := l.cfg.FS.Rename(prepared, segmentName(l.cfg.Dir, h.serial)); err != nil {
			return err
		}
		name = segmentName(l.cfg.Dir, h.serial)
		return l.cfg.FS.SyncDir(l.cfg.Dir)
	}()
	if err != nil {
		return nil, errors.Join(err, f.Close(), l.cfg.FS.Remove(name))
	}
	return &segment{header: h, name: name, file: f, size: l.cfg.SegmentBytes, end: firstRecord, clean: true}, nil
}

// removeSettled deletes segments from the front while all their records are settled. From the front only: then the marks
// in a segment that goes are of records that are gone. l.files is held.
func (l *Log) removeSettled() error {
	for {
		l.mu.Lock()
		if !l.frontSettled() {
			l.mu.Unlock()
			return nil
		}
		s := l.segs[0]
		damaged := s.damaged > 0
		l.mu.Unlock()
		if err := l.discard(s.name, damaged); err != nil {
			return err
		}
		// Before the next one goes, and before pending marks of its records are forgotten.
		if err := l.cfg.FS.SyncDir(l.cfg.Dir); err != nil {
			return err
		}
		l.mu.Lock()
		l.segs = l.segs[1:]
		if errors.Is(l.why, ErrFull) {
			l.why = nil
		}
		l.mu.Unlock()
		_ = s.file.Close() // it was read only, or its failure is known
	}
}

// discard deletes a segment, but one with damage gets another name: it may hold what a human can still read.
func (l *Log) discard(name string, damaged bool) (err error) {
	if damaged {
		err = l.cfg.FS.Rename(name, strings.TrimSuffix(name, segmentSuffix)+damagedSuffix)
	} else {
		err = l.cfg.FS.Remove(name)
	}
	if errors.Is(err, os.ErrNotExist) { // done before, when the sync that followed failed
		return nil
	}
	return err
}

// frontSettled tells whether the first segment can go. l.mu is held.
func (l *Log) frontSettled() bool {
	return len(l.segs) > 1 && l.segs[0] != l.active && l.segs[0].unsettled == 0
}

// tend removes and prepares segments in the background. l.mu is held.
func (l *Log) tend() {
	l.again = true
	if l.tending || l.closed {
		return
	}
	l.tending = true
	l.background.Go(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for l.again && !l.closed {
			l.again = false
			l.mu.Unlock()
			_ = l.makeSpare() // the append that needs it tries again, and tells
			l.mu.Lock()
		}
		l.tending = false
	})
}
