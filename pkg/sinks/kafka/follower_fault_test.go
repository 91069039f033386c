package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/gembridge/bridge/internal/kafkatest"
)

func number(n int, prefix string) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i))
	}
	return all
}

func (b broker) deleteTopic(topic string) {
	b.t.Helper()
	res, err := b.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err == nil {
		err = res.Errors[topic]
	}
	if err != nil {
		b.t.Fatal(err)
	}
	await(b.t, func() error { // the broker does it after it has answered
		res, err := b.Metadata(context.Background(), &kafka.MetadataRequest{Topics: []string{topic}})
		if err == nil && !errors.Is(res.Topics[0].Error, kafka.UnknownTopicOrPartition) {
			err = errors.New("the topic is still there")
		}
		return err
	})
}

// A topic that is deleted and created anew has none of the old ids, however many records it has now, and whether or
// not the follower was there.
func TestFollowerTopicCreatedAnew(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	for _, test := range []struct {
		name       string
		away       bool
		now        int // records in partition 0, 10 before
		partitions int // 2 before
	}{
		{"empty", false, 0, 2},
		{"fewer records", false, 3, 2},
		{"as many records", false, 10, 2},
		{"fewer partitions", false, 3, 1},
		{"away, empty", true, 0, 2},
		{"away, fewer records", true, 3, 2},
		{"away, as many records", true, 10, 2},
		{"away, more records", true, 25, 2},
		{"away, fewer partitions", true, 25, 1},
		{"away, more partitions", true, 25, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, topic := dial(t, c), c.Topic()
			c.CreateTopic(topic, 2, nil)
			old, other, fresh := number(10, "old_"), number(5, "other_"), number(test.now, "new_")
			b.write(topic, 0, 0, ids(old[:6]...)...)
			b.write(topic, 0, 0, ids(old[6:]...)...)
			b.write(topic, 1, 0, ids(other...)...)
			f := follow(t, c.Bootstrap(), topic, day)
			f.ready()
			f.has(0, 0, old...)
			f.has(1, 0, other...)
			if test.away {
				f.away()
			}
			b.deleteTopic(topic)
			c.CreateTopic(topic, test.partitions, nil)
			for _, id := range fresh {
				b.write(topic, 0, 0, ids(id)...)
			}
			if test.away {
				f.back()
			}
			await(t, func() error { // until it has seen it
				if got := f.index.len(); got != test.now {
					return fmt.Errorf("%d ids; want %d", got, test.now)
				}
				return nil
			})
			f.ready()
			f.hasNot(append(old, other...)...)
			f.has(0, 0, fresh...)
			f.has(0, int64(test.now), b.id(topic, 0, "last"))
			if got := f.log.count("partition 0: 10 ids are forgotten"); got != 1 {
				t.Errorf("%d lines say that the ids of partition 0 are forgotten; want 1", got)
			}
			if got := f.log.count("partition 1: 5 ids are forgotten, what is there is read anew: the partition is gone"); got != max(0, 2-test.partitions) {
				t.Errorf("%d lines say that partition 1 is gone; there are %d", got, test.partitions)
			}
		})
	}
}

// id writes one record.
func (b broker) id(topic string, partition int, id string) string {
	b.t.Helper()
	b.write(topic, partition, 0, ids(id)...)
	return id
}

// That the log's start moves on, by retention or by hand, takes nothing from what is known.
func TestFollowerRetention(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 2, nil)
	first, second, third := number(10, "first_"), number(10, "second_"), number(10, "third_")
	b.write(topic, 0, 0, ids(first...)...)
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	f.has(0, 0, first...)

	for _, before := range []int64{1, 5, 9, 10} { // up to all there is
		b.deleteRecords(topic, 0, before)
		f.away()
		f.back()
		f.ready()
		f.has(0, 0, first...)
	}
	f.away()
	b.write(topic, 0, 0, ids(second...)...)
	b.write(topic, 0, 0, ids(third...)...)
	b.deleteRecords(topic, 0, 23)
	f.back()
	f.ready()
	f.has(0, 0, first...)
	f.has(0, 23, third[3:]...)
	f.hasNot(second...)
	f.has(0, 30, b.id(topic, 0, "last"))
	if got := f.log.count("forgotten"); got != 0 {
		t.Errorf("%d lines say that ids are forgotten; want 0", got)
	}
}

