package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/journal"
)

// A newer version is refused, and nothing is changed.
func TestNewer(t *testing.T) {
	m, _, _ := filled(t)
	segments := m.segments()
	name := slices.Sorted(maps.Keys(segments))[1]
	for _, at := range []int{0, 4096} {
		h := segments[name][at:][:64]
		h[8] = 2
		binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], crc32.MakeTable(crc32.Castagnoli)))
	}
	m = with(segments)
	before, _ := m.counts()
	_, err := journal.Open(journal.Config{Dir: dir, MaxBytes: many, SegmentBytes: segment, FS: m})
	if !errors.Is(err, journal.ErrNewer) || !strings.Contains(err.Error(), filepath.Base(name)) {
		t.Errorf("got %v, want ErrNewer and the file's name", err)
	}
	for n, b := range m.segments() {
		if !bytes.Equal(b, segments[n]) {
			t.Errorf("%s was changed", n)
		}
	}
	if after, _ := m.counts(); after > before+10 {
		t.Errorf("%d operations", after-before)
	}

	real := t.TempDir()
	for n, b := range segments {
		if err := os.WriteFile(filepath.Join(real, filepath.Base(n)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := journal.Scan(real, func(journal.Record) error { return nil }); !errors.Is(err, journal.ErrNewer) {
		t.Errorf("Scan: %v, want ErrNewer", err)
	}
}

// A payload that holds records, made by somebody who knows the format and the sequences, but not the segment's salt; or
// who has read the segment and writes its records to another place in it. The header before it is destroyed.
func TestForgery(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	type forger func(header []byte, salt []byte, at int) uint32
	seeded := func(header, salt []byte, at int) uint32 {
		seed := binary.LittleEndian.AppendUint64(bytes.Clone(salt), uint64(at))
		return crc32.Update(crc32.Checksum(seed, table), table, header)
	}
	for name, tt := range map[string]struct {
		sum      forger
		accepted bool // the forger knows all: the test itself is sound
	}{
		"no salt":       {sum: func(h, _ []byte, _ int) uint32 { return crc32.Checksum(h, table) }},
		"another salt":  {sum: func(h, _ []byte, at int) uint32 { return seeded(h, make([]byte, 8), at) }},
		"another place": {sum: func(h, salt []byte, at int) uint32 { return seeded(h, salt, at+8) }},
		"all known":     {sum: seeded, accepted: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemFS(1)
			l := openMem(t, m)
			appends(t, l, "one")
			salt := m.segments()[onlySegment][32:40]
			const at = 4160 + 40 // of the record that carries the forged ones
			var payload []byte
			for seq := range uint64(30) {
				r := make([]byte, 32, 40)
				copy(r, "\xffr\x01\x00\x04")
				binary.LittleEndian.PutUint64(r[8:], seq)
				binary.LittleEndian.PutUint64(r[16:], seq)
				binary.LittleEndian.PutUint32(r[24:], crc32.Checksum([]byte("evil"), table))
				binary.LittleEndian.PutUint32(r[28:], tt.sum(r[:28], salt, at+32+len(payload)))
				payload = append(payload, append(r, "evil\x00\x00\x00\x00"...)...)
			}
			if _, err := l.Append(payload); err != nil {
				t.Fatal(err)
			}
			appends(t, l, "last")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			m.segments()[onlySegment][at+5] ^= 1
			l = openMem(t, m)
			got := read(t, l, 0)
			if forged := len(got) > 1 && strings.Contains(strings.Join(got, " "), "evil"); forged != tt.accepted {
				t.Errorf("got %q", got)
			}
			if !tt.accepted && (!slices.Equal(got, []string{"1 one", "3 last"}) || l.Usage().Damaged != 1) {
				t.Errorf("got %q, %+v", got, l.Usage())
			}
		})
	}
}

// What is behind the last sound record is left as it is.
func TestTornTail(t *testing.T) {
	for name, spoil := range map[string]func([]byte){
		"payload": func(b []byte) { b[bytes.Index(b, []byte("three"))] = 'x' },
		"header":  func(b []byte) { b[bytes.Index(b, []byte("three"))-1] ^= 1 },
		"beyond":  func(b []byte) { b[segment-1] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemFS(1)
			l := openMem(t, m)
			appends(t, l, "one", "two", "three")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(m.segments()[onlySegment])
			before := bytes.Clone(m.segments()[onlySegment])
			l = openMem(t, m)
			if u := l.Usage(); u.TornBytes == 0 || u.Damaged != 0 {
				t.Errorf("got %+v, want torn bytes", u)
			}
			want := append(read(t, l, 0), fmt.Sprint(appends(t, l, "four")[0], " four"))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.segments()[onlySegment], before) {
				t.Error("the segment was written again")
			}
			l = openMem(t, m)
			if got, u := read(t, l, 0), l.Usage(); !slices.Equal(got, want) || len(got) < 3 || u.Damaged != 0 {
				t.Errorf("got %q, %+v, want %q", got, u, want)
			}
		})
	}
}
