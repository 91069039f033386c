package journal

import (
	"bytes"
	"io"
)

const windowBytes = 256 << 10

// zeros is what a new segment is filled with, and compared to.
var zeros [64 << 10]byte

// window reads a file through a buffer.
type window struct {
	r    io.ReaderAt
	size int64
	at   int64
	buf  []byte // what stands there
	room []byte
}

// peek returns n bytes at offset at, valid until the next call, or nil when the file ends before.
func (w *window) peek(at int64, n int) ([]byte, error) {
	if at+int64(n) > w.size {
		return nil, nil
	}
	if at < w.at || at+int64(n) > w.at+int64(len(w.buf)) {
		want := int(min(int64(max(n, windowBytes)), w.size-at))
		if cap(w.room) < want {
			w.room = make([]byte, want)
		}
		w.buf = nil
		k, err := w.r.ReadAt(w.room[:want], at)
		if k < want {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		w.at, w.buf = at, w.room[:want]
	}
	return w.buf[at-w.at:][:n], nil
}

// walker reads a segment from record to record.
type walker struct {
	window
	salt uint64
	end  int64  // behind the last record
	next uint64 // no sequence below it is believed
	some bool   // there was a record
}

// record returns the next one whose header holds, and whether bytes before it do not. Behind a header that
// does not hold it looks for the next that does. io.EOF when there is none.
func (w *walker) record() (r record, skipped bool, err error) {
	at := w.end
	for {
		b, err := w.peek(at, recordHeader)
		if err != nil {
			return record{}, false, err
		}
		if r, ok := decodeRecord(b, w.salt, at); ok && w.plausible(r, skipped) {
			b, err := w.peek(at, int(r.size))
			if err != nil {
				return record{}, false, err
			}
			r.decodePayload(b)
			// A damaged one with a sound header is told as such: its length leads to the next. One that was found by
			// looking around has to be sound in all.
			if !skipped || !r.damaged {
				w.end, w.some, w.next = at+r.size, true, r.seq
				if r.kind == kindRecord {
					w.next++
				}
				return r, skipped, nil
			}
		}
		skipped = true
		if at, err = w.search(at + 8); err != nil {
			return record{}, false, err
		}
	}
}

// plausible tells whether a record with a sound header may stand where it was found. Sequences never fall, and within a
// segment none is left out, so no more can be missing than there was room for.
func (w *walker) plausible(r record, skipped bool) bool {
	if r.size > w.size-r.at || r.seq < w.next {
		return false
	}
	missing := r.seq - w.next
	return !w.some || missing == 0 || skipped && missing <= uint64(r.at-w.end)/recordHeader
}

// search returns the next place from at on that begins like a record, io.EOF if there is none.
func (w *walker) search(at int64) (int64, error) {
	for at < w.size {
		b, err := w.peek(at, int(min(int64(len(zeros)), w.size-at)))
		if err != nil {
			return 0, err
		}
		i := bytes.IndexByte(b, recordMagic[0])
		if i < 0 {
			at += int64(len(b))
			continue
		}
		at += int64(i)
		if at%8 == 0 {
			return at, nil
		}
		at = (at + 7) &^ 7
	}
	return 0, io.EOF
}

// rest returns where the last byte that is not zero ends, from offset at on; at if all are zero.
func (w *window) rest(at int64) (int64, error) {
	end := at
	for at < w.size {
		b, err := w.peek(at, int(min(int64(len(zeros)), w.size-at)))
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(b, zeros[:len(b)]) { // quicker than to look for the last one everywhere
			end = at + int64(len(bytes.TrimRight(b, "\x00")))
		}
		at += int64(len(b))
	}
	return end, nil
}
