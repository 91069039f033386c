package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/sinks"
)

// patience is the time in which whatever is awaited must come about.
const patience = 30 * time.Second

// following is a follower that runs, and what it logged.
type following struct {
	*follower
	t       testing.TB
	index   *index
	log     *lines
	fetches atomic.Int64 // that were sent
	stop    func()
}

// follow runs a follower of a topic until the test ends.
func follow(t testing.TB, bootstrap []string, topic string, window time.Duration) *following {
	t.Helper()
	f := &following{t: t, index: newIndex(window), log: &lines{}}
	transport := &kafka.Transport{MetadataTTL: 250 * time.Millisecond, MetadataTopics: []string{topic}, ClientID: topic, Dial: f.dial}
	f.follower = newFollower(followerConfig{
		Transport: transport, Addr: kafka.TCP(bootstrap...), Topic: topic, Window: window, Index: f.index, Log: zerolog.New(f.log),
	})
	f.back()
	t.Cleanup(func() {
		f.away()
		transport.CloseIdleConnections()
		if t.Failed() {
			t.Log(f.log.String())
		}
	})
	return f
}

// back runs the follower, again when it was away.
func (f *following) back() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		f.run(ctx)
		close(done)
	}()
	f.stop = func() {
		cancel()
		<-done
	}
}

// away stops it for a while.
func (f *following) away() { f.stop() }

func (f *following) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &fetchConn{c, &f.fetches}, nil
}

// fetchConn counts fetches.
type fetchConn struct {
	net.Conn
	fetches *atomic.Int64
}

func (c *fetchConn) Write(b []byte) (int, error) {
	if len(b) > 6 && protocol.ApiKey(binary.BigEndian.Uint16(b[4:])) == protocol.Fetch {
		c.fetches.Add(1)
	}
	return c.Conn.Write(b)
}

// ready waits until the follower has caught up.
func (f *following) ready() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.wait(ctx); err != nil {
		f.t.Fatal(err)
	}
}

// has waits until ids are where they are said to be.
func (f *following) has(partition int32, first int64, ids ...string) {
	f.t.Helper()
	for i, id := range ids {
		want := sinks.Position{Partition: partition, Sequence: uint64(first) + uint64(i)}
		var got sinks.Position
		var found bool
		await(f.t, func() error {
			if got, found = f.index.find(id); !found || got != want {
				return fmt.Errorf("find(%q) = %v, %v; want %v", id, got, found, want)
			}
			return nil
		})
	}
}

// hasNot tells of ids that they are not there.
func (f *following) hasNot(ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		if got, found := f.index.find(id); found {
			f.t.Errorf("find(%q) = %v; want none", id, got)
		}
	}
}

// asks waits until the follower has sent four more fetches: it has seen what there was when they began.
func (f *following) asks() {
	f.t.Helper()
	before := f.fetches.Load()
	await(f.t, func() error {
		if n := f.fetches.Load() - before; n < 4 {
			return fmt.Errorf("%d fetches", n)
		}
		return nil
	})
}

// idle checks that the broker holds the follower's fetches, at the end of the log. One broker leads all partitions.
func (f *following) idle() {
	f.t.Helper()
	start := time.Now()
	f.asks()
	if took := time.Since(start); took < 2*fetchWait {
		f.t.Errorf("four fetches took %v; want that each is held for %v", took, fetchWait)
	}
}

// await asks until there is no error any more.
func await(t testing.TB, ask func() error) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// lines is a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// take returns what was logged since the last take.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }

// broker is a client that writes what the follower reads.
type broker struct {
	*kafka.Client
	t testing.TB
}

func dial(t testing.TB, c *kafkatest.Cluster) broker {
	transport := &kafka.Transport{MetadataTTL: 250 * time.Millisecond}
	t.Cleanup(transport.CloseIdleConnections)
	return broker{&kafka.Client{Addr: kafka.TCP(c.Bootstrap()...), Transport: transport, Timeout: 10 * time.Second}, t}
}

// rec is a record: an id, or other headers, and when it was written.
type rec struct {
	id, key string
	headers []kafka.Header
	at      time.Time
	value   []byte
}

func ids(ids ...string) []rec {
	var recs []rec
	for _, id := range ids {
		recs = append(recs, rec{id: id})
	}
	return recs
}

