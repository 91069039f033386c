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
	running := follow(t, c.Bootstrap(), topic, day)
	running.ready()

	slow := c.Leader(topic, 0)%3 + 1
	c.Pause(slow)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := b.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, RequiredAcks: kafka.RequireOne, Records: kafka.NewRecordReader(ids("in doubt")[0].kafka()),
	})
	if err != nil || res.Error != nil {
		t.Fatal(err, res)
	}
	started := follow(t, c.Bootstrap(), topic, day)
	running.reread()
	if end := b.end(topic, 0); end != res.BaseOffset {
		t.Fatalf("%d records can be read already, of %d: this shows nothing", end, res.BaseOffset+1)
	}
	for _, f := range []*following{started, running} {
		f.ready()
		if _, found := f.index.find("in doubt"); !found {
			t.Error("caught up without the record at the end of the leader's log")
		}
	}
	c.Resume(slow)
}
