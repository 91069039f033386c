package kafka_test

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

func TestConformance(t *testing.T) {
	for name, mode := range map[string]kafka.Mode{"structured": kafka.Structured, "binary": kafka.Binary} {
		t.Run(name, func(t *testing.T) {
			c := kafkatest.Start(t, kafkatest.Options{})
			features := sinkstest.Features{TooLarge: 6 << 20, Restart: mode == kafka.Structured}
			sinkstest.Run(t, features, func(t *testing.T) sinkstest.Harness {
				h := harness(t, c, kafka.Config{ContentMode: mode})
				h.Stop = func(*testing.T) { c.Stop(1) }
				h.Start = func(*testing.T) { c.Restart(1) }
				return h
			})
		})
	}
}

func TestConformanceThreeNodes(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{Nodes: 3})
	sinkstest.Run(t, sinkstest.Features{TooLarge: 6 << 20, Leader: true, Restart: true}, func(t *testing.T) sinkstest.Harness {
		topic := topicOf(t)
		h := harness(t, c, kafka.Config{Topic: topic})
		var away []int
		h.KillLeader = func(*testing.T) {
			away = []int{c.Leader(topic, 0)}
			c.Kill(away...)
		}
		h.Stop = func(*testing.T) {
			away = []int{1, 2, 3}
			c.Stop(away...)
		}
		h.Start = func(*testing.T) {
			c.Restart(away...)
			for p := range kafka.DefaultPartitions {
				c.AwaitInSync(topic, p)
			}
		}
		return h
	})
}

// harness is a sink on topics that nobody else uses.
func harness(t *testing.T, c *kafkatest.Cluster, cfg kafka.Config) sinkstest.Harness {
	cfg.Brokers, cfg.CreateTopics, cfg.Topic = c.Bootstrap(), true, cmp.Or(cfg.Topic, topicOf(t))
	s, _ := openSink(t, cfg)
	return sinkstest.Harness{
		Sink:   s,
		Stored: func(t *testing.T) []sinkstest.Record { return stored(t, cfg.Brokers, cfg.Topic) },
	}
}

// stored returns what both topics hold.
func stored(t *testing.T, brokers []string, topic string) []sinkstest.Record {
	t.Helper()
	var all []sinkstest.Record
	for _, name := range []string{topic, topic + ".dead"} {
		for _, r := range readAll(t, brokers, name) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			all = append(all, sinkstest.Record{Dead: name != topic, ID: r.Header["webhook-id"][0], Event: r.Event})
		}
	}
	return all
}

var errEnough = errors.New("enough")

// readAll returns what the topic holds now.
func readAll(t *testing.T, brokers []string, topic string) []sinks.Record {
	t.Helper()
	n := count(t, brokers, topic)
	if n == 0 {
		return nil
	}
	return readN(t, kafka.ReaderConfig{Brokers: brokers, Topic: topic}, sinks.FromStart(), n)
}

func readN(t *testing.T, cfg kafka.ReaderConfig, from sinks.From, n int) []sinks.Record {
	t.Helper()
	r, err := kafka.NewReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var records []sinks.Record
	err = r.Read(ctx, from, func(r sinks.Record) error {
		records = append(records, r)
		if len(records) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("%d of %d records of %s: %v", len(records), n, cfg.Topic, err)
	}
	return records
}
