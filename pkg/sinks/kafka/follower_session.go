package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

const (
	// followerAsk is the time for everything that is asked and is not a fetch.
	followerAsk = 5 * time.Second
	// layoutInterval is how often the transport's metadata is looked at.
	layoutInterval = 100 * time.Millisecond
)

// session follows the partitions as they are led at its beginning. It ends when that has changed, or for any error.
type session struct {
	*follower
	layout []metadata.ResponsePartition
}

// run ends with a reason, always.
func (s *session) run(ctx context.Context) error {
	var err error
	if s.layout, err = s.look(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { cancel(s.watch(ctx)) })
	if err := s.begin(ctx); err != nil {
		cancel(err)
	} else {
		tasks.Go(func() { cancel(s.aim(ctx)) })
		for leader, led := range s.leaders() {
			r := &reader{session: s, leader: leader, led: led, table: crc32.MakeTable(crc32.Castagnoli)}
			tasks.Go(func() { cancel(r.run(ctx)) })
		}
	}
	tasks.Wait()
	return context.Cause(ctx)
}

// look returns what metadata says of the topic's partitions. All of them must have a leader.
func (s *session) look(ctx context.Context) ([]metadata.ResponsePartition, error) {
	ctx, cancel := context.WithTimeout(ctx, followerAsk)
	defer cancel()
	m, err := s.cfg.Transport.RoundTrip(ctx, s.cfg.Addr, &metadata.Request{TopicNames: []string{s.cfg.Topic}})
	if err != nil {
		return nil, err
	}
	topic := m.(*metadata.Response).Topics[0]
	if topic.ErrorCode != 0 {
		return nil, kafka.Error(topic.ErrorCode)
	}
	for _, p := range topic.Partitions {
		if p.LeaderID < 0 {
			return nil, fmt.Errorf("partition %d has no leader: bring its broker back, and let topics have more replicas than one, as by "+
				"BRIDGE_KAFKA_REPLICATION=3 for those that the bridge creates: %w", p.PartitionIndex, kafka.LeaderNotAvailable)
		}
	}
	return topic.Partitions, nil
}

// leaders returns the partitions of each broker.
func (s *session) leaders() map[int32][]metadata.ResponsePartition {
	led := map[int32][]metadata.ResponsePartition{}
	for _, p := range s.layout {
		led[p.LeaderID] = append(led[p.LeaderID], p)
	}
	return led
}

