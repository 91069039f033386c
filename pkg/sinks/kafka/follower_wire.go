package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	// fetchVersion has all that is used and is spoken by every broker from Kafka 2.3 on.
	fetchVersion = 11
	// fetchWait is how long a broker holds a fetch while nothing new is there.
	fetchWait = 500 * time.Millisecond
	// fetchPatience is how long a broker may be silent beyond that, and between the parts of an answer.
	fetchPatience = 3 * time.Second
	// fetchBytes bounds an answer, but for a batch that alone is larger.
	fetchBytes = 4 << 20
	// correlation need not differ: a connection carries one request at a time.
	correlation = 1
)

// brokerRequest is a request that goes to a certain broker, as it is. kafka-go would choose the broker by what it
// knows when it sends, and make of one ListOffsets a request, and a connection, for each partition.
type brokerRequest struct {
	protocol.Message
	client  string
	broker  int32
	version int16 // what the connection has agreed on
}

var _ interface {
	protocol.BrokerMessage
	protocol.RawExchanger
} = (*brokerRequest)(nil)

func (r *brokerRequest) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if b, known := cluster.Brokers[r.broker]; known {
		return b, nil
	}
	return protocol.Broker{}, kafka.BrokerNotAvailable
}

func (r *brokerRequest) Required(versions map[protocol.ApiKey]int16) bool {
	r.version = versions[r.ApiKey()]
	return true
}

func (r *brokerRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return protocol.RoundTrip(rw, r.version, correlation, r.client, r.Message)
}

// fetchRequest is a fetch whose answer is kept as bytes: kafka-go's own reader makes some twenty allocations per
// record, and does not tell where a batch ends, which after a compaction is behind its last record.
type fetchRequest struct {
	brokerRequest
	ctx    context.Context // ends the wait, and with it the connection
	answer []byte          // its capacity is used
}

func (r *fetchRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	conn, ok := rw.(net.Conn)
	if !ok {
		return nil, errors.New("fetch: no connection")
	}
	if r.version < fetchVersion {
		return nil, fmt.Errorf("fetch: Kafka 2.3 or later is needed: %w", kafka.UnsupportedVersion)
	}
	stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(fetchWait + fetchPatience)); err != nil {
		return nil, err
	}
	if err := protocol.WriteRequest(conn, fetchVersion, correlation, r.client, r.Message); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	left := int(int32(binary.BigEndian.Uint32(size[:])))
	if left < 0 {
		return nil, fmt.Errorf("fetch: an answer of %d bytes", left)
	}
	for left > 0 {
		if err := conn.SetReadDeadline(time.Now().Add(fetchPatience)); err != nil {
			return nil, err
		}
		n, part := len(r.answer), min(left, 256<<10)
		r.answer = slices.Grow(r.answer, part)[:n+part]
		if _, err := io.ReadFull(conn, r.answer[n:]); err != nil {
			return nil, err
		}
		left -= part
	}
	return r, conn.SetDeadline(time.Time{})
}

// fetched is what a fetch brought of a partition.
type fetched struct {
	partition     int32
	err           kafka.Error // or 0
	highWatermark int64       // the end of what may be read
	records       []byte
}

// partitions reads the answer (https://kafka.apache.org/protocol#The_Messages_Fetch, version 11). For as long as
// throttle says the broker will not read from the connection: a quota is exceeded.
func (r *fetchRequest) partitions() (all []fetched, throttle time.Duration, err error) {
	c := cursor{b: r.answer}
	if id := c.int32(); id != correlation {
		return nil, 0, fmt.Errorf("fetch: answer to request %d, not to %d", id, correlation)
	}
	throttle = time.Duration(c.int32()) * time.Millisecond
	if code := c.int16(); code != 0 {
		return nil, 0, kafka.Error(code)
	}
	c.take(4)                                                   // session
	for topics := c.int32(); topics > 0 && !c.short; topics-- { // one was asked for
		c.take(int(c.int16()))
		for parts := c.int32(); parts > 0 && !c.short; parts-- {
			p := fetched{partition: c.int32(), err: kafka.Error(c.int16()), highWatermark: c.int64()}
			c.take(8 + 8)                            // last stable offset, start of the log
			c.take((8 + 8) * int(max(0, c.int32()))) // aborted transactions
			c.take(4)                                // preferred replica
			p.records = c.take(int(max(0, c.int32())))
			all = append(all, p)
		}
	}
	if c.short {
		return nil, 0, fmt.Errorf("fetch: the answer of %d bytes ends early", len(r.answer))
	}
	return all, throttle, nil
}

// cursor reads from b. Beyond its end everything is zero, and short is set.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.short = nil, true
		return nil
	}
	taken := c.b[:n:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) int8() int8 {
	if b := c.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (c *cursor) int16() int16 {
	if b := c.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if b := c.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (c *cursor) int64() int64 {
	if b := c.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// varint reads a number of variable length, as all numbers in a record are.
func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.b, c.short = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

// sized reads bytes that have their length before them; −1 stands for null.
func (c *cursor) sized() []byte {
	n := c.varint()
	if n < 0 {
		return nil
	}
	return c.take(int(min(n, 1<<31)))
}
