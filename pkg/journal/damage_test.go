package journal_test

import (
	"bytes"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gembridge/bridge/pkg/journal"
)

const dir = "/data/journal/nats"

// filled returns a file system with a closed journal of some segments, what waits in it, and all that was offered. There are
// groups and single records, and marks in the same and in later segments.
func filled(t *testing.T) (*memFS, map[string]uint64, map[string]bool) {
	t.Helper()
	m := newModel(t, 7, "filled")
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		m.append(1)
		m.append(3)
		for p, seq := range m.acked {
			if seq%3 == 0 {
				m.log.Settle(seq)
				delete(m.acked, p)
			}
		}
	}
	m.append(6)
	if err := m.log.Close(); err != nil {
		t.Fatal(err)
	}
	return m.fs, m.acked, m.offered
}

// with returns a file system with these segments.
func with(segments map[string][]byte) *memFS {
	m := newMemFS(1)
	for _, name := range []string{"/data", "/data/journal", dir} {
		m.names[name] = &inode{dir: true}
	}
	for name, b := range segments {
		m.names[name] = &inode{bytes: slices.Clone(b), disk: slices.Clone(b), dirty: map[int]bool{}}
	}
	m.durable = maps.Clone(m.names)
	return m
}

// openMem opens what is on a file system in memory.
func openMem(t *testing.T, m *memFS) *journal.Log {
	t.Helper()
	return open(t, journal.Config{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: segment, FS: m})
}

func payloads(t *testing.T, l *journal.Log) map[string]uint64 {
	t.Helper()
	got := map[string]uint64{}
	if err := l.Read(0, func(seq uint64, payload []byte) error {
		got[string(payload)] = seq
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// One bit of any byte: at most that record is missing, it is reported, and nothing is invented. A mark may be
// forgotten.
func TestOneBit(t *testing.T) {
	m, want, offered := filled(t)
	segments := m.segments()
	bits := 0
	for name, b := range segments {
		end := len(bytes.TrimRight(b, "\x00"))
		for at := range min(end+40, len(b)) {
			if at%7 > 0 && (at < 4096 || at > 4300) || at >= 64 && at < 4096 { // there are zeros between the headers
				continue
			}
			bit := byte(1) << (at % 8)
			bits++
			b[at] ^= bit
			l := openMem(t, with(segments))
			got, u := payloads(t, l), l.Usage()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			b[at] ^= bit
			missing := 0
			for p, seq := range want {
				if got[p] != seq {
					missing++
				}
			}
			for p := range got {
				if !offered[p] {
					t.Errorf("%s, bit %d of byte %d: invented %q", filepath.Base(name), at%8, at, p)
				}
			}
			if missing > 1 || missing > int(u.Damaged) && u.TornBytes == 0 {
				t.Errorf("%s, bit %d of byte %d: %d missing, %d damaged, %d bytes torn", filepath.Base(name), at%8, at, missing, u.Damaged, u.TornBytes)
			}
		}
	}
	if bits < 5000 {
		t.Errorf("%d bits only", bits)
	}
}

// A record whose bytes change while the journal is open.
func TestDamageFoundLater(t *testing.T) {
	m := newMemFS(1)
	l := openMem(t, m)
	appends(t, l, "one", "two", "three", "four")
	b := m.segments()[onlySegment]
	b[bytes.Index(b, []byte("two"))] = 'x'
	b[bytes.Index(b, []byte("three"))-20] ^= 1 // its sequence
	for range 2 {
		if _, err := l.Get(2); !errors.Is(err, journal.ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	}
	if got, want := read(t, l, 0), []string{"1 one", "4 four"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if u := l.Usage(); u.Damaged != 2 || u.Records != 2 {
		t.Errorf("got %+v, want 2 damaged and 2 left", u)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openMem(t, m)
	if u := l.Usage(); u.Damaged != 2 || u.Records != 2 {
		t.Errorf("opened again: %+v, want 2 damaged and 2 left", u)
	}
}

// A segment with damage is kept under another name when its sound records are settled.
func TestDamagedSegmentIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS(1)
		l := openMem(t, m)
		seqs := appends(t, l, "one", "two")
		b := m.segments()[onlySegment]
		b[bytes.Index(b, []byte("one"))] = 'x'
		if _, err := l.Get(seqs[0]); !errors.Is(err, journal.ErrDamaged) {
			t.Fatal(err)
		}
		for l.Usage().Bytes < 4*segment { // two are in use no more
			seqs = append(seqs, appends(t, l, strings.Repeat("x", 1000))...)
			synctest.Wait()
		}
		l.Settle(seqs...)
		synctest.Wait()
		names, err := m.List(dir)
		slices.Sort(names)
		want := []string{"00000000000000000001.damaged", "00000000000000000003.seg", "00000000000000000004.seg"}
		if !slices.Equal(names, want) || err != nil {
			t.Errorf("got %q, %v, want %q", names, err, want)
		}
	})
}

func TestDamagedHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil    func(b []byte) []byte
		segment  int // which one
		missing  bool
		reported bool
	}{
		"first copy":             {spoil: spoil(3)},
		"second copy":            {spoil: spoil(4096 + 30)},
		"both, first segment":    {spoil: spoil(3, 4096+30), missing: true, reported: true},
		"both, middle segment":   {spoil: spoil(3, 4096+30), segment: 1, missing: true, reported: true},
		"empty file":             {spoil: func(b []byte) []byte { return nil }, segment: 1, missing: true, reported: true},
		"zeros":                  {spoil: func(b []byte) []byte { return make([]byte, len(b)) }, segment: 1, missing: true, reported: true},
		"cut in the header":      {spoil: func(b []byte) []byte { return b[:40] }, segment: 1, missing: true, reported: true},
		"cut before the records": {spoil: func(b []byte) []byte { return b[:4160] }, segment: 1, missing: true, reported: true},
		"cut in the records":     {spoil: func(b []byte) []byte { return b[:9000] }, segment: 1, missing: true, reported: true},
		"a page of zeros":        {spoil: func(b []byte) []byte { clear(b[8192:12288]); return b }, segment: 1, missing: true, reported: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, want, offered := filled(t)
			segments := m.segments()
			names := slices.Sorted(maps.Keys(segments))
			segments[names[tt.segment]] = tt.spoil(segments[names[tt.segment]])
			m = with(segments)
			l := openMem(t, m)
			got := payloads(t, l)
			missing := 0
			for p, seq := range want {
				if got[p] != seq {
					missing++
				}
			}
			for p := range got {
				if !offered[p] {
					t.Errorf("invented %q", p)
				}
			}
			if u := l.Usage(); (missing > 0) != tt.missing || (u.Damaged > 0) != tt.reported {
				t.Errorf("%d of %d missing, %d damaged", missing, len(want), u.Damaged)
			}
			// It goes on, also after another start.
			seq := appends(t, l, "afterwards")[0]
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openMem(t, m)
			if again := payloads(t, l); again["afterwards"] != seq || len(again) != len(got)+1 {
				t.Errorf("%d records after another start, want %d", len(again), len(got)+1)
			}
		})
	}
}

func spoil(at ...int) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, i := range at {
			b[i] ^= 0x10
		}
		return b
	}
}
