package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// TestLeaderLost takes the leader of partition 0 away while 16 callers publish, each of whom does what a webhook's
// sender does: an event that is not accepted comes again under its id until it is.
func TestLeaderLost(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{Nodes: 3})
	for name, fault := range map[string]struct{ away, back func(nodes ...int) }{
		"kill":  {c.Kill, c.Restart},
		"stop":  {c.Stop, c.Restart},
		"pause": {c.Pause, c.Resume},
	} {
		t.Run(name, func(t *testing.T) {
			topic := topicOf(t)
			s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true})
			eventuallyReady(t, s)
			for p := range kafka.DefaultPartitions {
				c.AwaitInSync(topic, p)
			}
			leader := c.Leader(topic, 0)

			d := durable.New(s, durable.Config{AckTimeout: 3 * time.Second})
			l := &load{d: d, key: func(caller int) string { return fmt.Sprint("batches/", caller) }}
			stop := l.start(t, 16)
			l.await(t, 500)
			fault.away(leader)
			l.await(t, 500) // by the other leaders
			fault.back(leader)
			l.await(t, 500)
			stop()
			for p := range kafka.DefaultPartitions {
				c.AwaitInSync(topic, p)
			}
			l.mustBeThereOnce(t, readAll(t, c.Bootstrap(), topic))
		})
	}
	t.Run("not enough replicas", func(t *testing.T) { notEnoughReplicas(t, c) })
}

// notEnoughReplicas: nothing is stored, and that is known.
func notEnoughReplicas(t *testing.T, c *kafkatest.Cluster) {
	topic := topicOf(t)
	for _, name := range []string{topic, topic + ".dead"} {
		c.CreateTopic(name, 1, map[string]string{"min.insync.replicas": "3"})
		c.AwaitInSync(name, 0)
	}
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic})
	eventuallyReady(t, s)
	publish(t, s, 0)
	leader := c.Leader(topic, 0)
	c.Stop(leader%3 + 1)
	eventually(t, "down", func() error {
		if err := ready(t, s); err == nil || !strings.Contains(err.Error(), "min.insync.replicas=3 asks for") {
			return fmt.Errorf("Ready: %w", err)
		}
		return nil
	})
	own := admin(t, c.Bootstrap()[leader-1:leader])
	eventually(t, "known to the leader", func() error { // which takes the event, and waits, as long as it thinks it has three
		meta, err := own.Metadata(ctxOf(t, 5*time.Second), &kafkago.MetadataRequest{Addr: own.Addr, Topics: []string{topic}})
		if err == nil && len(meta.Topics[0].Partitions[0].Isr) != 2 {
			err = fmt.Errorf("in sync: %v", meta.Topics[0].Partitions[0].Isr)
		}
		return err
	})
	for range 3 {
		mustBePrompt(t, "Publish", func() error { _, err := s.Publish(ctxOf(t, 5*time.Second), sinkstest.Event(1)); return err }, "min.insync.replicas")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Publish(ctx, sinkstest.Event(1)); err == nil || errors.Is(err, sinks.ErrUnknown) || time.Since(start) > giveUp {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	if n := count(t, c.Bootstrap(), topic); n != 1 {
		t.Errorf("%d records", n)
	}
	alter(t, admin(t, c.Bootstrap()), topic, map[string]string{"min.insync.replicas": "2"})
	eventually(t, "published", func() error { _, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1)); return err })
	if n := count(t, c.Bootstrap(), topic); n != 2 {
		t.Errorf("%d records", n)
	}
}

// giveUp is for how long Publish tries again.
const giveUp = 2 * time.Second

// load is callers that publish one event after the other.
type load struct {
	d interface {
		Deliver(context.Context, *schema.Event) (schema.Result, error)
	}
	key func(caller int) string

	mu      sync.Mutex
	changed sync.Cond
	acked   map[string]string // id to key
	order   map[string][]string
	slowest time.Duration
	failed  map[string]int
}

func (l *load) start(t *testing.T, callers int) (stop func()) {
	l.changed.L, l.acked, l.order, l.failed = &l.mu, map[string]string{}, map[string][]string{}, map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for caller := range callers {
		running.Go(func() {
			for i := caller; ctx.Err() == nil; i += callers {
				l.publish(t, i, l.key(caller))
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		t.Logf("%d acked, slowest after %s, failed: %v", len(l.acked), l.slowest.Round(time.Millisecond), l.failed)
	})
	t.Cleanup(stop)
	return stop
}

// publish goes on until the event is accepted, or the test ends.
func (l *load) publish(t *testing.T, i int, key string) {
	e := sinkstest.Event(i)
	e.PartitionKey = key
	start := time.Now()
	for t.Context().Err() == nil {
		_, err := l.d.Deliver(t.Context(), e)
		l.mu.Lock()
		if err != nil {
			l.failed[err.Error()]++
			l.mu.Unlock()
			time.Sleep(20 * time.Millisecond) // the brokers need the cores too
			continue
		}
		l.acked[e.ID] = key
		l.order[key] = append(l.order[key], e.ID)
		l.slowest = max(l.slowest, time.Since(start))
		l.changed.Broadcast()
		l.mu.Unlock()
		return
	}
}

// await waits for so many more events that are accepted.
func (l *load) await(t *testing.T, n int) {
	t.Helper()
	timeout := time.AfterFunc(60*time.Second, l.changed.Broadcast)
	defer timeout.Stop()
	start := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for n += len(l.acked); len(l.acked) < n; l.changed.Wait() {
		if time.Since(start) > 60*time.Second {
			t.Fatalf("%d events to go after a minute; failures: %v", n-len(l.acked), l.failed)
		}
	}
}

// mustBeThereOnce sees that the records are the events that were accepted, each once, in the order of their key.
func (l *load) mustBeThereOnce(t *testing.T, records []sinks.Record) {
	t.Helper()
	seen := map[string]int{}
	order := map[string][]string{}
	for _, r := range records {
		id := r.Header["webhook-id"][0]
		seen[id]++
		order[r.Key] = append(order[r.Key], id)
	}
	for id := range l.acked {
		if seen[id] != 1 {
			t.Errorf("%s was accepted and is there %d times", id, seen[id])
		}
	}
	if len(seen) != len(l.acked) {
		t.Errorf("%d events are there, %d were accepted", len(seen), len(l.acked))
	}
	for key, ids := range l.order {
		for i := range min(len(ids), len(order[key])) {
			if ids[i] != order[key][i] {
				t.Errorf("key %s: number %d is %s, want %s", key, i, order[key][i], ids[i])
				break
			}
		}
	}
}
