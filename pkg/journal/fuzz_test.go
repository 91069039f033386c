package journal_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/gembridge/bridge/pkg/journal"
)

const onlySegment = dir + "/00000000000000000001.seg"

// FuzzSegment opens whatever stands behind a sound segment header. With resealed, every place that looks like a record
// gets the right checksums, so that what is behind them is reached.
func FuzzSegment(f *testing.F) {
	table := crc32.MakeTable(crc32.Castagnoli)
	m := newMemFS(1)
	l, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: segment, FS: m})
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range []string{"one", "", "three"} {
		if _, err := l.Append([]byte(p)); err != nil {
			f.Fatal(err)
		}
	}
	l.Settle(1, 3)
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	sound := m.segments()[onlySegment]
	records := bytes.TrimRight(sound[4160:], "\x00")
	f.Add(records, false)
	f.Add(records, true)
	f.Add(append(bytes.Clone(records), records...), true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, resealed bool) {
		if len(b) > 64<<10 {
			return
		}
		b = append(bytes.Clone(sound[:4160]), b...)
		if resealed {
			for at := 4160; at+32 <= len(b); at += 8 {
				if r := b[at:]; r[0] == 0xff && r[1] == 'r' {
					if n := binary.LittleEndian.Uint32(r[4:]); int64(n) <= int64(len(r)-32) {
						binary.LittleEndian.PutUint32(r[24:], crc32.Checksum(r[32:32+n], table))
					}
					var seed [16]byte
					copy(seed[:8], b[32:])
					binary.LittleEndian.PutUint64(seed[8:], uint64(at))
					binary.LittleEndian.PutUint32(r[28:], crc32.Update(crc32.Checksum(seed[:], table), table, r[:28]))
				}
			}
		}
		m := with(map[string][]byte{onlySegment: b})
		l, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: segment, FS: m})
		if err != nil {
			t.Fatal(err)
		}
		n, last := 0, uint64(0)
		if err := l.Read(0, func(seq uint64, payload []byte) error {
			if seq < last || n > 0 && seq == last || !bytes.Contains(b, payload) {
				t.Errorf("%d after %d, %q", seq, last, payload)
			}
			n, last = n+1, seq
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if u := l.Usage(); u.Records != n {
			t.Errorf("Usage says %d records, Read found %d", u.Records, n)
		}
		seq, err := l.Append([]byte("afterwards"))
		if err != nil || n > 0 && seq <= last {
			t.Fatal(seq, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = journal.Open(journal.Config{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: segment, FS: m}); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Get(seq); string(got) != "afterwards" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if u := l.Usage(); u.Records != n+1 {
			t.Errorf("%d records after another start, want %d", u.Records, n+1)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzPayload destroys the header in front of a payload: whatever that is, no record comes out of it.
func FuzzPayload(f *testing.F) {
	f.Add([]byte("payload"), byte(0))
	f.Add(bytes.Repeat([]byte{0xff, 'r', 1, 0, 0, 0, 0, 0}, 40), byte(28))
	f.Fuzz(func(t *testing.T, p []byte, at byte) {
		m := newMemFS(1)
		l := openMem(t, m)
		if len(p) > segment/2 {
			return
		}
		for _, p := range [][]byte{[]byte("first"), p, []byte("last")} {
			if _, err := l.Append(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		segments := m.segments()
		if bytes.Contains(segments[onlySegment], []byte("first")) { // else the group did not fit behind it
			segments[onlySegment][4160+40+int(at)%32] ^= 0x80
		}
		l = openMem(t, with(segments))
		if got := read(t, l, 0); len(got) != 2 || got[0] != "1 first" || got[1] != "3 last" || l.Usage().Damaged != 1 {
			if at%32 != 3 || len(got) != 3 { // byte 3 is covered too
				t.Errorf("got %q, %+v", got, l.Usage())
			}
		}
		_ = l.Close()
	})
}
