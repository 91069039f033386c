package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
)

// ReaderConfig says where to read. Its fields are those of Config.
type ReaderConfig struct {
	Brokers       []string
	TLS           bool
	RootCAs       func() *x509.CertPool
	Certificate   func() tls.Certificate
	SASLMechanism string
	SASLUser      string
	SASLPassword  secret.Text
	Topic         string // default "gemini.events"; dead letters are in <Topic>.dead
}

// Reader reads a topic as any consumer without a group may. It needs the right to read the topic, and no other.
type Reader struct {
	conn  *conn
	topic string
	end   context.CancelFunc
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
		brokers: cfg.Brokers, tls: cfg.TLS, rootCAs: cfg.RootCAs, certificate: cfg.Certificate,
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

// Read reads as sinks.Reader says, those of a partition in its order, of new partitions too.
func (r *Reader) Read(ctx context.Context, from sinks.From, fn func(sinks.Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	defer context.AfterFunc(r.conn.life, cancel)()

	begin, err := r.begin(ctx, from)
	if err != nil {
		return err
	}
	records := make(chan sinks.Record)
	ended := make(chan struct{})
	started, open := 0, len(begin)
	start := func(n int) {
		for ; started < n; started++ {
			partition, of := started, span{end: forever} // a new partition is read from its start
			if known, found := begin[partition]; found {
				of = known
			}
			readers.Go(func() {
				r.follow(ctx, partition, of, records)
				select {
				case ended <- struct{}{}:
				case <-ctx.Done():
				}
			})
		}
	}
	start(len(begin))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !from.ToEnd || open > 0 {
		select {
		case record := <-records:
			if err := fn(record); err != nil {
				return err
			}
		case <-ended:
			open--
		case <-tick.C:
			if from.ToEnd {
				continue
			}
			if n, err := r.partitions(ctx); err == nil {
				start(n)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// span is what is to be read of a partition: the offsets from next up to end, which is not among them.
type span struct{ next, end int64 }

const forever = math.MaxInt64

// partitions returns how many the topic has.
func (r *Reader) partitions(ctx context.Context) (int, error) {
	res, err := r.conn.metadata(ctx, r.topic)
	if err != nil {
		return 0, r.conn.explain(err, true).err
	}
	if code := res.Topics[0].ErrorCode; code != 0 && len(res.Topics[0].Partitions) == 0 {
		err := fmt.Errorf("topic %s: %w", r.topic, kafka.Error(code))
		if kafka.Error(code) == kafka.UnknownTopicOrPartition {
			err = fmt.Errorf("%w (%w)", err, sinks.ErrMissing)
		}
		return 0, err
	}
	return len(res.Topics[0].Partitions), nil
}

// begin returns what is to be read, by partition.
func (r *Reader) begin(ctx context.Context, from sinks.From) (map[int]span, error) {
	n, err := r.partitions(ctx)
	if err != nil {
		return nil, err
	}
	begin := map[int]span{}
	for partition := range n {
		first, last, at, err := r.offsets(ctx, partition, from.Since)
		if err != nil {
			return nil, err
		}
		of := span{next: first, end: forever}
		switch {
		case from.New:
			of.next = last
		case !from.Since.IsZero() && at >= 0:
			of.next = at
		case !from.Since.IsZero():
			of.next = last
		}
		if from.ToEnd {
			of.end = last
		}
		begin[partition] = of
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

// follow hands over the records of a partition until its span or ctx ends.
func (r *Reader) follow(ctx context.Context, partition int, of span, records chan<- sinks.Record) {
	for of.next < of.end && ctx.Err() == nil {
		err := r.fetch(ctx, partition, &of, records)
		if err == nil {
			continue
		}
		if errors.Is(err, kafka.OffsetOutOfRange) {
			// What comes next is gone, by age or because the topic was made anew: the rest is still to be read.
			if first, last, _, err := r.offsets(ctx, partition, time.Time{}); err == nil {
				of.next = first
				if of.end != forever {
					of.end = min(of.end, last)
				}
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

// fetch hands over what comes next, and moves the span's beginning on.
func (r *Reader) fetch(ctx context.Context, partition int, of *span, records chan<- sinks.Record) error {
	res, err := r.conn.ask(ctx, askTimeout, &fetch.Request{
		ReplicaID: -1, MaxWaitTime: int32(readWait.Milliseconds()), MinBytes: 1, MaxBytes: readBytes, SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{Topic: r.topic, Partitions: []fetch.RequestPartition{{
			Partition: int32(partition), CurrentLeaderEpoch: -1, FetchOffset: of.next, LogStartOffset: -1, PartitionMaxBytes: readBytes,
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
				if err := r.hand(ctx, partition, batch, of, records); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// hand hands over the records of one batch. It may begin before the span, and end behind it.
func (r *Reader) hand(ctx context.Context, partition int, batch protocol.RecordReader, of *span, records chan<- sinks.Record) error {
	if control, ok := batch.(*protocol.ControlBatch); ok { // the end of a transaction
		of.next = max(of.next, control.BaseOffset+1)
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
		if got.Offset < of.next {
			continue
		}
		if got.Offset >= of.end {
			of.next = of.end
			return nil
		}
		key, err := protocol.ReadAll(got.Key)
		if err != nil {
			return err
		}
		value, err := protocol.ReadAll(got.Value)
		if err != nil {
			return err
		}
		record := sinks.Record{
			Name: r.topic, Position: sinks.Position{Partition: int32(partition), Sequence: uint64(got.Offset)}, Time: got.Time, Key: string(key),
			Header: map[string][]string{}, Data: value,
		}
		for _, h := range got.Headers {
			record.Header[h.Key] = append(record.Header[h.Key], string(h.Value))
		}
		record.Event, record.Err = eventOf(record.Header, record.Data)
		select {
		case records <- record:
			of.next = got.Offset + 1
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