// deleteRecords is a DeleteRecords request (version 1) for a cluster of one node; kafka-go has none.
type deleteRecords struct {
	topic     string
	partition int32
	before    int64
	code      int16
}

func (*deleteRecords) ApiKey() protocol.ApiKey                 { return protocol.DeleteRecords }
func (*deleteRecords) Required(map[protocol.ApiKey]int16) bool { return true }

func (d *deleteRecords) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	be := binary.BigEndian
	r := be.AppendUint16(make([]byte, 4), uint16(d.ApiKey()))
	r = be.AppendUint16(r, 1)
	r = be.AppendUint32(r, correlation)
	r = be.AppendUint16(r, 0xffff) // no client id
	r = be.AppendUint32(r, 1)
	r = append(be.AppendUint16(r, uint16(len(d.topic))), d.topic...)
	r = be.AppendUint32(r, 1)
	r = be.AppendUint32(r, uint32(d.partition))
	r = be.AppendUint64(r, uint64(d.before))
	r = be.AppendUint32(r, 5000)
	be.PutUint32(r, uint32(len(r)-4))
	if _, err := rw.Write(r); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, be.Uint32(size[:]))
	if _, err := io.ReadFull(rw, answer); err != nil {
		return nil, err
	}
	d.code = int16(be.Uint16(answer[len(answer)-2:]))
	return d, nil
}

func (b broker) deleteRecords(topic string, partition int32, before int64) {
	b.t.Helper()
	await(b.t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		d := &deleteRecords{topic: topic, partition: partition, before: before}
		_, err := b.Transport.RoundTrip(ctx, b.Addr, d)
		if err == nil && d.code != 0 {
			err = kafka.Error(d.code)
		}
		return err
	})
}

// In a compacted topic there are batches whose last records are gone, batches without any record, and gaps.
func TestFollowerCompaction(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{Set: map[string]string{"log.cleaner.backoff.ms": "100"}})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, map[string]string{
		"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0",
	})
	now := time.Now()
	batch := func(name string, from, to int, at time.Time) {
		var recs []rec
		for i := from; i < to; i++ {
			recs = append(recs, rec{id: fmt.Sprint(name, i), key: fmt.Sprint("key_", i), at: at, value: []byte("{}")})
		}
		b.write(topic, 0, 0, recs...)
	}
	producer := b.producer("")
	// A younger time begins another segment, and only the last segment is left alone.
	batch("a_", 0, 10, now.Add(-60*time.Minute))  // 0 to 9, of which 5 to 9 go
	batch("b_", 20, 30, now.Add(-50*time.Minute)) // 10 to 19, which all go
	if _, err := b.writeRaw(topic, 0, rawBatch{   // 20 to 22, which go but for the batch itself: it holds the producer's last number
		producer: int64(producer.ProducerID), epoch: int16(producer.ProducerEpoch), at: now.Add(-40 * time.Minute),
		records: [][]byte{rawRecord(0, "raw_0", nil), rawRecord(1, "raw_1", nil), rawRecord(2, "raw_2", nil)},
	}); err != nil {
		t.Fatal(err)
	}
	batch("c_", 5, 10, now.Add(-30*time.Minute))  // 23 to 27
	batch("d_", 20, 30, now.Add(-20*time.Minute)) // 28 to 37
	b.write(topic, 0, 0, rec{id: "e", key: "key", at: now.Add(-10 * time.Minute)}, rec{id: "f", key: "other", at: now.Add(-10 * time.Minute)})
	b.write(topic, 0, 0, rec{id: "last", at: now})
	await(t, func() error {
		n := 0
		for next := int64(0); next < 41; {
			res, err := b.Fetch(t.Context(), &kafka.FetchRequest{Topic: topic, Offset: next, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
			if err != nil || res.Error != nil {
				return errors.Join(err, res.Error)
			}
			before := n
			for {
				r, err := res.Records.ReadRecord()
				if err != nil {
					break
				}
				if r.Offset >= next {
					next = r.Offset + 1
					n++
				}
			}
			if n == before { // kafka-go cannot get past the end of such a batch
				next++
			}
		}
		// a_0 to 4, c, d, f and last; e has another key than last.
		if want := 5 + 5 + 10 + 2 + 1; n > want {
			return fmt.Errorf("%d records; want %d", n, want)
		}
		return nil
	})

	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()
	f.has(0, 0, number(5, "a_")...)
	f.has(0, 23, "c_5", "c_6", "c_7", "c_8", "c_9")
	f.has(0, 37, "d_29")
	f.hasNot("a_5", "a_9", "b_20", "b_29", "raw_0", "raw_2")
	f.idle()
	f.away()
	f.back()
	f.ready()
	f.has(0, 41, b.id(topic, 0, "next"))
	if got := f.log.count("forgotten"); got != 0 {
		t.Errorf("%d lines say that ids are forgotten; want 0", got)
	}
}

// A broker that makes the follower wait, by a quota, has not gone.
func TestFollowerQuota(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, nil)
	const records = 20
	for _, id := range number(records, "msg_") {
		b.write(topic, 0, 0, rec{id: id, value: make([]byte, 50_000)})
	}
	res, err := b.AlterClientQuotas(t.Context(), &kafka.AlterClientQuotasRequest{Entries: []kafka.AlterClientQuotaEntry{{
		Entities: []kafka.AlterClientQuotaEntity{{EntityType: "client-id", EntityName: topic}},
		Ops:      []kafka.AlterClientQuotaOps{{Key: "consumer_byte_rate", Value: 60_000}},
	}}})
	if err != nil || res.Entries[0].Error != nil {
		t.Fatal(err, res)
	}
	var f *following
	await(t, func() error { // the broker goes by the quota after it has answered
		start := time.Now()
		f = follow(t, c.Bootstrap(), topic, day)
		f.ready()
		f.has(0, 0, number(records, "msg_")...)
		if took := time.Since(start); took < fetchWait+fetchPatience {
			return fmt.Errorf("it took %v; the quota was to hold it back for longer than a broker may be silent", took)
		}
		return nil
	})
	if got := f.log.count("\n"); got != 1 {
		t.Errorf("%d lines in the log; want 1", got)
	}
}

