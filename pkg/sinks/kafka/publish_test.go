package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// TestHang: a broker that hangs keeps publishes that were sent, also when their callers would leave, and nothing is
// there twice when it goes on.
func TestHang(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true})
	eventuallyReady(t, s)
	publish(t, s, 0)

	// send publishes and returns once ctx has ended, for which the event was sent long ago.
	send := func(s *kafka.Sink, e *schema.Event) <-chan error {
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		go func() {
			defer cancel()
			_, err := s.Publish(ctx, e)
			done <- err
		}()
		<-ctx.Done()
		return done
	}
	result := func(done <-chan error) error {
		t.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("Publish hangs")
			return nil
		}
	}

	// hold pauses the broker and publishes one event and then another of the same key, until the first was sent: a
	// connection may not be at hand.
	hold := func(s *kafka.Sink, e, next *schema.Event) (done, behind <-chan error) {
		t.Helper()
		eventually(t, "sent", func() error {
			c.Pause(1)
			done, behind = send(s, e), send(s, next)
			select {
			case err := <-done:
				c.Resume(1)
				eventuallyReady(t, s)
				return err
			case <-time.After(giveUp): // longer than an attempt
				return nil
			}
		})
		return done, behind
	}

	first, behind := hold(s, sinkstest.Event(1), sinkstest.Event(2))
	select {
	case err := <-behind:
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sinks.ErrUnknown) {
			t.Errorf("Publish behind one that hangs: %v", err)
		}
	default:
		t.Fatal("Publish behind one that hangs has not returned")
	}
	eventually(t, "refused at once", func() error {
		start := time.Now()
		_, err := s.Publish(ctxOf(t, time.Second), sinkstest.Event(2))
		if err == nil || errors.Is(err, sinks.ErrUnknown) || isRefused(err) {
			t.Fatalf("Publish: %v", err)
		}
		if time.Since(start) > 100*time.Millisecond {
			return fmt.Errorf("it took %s: %w", time.Since(start), err)
		}
		return nil
	})
	select {
	case err := <-first:
		t.Errorf("Publish returned %v while it is not known what became of the event", err)
	default:
	}
	c.Resume(1)
	if err := result(first); err != nil {
		t.Errorf("Publish that was sent: %v", err)
	}
	eventuallyReady(t, s)
	insist := func(i int) (ack sinks.Ack) { // the broker may have lost its lead for a moment
		t.Helper()
		eventually(t, "published", func() (err error) {
			ack, err = s.Publish(ctxOf(t, 30*time.Second), sinkstest.Event(i))
			return err
		})
		return ack
	}
	if ack := insist(1); !ack.Duplicate {
		t.Error("published twice")
	}
	insist(2)
	if n := count(t, c.Bootstrap(), topic); n != 3 {
		t.Errorf("%d records, want 3", n)
	}

	// Close does not wait for it any longer than its ctx.
	last, _ := hold(s, sinkstest.Event(3), sinkstest.Event(4))
	start := time.Now()
	if err := s.Close(ctxOf(t, 500*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if err := result(last); !errors.Is(err, sinks.ErrUnknown) || !errors.Is(err, sinks.ErrClosed) {
		t.Errorf("Publish that was cut: %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %s", took)
	}
	c.Resume(1)
}

// TestRestart: another sink on the same topics knows every id, of events and of dead letters, before it sends anything.
func TestRestart(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	const n = 1000
	topic := topicOf(t)
	for round := range 3 {
		s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, ContentMode: kafka.Mode(round % 2)})
		var wg sync.WaitGroup
		for caller := range 16 {
			wg.Go(func() {
				for i := caller; i < n; i += 16 {
					for _, e := range []*schema.Event{sinkstest.Event(i), sinkstest.DeadLetter(i)} {
						ack, err := s.Publish(ctxOf(t, 30*time.Second), e)
						for err != nil && t.Context().Err() == nil && !isRefused(err) && !errors.Is(err, sinks.ErrUnknown) {
							time.Sleep(10 * time.Millisecond)
							ack, err = s.Publish(ctxOf(t, 30*time.Second), e) // not now: it does not know all ids yet
						}
						if err != nil || ack.Duplicate != (round > 0) {
							t.Errorf("round %d, event %d: %+v, %v", round, i, ack, err)
						}
					}
				}
			})
		}
		wg.Wait()
		if known := s.DedupEntries(); known != 2*n {
			t.Errorf("round %d: %d ids known, want %d", round, known, 2*n)
		}
		if err := s.Close(ctxOf(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if events, dead := count(t, c.Bootstrap(), topic), count(t, c.Bootstrap(), topic+".dead"); events != n || dead != n {
		t.Errorf("%d events and %d dead letters, want %d", events, dead, n)
	}
}

// TestTwoSinks: what one has published is a duplicate for the other, once it has read it.
func TestTwoSinks(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	cfg := kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true}
	one, _ := openSink(t, cfg)
	other, _ := openSink(t, cfg)
	eventuallyReady(t, one)
	eventuallyReady(t, other)
	const n = 200
	for i := range n {
		publish(t, one, i)
	}
	eventually(t, "read", func() error {
		if known := other.DedupEntries(); known != n {
			return fmt.Errorf("%d ids known", known)
		}
		return nil
	})
	for i := range n {
		if ack := publish(t, other, i); !ack.Duplicate {
			t.Errorf("event %d is new to the other", i)
		}
	}
}

// TestSplit: of a batch that the broker refuses, only the record at fault is refused.
func TestSplit(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	s, log := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, Partitions: 1})
	eventuallyReady(t, s)
	alter(t, admin(t, c.Bootstrap()), topic, map[string]string{"max.message.bytes": "20000"}) // of which the sink knows nothing
	const n = 300
	var want []string
	extra := n
	eventually(t, "the broker goes by its setting", func() error {
		e := sinkstest.LargeEvent(extra, 20_000)
		extra++
		_, err := s.Publish(ctxOf(t, 30*time.Second), e)
		if isRefused(err) {
			return nil
		}
		if err == nil {
			want = append(want, e.ID)
		}
		return fmt.Errorf("Publish: %w", err)
	})
	isLarge := func(i int) bool { return i%37 == 5 }
	var wg sync.WaitGroup
	for i := range n {
		if !isLarge(i) {
			want = append(want, sinkstest.Event(i).ID)
		}
		wg.Go(func() {
			e := sinkstest.Event(i)
			if isLarge(i) {
				e = sinkstest.LargeEvent(i, 20_000)
			}
			ack, err := s.Publish(ctxOf(t, 30*time.Second), e)
			switch refused, _ := errors.AsType[*sinks.RefusedError](err); {
			case !isLarge(i) && (err != nil || ack.Duplicate):
				t.Errorf("event %d: %+v, %v", i, ack, err)
			case !isLarge(i):
			case refused == nil:
				t.Errorf("event %d is too large: %v", i, err)
			case !strings.Contains(refused.Reason, configure(c, topic, "max.message.bytes=4194304")) || !strings.Contains(refused.Reason, "BRIDGE_MAX_BODY"):
				t.Errorf("event %d: reason %s", i, refused.Reason)
			}
		})
	}
	wg.Wait()
	var got []string
	for _, r := range readAll(t, c.Bootstrap(), topic) {
		got = append(got, r.Header["webhook-id"][0])
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d records, want %d:\n%v", len(got), len(want), got)
	}
	if strings.Contains(log.String(), "refused") {
		t.Errorf("log:\n%s", log)
	}
}

