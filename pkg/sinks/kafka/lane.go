package kafka

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/sinks"
)

const (
	// maxBatch bounds a batch, in bytes, so that it fits Kafka's default of 1 MiB. A record that is larger goes alone.
	maxBatch = 900 << 10
	// fresh is for how long a look into the index holds.
	fresh = 50 * time.Millisecond
	// episode is the time without a failure after which the next one is another matter.
	episode = 10 * time.Second
)

// pending is an event on its way.
type pending struct {
	record
	id    string
	since time.Time
	// losses is how often the log had lost events when this was published.
	losses int
	done   chan outcome // gets one

	sent bool // it is in a batch; guarded by lane.mu
	left bool // its caller would have it back; guarded by lane.mu
}

type outcome struct {
	ack sinks.Ack
	err error
}

// lane carries the records of one partition, in the order in which they came. It has one batch out at a time. That
// batch keeps its bytes and its sequence number until its outcome is known: the broker stores it once, however often
// it comes. No sequence number is ever used for another batch.
type lane struct {
	topic     *topic
	partition int32

	// Of the goroutine that drains the lane; there is at most one.
	producer producer
	sequence int32
	buffer   []byte
	most     int // records that the next batch may have
	pause    time.Duration

	mu      sync.Mutex
	waiting []*pending
	running bool
	stuck   bool      // the batch that is out may be stored, so nothing else can be sent
	since   time.Time // of the first failure in a row, or zero
	last    time.Time // of the last failure
	why     error     // the last failure
	said    bool      // the log tells of it
}

func newLane(t *topic, partition int) *lane {
	return &lane{topic: t, partition: int32(partition), producer: noProducer(), most: math.MaxInt32}
}

// add puts a record at the end of the lane, unless it would only wait behind one that is stuck.
func (l *lane) add(p *pending) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck && time.Since(l.since) > giveUp {
		return l.why
	}
	l.waiting = append(l.waiting, p)
	if !l.running {
		l.running = true
		l.topic.sink.tasks.Go(l.drain)
	}
	return nil
}

// withdraw takes a record back that was not sent. When it returns false, its outcome comes.
func (l *lane) withdraw(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.left = true
	i := slices.Index(l.waiting, p)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

// unsent is why a record was not sent before err ended the wait for it.
func (l *lane) unsent(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return fmt.Errorf("%w: %w", l.why, err)
	}
	return err
}

func (l *lane) drain() {
	for {
		if err := l.topic.gate(); err != nil {
			if !l.wait(err) {
				return
			}
			continue
		}
		batch := l.take()
		if len(batch) == 0 {
			return
		}
		l.send(batch)
	}
}

// wait waits for a topic that takes no records. It returns false when there is nothing left to wait for: the lane
// then rests.
func (l *lane) wait(err error) bool {
	patient := !errors.Is(err, sinks.ErrClosed) && l.topic.shutFor() <= giveUp
	if patient {
		l.topic.sink.sleep(poll)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !patient {
		l.answer(l.waiting, err)
		l.waiting = nil
	}
	l.running = len(l.waiting) > 0
	return l.running
}

// take returns what leaves with the next batch. If that is nothing, the lane rests.
func (l *lane) take() []*pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, batchHeader
	limit := l.topic.maxBatch()
	var batch []*pending
	now, losses := time.Now(), l.topic.lossesSoFar()
	for _, p := range l.waiting {
		if len(batch) > 0 && (len(batch) >= l.most || size+p.most() > limit) {
			break
		}
		n++
		if p.losses != losses {
			p.done <- outcome{err: errLost}
			continue
		}
		// Another bridge may have stored it while it waited.
		if now.Sub(p.since) > fresh {
			if pos, found := l.topic.index.find(p.id); found {
				p.done <- outcome{ack: sinks.Ack{Position: pos, Duplicate: true}}
				continue
			}
		}
		p.sent = true
		size += p.most()
		batch = append(batch, p)
	}
	l.waiting = slices.Delete(l.waiting, 0, n)
	l.running = len(batch) > 0
	return batch
}

// answer tells an error to those whose events are not stored. The caller holds mu.
func (l *lane) answer(batch []*pending, err error) {
	for _, p := range batch {
		p.done <- outcome{err: err}
	}
}

// again puts records that are not stored back, before all that wait. With late, or when a caller has left, they are
// answered instead.
func (l *lane) again(batch []*pending, err error, late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	back := make([]*pending, 0, len(batch)+len(l.waiting))
	losses := l.topic.lossesSoFar()
	for _, p := range batch {
		if p.left || late || p.losses != losses {
			p.done <- outcome{err: err}
			continue
		}
		p.sent = false
		back = append(back, p)
	}
	l.waiting = append(back, l.waiting...)
}

// failed notes an attempt that stored nothing for sure, or with stuck perhaps something. It returns for how long there
// has been no success.
func (l *lane) failed(err error, stuck bool) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.since.IsZero() || now.Sub(l.last) > episode && !l.stuck {
		l.since = now
	}
	l.last, l.why, l.stuck = now, err, stuck
	if now.Sub(l.since) > giveUp && !l.said {
		l.said = true
		l.log().Warn().Msg("not published: " + err.Error())
	}
	return now.Sub(l.since)
}

// well notes a success.
func (l *lane) well() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.why, l.stuck = time.Time{}, nil, false
	if l.said {
		l.said = false
		l.log().Info().Msgf("topic %s, partition %d: published to again", l.topic.name, l.partition)
	}
}

// trouble returns why nothing is published, if that has been so for longer than anybody waits, or nil.
func (l *lane) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said {
		return l.why
	}
	return nil
}

func (l *lane) log() *zerolog.Logger {
	log := l.topic.sink.cfg.Log.With().Str(LogKeyTopic, l.topic.name).Int32(LogKeyPartition, l.partition).Logger()
	return &log
}
