package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"github.com/gembridge/bridge/pkg/secret"
)

// ReaderConfig says where to read. Its fields are those of Config.
type ReaderConfig struct {
	Brokers                []string
	TLS                    bool
	TLSCA, TLSCert, TLSKey string
	SASLMechanism          string
	SASLUser               string
	SASLPassword           secret.Text
	Topic                  string // default "gemini.events"; dead letters are in <Topic>.dead
}

// Reader reads a topic as any consumer without a group may. It needs the right to read the topic, and no other.
type Reader struct {
	conn  *conn
	topic string
	end   context.CancelFunc
}

// From says where to begin.
type From struct {
	kind  fromKind
	since time.Time
}

type fromKind int

const (
	fromStart fromKind = iota
	fromNew
	fromSince
)

// FromStart begins with the oldest record.
func FromStart() From { return From{} }

// FromNew begins with the first record stored after Read was called.
func FromNew() From { return From{kind: fromNew} }

// FromSince begins with the first record that was published at t or later.
func FromSince(t time.Time) From { return From{kind: fromSince, since: t} }

// Record is one record of the topic.
type Record struct {
	Topic     string
	Partition int
	Offset    int64
	Time      time.Time // when it was published
	Key       string
	Header    map[string][]string // names as they were written
	Data      []byte
}

const (
	readWait  = 500 * time.Millisecond // for how long a broker holds a fetch while nothing is there
	readPause = 250 * time.Millisecond
	readBytes = 1 << 20 // of an answer; a larger record comes all the same
)

// NewReader connects. The error is a mistake in cfg, or that Kafka cannot be reached now; no secret is in it.
func NewReader(cfg ReaderConfig) (*Reader, error) {
	orDefault(&cfg.Topic, DefaultTopic)
	life, end := context.WithCancel(context.Background())
	conn, err := newConn(life, access{
		brokers: cfg.Brokers, tls: cfg.TLS, tlsCA: cfg.TLSCA, tlsCert: cfg.TLSCert, tlsKey: cfg.TLSKey,
		mechanism: cfg.SASLMechanism, user: cfg.SASLUser, password: cfg.SASLPassword,
	}, cfg.Topic)
	if err != nil {
		end()
		return nil, err
	}
	r := &Reader{conn: conn, topic: cfg.Topic, end: end}
	if _, err := conn.metadata(life, cfg.Topic); err != nil {
		r.Close()
		return nil, conn.explain(err, false).err
	}
	return r, nil
}

// Close ends the connections. Read returns then.
func (r *Reader) Close() {
	r.end()
	r.conn.close()
}

