package durable

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
)

const (
	window     = 256 // attempts at forwarding under way at once, each of another partition key
	probes     = 16  // as many are made at once while nothing but failures came back
	minBackOff = 100 * time.Millisecond
	maxBackOff = time.Second
)

// route forwards to one of the sink's two places, that of events or that of dead letters: one may be out of order
// while the other is not.
type route struct {
	ready    []*lane // those whose first may be sent, longest ready first
	lanes    int     // that wait
	out      int     // attempts under way
	failures int     // since the last ack
	rounds   int     // of probes since the last ack
	credit   int     // probes left in this round
	resting  bool    // a timer will give credit
	acked    bool    // there was an ack since Close began, or since the last pause
}

// open tells whether an attempt may begin.
func (r *route) open() bool {
	return len(r.ready) > 0 && r.out < window && (r.failures < probes || r.credit > 0)
}

// backOff is the pause after that many failures in a row, with jitter.
func backOff(failures int) time.Duration {
	pause := min(minBackOff<<min(failures-1, 10), maxBackOff)
	return pause*3/4 + rand.N(pause/4)
}

func (d *Journaled) routeOf(e *entry) *route {
	if e.dead {
		return &d.routes[1]
	}
	return &d.routes[0]
}

// enqueue makes an entry a waiting one.
func (d *Journaled) enqueue(e *entry) {
	e.state, e.at = waiting, d.now()
	d.waiting.push(e)
	l := d.lanes[e.lane]
	if l == nil {
		l = newLane(d.routeOf(e))
		l.route.lanes++
		d.lanes[e.lane] = l
	}
	l.insert(e)
	d.wake(l)
}

func (d *Journaled) dequeue(e *entry) {
	d.waiting.remove(e)
	l := d.lanes[e.lane]
	if l.remove(e); len(l.queue) == 0 {
		l.route.lanes--
		delete(d.lanes, e.lane)
	}
}

// spool makes an entry a waiting one if it is not, because of err.
func (d *Journaled) spool(e *entry, err error) {
	if e.state != waiting {
		d.enqueue(e)
	} else {
		d.wake(d.lanes[e.lane])
	}
	if !d.episode {
		d.episode = true
		d.cfg.Log.Warn().Err(err).Msg("the sink does not take events now: they wait in the journal")
	}
}

// wake puts a lane into its route's row if its first may be sent.
func (d *Journaled) wake(l *lane) {
	if l == nil || l.ready || l.busy || l.parked || len(l.queue) == 0 || l.queue[0].air {
		return
	}
	l.ready = true
	l.route.ready = append(l.route.ready, l)
}

// pump begins as many attempts as may be, and lets Close look at how things stand. It is called after every change.
func (d *Journaled) pump() {
	for i := range d.routes {
		r := &d.routes[i]
		for d.forwarding.Err() == nil && r.open() {
			l := r.ready[0]
			r.ready[0] = nil
			r.ready = r.ready[1:]
			l.ready = false
			if len(l.queue) == 0 || l.queue[0].air {
				continue // its last was acknowledged meanwhile, or an older one came that is in the air
			}
			d.send(l, l.queue[0])
		}
		if len(r.ready) > 0 && r.failures >= probes && r.credit == 0 && !r.resting {
			d.rest(r)
		}
	}
	if d.waiting.len == 0 && d.episode {
		d.cfg.Log.Info().Int(LogKeyEvents, d.forwarded).Msg("everything that waited has been forwarded")
		d.episode, d.forwarded = false, 0
	}
	if d.watch != nil {
		d.watch()
	}
}

// send begins an attempt at forwarding the first of a lane.
func (d *Journaled) send(l *lane, e *entry) {
	r := l.route
	if r.credit > 0 {
		r.credit--
	}
	r.out++
	l.busy, e.air = true, true
	epoch := d.epoch
	ctx, cancel := context.WithTimeout(d.forwarding, d.cfg.AttemptTimeout)
	l.cancel = cancel
	slot := true
	free := func() {
		if slot {
			slot = false
			r.out--
		}
	}
	// A publish may outlast its ctx by far, and shall not keep the others waiting.
	overdue := time.AfterFunc(d.cfg.AttemptTimeout+minBackOff, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if slot {
			free()
			r.failures++
			d.pump()
		}
	})
	go func() {
		out := d.again(ctx, e)
		overdue.Stop()
		cancel()
		d.mu.Lock()
		defer d.mu.Unlock()
		free()
		l.busy, e.air = false, false
		d.landed(l, e, epoch, out)
		d.pump()
	}()
}

// again publishes the event of a record.
func (d *Journaled) again(ctx context.Context, e *entry) outcome {
	payload, err := d.journal.Get(e.seq)
	if errors.Is(err, journal.ErrDamaged) || errors.Is(err, journal.ErrGone) {
		d.cfg.Log.Error().Err(err).Uint64(LogKeySeq, e.seq).Msg("a record of the journal cannot be read: its event is lost here")
		return outcome{final: true}
	}
	if err != nil {
		return outcome{err: err}
	}
	event := &schema.Event{}
	if err := event.UnmarshalBinary(payload); err != nil {
		return d.setAsidePayload(e.seq, payload, err)
	}
	return d.attempt(ctx, event)
}

// landed is what follows an attempt.
func (d *Journaled) landed(l *lane, e *entry, epoch uint64, out outcome) {
	switch {
	case out.err != nil && epoch == d.epoch:
		l.failures++
		l.parked = true
		l.route.failures++
		d.spool(e, out.err)
		time.AfterFunc(backOff(l.failures), func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			l.parked = false
			d.wake(l)
			d.pump()
		})
	case out.err != nil || !out.final && epoch != d.epoch: // the sink forgot meanwhile
		d.wake(l)
	default:
		l.failures = 0
		r := l.route
		r.failures, r.rounds, r.credit, r.acked = 0, 0, 0, true
		d.sign = true
		d.count(out, e.dead)
		d.done(e, out.final)
		d.wake(l)
	}
}

// rest gives a route its next round of probes after a pause. While Close drains, it does so once after each ack.
func (d *Journaled) rest(r *route) {
	if d.closed && !r.acked {
		return
	}
	r.acked = false
	r.resting = true
	r.rounds++
	time.AfterFunc(backOff(r.rounds), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		r.resting, r.credit = false, probes
		d.pump()
	})
}

// count counts the dead letter of an event whose caller was told that it is spooled.
func (d *Journaled) count(out outcome, dead bool) {
	if out.final && !dead && (out.result == schema.DeadLettered || out.result == schema.Spooled) && d.cfg.DeadLetters != nil {
		d.cfg.DeadLetters.Inc()
	}
}