func (r rec) kafka() kafka.Record {
	headers, key := r.headers, r.key
	if key == "" {
		key = "key"
	}
	if r.id != "" {
		headers = append([]kafka.Header{{Key: "content-type", Value: []byte("application/json")}, {Key: headerWebhookID, Value: []byte(r.id)}}, headers...)
	}
	return kafka.Record{Headers: headers, Time: r.at, Key: kafka.NewBytes([]byte(key)), Value: kafka.NewBytes(r.value)}
}

// write stores records, as one batch of kafka-go's own making, and returns the first one's offset.
func (b broker) write(topic string, partition int, compression kafka.Compression, recs ...rec) int64 {
	b.t.Helper()
	var offset int64
	await(b.t, func() error {
		var records []kafka.Record
		for _, r := range recs {
			records = append(records, r.kafka())
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		res, err := b.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Compression: compression, Records: kafka.NewRecordReader(records...),
		})
		if err != nil {
			return err
		}
		offset = res.BaseOffset
		return res.Error
	})
	return offset
}

// end returns where a partition's log ends.
func (b broker) end(topic string, partition int) int64 {
	b.t.Helper()
	var end int64
	await(b.t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		res, err := b.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(partition)}}})
		if err != nil {
			return err
		}
		end = res.Topics[topic][0].LastOffset
		return res.Topics[topic][0].Error
	})
	return end
}

// producer returns a new idempotent producer, or a transactional one.
func (b broker) producer(transactional string) *kafka.ProducerSession {
	b.t.Helper()
	var p *kafka.ProducerSession
	await(b.t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		res, err := b.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: transactional, TransactionTimeoutMs: 60_000})
		if err == nil {
			p, err = res.Producer, res.Error
		}
		return err
	})
	return p
}

// rawBatch is a batch that kafka-go cannot write.
type rawBatch struct {
	attributes    uint16
	producer      int64 // −1: none
	epoch         int16
	sequence      int32
	at            time.Time
	transactional string
	records       [][]byte
}

// rawRecord encodes a record with one webhook-id, and a value.
func rawRecord(i int, id string, value []byte) []byte {
	sized := func(b []byte, s []byte) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }
	r := []byte{0, 0}
	r = binary.AppendVarint(r, int64(i))
	r = sized(r, []byte("key"))
	r = sized(r, value)
	headers := []string{
		"content-type", "application/cloudevents+json; charset=UTF-8", "ce_type", "com.google.gemini.batch.succeeded",
		"ce_source", "//generativelanguage.googleapis.com", "ce_subject", "batches/0yew7p", "ce_time", "2026-01-22T12:00:00Z",
		"ce_partitionkey", "batches/0yew7p", "ce_id", id, headerWebhookID, id,
	}
	r = binary.AppendVarint(r, int64(len(headers)/2))
	for _, s := range headers {
		r = sized(r, []byte(s))
	}
	return append(binary.AppendVarint(nil, int64(len(r))), r...)
}

func (b rawBatch) encode() []byte {
	set := make([]byte, 4+61)
	for _, r := range b.records {
		set = append(set, r...)
	}
	be, h := binary.BigEndian, set[4:]
	be.PutUint32(set, uint32(len(h)))
	be.PutUint32(h[8:], uint32(len(h)-12))
	be.PutUint32(h[12:], 1<<32-1)
	h[16] = 2
	be.PutUint16(h[21:], b.attributes)
	be.PutUint32(h[23:], uint32(len(b.records)-1))
	be.PutUint64(h[27:], uint64(b.at.UnixMilli()))
	be.PutUint64(h[35:], uint64(b.at.UnixMilli()))
	be.PutUint64(h[43:], uint64(b.producer))
	be.PutUint16(h[51:], uint16(b.epoch))
	be.PutUint32(h[53:], uint32(b.sequence))
	be.PutUint32(h[57:], uint32(len(b.records)))
	be.PutUint32(h[17:], crc32.Checksum(h[21:], crc32.MakeTable(crc32.Castagnoli)))
	return set
}

func (b broker) writeRaw(topic string, partition int, batch rawBatch) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	m, err := b.Transport.RoundTrip(ctx, b.Addr, &rawproduce.Request{
		TransactionalID: batch.transactional, Acks: -1, Timeout: 5000, Topics: []rawproduce.RequestTopic{{
			Topic:      topic,
			Partitions: []rawproduce.RequestPartition{{Partition: int32(partition), RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(batch.encode())}}},
		}},
	})
	if err != nil {
		return 0, err
	}
	p := m.(*produce.Response).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return 0, kafka.Error(p.ErrorCode)
	}
	return p.BaseOffset, nil
}
