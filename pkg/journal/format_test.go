package journal_test

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/journal"
)

// version1 is a segment as docs/journal-format.md has it, with the salt 0102030405060708.
const version1 = `
0: ff6a6f75726e616c 01000000 00000000 0100000000000000 0100000000000000 0102030405060708 0000000000000000000000000000000000000000 HEAD
4096: ff6a6f75726e616c 01000000 00000000 0100000000000000 0100000000000000 0102030405060708 0000000000000000000000000000000000000000 HEAD
4160: ff720100 03000000 0100000000000000 0100000000000000 SUM3 REC 6f6e65 0000000000
4200: ff720100 00000000 0200000000000000 0200000000000000 SUM0 REC
4232: ff720200 10000000 0300000000000000 0300000000000000 SUM16 REC 0100000000000000 0100000000000000
4280: ff720100 08000000 0300000000000000 0300000000000000 SUM8 REC 6569676874206279`

// Version 1 is what the documentation says, and is read for ever.
func TestFormat(t *testing.T) {
	want := make([]byte, segment)
	for line := range strings.Lines(strings.TrimSpace(version1)) {
		place, words, _ := strings.Cut(strings.TrimSpace(line), ": ")
		at := 0
		for _, digit := range place {
			at = at*10 + int(digit-'0')
		}
		start, sumAt := at, 0
		for word := range strings.FieldsSeq(words) {
			switch {
			case word == "HEAD":
				at += putCRC(want[at:], want[start:at])
			case strings.HasPrefix(word, "SUM"):
				sumAt = at
				at += 4
			case word == "REC": // with the payload's, once that is known
				at += 4
			default:
				b, err := hex.DecodeString(word)
				if err != nil {
					t.Fatal(err)
				}
				at += copy(want[at:], b)
			}
		}
		if sumAt > 0 {
			n := int(want[start+4])
			putCRC(want[sumAt:], want[start+32:start+32+n])
			putCRC(want[sumAt+4:], slices.Concat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{byte(start), byte(start >> 8), 0, 0, 0, 0, 0, 0}, want[start:start+28]))
		}
	}

	// Read it.
	m := with(map[string][]byte{onlySegment: want})
	l := openMem(t, m)
	if got := read(t, l, 0); !slices.Equal(got, []string{"2 ", "3 eight by"}) || l.Usage().Damaged != 0 || l.Usage().TornBytes != 0 {
		t.Errorf("got %q, %+v", got, l.Usage())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// Write it, from the headers on.
	m = with(map[string][]byte{onlySegment: slices.Concat(want[:4160], make([]byte, segment-4160))})
	l = open(t, journal.Config{Dir: dir, MaxBytes: 2 * segment, SegmentBytes: segment, FS: m})
	appends(t, l, "one", "")
	l.Settle(1)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	appends(t, l, "eight by")
	if got := m.segments()[onlySegment]; !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", hex.Dump(got[4096:4400]), hex.Dump(want[4096:4400]))
	}
}

func putCRC(to, of []byte) int {
	sum := crc32.Checksum(of, crc32.MakeTable(crc32.Castagnoli))
	return copy(to, []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
}