func TestFollowerBrokerFaults(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{TLS: true})
	dir := filepath.Dir(filepath.Dir(c.CA()))
	store, saved := filepath.Join(dir, "node-1"), filepath.Join(dir, "saved")
	// change alters the store of the stopped broker.
	change := func(alter func() error) {
		t.Helper()
		c.Stop(1)
		if err := alter(); err != nil {
			t.Fatal(err)
		}
		c.Restart(1)
	}
	interrupted := func(f *following) {
		t.Helper()
		await(t, func() error {
			if f.caughtUp() == nil {
				return errors.New("caught up, with the broker away")
			}
			return nil
		})
	}

	t.Run("restart", func(t *testing.T) {
		b, topic := dial(t, c), c.Topic()
		c.CreateTopic(topic, 2, nil)
		first := number(10, "first_")
		b.write(topic, 0, 0, ids(first...)...)
		b.write(topic, 1, 0, ids("other")...)
		f := follow(t, c.Bootstrap(), topic, day)
		f.ready()
		for _, stop := range []func(...int){c.Stop, c.Kill} {
			stop(1)
			interrupted(f)
			f.has(0, 0, first...) // all the while
			c.Restart(1)
			f.ready()
		}
		f.has(0, 10, b.id(topic, 0, "second"))
		f.has(0, 0, first...)
		f.has(1, 0, "other")
		if n := f.log.count("are read after"); n != 3 {
			t.Errorf("%d lines say that all is read; want 3", n)
		}
		if n := f.log.count("forgotten"); n != 0 {
			t.Errorf("%d lines say that ids are forgotten; want 0", n)
		}
	})

	t.Run("hangs", func(t *testing.T) {
		b, topic := dial(t, c), c.Topic()
		c.CreateTopic(topic, 1, nil)
		f := follow(t, c.Bootstrap(), topic, day)
		f.ready()
		f.has(0, 0, b.id(topic, 0, "msg_0"))
		c.Pause(1)
		interrupted(f)
		c.Resume(1)
		f.ready()
		f.has(0, 1, b.id(topic, 0, "msg_1"))
		c.Pause(1)
		f.away() // does not wait for it
		c.Resume(1)
	})

	t.Run("store set back", func(t *testing.T) {
		kept, lost, other := number(5, "kept_"), number(10, "lost_"), number(5, "other_")
		type scene struct {
			broker
			*following
			topic string
			away  bool
			fresh []string // written after
		}
		var scenes []*scene
		for _, away := range []bool{false, true} {
			for _, more := range []int{0, 3, 30} {
				s := &scene{dial(t, c), nil, c.Topic(), away, number(more, "new_")}
				c.CreateTopic(s.topic, 2, nil)
				s.write(s.topic, 0, 0, ids(kept...)...)
				s.write(s.topic, 1, 0, ids(other...)...)
				scenes = append(scenes, s)
			}
		}
		change(func() error { return os.CopyFS(saved, os.DirFS(store)) })
		for _, s := range scenes {
			s.write(s.topic, 0, 0, ids(lost...)...)
			s.following = follow(t, c.Bootstrap(), s.topic, day)
			s.ready()
			s.has(0, 5, lost...)
			if s.away {
				s.following.away()
			}
		}
		change(func() error { return errors.Join(os.RemoveAll(store), os.Rename(saved, store)) })
		for _, s := range scenes {
			if s.away {
				for _, id := range s.fresh {
					s.id(s.topic, 0, id)
				}
				s.back()
			}
			await(t, func() error {
				if _, found := s.index.find("lost_0"); found {
					return errors.New("the id of a record that is lost is known")
				}
				return nil
			})
			if !s.away {
				for _, id := range s.fresh {
					s.id(s.topic, 0, id)
				}
			}
			s.ready()
			s.hasNot(lost...)
			s.has(0, 0, kept...)
			s.has(0, 5, s.fresh...)
			s.has(1, 0, other...)
			if n := s.log.count("partition 0: 15 ids are forgotten"); n != 1 || s.log.count("forgotten") != 1 {
				t.Errorf("%d lines say that the ids of partition 0 are forgotten; want 1:\n%s", n, s.log)
			}
		}
	})

	t.Run("damaged batch", func(t *testing.T) {
		b, topic := dial(t, c), c.Topic()
		c.CreateTopic(topic, 1, nil)
		b.write(topic, 0, 0, ids("before")...)
		b.write(topic, 0, 0, ids("good_0", "damaged", "good_1")...)
		b.write(topic, 0, 0, ids("after")...)
		change(func() error {
			file := filepath.Join(store, topic+"-0", strings.Repeat("0", 20)+".log")
			log, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			i := bytes.Index(log, []byte("damaged"))
			if i < 0 {
				return errors.New("the record is not in the file")
			}
			log[i]++
			return os.WriteFile(file, log, 0o600)
		})
		f := follow(t, c.Bootstrap(), topic, day)
		f.ready()
		f.has(0, 0, "before")
		f.has(0, 4, "after")
		f.hasNot("good_0", "damaged", "eamaged", "good_1")
		f.away()
		f.back()
		f.ready()
		f.has(0, 5, b.id(topic, 0, "last"))
		if n := f.log.count("partition 0: ids in the batch at offset 1 cannot be read"); n != 1 {
			t.Errorf("%d lines say that a batch is damaged; want 1", n)
		}
	})
}

