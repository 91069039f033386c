package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
)

func TestFollowerReadsTheWindow(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 2, nil)
	now := time.Now()
	b.write(topic, 0, 0, rec{id: "old", at: now.Add(-26 * time.Hour)}, rec{id: "young", at: now.Add(-24 * time.Hour)})
	b.write(topic, 0, 0, rec{id: "late", at: now.Add(-30 * time.Hour)}, rec{id: "new", at: now})
	b.write(topic, 1, 0, rec{id: "other", at: now}, rec{id: "ahead", at: now.Add(30 * time.Minute)})

	f := follow(t, c.Bootstrap(), topic, 25*time.Hour)
	f.ready()
	f.has(0, 1, "young")
	f.has(0, 3, "new")
	f.has(1, 0, "other", "ahead")
	f.hasNot("old", "late", "key")

	for i := range 20 { // one by one, as they come
		id := fmt.Sprint("msg_", i)
		f.has(int32(i%2), b.write(topic, i%2, 0, ids(id)...), id)
	}
	if got := f.log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "all 2 partitions are read") || !strings.Contains(got, "4 ids") {
		t.Errorf("log:\n%swant one line", got)
	}
}

// Nothing is read of what has left the window long ago.
func TestFollowerStartsByTime(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 3, nil)
	now := time.Now()
	for i := range 100 {
		b.write(topic, 0, 0, rec{id: "old", at: now.Add(-48 * time.Hour), value: make([]byte, i)})
		b.write(topic, 1, 0, rec{id: "old", at: now.Add(-48 * time.Hour)})
	}
	b.write(topic, 1, 0, rec{id: "young", at: now.Add(-time.Hour)})
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	f.has(1, 100, "young")
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, want := range map[int32]int64{0: 100, 1: 101, 2: 0} {
		if got := f.parts[id]; got.next != want || got.end != want || got.marked != (id == 1) {
			t.Errorf("partition %d: %+v; want next and end %d", id, got, want)
		}
	}
}

func TestFollowerTopicMissing(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	f := follow(t, c.Bootstrap(), topic, day)
	await(t, func() error {
		if err := f.caughtUp(); !errors.Is(err, kafka.UnknownTopicOrPartition) || !strings.Contains(err.Error(), topic) {
			return fmt.Errorf("caughtUp: %w; want that the topic is missing", err)
		}
		return nil
	})
	await(t, func() error { // after the time in which it is nobody's concern
		if f.log.count("Unknown Topic") != 1 {
			return errors.New("no line says that the topic is missing")
		}
		return nil
	})
	c.CreateTopic(topic, 3, nil)
	f.ready()
	f.has(2, b.write(topic, 2, 0, ids("msg_1")...), "msg_1")
	// The leaders of a topic may be known before they lead it.
	if got := f.log.count("\n") - f.log.count("Not Leader For Partition"); got != 2 || f.log.count("all 3 partitions") != 1 {
		t.Errorf("%d other lines in the log; want 2:\n%s", got, f.log)
	}
}

// What was stored before a reread is known once wait returns, at once.
func TestFollowerReread(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 2, nil)
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	for i := range 100 {
		id := fmt.Sprint("msg_", i)
		b.write(topic, i%2, 0, ids(id)...)
		f.reread()
		if i%10 == 0 {
			f.reread()
		}
		f.ready()
		if _, found := f.index.find(id); !found {
			t.Fatalf("%s is not known when the follower has caught up", id)
		}
		if err := f.caughtUp(); err != nil {
			t.Fatalf("caughtUp: %v after wait", err)
		}
	}
	f.reread()
	if err := f.caughtUp(); err == nil {
		t.Error("caughtUp: nil at once after reread")
	}
}

