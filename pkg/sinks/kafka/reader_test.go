package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

func ids(records []sinks.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.Header["webhook-id"][0])
	}
	slices.Sort(all)
	return all
}

func TestReader(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, ContentMode: kafka.Binary})
	eventuallyReady(t, s)
	cfg := kafka.ReaderConfig{Brokers: c.Bootstrap(), Topic: topic}
	for i := range 10 {
		publish(t, s, i)
	}
	records := readN(t, cfg, sinks.FromStart(), 10)
	for _, r := range records {
		if r.Err != nil || !strings.Contains(string(r.Event), `"id":"`+r.Header["webhook-id"][0]+`"`) || r.Name != topic || r.Key == "" || time.Since(r.Time) > time.Minute {
			t.Errorf("%+v", r)
		}
	}
	// Times have milliseconds; what comes later has a later one.
	last := slices.MaxFunc(records, func(a, b sinks.Record) int { return a.Time.Compare(b.Time) }).Time
	eventually(t, "a later millisecond", func() error {
		if time.Since(last) < 2*time.Millisecond {
			return errors.New("the same")
		}
		return nil
	})
	since := last.Add(time.Millisecond)
	for i := 10; i < 15; i++ {
		publish(t, s, i)
	}
	want := []string{"msg_10", "msg_11", "msg_12", "msg_13", "msg_14"}
	if got := ids(readN(t, cfg, sinks.FromSince(since), 5)); !slices.Equal(got, want) {
		t.Errorf("since: %v", got)
	}

	// What is there, and no more.
	for _, of := range []struct {
		from sinks.From
		want int
	}{{sinks.From{ToEnd: true, Since: since}, 5}, {sinks.From{ToEnd: true, New: true}, 0}, {sinks.From{ToEnd: true}, 15}} {
		r, err := kafka.NewReader(cfg)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = r.Read(ctxOf(t, 30*time.Second), of.from, func(sinks.Record) error {
			if n++; of.want == 15 {
				publish(t, s, 20+n)
			}
			return nil
		})
		r.Close()
		if err != nil || n != of.want {
			t.Errorf("%+v: %d records, %v, want %d", of.from, n, err, of.want)
		}
	}

	// What is new, in a new partition too.
	r, err := kafka.NewReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make(chan sinks.Record)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- r.Read(ctx, sinks.FromNew(), func(r sinks.Record) error {
			select {
			case got <- r:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	i := 100
	first := receive(t, got, func() { i++; publish(t, s, i) })
	if id := first.Header["webhook-id"][0]; !strings.HasPrefix(id, "msg_1") || len(id) != len("msg_101") {
		t.Errorf("new: %s", id)
	}
	res, err := admin(t, c.Bootstrap()).CreatePartitions(ctxOf(t, 10*time.Second), &kafkago.CreatePartitionsRequest{
		Topics: []kafkago.TopicPartitionsConfig{{Name: topic, Count: 12}},
	})
	if err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	eventually(t, "in a new partition", func() error {
		if r := receive(t, got, func() { i++; publish(t, s, i) }); r.Position.Partition < 6 {
			return fmt.Errorf("in %d", r.Position.Partition)
		}
		return nil
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v", err)
	}
}

// receive does something again and again until there is a record.
func receive(t *testing.T, records <-chan sinks.Record, do func()) (r sinks.Record) {
	t.Helper()
	eventually(t, "read", func() error {
		do()
		select {
		case r = <-records:
			return nil
		case <-time.After(100 * time.Millisecond):
			return errors.New("nothing")
		}
	})
	return r
}

// TestBrokerRestart: a reader goes on where it was, and a sink that was opened while there was no broker, beside a dead
// address, finds it.
func TestBrokerRestart(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, Partitions: 2})
	eventuallyReady(t, s)
	r, err := kafka.NewReader(kafka.ReaderConfig{Brokers: c.Bootstrap(), Topic: topic})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const n = 60
	for i := range n / 2 {
		publish(t, s, i)
	}
	var got []sinks.Record
	err = r.Read(ctxOf(t, 90*time.Second), sinks.FromStart(), func(r sinks.Record) error {
		if got = append(got, r); len(got) == n/2 {
			c.Stop(1)
			s, _ = openSink(t, kafka.Config{Brokers: append([]string{"127.0.0.1:1"}, c.Bootstrap()...), Topic: topic})
			mustBeDown(t, s, "check BRIDGE_KAFKA_BROKERS")
			c.Restart(1)
			eventuallyReady(t, s)
			for i := range n {
				if ack := publish(t, s, i); ack.Duplicate != (i < n/2) {
					t.Errorf("event %d: %+v", i, ack)
				}
			}
		}
		if len(got) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("%d records: %v", len(got), err)
	}
	if all := ids(got); len(slices.Compact(all)) != n {
		t.Errorf("%d different ids of %d", len(slices.Compact(all)), n)
	}
	offsets := map[int32]uint64{}
	for _, r := range got {
		if at := r.Position; at.Sequence != offsets[at.Partition] {
			t.Errorf("partition %d: offset %d, want %d", at.Partition, at.Sequence, offsets[at.Partition])
		}
		offsets[r.Position.Partition] = r.Position.Sequence + 1
	}
}

func TestReaderErrors(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	for name, test := range map[string]struct {
		cfg  kafka.ReaderConfig
		want string
	}{
		"mistake":  {kafka.ReaderConfig{}, "BRIDGE_KAFKA_BROKERS"},
		"away":     {kafka.ReaderConfig{Brokers: []string{"127.0.0.1:1"}}, "check BRIDGE_KAFKA_BROKERS"},
		"password": {kafka.ReaderConfig{Brokers: c.BootstrapSASL(), SASLMechanism: "PLAIN", SASLUser: "x", SASLPassword: secret.New("hidden")}, "BRIDGE_KAFKA_SASL_PASSWORD"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := kafka.NewReader(test.cfg)
			if err == nil {
				r.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	r, err := kafka.NewReader(kafka.ReaderConfig{Brokers: c.Bootstrap(), Topic: topicOf(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Read(ctxOf(t, 10*time.Second), sinks.FromStart(), nil); err == nil || !strings.Contains(err.Error(), "Unknown Topic") || !errors.Is(err, sinks.ErrMissing) {
		t.Errorf("Read of a topic that is missing: %v", err)
	}
	r.Close()
}

func TestRecordEvent(t *testing.T) {
	e := sinkstest.Event(1)
	h := map[string][]string{"content-type": {"application/cloudevents+json"}}
	if got, err := kafka.EventOf(h, e.Structured); err != nil || !bytes.Equal(got, e.Structured) {
		t.Errorf("structured: %s, %v", got, err)
	}
	h = map[string][]string{"ce_specversion": {"1.0"}, "ce_id": {"a\"b"}, "CE_z": {"é"}, "ce_a": {"1"}, "ce_empty": {""}, "other": {"x"}, "content-type": {"text/plain"}}
	const want = `{"specversion":"1.0","id":"a\"b","datacontenttype":"text/plain","a":"1","z":"é","data_base64":"bm8="}`
	if got, err := kafka.EventOf(h, []byte("no")); err != nil || string(got) != want {
		t.Errorf("binary: %s, %v", got, err)
	}
	for name, r := range map[string]sinks.Record{
		"neither":  {Header: map[string][]string{"a": {"b"}}, Data: []byte("{}")},
		"not JSON": {Header: map[string][]string{"content-type": {"application/cloudevents+json"}}, Data: []byte("{")},
		"no UTF-8": {Header: map[string][]string{"ce_specversion": {"1.0"}, "ce_id": {"\xff"}}, Data: []byte("{}")},
	} {
		if _, err := kafka.EventOf(r.Header, r.Data); !errors.Is(err, sinks.ErrNoEvent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
