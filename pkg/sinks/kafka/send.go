package kafka

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"

	"github.com/gembridge/bridge/pkg/sinks"
)

const (
	// attempt is for how long a request is waited for, and minRate, in bytes per second, makes it longer for what
	// takes its time to send. An attempt given up is repeated, so a slow answer costs no more than that.
	attempt = 1500 * time.Millisecond
	minRate = 256 << 10
	// ackMargin is how much earlier the broker gives up waiting for its followers, so that it says so.
	ackMargin = 300 * time.Millisecond
	// Bounds of the wait after an attempt that failed.
	minPause, maxPause = 20 * time.Millisecond, 250 * time.Millisecond
)

// send sends a batch until its records are answered, or known not to be stored and back in the lane.
func (l *lane) send(batch []*pending) {
	s := l.topic.sink
	if l.producer == noProducer() {
		var err error
		if l.producer, err = s.conn.newProducer(s.life); err != nil {
			l.retry(batch, fmt.Errorf("no producer id: %w", l.topic.explain(l.partition, err)), nil)
			return
		}
		l.sequence = 0
	}
	now := time.Now()
	b, err := s.encode.encode(l.buffer, l.producer, l.sequence, now, batch)
	l.buffer = nil // until no request can be reading it any more
	if err != nil {
		l.retry(batch, err, nil)
		return
	}
	maybe := false // whether the batch may be stored
	for n := 0; ; n++ {
		if l.topic.lossesSoFar() != batch[0].losses { // what may have been stored is lost
			l.fence(nil)
			l.well() // nothing is in doubt any more
			l.again(batch, errLost, true)
			return
		}
		base, sent, cause := l.produce(b)
		v := judge(cause)
		if !sent {
			v = unstored
		}
		if v == stored {
			if n == 0 && cap(b) <= 2*maxBatch {
				l.buffer = b
			}
			l.stored(batch, base, now)
			return
		}
		maybe = maybe || v == unknown
		err := l.topic.explain(l.partition, cause)
		switch {
		case s.life.Err() != nil:
			l.cut(batch, maybe)
			return
		case v == forgotten, maybe && (v == refused || v == forbidden):
			l.failed(err, true)
			l.reconcile(batch, err, cause)
			return
		case maybe && l.topic.lost(l.partition): // and with it what may have been stored
			l.retry(batch, err, cause)
			return
		case maybe:
			l.failed(err, true)
			l.rest(cause)
			if l.overtaken(batch, cause) {
				l.reconcile(batch, err, cause)
				return
			}
		case v == refused && len(batch) > 1:
			// One of them is at fault. They come again in smaller batches, in the same order.
			l.most = len(batch) / 2
			l.fence(cause)
			l.again(batch, err, false)
			return
		case v == refused || v == forbidden:
			l.fence(cause)
			l.refuse(batch, v, cause)
			return
		default:
			l.retry(batch, err, cause)
			return
		}
	}
}

// produce makes one attempt. It returns the offset of the batch's first record, and whether anything can have been
// sent.
func (l *lane) produce(b []byte) (base int64, sent bool, err error) {
	timeout := attempt + time.Duration(len(b))*time.Second/minRate
	body := &body{bytes: b}
	res, err := l.topic.sink.conn.ask(l.topic.sink.life, timeout, &rawproduce.Request{
		Acks: -1, Timeout: int32((timeout - ackMargin).Milliseconds()),
		Topics: []rawproduce.RequestTopic{{Topic: l.topic.name, Partitions: []rawproduce.RequestPartition{
			{Partition: l.partition, RecordSet: protocol.RawRecordSet{Reader: body}},
		}}},
	})
	if err != nil && body.withdraw() {
		return 0, false, fmt.Errorf("not sent: %w", err)
	}
	if err != nil {
		return 0, true, fmt.Errorf("no answer: %w", err)
	}
	base, err = answered(res.(*produce.Response))
	return base, true, err
}

// answered reads the answer to a request of one partition.
func answered(res *produce.Response) (base int64, err error) {
	if len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
		return 0, errors.New("empty answer")
	}
	p := res.Topics[0].Partitions[0]
	switch {
	case p.ErrorCode == 0:
		return p.BaseOffset, nil
	case p.ErrorMessage != "":
		return 0, fmt.Errorf("%w: %s", kafka.Error(p.ErrorCode), p.ErrorMessage)
	}
	return 0, kafka.Error(p.ErrorCode)
}

