package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/gembridge/bridge/pkg/sinks"
)

// topic is one of the two that the sink publishes to.
type topic struct {
	sink     *Sink
	name     string
	maxAge   time.Duration
	index    *index
	follower *follower

	mu         sync.Mutex
	partitions []int // their numbers, from 0; none until the topic was seen
	lanes      []*lane
	barred     error     // why nothing can be published to it, at the last look
	missing    time.Time // since when there is no such topic, or zero
	shut       time.Time // since when it takes no records, or zero
	losses     int       // how often the log was found to have lost events
	forgotten  func()    // called then
	denied     bool      // the last write was not permitted
	limit      int       // max.message.bytes, or 0
}

func (s *Sink) newTopic(name string, maxAge time.Duration) *topic {
	t := &topic{sink: s, name: name, maxAge: maxAge, index: newIndex(s.cfg.DedupWindow), shut: time.Now()}
	t.follower = newFollower(followerConfig{
		Transport: s.conn.transport, Addr: s.conn.addr, Topic: name, Window: s.cfg.DedupWindow, Index: t.index, Lost: t.lose,
		Log: s.cfg.Log.With().Str(LogKeyTopic, name).Logger(),
	})
	return t
}

// gate returns nil when records may be sent: the topic is there, and the index knows every id that it holds.
func (t *topic) gate() error {
	if t.sink.life.Err() != nil {
		return sinks.ErrClosed
	}
	lag := t.follower.caughtUp()
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.barred
	if err == nil && (len(t.partitions) == 0 || lag != nil) {
		if err = t.sink.down(); err == nil {
			err = lag
		}
		if err == nil {
			err = fmt.Errorf("topic %s was not seen yet", t.name)
		}
	}
	switch {
	case err == nil:
		t.shut = time.Time{}
	case t.shut.IsZero():
		t.shut = time.Now()
	}
	return err
}

// shutFor returns for how long the gate has been shut.
func (t *topic) shutFor() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut.IsZero() {
		return 0
	}
	return time.Since(t.shut)
}

// lane returns the lane of the partition that a key belongs to, by the rule of the Java client's default partitioner.
func (t *topic) lane(key string) *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: []byte(key)}, t.partitions...)
	for len(t.lanes) < len(t.partitions) {
		t.lanes = append(t.lanes, newLane(t, len(t.lanes)))
	}
	return t.lanes[n]
}

// lost tells whether what was in a partition is no more: the topic was deleted, and perhaps made anew with fewer. A
// broker that has not heard of a topic yet does so within giveUp.
func (t *topic) lost(partition int32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.missing.IsZero() {
		return time.Since(t.missing) > giveUp
	}
	return t.barred == nil && len(t.partitions) > 0 && int(partition) >= len(t.partitions)
}

// lose is called when the log has lost events, before anything else is published. Publishes of before the loss end as
// not stored, for they would come before what the owner offers again.
func (t *topic) lose() {
	t.mu.Lock()
	t.losses++
	lanes, forgotten := slices.Clone(t.lanes), t.forgotten
	t.mu.Unlock()
	for _, l := range lanes {
		l.mu.Lock()
		l.answer(l.waiting, errLost)
		l.waiting = nil
		l.mu.Unlock()
	}
	if forgotten != nil {
		forgotten()
	}
}

// vanished tells whether a topic that is missing was there at the last look.
func (t *topic) vanished() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.partitions) > 0 && t.missing.IsZero()
}

// lossesSoFar tells one loss from the next.
func (t *topic) lossesSoFar() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.losses
}

// maxBatch is how large a batch should be at most.
func (t *topic) maxBatch() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit > 0 {
		return min(maxBatch, t.limit)
	}
	return maxBatch
}

// forbidden notes that the user may not write to the topic, and allowed that it may.
func (t *topic) forbidden() { t.setDenied(true) }
func (t *topic) allowed()   { t.setDenied(false) }

func (t *topic) setDenied(denied bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if denied && !t.denied {
		t.sink.cfg.Log.Error().Str(LogKeyTopic, t.name).Msg("Kafka does not permit writing: " + t.grant("Write"))
	}
	t.denied = denied
}

// explain says where an attempt failed, and what mends it if that is not plain.
func (t *topic) explain(partition int32, cause error) error {
	hint := ""
	code, _ := errors.AsType[kafka.Error](cause)
	switch code {
	case kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend:
		hint = ": fewer replicas are in sync than min.insync.replicas asks for, bring the missing brokers back"
	case kafka.InvalidTimestamp:
		hint = ": set the clock of the bridge, or of the broker"
	case kafka.ClusterAuthorizationFailed:
		hint = ": allow the user IdempotentWrite on the cluster, or Write on the topic"
	case kafka.UnsupportedCompressionType:
		hint = ": choose another BRIDGE_KAFKA_COMPRESSION"
	}
	return fmt.Errorf("topic %s, partition %d%s: %w", t.name, partition, hint, cause)
}

// reason says why a record is refused.
func (t *topic) reason(p *pending, cause error) string {
	code, _ := errors.AsType[kafka.Error](cause)
	switch code {
	case kafka.TopicAuthorizationFailed:
		return "the user may not write to topic " + t.name + ": " + t.grant("Write")
	case kafka.InvalidRecord:
		return "topic " + t.name + " does not take a record like this"
	}
	size := batchHeader + p.most()
	return fmt.Sprintf("the record has about %d bytes, too large for topic %s: %s, or lower BRIDGE_MAX_BODY", size, t.name,
		t.configure(fmt.Sprintf("%s=%d", configMaxMessage, max(size, t.sink.wantedLimit()))))
}

// metadata returns what the brokers say of the conn's topics, at most metadataTTL old.
func (c *conn) metadata(ctx context.Context, topics ...string) (*metadata.Response, error) {
	res, err := c.ask(ctx, askTimeout, &metadata.Request{TopicNames: topics})
	if err != nil {
		return nil, err
	}
	return res.(*metadata.Response), nil
}

// create creates the topic. It is there for every broker some time later.
func (s *Sink) create(ctx context.Context, t *topic) error {
	req := createtopics.Request{TimeoutMs: int32(askTimeout.Milliseconds()), Topics: []createtopics.RequestTopic{{
		Name: t.name, NumPartitions: int32(s.cfg.Partitions), ReplicationFactor: -1, Configs: s.wantedConfigs(t),
	}}}
	wanted := &req.Topics[0]
	if s.cfg.Replication > 0 {
		wanted.ReplicationFactor = int16(s.cfg.Replication)
	}
	// Ask how many replicas the default is, for what is stored on one of three only does not survive it.
	try := req
	try.ValidateOnly = true
	replicas, err := s.createOnce(ctx, &try)
	if err != nil {
		return err
	}
	if replicas >= 3 {
		wanted.Configs = append(wanted.Configs, createtopics.RequestConfig{Name: configMinInSync, Value: "2"})
	}
	_, err = s.createOnce(ctx, &req)
	return err
}

// createOnce returns how many replicas the topic has, as far as the broker tells.
func (s *Sink) createOnce(ctx context.Context, req *createtopics.Request) (replicas int, err error) {
	res, err := s.conn.ask(ctx, askTimeout, req)
	if err != nil {
		return 0, err
	}
	topics := res.(*createtopics.Response).Topics
	if len(topics) != 1 {
		return 0, errors.New("empty answer")
	}
	if code := topics[0].ErrorCode; code != 0 {
		return 0, fmt.Errorf("%w: %s", kafka.Error(code), topics[0].ErrorMessage)
	}
	return int(topics[0].ReplicationFactor), nil
}
