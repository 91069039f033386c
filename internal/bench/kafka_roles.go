package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	kafkasink "github.com/gembridge/bridge/pkg/sinks/kafka"
)

const (
	kafkaRecords  = 200_000 // that are there when a sink starts
	kafkaTries    = 200     // of each delay
	kafkaIDName   = "webhook-id"
	kafkaPatience = patience / 2
)

// openKafkaSink returns a sink that takes events, and how long that took from nothing.
func openKafkaSink(addr, topic string) (*kafkasink.Sink, time.Duration, error) {
	begun := time.Now()
	s, err := kafkasink.New(kafkasink.Config{
		Brokers: []string{addr}, Topic: topic, CreateTopics: true, Partitions: kafkaPartitions, Log: zerolog.Nop(),
	})
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), kafkaPatience)
	defer cancel()
	for {
		err := s.Ready(ctx)
		if _, degraded := errors.AsType[*sinks.DegradedError](err); err == nil || degraded {
			return s, time.Since(begun), nil
		}
		if ctx.Err() != nil {
			return nil, 0, errors.Join(fmt.Errorf("not ready: %w", err), closeKafkaSink(s))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func closeKafkaSink(s *kafkasink.Sink) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.Close(ctx)
}

// makeKafkaTopic makes the topic as the bridge would.
func makeKafkaTopic(addr, topic string) error {
	s, _, err := openKafkaSink(addr, topic)
	if err != nil {
		return err
	}
	return closeKafkaSink(s)
}

// publisher publishes an event and returns when the broker has confirmed it.
type publisher struct {
	publish func(context.Context, *schema.Event) error
	close   func() error
}

func openPublisher(kind, addr, topic string) (publisher, error) {
	switch kind {
	case "kafka-sink":
		s, _, err := openKafkaSink(addr, topic)
		if err != nil {
			return publisher{}, err
		}
		return publisher{
			publish: func(ctx context.Context, e *schema.Event) error {
				ack, err := s.Publish(ctx, e)
				if err == nil && ack.Duplicate {
					err = errors.New("a fresh id is a duplicate")
				}
				return err
			},
			close: func() error { return closeKafkaSink(s) },
		}, nil
	case "kafka-franz":
		c, err := openFranz(addr, topic, kgo.ProducerLinger(0))
		if err != nil {
			return publisher{}, err
		}
		return publisher{
			publish: func(ctx context.Context, e *schema.Event) error {
				return c.ProduceSync(ctx, franzRecord(e.ID, e.PartitionKey, e.Structured)).FirstErr()
			},
			close: func() error { c.Close(); return nil },
		}, nil
	default:
		w := &kafkago.Writer{
			Addr: kafkago.TCP(addr), Topic: topic, Balancer: kafkago.Murmur2Balancer{}, RequiredAcks: kafkago.RequireAll,
			BatchTimeout: time.Millisecond,
		}
		return publisher{
			publish: func(ctx context.Context, e *schema.Event) error {
				return w.WriteMessages(ctx, kafkago.Message{Key: []byte(e.PartitionKey), Value: e.Structured, Headers: []kafkago.Header{
					{Key: "content-type", Value: []byte(kafkaContentType)}, {Key: kafkaIDName, Value: []byte(e.ID)},
				}})
			},
			close: w.Close,
		}, nil
	}
}

// kafkaContentType is what the sink writes.
const kafkaContentType = "application/cloudevents+json; charset=UTF-8"

// openFranz returns a client whose producer is idempotent and asks for all acks, which are its defaults.
func openFranz(addr, topic string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
}

func franzRecord(id, key string, value []byte) *kgo.Record {
	return &kgo.Record{Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{
		{Key: "content-type", Value: []byte(kafkaContentType)}, {Key: kafkaIDName, Value: []byte(id)},
	}}
}

// beKafkaPublisher publishes from callers goroutines, prints the result and deletes the topic.
func beKafkaPublisher(kind, addr, topic string, callers int, period time.Duration) error {
	if err := makeKafkaTopic(addr, topic); err != nil {
		return err
	}
	p, err := openPublisher(kind, addr, topic)
	if err != nil {
		return err
	}
	event, err := benchEvent()
	if err != nil {
		return errors.Join(err, p.close())
	}
	publish := func(prefix string) func(caller, n int) error {
		return func(caller, n int) error {
			return p.publish(context.Background(), fresh(event, fmt.Sprint(prefix, caller, ".", n)))
		}
	}
	warm := closedLoop(callers, period/4, publish("w"))
	r := closedLoop(callers, period, publish("m"))
	if err := p.close(); err != nil {
		return err
	}
	if r.Err != "" {
		return errors.New(r.Err)
	}
	admin := &kafkago.Client{Addr: kafkago.TCP(addr)}
	stored, err := countKafka(admin, topic)
	if err != nil {
		return err
	}
	if confirmed := warm.Count + r.Count; stored < confirmed {
		return fmt.Errorf("%d publishes were confirmed, %d are stored", confirmed, stored)
	}
	if _, err := admin.DeleteTopics(context.Background(), &kafkago.DeleteTopicsRequest{Topics: []string{topic, topic + ".dead"}}); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// countKafka returns how many records a topic holds.
func countKafka(admin *kafkago.Client, topic string) (n int, err error) {
	var ends []kafkago.OffsetRequest
	for p := range kafkaPartitions {
		ends = append(ends, kafkago.LastOffsetOf(p))
	}
	res, err := admin.ListOffsets(context.Background(), &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: ends}})
	if err != nil {
		return 0, err
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return 0, p.Error
		}
		n += int(p.LastOffset)
	}
	return n, nil
}

