package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

const (
	keyProduce  = 0
	keyMetadata = 3
)

// proxy stands between a sink and a broker, for all that the sink asks.
type proxy struct {
	t    *testing.T
	addr string
	to   string
	// onProduce gets the broker's n-th answer to a produce request, from 1, and returns what the sink is to get; with
	// nil the connection is cut.
	onProduce func(n int, answer []byte) []byte
	spoil     atomic.Bool // change what is produced, so that its checksum is wrong and the broker does not store it
	answers   atomic.Int64
	lose      atomic.Int64 // so many produce requests are cut before the broker gets them
}

func startProxy(t *testing.T, to string, spoil bool, onProduce func(n int, answer []byte) []byte) *proxy {
	p := &proxy{t: t, to: to, onProduce: onProduce}
	p.spoil.Store(spoil)
	p.addr = listen(t, p.serve)
	return p
}

func (p *proxy) serve(client net.Conn) {
	broker, err := net.Dial("tcp", p.to)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer broker.Close()
	var key atomic.Int32 // of the request under way: a connection has one at a time
	go func() {
		defer broker.Close()
		for {
			frame, err := readFrame(client)
			if err != nil {
				return
			}
			key.Store(int32(binary.BigEndian.Uint16(frame[4:])))
			if key.Load() == keyProduce && p.lose.Add(-1) >= 0 {
				return
			}
			if p.spoil.Load() && key.Load() == keyProduce {
				frame[len(frame)-1]++
			}
			if _, err := broker.Write(frame); err != nil {
				return
			}
		}
	}()
	for {
		frame, err := readFrame(broker)
		if err != nil {
			return
		}
		switch key.Load() {
		case keyMetadata:
			frame = bytes.ReplaceAll(frame, addressBytes(p.to), addressBytes(p.addr))
		case keyProduce:
			if frame = p.onProduce(int(p.answers.Add(1)), frame); frame == nil {
				return
			}
		}
		if _, err := client.Write(frame); err != nil {
			return
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

// addressBytes is how metadata writes an address.
func addressBytes(addr string) []byte {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return binary.BigEndian.AppendUint32([]byte(host), uint32(n))
}

// withCode replaces the error code in an answer to a produce request with one topic and one partition.
func withCode(answer []byte, code kafkago.Error) []byte {
	topic := 4 + 4 + 4 // size, correlation id, number of topics
	partition := topic + 2 + int(binary.BigEndian.Uint16(answer[topic:])) + 4
	binary.BigEndian.PutUint16(answer[partition+4:], uint16(code))
	return answer
}

// TestAnswers: whatever becomes of the answers to what was stored, each event is there once, and its caller hears that
// it is.
func TestAnswers(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	// first is what happens to the first answers; the later ones come through.
	first := func(k int, do func([]byte) []byte) func(int, []byte) []byte {
		return func(n int, answer []byte) []byte {
			if n <= k {
				return do(answer)
			}
			return answer
		}
	}
	code := func(code kafkago.Error) func([]byte) []byte {
		return func(answer []byte) []byte { return withCode(answer, code) }
	}
	cut := func([]byte) []byte { return nil }
	late := func(answer []byte) []byte {
		time.Sleep(2 * time.Second) // longer than an attempt
		return answer
	}
	cases := map[string]func(int, []byte) []byte{
		"as it is":                       first(0, cut),
		"cut":                            first(3, cut),
		"late":                           first(1, late),
		"lost, then refused":             first(1, code(kafkago.MessageSizeTooLarge)),
		"lost, then forbidden":           first(1, code(kafkago.TopicAuthorizationFailed)),
		"lost, then not enough replicas": first(1, code(kafkago.NotEnoughReplicas)),
	}
	for _, e := range []kafkago.Error{
		kafkago.Unknown, kafkago.UnknownTopicOrPartition, kafkago.LeaderNotAvailable, kafkago.NotLeaderForPartition, kafkago.RequestTimedOut,
		kafkago.NotEnoughReplicasAfterAppend, kafkago.KafkaStorageError, // it may be stored: the same comes again
		kafkago.OutOfOrderSequenceNumber, kafkago.DuplicateSequenceNumber, kafkago.InvalidProducerEpoch, kafkago.UnknownProducerId, // the log tells
	} {
		cases[fmt.Sprintf("code %d", e)] = first(2, code(e))
	}
	for name, onProduce := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := topicOf(t)
			p := startProxy(t, c.Bootstrap()[0], false, onProduce)
			if strings.HasPrefix(name, "lost") {
				p.lose.Store(1)
			}
			s, _ := openSink(t, kafka.Config{Brokers: []string{p.addr}, Topic: topic, CreateTopics: true, Partitions: 1})
			eventuallyReady(t, s)
			const n = 20
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					if ack := publish(t, s, i); ack.Duplicate {
						t.Errorf("event %d is a duplicate", i)
					}
				})
			}
			wg.Wait()
			for i := range n {
				if ack := publish(t, s, i); !ack.Duplicate {
					t.Errorf("event %d is new the second time", i)
				}
			}
			seen := map[string]int{}
			for _, r := range readAll(t, c.Bootstrap(), topic) {
				seen[r.Header["webhook-id"][0]]++
			}
			for i := range n {
				if k := seen[sinkstest.Event(i).ID]; k != 1 {
					t.Errorf("event %d is there %d times", i, k)
				}
			}
			if p.answers.Load() == 0 {
				t.Error("the proxy saw no answer")
			}
		})
	}
}

