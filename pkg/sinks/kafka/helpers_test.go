package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// logBuffer collects what a sink logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// openSink opens a sink that ends with the test.
func openSink(t *testing.T, cfg kafka.Config) (*kafka.Sink, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	cfg.Log = zerolog.New(log)
	s, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log)
		}
	})
	return s, log
}

var (
	topics    atomic.Int64
	topicForm = regexp.MustCompile("[^a-zA-Z0-9]+")
)

// topicOf returns a name for a topic of the test's own.
func topicOf(t *testing.T) string {
	name := topicForm.ReplaceAllString(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:], "-")
	return fmt.Sprintf("%s-%d", name, topics.Add(1))
}

func ctxOf(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func ready(t *testing.T, s *kafka.Sink) error {
	t.Helper()
	return s.Ready(ctxOf(t, 10*time.Second))
}

// eventuallyReady waits until the sink accepts events, for which a weakened promise is good enough.
func eventuallyReady(t *testing.T, s *kafka.Sink) {
	t.Helper()
	eventually(t, "ready", func() error {
		err := ready(t, s)
		if _, degraded := errors.AsType[*sinks.DegradedError](err); degraded {
			return nil
		}
		return err
	})
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s in time: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func publish(t *testing.T, s *kafka.Sink, i int) sinks.Ack {
	t.Helper()
	ack, err := s.Publish(ctxOf(t, 30*time.Second), sinkstest.Event(i))
	if err != nil {
		t.Fatalf("event %d: %v", i, err)
	}
	return ack
}

// count returns how many offsets the topic has between its start and its end.
func count(t *testing.T, brokers []string, topic string) int {
	t.Helper()
	transport := &kafkago.Transport{MetadataTTL: 250 * time.Millisecond}
	defer transport.CloseIdleConnections()
	client := &kafkago.Client{Addr: kafkago.TCP(brokers...), Transport: transport}
	ctx := ctxOf(t, 30*time.Second)
	n := int64(0)
	eventually(t, "counted", func() error {
		meta, err := client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return err
		}
		if err := meta.Topics[0].Error; err != nil {
			return err
		}
		var asked []kafkago.OffsetRequest
		for _, p := range meta.Topics[0].Partitions {
			asked = append(asked, kafkago.FirstOffsetOf(p.ID), kafkago.LastOffsetOf(p.ID))
		}
		res, err := client.ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: asked}})
		if err != nil {
			return err
		}
		n = 0
		for _, p := range res.Topics[topic] {
			if p.Error != nil {
				return p.Error
			}
			n += p.LastOffset - p.FirstOffset
		}
		return nil
	})
	return int(n)
}