// When wait ends in vain, it says what is in the way by then.
func TestFollowerWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(followerConfig{Topic: "gemini.events"})
		if err := f.caughtUp(); err == nil || err.Error() != "topic gemini.events is not read yet" {
			t.Errorf("caughtUp: %v before run", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		go func() { err = f.wait(ctx) }()
		synctest.Wait()
		f.mu.Lock()
		f.live = true
		f.parts = map[int32]part{0: {next: 5, goal: goal{end: 5}}, 1: {next: 5, goal: goal{end: 100_005}}, 2: {next: 7, goal: goal{end: 7}, check: true}, 3: {next: 10, goal: goal{end: 20_010}}}
		f.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		const want = "reading the ids of topic gemini.events: 3 of 4 partitions, 120000 records to go"
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("wait: %v; want %s", err, want)
		}
	})
}

// The log has a line for each reason of a longer interruption, and one when it is over.
func TestFollowerLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		f := newFollower(followerConfig{Topic: "gemini.events", Index: newIndex(day), Log: zerolog.New(log)})
		expect := func(what string, want ...string) {
			t.Helper()
			got := log.take()
			ok := strings.Count(got, "\n") == len(want)
			for _, text := range want {
				ok = ok && strings.Contains(got, text)
			}
			if !ok {
				t.Errorf("%s: log %q; want %q", what, got, want)
			}
		}
		read := func() {
			f.mu.Lock()
			f.live = true
			f.settle()
			f.mu.Unlock()
		}
		const all, missing, refused, moved = "are read after", "Unknown Topic Or Partition", "connection refused", "moved"
		noTopic, noBroker := kafka.UnknownTopicOrPartition, errors.New(refused)

		f.interrupted(noTopic)
		expect("at once")
		time.Sleep(followerQuiet)
		f.interrupted(noTopic)
		expect("a second later", missing)
		f.interrupted(noTopic)
		expect("once more")
		f.interrupted(noBroker)
		f.interrupted(noBroker)
		expect("another reason", refused)
		read()
		expect("all is read", all)
		for range 3 {
			time.Sleep(time.Minute)
			f.interrupted(errMoved)
			f.interrupted(noBroker)
			read()
		}
		expect("short interruptions")
		f.interrupted(noTopic)
		time.Sleep(time.Minute)
		f.interrupted(errMoved)
		f.interrupted(noTopic)
		expect("another long interruption", missing)
		read()
		f.reread()
		f.seen = f.asked
		read()
		expect("all is read again", all)
		time.Sleep(time.Minute)
		f.reread()
		f.interrupted(noBroker)
		f.seen = f.asked
		read()
		expect("a short interruption after a reread")
		time.Sleep(time.Minute)
		f.interrupted(context.Canceled)
		time.Sleep(time.Minute)
		f.interrupted(context.Canceled)
		expect("the end")
	})
}

func TestFollowerNewPartitions(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 2, nil)
	b.write(topic, 1, 0, ids("before")...)
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	res, err := b.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 5}}})
	if err == nil {
		err = res.Errors[topic]
	}
	if err != nil {
		t.Fatal(err)
	}
	for p := 2; p < 5; p++ {
		id := fmt.Sprint("msg_", p)
		f.has(int32(p), b.write(topic, p, 0, ids(id)...), id)
	}
	f.ready()
	f.has(1, 0, "before")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.parts) != 5 {
		t.Errorf("%d partitions are read; want 5", len(f.parts))
	}
}

func TestFollowerCompressions(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, nil)
	all := []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
	for i, compression := range all {
		var recs []rec
		for j := range 100 {
			recs = append(recs, rec{id: fmt.Sprint(compression, "_", j), value: []byte(strings.Repeat(fmt.Sprint("value ", j, " "), 100))})
		}
		if got := b.write(topic, 0, compression, recs...); got != int64(100*i) {
			t.Fatalf("%v at %d", compression, got)
		}
	}
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	for i, compression := range all {
		for j := range 100 {
			f.has(0, int64(100*i+j), fmt.Sprint(compression, "_", j))
		}
	}
}

