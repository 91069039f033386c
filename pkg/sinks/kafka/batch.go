package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
)

// batchHeader is what stands before the records: the length of a record set, then a batch's own 61 bytes.
const batchHeader = 4 + 61

// compression returns the codec of a name, or false if there is none of that name.
func compression(name string) (kafka.Compression, bool) {
	switch name {
	case "", "none":
		return 0, true
	case "gzip":
		return kafka.Gzip, true
	case "snappy":
		return kafka.Snappy, true
	case "lz4":
		return kafka.Lz4, true
	case "zstd":
		return kafka.Zstd, true
	}
	return 0, false
}

// encoder writes record sets of one batch each (format 2, https://kafka.apache.org/documentation/#recordbatch).
// kafka-go's own has neither producer ids nor sequence numbers.
type encoder struct {
	compression kafka.Compression
	table       *crc32.Table
}

func newEncoder(c kafka.Compression) encoder {
	return encoder{c, crc32.MakeTable(crc32.Castagnoli)}
}

// encode writes the batch over b, whose capacity it uses. sequence is the number of its first record, by which the
// broker knows the batch again when it comes a second time.
func (e encoder) encode(b []byte, p producer, sequence int32, now time.Time, batch []*pending) ([]byte, error) {
	n := batchHeader
	for _, r := range batch {
		n += r.most()
	}
	if cap(b) < n {
		b = make([]byte, 0, n)
	}
	b = b[:batchHeader]
	clear(b)
	for i, r := range batch {
		b = r.appendTo(b, i)
	}
	if codec := e.compression.Codec(); codec != nil {
		packed := bytes.NewBuffer(make([]byte, batchHeader, batchHeader+len(b)/3))
		w := codec.NewWriter(packed)
		if _, err := w.Write(b[batchHeader:]); err != nil {
			return nil, fmt.Errorf("compress with %s: %w", e.compression, err)
		}
		if err := w.Close(); err != nil {
			return nil, fmt.Errorf("compress with %s: %w", e.compression, err)
		}
		b = packed.Bytes()
	}
	be, h := binary.BigEndian, b[4:]
	be.PutUint32(b, uint32(len(h)))
	// The base offset is the broker's to give.
	be.PutUint32(h[8:], uint32(len(h)-12))
	be.PutUint32(h[12:], math.MaxUint32) // the leader's epoch is not known
	h[16] = 2                            // format
	be.PutUint16(h[21:], uint16(e.compression))
	be.PutUint32(h[23:], uint32(len(batch)-1))
	be.PutUint64(h[27:], uint64(now.UnixMilli()))
	be.PutUint64(h[35:], uint64(now.UnixMilli()))
	be.PutUint64(h[43:], uint64(p.id))
	be.PutUint16(h[51:], uint16(p.epoch))
	be.PutUint32(h[53:], uint32(sequence))
	be.PutUint32(h[57:], uint32(len(batch)))
	be.PutUint32(h[17:], crc32.Checksum(h[21:], e.table))
	return b, nil
}

// after returns the sequence number that follows n records; it starts again at 0 after the largest int32.
func after(sequence int32, n int) int32 { return (sequence + int32(n)) & math.MaxInt32 }