// While nodes of a cluster go and come back, nothing that was written is missed.
func TestFollowerLeaderChanges(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{Nodes: 3})
	b, topic := dial(t, c), c.Topic()
	const partitions = 6
	c.CreateTopic(topic, partitions, nil)
	f := follow(t, c.Bootstrap(), topic, day)
	f.ready()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var written [partitions]int
	var writers sync.WaitGroup
	for p := range partitions {
		writers.Go(func() {
			for ctx.Err() == nil {
				b.write(topic, p, 0, ids(fmt.Sprintf("msg_%d_%d", p, written[p]))...)
				written[p]++
			}
		})
	}
	for _, stop := range []func(...int){c.Stop, c.Kill} {
		leader := c.Leader(topic, 0)
		stop(leader)
		f.ready()
		c.Restart(leader)
		for p := range partitions {
			c.AwaitInSync(topic, p)
		}
	}
	cancel()
	writers.Wait()
	f.reread()
	f.ready()
	for p, n := range written {
		for i := range n {
			if pos, found := f.index.find(fmt.Sprintf("msg_%d_%d", p, i)); !found || pos.Partition != int32(p) {
				t.Errorf("record %d of %d in partition %d is not known", i, n, p)
			}
		}
		if n == 0 {
			t.Errorf("nothing was written to partition %d", p)
		}
	}
	if n := f.log.count("forgotten"); n != 0 {
		t.Errorf("%d lines say that ids are forgotten; want 0", n)
	}
}
