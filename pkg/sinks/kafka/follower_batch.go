package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/segmentio/kafka-go/protocol"
)

const (
	// storedHeader is the length of a batch's header.
	storedHeader = 61
	// storedMagic is where the number of the format is, in all formats.
	storedMagic = 16
	// maxUnpacked bounds what a compressed batch may become in memory. A broker takes batches of about 1 MiB, by
	// default, of any length when unpacked; of what is beyond, the ids are not seen.
	maxUnpacked = 32 << 20

	attributeCompression = 7
	attributeAppendTime  = 1 << 3
	attributeControl     = 1 << 5
)

var (
	errDamaged = errors.New("checksum does not match")
	errCutOff  = errors.New("record ends early")
)

// storedBatch is a batch of records as it is in the log (https://kafka.apache.org/documentation/#recordbatch). The
// formats before 2, of Kafka before 0.11, have no headers in their records, and so no ids.
type storedBatch struct {
	first, last int64 // offsets, as given when the batch was written: a compaction may have removed those records
	format      byte
	crc         uint32
	whole       []byte
}

// mark tells a batch from others at the same place.
type mark struct {
	first int64
	crc   uint32
}

func (b *storedBatch) mark() mark { return mark{b.first, b.crc} }

// cutBatch takes the first batch off a record set. There is none when the set is empty or cut off within the batch,
// as it often is at the end of an answer.
func cutBatch(set []byte) (b storedBatch, rest []byte, ok bool) {
	if len(set) <= storedMagic {
		return b, nil, false
	}
	be := binary.BigEndian
	size := 12 + int(int32(be.Uint32(set[8:])))
	if size <= storedMagic || size > len(set) {
		return b, nil, false
	}
	b = storedBatch{first: int64(be.Uint64(set)), format: set[storedMagic], whole: set[:size:size]}
	b.last = b.first
	if b.format >= 2 && size >= storedHeader {
		b.crc = be.Uint32(set[17:])
		b.last += int64(int32(be.Uint32(set[23:])))
	}
	return b, set[size:], true
}

// intact tells whether the batch is what was written.
func (b *storedBatch) intact(table *crc32.Table) bool {
	return b.format < 2 || len(b.whole) >= storedHeader && crc32.Checksum(b.whole[21:], table) == b.crc
}

// ids calls found for every record that has an id, with the record's offset and time in milliseconds; the id is valid
// during the call. What a compressed batch holds is unpacked over room, which is returned. The error says why not all
// records could be read.
func (b *storedBatch) ids(room []byte, found func(id []byte, offset, time int64)) ([]byte, error) {
	if b.format != 2 || len(b.whole) < storedHeader {
		return room, nil
	}
	be := binary.BigEndian
	attributes := be.Uint16(b.whole[21:])
	if attributes&attributeControl != 0 { // the end of a transaction
		return room, nil
	}
	firstTime, maxTime := int64(be.Uint64(b.whole[27:])), int64(be.Uint64(b.whole[35:]))
	records, err := b.whole[storedHeader:], error(nil)
	if packing := protocol.Attributes(attributes & attributeCompression).Compression(); packing != 0 {
		codec := packing.Codec()
		if codec == nil {
			return room, fmt.Errorf("compression number %d is not known", packing)
		}
		room, err = unpack(room[:0], codec.NewReader(bytes.NewReader(records)))
		records = room
	}
	c := cursor{b: records}
	for range int32(be.Uint32(b.whole[57:])) {
		r := cursor{b: c.sized()}
		r.int8() // attributes, of which there are none
		time, offset := firstTime+r.varint(), b.first+r.varint()
		r.sized() // key
		r.sized() // value
		id := r.id()
		if c.short || r.short {
			return room, errors.Join(errCutOff, err)
		}
		if attributes&attributeAppendTime != 0 {
			time = maxTime
		}
		if id != nil {
			found(id, offset, time)
		}
	}
	return room, err
}

// id reads a record's headers. The bridge writes one webhook-id; a record with several is not the bridge's, and none
// of them counts.
func (c *cursor) id() []byte {
	var id []byte
	n := 0
	for range c.varint() {
		name, value := c.sized(), c.sized()
		if c.short {
			return nil
		}
		if string(name) == headerWebhookID {
			id = value
			n++
		}
	}
	if n != 1 || len(id) == 0 {
		return nil
	}
	return id
}

func unpack(room []byte, r io.ReadCloser) ([]byte, error) {
	b := bytes.NewBuffer(room)
	n, err := b.ReadFrom(io.LimitReader(r, maxUnpacked))
	if err == nil && n == maxUnpacked {
		err = fmt.Errorf("more than %d MiB when unpacked", maxUnpacked>>20)
	}
	return b.Bytes(), errors.Join(err, r.Close())
}
