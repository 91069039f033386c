package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/gembridge/bridge/pkg/sinks"
)

// followerPace is the least time between two fetches, but while there is much to read: what many publishes wrote
// then comes in one answer.
const followerPace = 2 * time.Millisecond

// reader reads the partitions that one broker leads, into the index.
type reader struct {
	*session
	leader  int32
	led     []metadata.ResponsePartition
	table   *crc32.Table
	room    []byte // for what is compressed
	damaged map[int32]int64
}

// run ends with a reason, always.
func (r *reader) run(ctx context.Context) error {
	var answer []byte
	for turn := 0; ; turn++ {
		req := &fetchRequest{brokerRequest: *r.to(r.leader, r.fetch(turn)), ctx: ctx, answer: answer[:0]}
		// When it fails, it may still be reading into the answer.
		if _, err := r.cfg.Transport.RoundTrip(ctx, r.cfg.Addr, req); err != nil {
			return err
		}
		all, throttle, err := req.partitions()
		if err != nil {
			return err
		}
		if err := r.take(all); err != nil {
			return err
		}
		if len(req.answer) < fetchBytes/16 {
			throttle = max(throttle, followerPace)
		}
		if throttle > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(throttle):
			}
		}
		// A backlog is read with the same memory over and over; afterwards none of it is kept.
		if answer = req.answer; cap(answer) > 4*len(answer) {
			answer, r.room = nil, nil
		}
	}
}

// fetch asks for what comes next. A broker fills its answer in the order of the partitions, so each is first in turn.
func (r *reader) fetch(turn int) *fetch.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	topic := fetch.RequestTopic{Topic: r.cfg.Topic}
	for i := range r.led {
		l := r.led[(turn+i)%len(r.led)]
		p := r.parts[l.PartitionIndex]
		next := p.next
		if p.check {
			next--
		}
		topic.Partitions = append(topic.Partitions, fetch.RequestPartition{
			Partition: l.PartitionIndex, CurrentLeaderEpoch: l.LeaderEpoch, FetchOffset: next, LogStartOffset: -1, PartitionMaxBytes: fetchBytes,
		})
	}
	return &fetch.Request{
		ReplicaID: -1, MaxWaitTime: int32(fetchWait / time.Millisecond), MinBytes: 1, MaxBytes: fetchBytes, SessionEpoch: -1,
		Topics: []fetch.RequestTopic{topic},
	}
}

// take reads what one fetch brought.
func (r *reader) take(all []fetched) error {
	stuck, brought := true, 0
	for _, got := range all {
		if got.err != 0 {
			return fmt.Errorf("partition %d: %w", got.partition, got.err)
		}
		r.mu.Lock()
		p, known := r.parts[got.partition]
		r.mu.Unlock()
		if !known {
			return fmt.Errorf("partition %d was not asked for", got.partition)
		}
		before := p
		err := r.takePart(got, &p)
		stuck = stuck && p == before
		brought += len(got.records)
		r.mu.Lock()
		p.goal = r.parts[got.partition].goal
		r.parts[got.partition] = p
		r.settle()
		r.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if stuck && brought > 0 {
		return fmt.Errorf("%d bytes without a whole batch", brought)
	}
	return nil
}

func (r *reader) takePart(got fetched, p *part) error {
	start, damaged := p.next, false
	r.mu.Lock()
	ack, own := r.acked[got.partition]
	r.mu.Unlock()
	for set := got.records; ; {
		b, rest, ok := cutBatch(set)
		if !ok {
			break
		}
		set = rest
		intact := b.intact(r.table)
		if p.check && b.last >= p.next-1 {
			p.check = false
			if b.first < p.next && b.mark() != p.mark {
				r.forget(got.partition, errors.New("the batch that was read last is another now"))
				*p = part{goal: p.goal, next: -1}
				return errMoved
			}
		}
		damaged = damaged || !intact
		if b.last < p.next {
			continue
		}
		end, err := b.last+1, errDamaged
		if !intact { // then its header may say anything
			end = min(end, max(got.highWatermark, p.next+1))
		} else {
			other := false
			r.room, err = b.ids(r.room, func(id []byte, offset, at int64) {
				other = other || own && offset == ack.offset && digestOf(&r.cfg.Index.secret, id) != ack.id
				if at < 0 { // the record has no time
					at = time.Now().UnixMilli()
				}
				r.cfg.Index.addBytes(id, sinks.Position{Partition: got.partition, Sequence: uint64(offset)}, at)
			})
			if other {
				r.forget(got.partition, fmt.Errorf("the record at %d is another than was acknowledged", ack.offset))
				*p = part{goal: p.goal, next: -1}
				return errMoved
			}
		}
		if err != nil {
			r.skip(got.partition, b, err)
		}
		p.next, p.mark, p.marked = end, b.mark(), true
	}
	if damaged && p.next == start {
		p.next++
	}
	return nil
}

// skip says that a batch's ids are not known, once.
func (r *reader) skip(partition int32, b storedBatch, err error) {
	if r.damaged == nil {
		r.damaged = map[int32]int64{}
	}
	if first, said := r.damaged[partition]; said && first == b.first {
		return
	}
	r.damaged[partition] = b.first
	r.cfg.Log.Error().Msgf("topic %s, partition %d: ids in the batch at offset %d cannot be read: %s", r.cfg.Topic, partition, b.first, err)
}
