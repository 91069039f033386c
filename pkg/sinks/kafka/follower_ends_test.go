package kafka

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// TestNotReplicatedYet: what a bridge had sent when it was killed may be in the leader's log, and not be readable before the
// other replicas have it. A follower has not caught up before it has read that: else it would be stored again.
func TestNotReplicatedYet(t *testing.T) {
	// A node that is paused stays in sync.
	c := kafkatest.Start(t, kafkatest.Options{Nodes: 3, Set: map[string]string{"broker.session.timeout.ms": "60000"}})
	b, topic := dial(t, c), c.Topic()
	c.CreateTopic(topic, 1, nil)
	b.write(topic, 0, 0, ids("old")...)
	running := follow(t, c.Bootstrap(), topic, day)
	running.ready()

	slow := pauseFollower(c, topic, 1)
	end := b.writeToLeader(topic, "in doubt")
	began := time.Now()
	started := follow(t, others(c, slow), topic, day)
	running.reread()
	for _, f := range []*following{started, running} {
		f.asks()
		if err := f.caughtUp(); err == nil && time.Since(began) < tailPatience {
			t.Error("caught up without the record at the end of the leader's log")
		}
	}
	if got := b.end(topic, 0); got != end {
		t.Fatalf("%d records can be read already, of %d: this shows nothing", got, end+1)
	}
	c.Resume(slow)
	for _, f := range []*following{started, running} {
		f.ready()
		if _, found := f.index.find("in doubt"); !found {
			t.Error("caught up without the record that all replicas have")
		}
	}

	// The other partitions do not wait for one that has too few replicas.
	topic = c.Topic()
	c.CreateTopic(topic, 2, map[string]string{"min.insync.replicas": "3"})
	slow = pauseFollower(c, topic, 2)
	b.end(topic, 0) // which asks until b knows the topic
	b.writeToLeader(topic, "in doubt")
	stuck := follow(t, others(c, slow), topic, day)
	stuck.ready()
	stuck.hasNot("in doubt")
	if n := stuck.log.count("partition 0: 1 records have been on the leader alone"); n != 1 {
		t.Errorf("said %d times that a replica is missing; want 1", n)
	}
	c.Resume(slow)
	stuck.has(0, 0, "in doubt")
}

// pauseFollower pauses a node that leads none of a topic's partitions, all of whose replicas are in sync.
func pauseFollower(c *kafkatest.Cluster, topic string, partitions int) (node int) {
	var leaders []int
	for p := range partitions {
		c.AwaitInSync(topic, p)
		leaders = append(leaders, c.Leader(topic, p))
	}
	for node = 1; slices.Contains(leaders, node); {
		node++
	}
	c.Pause(node)
	return node
}

// others are the addresses of the nodes that are not paused. A paused one accepts connections, and who asks it waits.
func others(c *kafkatest.Cluster, paused int) []string {
	return slices.Delete(slices.Clone(c.Bootstrap()), paused-1, paused)
}

// writeToLeader stores a record without waiting for other replicas, and returns its offset.
func (b broker) writeToLeader(topic, id string) int64 {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	res, err := b.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, RequiredAcks: kafka.RequireOne, Records: kafka.NewRecordReader(ids(id)[0].kafka()),
	})
	if err != nil || res.Error != nil {
		b.t.Fatal(err, res)
	}
	return res.BaseOffset
}
