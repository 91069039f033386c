package kafka

import (
	"context"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// TestNotReplicatedYet: what a bridge had sent when it was killed may be in the leader's log, and not be readable before the
// other replicas have it. A follower has not caught up before it has read that: else it would be stored again.
func TestNotReplicatedYet(t *testing.T) {
	// Nobody must be put out of sync before the follower has looked.
	c := kafkatest.Start(t, kafkatest.Options{Nodes: 3, Set: map[string]string{"broker.session.timeout.ms": "9000"}})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, nil)
	c.AwaitInSync(topic, 0)
	b.write(topic, 0, 0, ids("old")...)
	all := c.Topic() // can be read only from what all replicas have
	c.CreateTopic(all, 2, map[string]string{"min.insync.replicas": "3"})
	c.AwaitInSync(all, 0)
	c.AwaitInSync(all, 1)
	running := follow(t, c.Bootstrap(), topic, day)
	running.ready()

	slow := c.Leader(topic, 0)%3 + 1
	c.Pause(slow)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var first int64 // of topic
	for _, topic := range []string{all, topic} {
		res, err := b.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireOne, Records: kafka.NewRecordReader(ids("in doubt")[0].kafka()),
		})
		if err != nil || res.Error != nil {
			t.Fatal(err, res)
		}
		first = res.BaseOffset
	}
	started := follow(t, c.Bootstrap(), topic, day)
	running.reread()
	if end := b.end(topic, 0); end != first {
		t.Fatalf("%d records can be read already, of %d: this shows nothing", end, first+1)
	}
	for _, f := range []*following{started, running} {
		f.ready()
		if _, found := f.index.find("in doubt"); !found {
			t.Error("caught up without the record at the end of the leader's log")
		}
	}
	// Others do not wait for one partition that has too few replicas.
	stuck := follow(t, c.Bootstrap(), all, day)
	stuck.ready()
	stuck.hasNot("in doubt")
	if n := stuck.log.count("partition 0: 1 records have been on the leader alone"); n != 1 {
		t.Errorf("said %d times that a replica is missing; want 1", n)
	}
	c.Resume(slow)
	stuck.has(0, 0, "in doubt")
}
