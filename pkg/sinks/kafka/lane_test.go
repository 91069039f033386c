package kafka

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// openLane opens a sink on a topic with one partition, and returns its lane.
func openLane(t *testing.T, c *kafkatest.Cluster, topic string) (*Sink, *lane) {
	t.Helper()
	s, err := New(Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, Partitions: 1, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for s.Ready(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal(s.Ready(t.Context()))
		}
	}
	return s, s.events.lane("")
}

// carry publishes without asking the index, as if the id had not been known a moment ago.
func carry(t *testing.T, l *lane, e *schema.Event) sinks.Ack {
	t.Helper()
	p := &pending{record: newRecord(e, Structured), id: e.ID, since: time.Now(), done: make(chan outcome, 1)}
	if err := l.add(p); err != nil {
		t.Fatal(err)
	}
	o := <-p.done
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o.ack
}

// tamper changes a lane that rests.
func tamper(t *testing.T, l *lane, change func()) {
	t.Helper()
	for {
		l.mu.Lock()
		if !l.running {
			change()
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// TestForgotten: a broker that does not follow the producer's sequence any more makes the lane look into the log, and
// begin anew.
func TestForgotten(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := c.Topic()
	_, l := openLane(t, c, topic)
	other, _ := openLane(t, c, topic)
	var first producer
	for i, want := range []uint64{0, 1, 2} {
		if ack := carry(t, l, sinkstest.Event(i)); ack.Position.Sequence != want || ack.Duplicate {
			t.Errorf("event %d: %+v", i, ack)
		}
		tamper(t, l, func() {
			if i == 0 {
				first = l.producer
			} else if l.producer.id != first.id || l.producer.epoch != first.epoch+int16(i) || l.sequence != 1 {
				t.Errorf("after event %d: producer %+v, sequence %d", i, l.producer, l.sequence)
			}
			l.sequence += 5 // the broker answers OUT_OF_ORDER_SEQUENCE_NUMBER to the next one
		})
	}
	// What is in the log already, by whomever, is not written again.
	there, err := other.Publish(t.Context(), sinkstest.Event(7))
	if err != nil {
		t.Fatal(err)
	}
	if ack := carry(t, l, sinkstest.Event(7)); ack.Position != there.Position || ack.Duplicate {
		t.Errorf("got %+v, want that of %+v", ack, there)
	}
	if ack := carry(t, l, sinkstest.Event(8)); ack.Position.Sequence != there.Position.Sequence+1 {
		t.Errorf("next: %+v", ack)
	}
	// No more epochs: another producer.
	tamper(t, l, func() {
		l.producer.epoch, l.sequence = math.MaxInt16, 0
	})
	carry(t, l, sinkstest.Event(9))
	tamper(t, l, func() { l.sequence += 5 })
	carry(t, l, sinkstest.Event(10))
	tamper(t, l, func() {
		if l.producer.id == first.id || l.producer.epoch != 0 || l.sequence != 1 {
			t.Errorf("producer %+v, sequence %d", l.producer, l.sequence)
		}
	})
}

// TestFence: what was sent before a fence, and arrives after the first batch behind it, is not stored.
func TestFence(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	s, l := openLane(t, c, c.Topic())
	carry(t, l, sinkstest.Event(0))
	var err error
	var late []byte
	tamper(t, l, func() {
		batch := []*pending{{record: newRecord(sinkstest.Event(1), Structured)}}
		late, err = s.encode.encode(nil, l.producer, l.sequence, time.Now(), batch)
		l.fence(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if ack := carry(t, l, sinkstest.Event(2)); ack.Position.Sequence != 1 {
		t.Errorf("behind the fence: %+v", ack)
	}
	tamper(t, l, func() {
		if _, _, err := l.produce(late); !errors.Is(err, kafka.InvalidProducerEpoch) {
			t.Errorf("before the fence: %v", err)
		}
	})
	if ack := carry(t, l, sinkstest.Event(3)); ack.Position.Sequence != 2 {
		t.Errorf("something was stored: %+v", ack)
	}
}

// TestLoss: what was under way when the log lost events ends as not stored, and the lane goes on.
func TestLoss(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	_, l := openLane(t, c, c.Topic())
	carry(t, l, sinkstest.Event(0))
	tamper(t, l, func() { // a batch has been out for long, and nobody knows what became of it
		l.running, l.stuck, l.since, l.why = true, true, time.Now().Add(-time.Minute), errors.New("no answer")
	})
	p := &pending{record: newRecord(sinkstest.Event(1), Structured), id: "1", losses: -1, done: make(chan outcome, 1)}
	l.send([]*pending{p})
	l.mu.Lock()
	l.running = false
	l.mu.Unlock()
	if o := <-p.done; !errors.Is(o.err, errLost) {
		t.Errorf("got %+v, want errLost", o)
	}
	if ack := carry(t, l, sinkstest.Event(2)); ack.Position.Sequence != 1 {
		t.Errorf("behind it: %+v", ack)
	}
}

// TestResend: the same bytes twice are stored once, and both answers tell where.
func TestResend(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	s, l := openLane(t, c, c.Topic())
	carry(t, l, sinkstest.Event(0))
	tamper(t, l, func() {
		batch := []*pending{{record: newRecord(sinkstest.Event(1), Structured)}, {record: newRecord(sinkstest.Event(2), Structured)}}
		b, err := s.encode.encode(nil, l.producer, l.sequence, time.Now(), batch)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if base, sent, err := l.produce(b); base != 1 || !sent || err != nil {
				t.Errorf("base %d, sent %v, %v", base, sent, err)
			}
		}
		l.sequence = after(l.sequence, 2)
	})
	if ack := carry(t, l, sinkstest.Event(3)); ack.Position.Sequence != 3 {
		t.Errorf("after it: %+v", ack)
	}
}

// TestOwnAcks: an id is known when Publish returns, not only when it was read back.
func TestOwnAcks(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	_, l := openLane(t, c, c.Topic())
	for i := range 200 {
		ack := carry(t, l, sinkstest.Event(i))
		if pos, found := l.topic.index.find(sinkstest.Event(i).ID); !found || pos != ack.Position {
			t.Fatalf("event %d at %+v: known at %+v, %v", i, ack.Position, pos, found)
		}
	}
}

// TestUnsent: without a connection nothing is sent, and that is known.
func TestUnsent(t *testing.T) {
	s, err := New(Config{Brokers: []string{"127.0.0.1:1"}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	if _, sent, err := newLane(s.events, 0).produce([]byte{1}); sent || err == nil {
		t.Errorf("sent %v, %v", sent, err)
	}
	b := &body{bytes: []byte{1}}
	if !b.withdraw() || b.withdraw() {
		t.Error("not withdrawn once")
	}
	if _, err := b.WriteTo(nil); err == nil {
		t.Error("sent after it was withdrawn")
	}
}