// fresh returns the event under another id, and of another job.
func fresh(event *schema.Event, id string) *schema.Event {
	e := *event
	e.ID, e.PartitionKey = id, id
	return &e
}

// beKafkaFiller fills a topic for those who catch up.
func beKafkaFiller(addr, topic string) error {
	if err := makeKafkaTopic(addr, topic); err != nil {
		return err
	}
	c, err := openFranz(addr, topic)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), kafkaPatience)
	defer cancel()
	var once sync.Once
	var failed error
	value := make([]byte, 1024)
	for i := range kafkaRecords {
		id := fmt.Sprintf("msg_%036d", i)
		c.Produce(ctx, franzRecord(id, id, value), func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failed = err })
			}
		})
	}
	if err := c.Flush(ctx); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	return json.NewEncoder(os.Stdout).Encode(result{Count: kafkaRecords})
}

// beKafkaReader prints how fast a sink has read a topic that was filled; P50 is the time.
func beKafkaReader(addr, topic string) error {
	s, took, err := openKafkaSink(addr, topic)
	if err != nil {
		return err
	}
	n := s.DedupEntries()
	if err := closeKafkaSink(s); err != nil {
		return err
	}
	if n != kafkaRecords {
		return fmt.Errorf("ready with %d ids of %d", n, kafkaRecords)
	}
	return json.NewEncoder(os.Stdout).Encode(result{Count: n, Rate: float64(n) / took.Seconds(), P50: millis(took)})
}

// replicas is how two sinks on one topic get on. Times are in milliseconds.
type replicas struct {
	P50, P99 float64 // from the ack at one until the other knows the id
	Twice    []int   // per delay, how often the same id was stored by both
}

// kafkaDelays are the times from the ack at one sink until the other is given the same id.
func kafkaDelays() []time.Duration {
	return []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond}
}

// beKafkaReplicas publishes by one sink, and watches another that follows the same topic.
func beKafkaReplicas(addr, topic string) (err error) {
	var pair [2]*kafkasink.Sink
	for i := range pair {
		if pair[i], _, err = openKafkaSink(addr, topic); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeKafkaSink(pair[i])) }()
	}
	event, err := benchEvent()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), kafkaPatience)
	defer cancel()
	var late []time.Duration
	for i := range kafkaTries {
		known := pair[1].DedupEntries()
		if _, err := pair[0].Publish(ctx, fresh(event, "k"+strconv.Itoa(i))); err != nil {
			return err
		}
		acked := time.Now()
		for pair[1].DedupEntries() == known {
			if ctx.Err() != nil {
				return errors.New("the other sink does not learn of an id")
			}
			time.Sleep(20 * time.Microsecond)
		}
		late = append(late, time.Since(acked))
	}
	slices.Sort(late)
	r := replicas{P50: millis(late[len(late)/2]), P99: millis(late[len(late)*99/100])}
	for _, delay := range kafkaDelays() {
		twice := 0
		for i := range kafkaTries {
			e := fresh(event, fmt.Sprint(delay, "-", i))
			if _, err := pair[0].Publish(ctx, e); err != nil {
				return err
			}
			if delay > 0 {
				time.Sleep(delay)
			}
			ack, err := pair[1].Publish(ctx, e)
			if err != nil {
				return err
			}
			if !ack.Duplicate {
				twice++
			}
		}
		r.Twice = append(r.Twice, twice)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