// Others may write to the topic what they like.
func TestFollowerForeignRecords(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, nil)
	id := func(v string) kafka.Header { return kafka.Header{Key: headerWebhookID, Value: []byte(v)} }
	long := strings.Repeat("x", 100_000)
	recs := []rec{
		{},
		{headers: []kafka.Header{{Key: "Webhook-Id", Value: []byte("upper")}, {Key: "ce_id", Value: []byte("other")}}},
		{headers: []kafka.Header{id("")}},
		{headers: []kafka.Header{{Key: headerWebhookID}}},
		{headers: []kafka.Header{id("two"), id("three")}},
		{headers: []kafka.Header{id("same"), id("same")}},
		{headers: []kafka.Header{id(long)}},
		{headers: []kafka.Header{id("\x00\xff")}, value: []byte("\x00\x01\x02")},
		{id: "twice"},
		{id: "twice"},
	}
	for range 3 {
		b.write(topic, 0, 0, rec{headers: make([]kafka.Header, 1000)})
	}
	b.write(topic, 0, kafka.Gzip, recs...)
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	f.hasNot("", "upper", "other", "two", "three", "same", "webhook-id")
	f.has(0, 3+6, long, "\x00\xff")
	f.has(0, 3+9, "twice")
	if got := f.index.len(); got != 3 {
		t.Errorf("%d ids; want 3", got)
	}
	f.has(0, b.write(topic, 0, 0, ids("twice")...), "twice")
	if got := f.log.count("\n"); got != 1 {
		t.Errorf("%d lines in the log; want 1", got)
	}
}

// A topic may stamp records itself, with the time at which they are stored.
func TestFollowerAppendTime(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	b.write(topic, 0, 0, rec{id: "msg_1", at: time.Now().Add(-20 * day)})
	b.write(topic, 0, kafka.Gzip, rec{id: "msg_2", at: time.Now().Add(-20 * day)}, rec{id: "msg_3", at: time.Now().Add(-30 * day)})
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	f.has(0, 0, "msg_1", "msg_2", "msg_3")
}

// The end of a transaction is a record of its own in the log, which nobody reads. The follower gets past it, and then
// waits like behind any other.
func TestFollowerTransactions(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, nil)
	for i, commit := range []bool{true, false} {
		b.transaction(topic, commit, fmt.Sprint("msg_", i))
	}
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	f.has(0, 0, "msg_0")
	f.has(0, 2, "msg_1") // aborted, and there all the same
	f.mu.Lock()
	if got := f.parts[0].next; got != 4 {
		t.Errorf("next is %d; want 4", got)
	}
	f.mu.Unlock()

	f.idle()
	b.transaction(topic, true, "msg_2")
	f.has(0, 4, "msg_2")
}

func (b broker) transaction(topic string, commit bool, id string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	name := topic + "-" + id
	p := b.producer(name)
	await(b.t, func() error {
		res, err := b.AddPartitionsToTxn(ctx, &kafka.AddPartitionsToTxnRequest{
			TransactionalID: name, ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch,
			Topics: map[string][]kafka.AddPartitionToTxn{topic: {{Partition: 0}}},
		})
		if err == nil {
			err = res.Topics[topic][0].Error
		}
		return err
	})
	if _, err := b.writeRaw(topic, 0, rawBatch{
		attributes: 1 << 4, producer: int64(p.ProducerID), epoch: int16(p.ProducerEpoch), at: time.Now(), transactional: name,
		records: [][]byte{rawRecord(0, id, nil)},
	}); err != nil {
		b.t.Fatal(err)
	}
	await(b.t, func() error {
		res, err := b.EndTxn(ctx, &kafka.EndTxnRequest{TransactionalID: name, ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch, Committed: commit})
		if err == nil {
			err = res.Error
		}
		return err
	})
	// The marker is written after that was answered.
	await(b.t, func() error {
		if end := b.end(topic, 0); end%2 != 0 {
			return fmt.Errorf("the log ends at %d, without a marker", end)
		}
		return nil
	})
}