// begin finds out where to read on in each partition, and how far.
func (s *session) begin(ctx context.Context) error {
	s.mu.Lock()
	asked, parts, acks := s.asked, maps.Clone(s.parts), maps.Clone(s.acked)
	s.mu.Unlock()
	// The ends before all else: where nothing is young enough, that is where to start.
	ends, err := s.offsets(ctx, kafka.LastOffset)
	if err != nil {
		return err
	}
	appended, err := s.appended(ctx)
	if err != nil {
		return err
	}
	starts, err := s.offsets(ctx, kafka.FirstOffset)
	if err != nil {
		return err
	}
	from := time.Now().Add(-s.cfg.Window - clockSkew).UnixMilli()
	byTime, err := s.offsets(ctx, from)
	if err != nil {
		return err
	}
	lost := false
	for id, p := range parts {
		end, there := ends[id]
		ack, own := acks[id]
		switch {
		case !there: // the topic was created anew, with fewer
			s.forget(id, errors.New("the partition is gone"))
		case p.next > end:
			s.forget(id, fmt.Errorf("the log ends at %d, and had been read to %d", end, p.next))
		case own && ack.offset >= end:
			s.forget(id, fmt.Errorf("the log ends at %d, and the record at %d had been acknowledged", end, ack.offset))
		default:
			continue
		}
		delete(parts, id)
		lost = true
	}
	if lost { // what was added to the index meanwhile is forgotten too, so the ends must be later ones
		s.mu.Lock()
		defer s.mu.Unlock()
		s.parts = parts
		return errMoved
	}
	for id, end := range ends {
		p := parts[id]
		// The batch before next must be there to be looked at.
		if p.check = p.marked && p.next > starts[id]; !p.check {
			p = part{next: byTime[id], goal: p.goal}
			if p.next < 0 {
				p.next = end
			}
		}
		p.end = 0
		p.aim(end, appended[id], time.Now())
		parts[id] = p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts, s.seen, s.live = parts, asked, true
	s.settle()
	return nil
}

// forget drops what is known of a partition, says why, and tells the sink's owner that events are lost.
func (s *session) forget(id int32, why error) {
	s.mu.Lock()
	delete(s.acked, id)
	s.mu.Unlock()
	n := s.cfg.Index.forget(id)
	s.cfg.Lost()
	s.cfg.Log.Warn().Msgf("topic %s, partition %d: %d ids are forgotten, what is there is read anew: %s", s.cfg.Topic, id, n, why)
}

// offsets returns, by partition, the offset of the first record that is as young as a time in milliseconds, −1 if
// there is none; or the log's start or end, for kafka.FirstOffset and kafka.LastOffset. The end is not that of the log
// but of what may be read, and never one that an old leader had reported higher (KIP-207).
func (s *session) offsets(ctx context.Context, time int64) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, followerAsk)
	defer cancel()
	offsets := map[int32]int64{}
	for leader, led := range s.leaders() {
		topic := listoffsets.RequestTopic{Topic: s.cfg.Topic}
		for _, p := range led {
			topic.Partitions = append(topic.Partitions, listoffsets.RequestPartition{Partition: p.PartitionIndex, CurrentLeaderEpoch: p.LeaderEpoch, Timestamp: time})
		}
		m, err := s.cfg.Transport.RoundTrip(ctx, s.cfg.Addr, s.to(leader, &listoffsets.Request{ReplicaID: -1, Topics: []listoffsets.RequestTopic{topic}}))
		if err != nil {
			return nil, err
		}
		for _, t := range m.(*listoffsets.Response).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return nil, fmt.Errorf("partition %d: %w", p.Partition, kafka.Error(p.ErrorCode))
				}
				offsets[p.Partition] = p.Offset
			}
		}
	}
	if len(offsets) != len(s.layout) {
		return nil, fmt.Errorf("offsets of %d partitions, of %d asked for", len(offsets), len(s.layout))
	}
	return offsets, nil
}

func (s *session) to(broker int32, m protocol.Message) *brokerRequest {
	return &brokerRequest{Message: m, client: s.cfg.Transport.ClientID, broker: broker}
}

// watch returns when partitions have moved.
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(layoutInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		// What is wrong with metadata is no reason to stop: the leaders themselves are asked.
		if now, err := s.look(ctx); err == nil && s.moved(now) {
			return errMoved
		}
	}
}

// moved tells whether partitions were added or have another leader. A broker that is behind may tell an old state.
func (s *session) moved(now []metadata.ResponsePartition) bool {
	if len(now) > len(s.layout) {
		return true
	}
	for i := range now {
		if now[i].LeaderEpoch > s.layout[i].LeaderEpoch {
			return true
		}
	}
	return false
}

// aim looks at the ends whenever it is asked to. It returns when they cannot be had.
func (s *session) aim(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			s.giveUp(now)
			continue
		case <-s.again:
		}
		s.mu.Lock()
		asked := s.asked
		s.mu.Unlock()
		ends, err := s.offsets(ctx, kafka.LastOffset)
		if err != nil {
			return err
		}
		appended, err := s.appended(ctx)
		if err != nil {
			return err
		}
		s.mu.Lock()
		for id, p := range s.parts {
			p.aim(ends[id], appended[id], time.Now())
			s.parts[id] = p
		}
		s.seen = asked
		s.settle()
		s.mu.Unlock()
	}
}

// giveUp no longer waits for what cannot be read.
func (s *session) giveUp(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.parts {
		if !p.overdue(now) || p.end <= p.readable {
			continue
		}
		if p.next < p.end {
			s.cfg.Log.Warn().Msgf("topic %s, partition %d: %d records have been on the leader alone for %s, so too few replicas are in sync; until that is mended their ids are not known",
				s.cfg.Topic, id, p.end-p.readable, tailPatience)
		}
		p.end = p.readable
		s.parts[id] = p
	}
	s.settle()
}