// Read calls fn with one record after the other, those of a partition in its order, and waits for new ones, in new
// partitions too. It goes on over lost connections, until ctx ends or fn returns an error, and returns that error. A
// topic that does not exist is an error too.
func (r *Reader) Read(ctx context.Context, from From, fn func(Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	defer context.AfterFunc(r.conn.life, cancel)()

	begin, err := r.begin(ctx, from)
	if err != nil {
		return err
	}
	records := make(chan Record)
	started := 0
	start := func(n int) {
		for ; started < n; started++ {
			partition, next := started, int64(0) // a new partition is read from its start
			if offset, found := begin[partition]; found {
				next = offset
			}
			readers.Go(func() { r.follow(ctx, partition, next, records) })
		}
	}
	start(len(begin))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case record := <-records:
			if err := fn(record); err != nil {
				return err
			}
		case <-tick.C:
			if n, err := r.partitions(ctx); err == nil {
				start(n)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// partitions returns how many the topic has.
func (r *Reader) partitions(ctx context.Context) (int, error) {
	res, err := r.conn.metadata(ctx, r.topic)
	if err != nil {
		return 0, r.conn.explain(err, true).err
	}
	if code := res.Topics[0].ErrorCode; code != 0 && len(res.Topics[0].Partitions) == 0 {
		return 0, fmt.Errorf("topic %s: %w", r.topic, kafka.Error(code))
	}
	return len(res.Topics[0].Partitions), nil
}

// begin returns the offset to begin with, by partition.
func (r *Reader) begin(ctx context.Context, from From) (map[int]int64, error) {
	n, err := r.partitions(ctx)
	if err != nil {
		return nil, err
	}
	begin := map[int]int64{}
	for partition := range n {
		first, last, at, err := r.offsets(ctx, partition, from.since)
		if err != nil {
			return nil, err
		}
		switch {
		case from.kind == fromStart:
			begin[partition] = first
		case from.kind == fromSince && at >= 0:
			begin[partition] = at
		default:
			begin[partition] = last
		}
	}
	return begin, nil
}

// offsets returns a partition's first offset, the one that comes next, and that of the first record since a time, or
// −1 if there is none.
func (r *Reader) offsets(ctx context.Context, partition int, since time.Time) (first, last, at int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client := &kafka.Client{Addr: r.conn.addr, Transport: r.conn.transport}
	asked := []kafka.OffsetRequest{kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)}
	if !since.IsZero() {
		asked = append(asked, kafka.TimeOffsetOf(partition, since))
	}
	res, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{r.topic: asked}})
	if err != nil {
		return 0, 0, 0, fmt.Errorf("topic %s, partition %d: %w", r.topic, partition, err)
	}
	p := res.Topics[r.topic][0]
	if p.Error != nil {
		return 0, 0, 0, fmt.Errorf("topic %s, partition %d: %w", r.topic, partition, p.Error)
	}
	at = -1
	for offset := range p.Offsets {
		at = max(at, offset)
	}
	return p.FirstOffset, p.LastOffset, at, nil
}

// follow hands over the records of a partition until ctx ends.
func (r *Reader) follow(ctx context.Context, partition int, next int64, records chan<- Record) {
	for ctx.Err() == nil {
		err := r.fetch(ctx, partition, &next, records)
		if err == nil {
			continue
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			// What comes next is gone, by age or because the topic was made anew: the rest is still to be read.
			if first, _, _, err := r.offsets(ctx, partition, time.Time{}); err == nil {
				next = first
			}
		}
		if isMoved(err) {
			r.conn.reset()
		}
		select {
		case <-time.After(readPause):
		case <-ctx.Done():
		}
	}
}

// fetch hands over what comes next, and moves next on.
func (r *Reader) fetch(ctx context.Context, partition int, next *int64, records chan<- Record) error {
	res, err := r.conn.ask(ctx, askTimeout, &fetch.Request{
		ReplicaID: -1, MaxWaitTime: int32(readWait.Milliseconds()), MinBytes: 1, MaxBytes: readBytes, SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{Topic: r.topic, Partitions: []fetch.RequestPartition{{
			Partition: int32(partition), CurrentLeaderEpoch: -1, FetchOffset: *next, LogStartOffset: -1, PartitionMaxBytes: readBytes,
		}}}},
	})
	if err != nil {
		return err
	}
	for _, t := range res.(*fetch.Response).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return kafka.Error(p.ErrorCode)
			}
			stream, _ := p.RecordSet.Records.(*protocol.RecordStream)
			if stream == nil {
				continue
			}
			for _, batch := range stream.Records {
				if err := r.hand(ctx, partition, batch, next, records); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// hand hands over the records of one batch. It may begin before next.
func (r *Reader) hand(ctx context.Context, partition int, batch protocol.RecordReader, next *int64, records chan<- Record) error {
	if control, ok := batch.(*protocol.ControlBatch); ok { // the end of a transaction
		*next = max(*next, control.BaseOffset+1)
		return nil
	}
	for {
		got, err := batch.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if got.Offset < *next {
			continue
		}
		key, err := protocol.ReadAll(got.Key)
		if err != nil {
			return err
		}
		value, err := protocol.ReadAll(got.Value)
		if err != nil {
			return err
		}
		record := Record{Topic: r.topic, Partition: partition, Offset: got.Offset, Time: got.Time, Key: string(key), Header: map[string][]string{}, Data: value}
		for _, h := range got.Headers {
			record.Header[h.Key] = append(record.Header[h.Key], string(h.Value))
		}
		select {
		case records <- record:
			*next = got.Offset + 1
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
