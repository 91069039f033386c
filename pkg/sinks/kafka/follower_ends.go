package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

const (
	// endsVersion is spoken by every broker that speaks fetchVersion.
	endsVersion = 3
	maxEnds     = 16 << 20 // bytes of an answer
)

// appended returns where the logs end on their leaders. From there back to what may be read is what not all replicas have:
// a bridge that was killed a moment ago may have sent it, and its ids are known only when it can be read. A
// broker that does not tell is passed over.
func (s *session) appended(ctx context.Context) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, followerAsk)
	defer cancel()
	ends := map[int32]int64{}
	for leader, led := range s.leaders() {
		req := &endsRequest{brokerRequest: *s.to(leader, endsMessage{}), topic: s.cfg.Topic, led: led, ends: ends}
		if _, err := s.cfg.Transport.RoundTrip(ctx, s.cfg.Addr, req); err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// endsMessage is what kafka-go has to know of OffsetForLeaderEpoch, of which it has only the number.
type endsMessage struct{}

func (endsMessage) ApiKey() protocol.ApiKey { return protocol.OffsetForLeaderEpoch }

// endsRequest asks a leader where its own epoch ends, which for the one that it has now is the end of its log
// (https://kafka.apache.org/protocol#The_Messages_OffsetForLeaderEpoch, version 3; KIP-320).
type endsRequest struct {
	brokerRequest
	topic string
	led   []metadata.ResponsePartition
	ends  map[int32]int64 // to be added to
	known bool            // to the broker
}

func (r *endsRequest) Required(versions map[protocol.ApiKey]int16) bool {
	_, r.known = versions[protocol.OffsetForLeaderEpoch]
	return true
}

func (r *endsRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if !r.known {
		return r, nil
	}
	if _, err := rw.Write(r.request()); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return nil, err
	}
	n := int(int32(binary.BigEndian.Uint32(size[:])))
	if n < 0 || n > maxEnds {
		return nil, fmt.Errorf("end of the log: an answer of %d bytes", n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(rw, answer); err != nil {
		return nil, err
	}
	return r, r.read(answer)
}

func (r *endsRequest) request() []byte {
	be := binary.BigEndian
	text := func(b []byte, s string) []byte { return append(be.AppendUint16(b, uint16(len(s))), s...) }
	b := make([]byte, 4, 64+len(r.topic)+len(r.client)+12*len(r.led))
	b = be.AppendUint16(b, uint16(protocol.OffsetForLeaderEpoch))
	b = be.AppendUint16(b, endsVersion)
	b = be.AppendUint32(b, correlation)
	b = text(b, r.client)
	b = be.AppendUint32(b, 1<<32-1) // no replica
	b = be.AppendUint32(b, 1)       // topic
	b = text(b, r.topic)
	b = be.AppendUint32(b, uint32(len(r.led)))
	for _, p := range r.led {
		b = be.AppendUint32(b, uint32(p.PartitionIndex))
		b = be.AppendUint32(b, uint32(p.LeaderEpoch)) // to be refused when it is not that any more
		b = be.AppendUint32(b, uint32(p.LeaderEpoch)) // the one asked about
	}
	be.PutUint32(b, uint32(len(b)-4))
	return b
}

func (r *endsRequest) read(answer []byte) error {
	c := cursor{b: answer}
	if id := c.int32(); id != correlation {
		return fmt.Errorf("end of the log: answer to request %d, not to %d", id, correlation)
	}
	c.take(4) // throttle
	for topics := c.int32(); topics > 0 && !c.short; topics-- {
		c.take(int(c.int16()))
		for parts := c.int32(); parts > 0 && !c.short; parts-- {
			code, partition := kafka.Error(c.int16()), c.int32()
			c.take(4) // epoch
			end := c.int64()
			if code != 0 {
				return fmt.Errorf("partition %d: %w", partition, code)
			}
			r.ends[partition] = end // −1 when it has no epochs: formats before 2
		}
	}
	if c.short {
		return fmt.Errorf("end of the log: the answer of %d bytes ends early", len(answer))
	}
	return nil
}
