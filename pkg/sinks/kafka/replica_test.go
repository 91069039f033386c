package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// network stands between a bridge and a broker. While it is cut it swallows whatever comes, in both directions.
type network struct {
	addr  string
	cut   atomic.Bool
	eaten chan struct{} // holds one when something published was swallowed
}

func startNetwork(t *testing.T, to string) *network {
	t.Helper()
	n := &network{eaten: make(chan struct{}, 1)}
	n.addr = listen(t, func(client net.Conn) {
		broker, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer broker.Close()
		var metadata atomic.Bool
		go func() {
			defer broker.Close()
			for {
				request, err := readFrame(client)
				if err != nil {
					return
				}
				metadata.Store(request[4] == 0 && request[5] == keyMetadata)
				if n.cut.Load() {
					if request[4] == 0 && request[5] == keyProduce {
						select {
						case n.eaten <- struct{}{}:
						default:
						}
					}
				} else if _, err := broker.Write(request); err != nil {
					return
				}
			}
		}()
		for {
			answer, err := readFrame(broker)
			if err != nil {
				return
			}
			if metadata.Load() {
				answer = bytes.ReplaceAll(answer, addressBytes(to), addressBytes(n.addr))
			}
			if n.cut.Load() {
				continue
			}
			if _, err := client.Write(answer); err != nil {
				return
			}
		}
	})
	return n
}

// TestRetryElsewhere: one of two replicas loses its network with an event that it has sent, and the sender's retry goes
// to the other. Back again, the first one finds the event there, and does not store it a second time.
func TestRetryElsewhere(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	n := startNetwork(t, c.Bootstrap()[0])
	cfg := kafka.Config{Brokers: []string{n.addr}, Topic: topicOf(t), CreateTopics: true, Partitions: 1}
	first, _ := openSink(t, cfg)
	eventuallyReady(t, first)
	cfg.Brokers = c.Bootstrap()
	second, _ := openSink(t, cfg)
	eventuallyReady(t, second)
	publish(t, first, 0)

	n.cut.Store(true)
	d := durable.New(first, durable.Config{AckTimeout: time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-n.eaten
		cancel()
	}()
	if _, err := d.Deliver(ctx, sinkstest.Event(1)); err == nil {
		t.Fatal("delivered without a network")
	}
	publish(t, second, 1)
	eventually(t, "noticed", func() error { // by the one that has no network
		if ready(t, first) == nil {
			return errors.New("ready")
		}
		return nil
	})
	n.cut.Store(false)
	eventually(t, "known", func() error {
		result, err := d.Deliver(t.Context(), sinkstest.Event(1))
		if err == nil && result != schema.Duplicate {
			t.Fatalf("result %s", result)
		}
		return err
	})
	publish(t, first, 2)
	if n := count(t, cfg.Brokers, cfg.Topic); n != 3 {
		t.Errorf("%d records, want 3", n)
	}
}

// TestTooLargeForTheTopic: an event that its topic never takes becomes a dead letter, whose topic does.
func TestTooLargeForTheTopic(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	c.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "100000"})
	c.CreateTopic(topic+".dead", 1, nil)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, MaxEvent: 300_000})
	eventually(t, "degraded", func() error {
		if found := details(t, s); len(found) == 0 {
			return errors.New("content")
		}
		return nil
	})
	d := durable.New(s, durable.Config{AckTimeout: 5 * time.Second})
	result, err := d.Deliver(t.Context(), sinkstest.LargeEvent(1, 200_000))
	if err != nil || result != schema.DeadLettered {
		t.Fatalf("result %s, %v", result, err)
	}
	if result, err := d.Deliver(t.Context(), sinkstest.LargeEvent(1, 200_000)); err != nil || result != schema.Duplicate {
		t.Errorf("again: result %s, %v", result, err)
	}
	if n, m := count(t, c.Bootstrap(), topic), count(t, c.Bootstrap(), topic+".dead"); n != 0 || m != 1 {
		t.Errorf("%d events, %d dead letters", n, m)
	}
}
