package kafka_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// TestForgotten: a broker whose store is set back is found out before anything else is published to it, and what it
// lost is no duplicate.
func TestForgotten(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true})
	var forgotten, published atomic.Int32
	s.OnForgotten(func() {
		forgotten.Add(1)
		if n := published.Load(); n != 20 {
			t.Errorf("%d events were published before it was noticed", n-20)
		}
	})
	eventuallyReady(t, s)
	all := func(from, to int, duplicate bool) {
		t.Helper()
		for i := from; i < to; i++ {
			ack := publish(t, s, i)
			if ack.Duplicate != duplicate {
				t.Errorf("event %d: Duplicate %v", i, ack.Duplicate)
			}
			if !ack.Duplicate {
				published.Add(1)
			}
		}
	}
	all(0, 10, false)
	c.Stop(1)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(c.Data(1))); err != nil {
		t.Fatal(err)
	}
	c.Restart(1)
	eventuallyReady(t, s)
	all(0, 10, true)
	if n := forgotten.Load(); n != 0 {
		t.Fatalf("a restart was taken for a loss %d times", n)
	}
	all(10, 20, false)
	c.Kill(1)
	if err := os.RemoveAll(c.Data(1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, c.Data(1)); err != nil {
		t.Fatal(err)
	}
	c.Restart(1)
	eventually(t, "published", func() error {
		ack, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(19))
		if err == nil && ack.Duplicate {
			return errors.New("duplicate of what is lost")
		}
		return err
	})
	if forgotten.Load() == 0 {
		t.Error("the loss was not noticed")
	}
	published.Store(20)
	all(0, 10, true)
	all(10, 19, false)
	if n := count(t, c.Bootstrap(), topic); n != 20 {
		t.Errorf("%d records", n)
	}
}