// TestNotNow: what says nothing of the event, and that nothing is stored, is tried again for a while and is then no
// refusal.
func TestNotNow(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	for code, want := range map[kafkago.Error]string{
		kafkago.InvalidTimestamp: "clock", kafkago.NotEnoughReplicas: "min.insync.replicas", kafkago.UnsupportedCompressionType: "BRIDGE_KAFKA_COMPRESSION",
		kafkago.PolicyViolation: "Policy Violation", kafkago.InvalidMessage: "[2]",
	} {
		t.Run(fmt.Sprint(int(code)), func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, c.Bootstrap()[0], true, func(_ int, answer []byte) []byte { return withCode(answer, code) })
			s, _ := openSink(t, kafka.Config{Brokers: []string{p.addr}, Topic: topicOf(t), CreateTopics: true})
			eventuallyReady(t, s)
			_, err := s.Publish(ctxOf(t, 10*time.Second), sinkstest.Event(1))
			if errors.Is(err, sinks.ErrUnknown) {
				t.Error("unknown")
			}
			mustBePrompt(t, "Publish", func() error { return err }, want)
			if p.answers.Load() < 3 {
				t.Errorf("tried %d times", p.answers.Load())
			}
		})
	}
}

// TestStuck: while it is not known for long what became of a batch, whatever would wait behind it is refused at once,
// and the log says so once.
func TestStuck(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	sent := make(chan struct{})
	var p *proxy
	p = startProxy(t, c.Bootstrap()[0], true, func(n int, answer []byte) []byte {
		if n == 1 {
			close(sent)
		}
		if !p.spoil.Load() {
			return answer
		}
		return withCode(answer, kafkago.RequestTimedOut)
	})
	topic := topicOf(t)
	s, log := openSink(t, kafka.Config{Brokers: []string{p.addr}, Topic: topic, CreateTopics: true})
	eventuallyReady(t, s)
	done := make(chan error, 1)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	go func() {
		_, err := s.Publish(ctx, sinkstest.Event(1))
		done <- err
	}()
	<-sent
	leave()
	eventually(t, "refused at once", func() error {
		start := time.Now()
		_, err := s.Publish(ctxOf(t, time.Second), sinkstest.Event(2)) // of the same key
		if took := time.Since(start); took > 100*time.Millisecond {
			return fmt.Errorf("it took %s: %w", took, err)
		}
		mustBePrompt(t, "Publish", func() error { return err }, "partition 4: [7]")
		return nil
	})
	eventually(t, "degraded", func() error {
		err := ready(t, s)
		if degraded, ok := errors.AsType[*sinks.DegradedError](err); !ok || !strings.Contains(degraded.Error(), "partition 4: [7]") {
			return fmt.Errorf("Ready: %w", err)
		}
		return nil
	})
	eventually(t, "logged", func() error { // with the next attempt
		if !strings.Contains(log.String(), "not published") {
			return errors.New(log.String())
		}
		return nil
	})
	p.spoil.Store(false)
	if err := <-done; err != nil {
		t.Errorf("Publish: %v", err)
	}
	publish(t, s, 2)
	if err := ready(t, s); err != nil {
		t.Errorf("Ready: %v", err)
	}
	if n := count(t, c.Bootstrap(), topic); n != 2 {
		t.Errorf("%d records", n)
	}
	if strings.Count(log.String(), "not published") != 1 || strings.Count(log.String(), "published to again") != 1 {
		t.Errorf("log:\n%s", log)
	}
}

// TestPartitionGone: what may have been stored in a topic or a partition that is no more is not stored.
func TestPartitionGone(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	for name, partitions := range map[string]int{"topic deleted": 0, "with fewer partitions": 1} {
		t.Run(name, func(t *testing.T) {
			topic := topicOf(t)
			c.CreateTopic(topic, 64, nil)
			c.CreateTopic(topic+".dead", 1, nil)
			sent := make(chan struct{}, 1000)
			p := startProxy(t, c.Bootstrap()[0], true, func(int, []byte) []byte {
				sent <- struct{}{}
				return nil
			})
			s, _ := openSink(t, kafka.Config{Brokers: []string{p.addr}, Topic: topic})
			eventuallyReady(t, s)
			done := make(chan error, 1)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			go func() {
				_, err := s.Publish(ctx, sinkstest.Event(1))
				done <- err
			}()
			<-sent
			leave()
			deleteTopics(t, admin(t, c.Bootstrap()), topic)
			if partitions > 0 {
				c.CreateTopic(topic, partitions, nil)
			}
			select {
			case err := <-done:
				if err == nil || errors.Is(err, sinks.ErrUnknown) || isRefused(err) {
					t.Errorf("Publish: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("Publish hangs")
			}
		})
	}
}