// TestCompression: what is written compressed is read by a client that is not ours.
func TestCompression(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(name, func(t *testing.T) {
			topic := topicOf(t)
			s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, Partitions: 1, Compression: name})
			eventuallyReady(t, s)
			const n = 50
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() { publish(t, s, i) })
			}
			wg.Wait()
			e := sinkstest.LargeEvent(n, 300_000)
			before := time.Now().Add(-time.Minute)
			if _, err := s.Publish(ctxOf(t, 30*time.Second), e); err != nil {
				t.Fatal(err)
			}
			dialer := &kafkago.Dialer{Timeout: 10 * time.Second}
			reader := kafkago.NewReader(kafkago.ReaderConfig{Brokers: c.Bootstrap(), Topic: topic, MaxWait: 100 * time.Millisecond, Dialer: dialer})
			defer reader.Close()
			seen := map[string]bool{}
			for range n + 1 {
				m, err := reader.ReadMessage(ctxOf(t, 30*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				if i := slices.IndexFunc(m.Headers, func(h kafkago.Header) bool { return h.Key == "webhook-id" }); i >= 0 {
					seen[string(m.Headers[i].Value)] = true
				}
				if m.Time.Before(before) || m.Time.After(time.Now().Add(time.Minute)) {
					t.Errorf("published at %s", m.Time)
				}
				if m.Offset == n && string(m.Value) != string(e.Structured) {
					t.Errorf("large event: %.100s", m.Value)
				}
			}
			if len(seen) != n+1 {
				t.Errorf("%d ids of %d", len(seen), n+1)
			}
		})
	}
}
