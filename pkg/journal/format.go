package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// docs/journal-format.md says all of this byte by byte.
const (
	formatVersion = 1

	segmentHeader = 64   // bytes
	headerCopy    = 4096 // offset of the second copy, on a page of its own
	firstRecord   = headerCopy + segmentHeader

	recordHeader = 32 // bytes
	kindRecord   = 1
	kindMarks    = 2

	markBytes = 16 // one run of settled sequences

	maxSequence = 1 << 62 // so that sums of two do not overflow
)

// 0xFF is in no UTF-8 text, and in no page of zeros.
const (
	segmentMagic = "\xffjournal"
	recordMagic  = "\xffr"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.LittleEndian
)

// errHeader says that neither copy of a segment's header holds.
var errHeader = errors.New("segment header damaged")

// header is what a segment begins with.
type header struct {
	serial uint64
	floor  uint64 // no record in the segment has a lower sequence
	salt   uint64 // random; seeds the checksum of every record's header
}

func (h header) encode() []byte {
	b := make([]byte, segmentHeader)
	copy(b, segmentMagic)
	order.PutUint32(b[8:], formatVersion)
	order.PutUint64(b[16:], h.serial)
	order.PutUint64(b[24:], h.floor)
	order.PutUint64(b[32:], h.salt)
	order.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// decodeHeader returns errHeader when b does not hold, and ErrNewer.
func decodeHeader(b []byte) (header, error) {
	if !bytes.HasPrefix(b, []byte(segmentMagic)) || order.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return header{}, errHeader
	}
	if v := order.Uint32(b[8:]); v > formatVersion {
		return header{}, fmt.Errorf("%w: format %d, this program knows %d", ErrNewer, v, formatVersion)
	}
	return header{serial: order.Uint64(b[16:]), floor: order.Uint64(b[24:]), salt: order.Uint64(b[32:])}, nil
}

// record is one as it stands in a segment.
type record struct {
	kind    byte
	at      int64  // offset of its header
	size    int64  // header, payload and padding
	seq     uint64 // of marks: of the record that comes next
	acked   uint64 // when this was written, all records with lower sequences had been acknowledged, or given up
	payload []byte
	damaged bool // the header holds, the payload does not
}

// recordSize is what n bytes of payload take in a segment.
func recordSize(n int) int { return (recordHeader + n + 7) &^ 7 }

// appendRecord appends all of a record but what sealRecord fills in.
func appendRecord(b []byte, kind byte, payload []byte, sum uint32) []byte {
	var h [recordHeader]byte
	copy(h[:], recordMagic)
	h[2] = kind
	order.PutUint32(h[4:], uint32(len(payload)))
	order.PutUint32(h[24:], sum)
	b = append(append(b, h[:]...), payload...)
	return append(b, make([]byte, recordSize(len(payload))-recordHeader-len(payload))...)
}

// sealRecord completes the header of the record at the beginning of b, which will stand at offset at, and returns its size.
func sealRecord(b []byte, salt uint64, at int64, seq, acked uint64) int {
	order.PutUint64(b[8:], seq)
	order.PutUint64(b[16:], acked)
	order.PutUint32(b[28:], headerSum(b, salt, at))
	return recordSize(int(order.Uint32(b[4:])))
}

// headerSum depends on the segment's salt and the place in it. A payload comes from outside and may hold what looks
// like a record; its sender cannot know the salt.
func headerSum(b []byte, salt uint64, at int64) uint32 {
	var seed [16]byte
	order.PutUint64(seed[:], salt)
	order.PutUint64(seed[8:], uint64(at))
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, b[:28])
}

// decodeRecord reads a record's header, which stands at offset at. False when it does not hold.
func decodeRecord(b []byte, salt uint64, at int64) (record, bool) {
	if len(b) < recordHeader || string(b[:2]) != recordMagic || order.Uint32(b[28:]) != headerSum(b, salt, at) {
		return record{}, false
	}
	r := record{
		kind:  b[2],
		at:    at,
		size:  (recordHeader + int64(order.Uint32(b[4:])) + 7) &^ 7,
		seq:   order.Uint64(b[8:]),
		acked: order.Uint64(b[16:]),
	}
	return r, (r.kind == kindRecord || r.kind == kindMarks) && r.acked <= r.seq && r.seq < maxSequence
}

// decodePayload sets r.payload from all of the record's bytes.
func (r *record) decodePayload(b []byte) {
	r.payload = b[recordHeader : recordHeader+int(order.Uint32(b[4:]))]
	r.damaged = crc32.Checksum(r.payload, castagnoli) != order.Uint32(b[24:])
}

// run is a row of settled sequences.
type run struct{ first, count uint64 }

// runs sorts seqs and joins neighbours.
func runs(seqs []uint64) []run {
	slices.SortFunc(seqs, cmp.Compare[uint64])
	var rs []run
	for _, seq := range seqs {
		if n := len(rs); n > 0 && rs[n-1].first+rs[n-1].count == seq {
			rs[n-1].count++
		} else {
			rs = append(rs, run{seq, 1})
		}
	}
	return rs
}

func encodeMarks(rs []run) []byte {
	b := make([]byte, 0, len(rs)*markBytes)
	for _, r := range rs {
		b = order.AppendUint64(order.AppendUint64(b, r.first), r.count)
	}
	return b
}

func decodeMarks(b []byte) []run {
	rs := make([]run, 0, len(b)/markBytes)
	for ; len(b) >= markBytes; b = b[markBytes:] {
		rs = append(rs, run{order.Uint64(b), order.Uint64(b[8:])})
	}
	return rs
}