// stored answers a batch that the broker has acknowledged.
func (l *lane) stored(batch []*pending, base int64, at time.Time) {
	l.sequence = after(l.sequence, len(batch))
	l.most = int(min(2*int64(l.most), math.MaxInt32))
	l.pause = 0
	l.topic.allowed()
	l.well()
	if base < 0 { // it does not remember where; the log does
		l.topic.follower.reread()
	} else {
		last := len(batch) - 1
		l.topic.follower.ack(l.partition, base+int64(last), batch[last].id)
	}
	for i, p := range batch {
		var pos sinks.Position
		if base >= 0 {
			pos = sinks.Position{Partition: l.partition, Sequence: uint64(base) + uint64(i)}
			l.topic.index.add(p.id, pos, at)
		}
		p.done <- outcome{ack: sinks.Ack{Position: pos}}
	}
}

// refuse answers records that the broker will not take.
func (l *lane) refuse(batch []*pending, v verdict, cause error) {
	l.well()
	if v == forbidden {
		l.topic.forbidden()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range batch {
		p.done <- outcome{err: &sinks.RefusedError{Reason: l.topic.reason(p, cause), Err: cause}}
	}
}

// retry puts a batch that is not stored back, or answers it when that has gone on for too long.
func (l *lane) retry(batch []*pending, err, cause error) {
	late := l.failed(err, false) > giveUp
	l.fence(cause)
	l.again(batch, err, late)
	l.rest(cause)
}

// overtaken tells whether the log has an id of a batch that may be stored: it is, or another bridge has got the
// sender's retry and stored that. While no broker answers, it waits: what another has stored meanwhile comes to light
// before this is sent again.
func (l *lane) overtaken(batch []*pending, cause error) bool {
	if _, answered := errors.AsType[kafka.Error](cause); !answered && !l.readAll() {
		return false
	}
	return slices.ContainsFunc(batch, func(p *pending) bool {
		_, found := l.topic.index.find(p.id)
		return found
	})
}

// readAll waits until the index knows all that the topic holds now. It returns false when that will not be: the
// partition is gone, or the sink's life ends.
func (l *lane) readAll() bool {
	l.topic.follower.reread()
	for l.topic.follower.caughtUp() != nil {
		if l.topic.sink.life.Err() != nil || l.topic.lost(l.partition) {
			return false
		}
		l.topic.sink.sleep(poll)
	}
	return true
}

// reconcile looks up in the log what became of a batch, once the index has read all that is there.
func (l *lane) reconcile(batch []*pending, err, cause error) {
	if !l.readAll() {
		if l.topic.sink.life.Err() != nil {
			l.cut(batch, true)
		} else { // the partition is gone
			l.retry(batch, err, cause)
		}
		return
	}
	l.fence(cause)
	l.well()
	var missing []*pending
	for _, p := range batch {
		if pos, found := l.topic.index.find(p.id); found {
			p.done <- outcome{ack: sinks.Ack{Position: pos}}
		} else {
			missing = append(missing, p)
		}
	}
	l.again(missing, err, false)
}

// fence makes sure that what this lane has sent so far, and something may still carry to the broker, is never taken
// for what it sends next: with the first batch of a later epoch the broker refuses earlier ones (KIP-360).
func (l *lane) fence(cause error) {
	code, _ := errors.AsType[kafka.Error](cause)
	switch {
	case code == kafka.InvalidProducerEpoch, code == kafka.InvalidProducerIDMapping, code == kafka.ProducerFenced,
		code == kafka.UnknownProducerId, l.producer.epoch == math.MaxInt16:
		l.producer = noProducer()
	case l.producer != noProducer():
		l.producer.epoch++
	}
	l.sequence = 0
}

// rest waits after an attempt that failed, and has done what may make the next one succeed.
func (l *lane) rest(cause error) {
	s := l.topic.sink
	if isMoved(cause) {
		s.conn.reset()
	}
	s.lookSoon()
	l.pause = min(max(2*l.pause, minPause), maxPause)
	s.sleep(l.pause)
}

// cut answers a batch when nothing is waited for any more.
func (l *lane) cut(batch []*pending, maybe bool) {
	err := sinks.ErrClosed
	if maybe {
		err = fmt.Errorf("%w: %w", sinks.ErrUnknown, sinks.ErrClosed)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer(batch, err)
}

// body is what a request sends. kafka-go reads it when it has a connection to write the request to, which may be
// after its caller has left.
type body struct {
	bytes []byte
	taken atomic.Bool // to be sent, or withdrawn
}

// withdraw returns true if nothing was and nothing will be sent.
func (b *body) withdraw() bool { return b.taken.CompareAndSwap(false, true) }

func (b *body) WriteTo(w io.Writer) (int64, error) {
	if !b.taken.CompareAndSwap(false, true) {
		return 0, errors.New("withdrawn")
	}
	n, err := w.Write(b.bytes)
	return int64(n), err
}

func (b *body) Read([]byte) (int, error) { return 0, errors.ErrUnsupported } // io.Copy calls WriteTo
