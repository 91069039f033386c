package durable

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gembridge/bridge/pkg/sinks"
)

// done is called once an entry's event is in the sink, or has become another one. It is kept until past doubt.
func (d *Journaled) done(e *entry, final bool) {
	if e.state == waiting {
		d.dequeue(e)
		d.forwarded++
	}
	switch {
	case final || d.syncer == nil && d.cfg.Keep <= 0:
		delete(d.entries, e.id)
		d.journal.Settle(e.seq)
		return
	case d.syncer != nil:
		d.acks++
		e.mark = d.acks
	default:
		e.mark = uint64(d.alive)
	}
	e.state, e.at = kept, d.now()
	d.kept.push(e)
}

// settle settles kept entries, oldest ack first, as long as past says so, and returns how many.
func (d *Journaled) settle(past func(e *entry) bool) int {
	var seqs []uint64
	for e := d.kept.first; e != nil && past(e); e = d.kept.first {
		d.kept.remove(e)
		delete(d.entries, e.id)
		seqs = append(seqs, e.seq)
	}
	d.journal.Settle(seqs...)
	return len(seqs)
}

// forgotten is called by a sink that lost events which it had acknowledged: all that is kept waits again.
func (d *Journaled) forgotten() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch++
	if d.kept.len == 0 {
		return
	}
	again := make([]*entry, 0, d.kept.len)
	for e := d.kept.first; e != nil; e = d.kept.first {
		d.kept.remove(e)
		again = append(again, e)
	}
	slices.SortFunc(again, func(a, b *entry) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	for _, e := range again {
		d.enqueue(e)
	}
	// What is on its way would overtake those of its partition key.
	for _, f := range d.flights {
		if f.cancel != nil && d.lanes[f.lane] != nil {
			f.cancel()
		}
	}
	for _, l := range d.lanes {
		if l.busy {
			l.cancel()
		}
	}
	d.episode = true
	d.cfg.Log.Warn().Int(LogKeyEvents, len(again)).Msg("the sink lost events that it had acknowledged: those of the journal are offered again")
	d.pump()
}

// makeRoom settles kept events so that a full journal may take another, and tells whether there were any.
func (d *Journaled) makeRoom() bool {
	if d.syncer != nil {
		ctx, cancel := context.WithTimeout(d.life, d.cfg.AckTimeout)
		defer cancel()
		return d.checkpoint(ctx) > 0
	}
	const some = 64
	d.mu.Lock()
	defer d.mu.Unlock()
	left := some
	cut := d.settle(func(*entry) bool { left--; return left >= 0 })
	d.keepCut += uint64(cut)
	if cut > 0 && !d.cutting {
		d.cutting = true
		d.cfg.Log.Warn().Msg("the journal is full: acknowledged events leave it before BRIDGE_JOURNAL_KEEP; raise BRIDGE_JOURNAL_MAX_BYTES")
	}
	return cut > 0
}

// clock counts the time in which the sink was seen alive, and settles what was kept for long enough of it.
func (d *Journaled) clock() {
	tick := min(max(d.cfg.Keep/10, 10*time.Millisecond), 5*time.Second)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-d.life.Done():
			return
		case <-ticker.C:
		}
		d.mu.Lock()
		seen, keeps := d.sign, d.kept.len > 0
		d.sign = false
		d.mu.Unlock()
		if keeps && !seen {
			seen = d.accepts(tick)
		}
		full := d.nearlyFull()
		d.mu.Lock()
		if seen {
			d.alive += tick
		}
		d.settle(func(e *entry) bool {
			// Neither the tick that its ack came in counts whole, nor the one at whose end the sink was back.
			return d.alive-time.Duration(e.mark) >= d.cfg.Keep+2*tick || d.now()-e.at >= d.cfg.DedupWindow
		})
		d.cutting = d.cutting && full
		d.mu.Unlock()
	}
}

func (d *Journaled) accepts(timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(d.life, timeout)
	defer cancel()
	err := d.sink.Ready(ctx)
	_, degraded := errors.AsType[*sinks.DegradedError](err)
	return err == nil || degraded
}

func (d *Journaled) nearlyFull() bool {
	usage := d.journal.Usage()
	return usage.Bytes > usage.MaxBytes/10*9
}

// checkpoints lets the sink sync what it acknowledged.
func (d *Journaled) checkpoints() {
	ticker := time.NewTicker(d.cfg.CheckpointEvery)
	defer ticker.Stop()
	for {
		select {
		case <-d.life.Done():
			return
		case <-ticker.C:
			d.checkpoint(d.life)
		}
	}
}

// checkpoint settles what was acknowledged before a Sync that went well, and returns how many that were.
func (d *Journaled) checkpoint(ctx context.Context) int {
	d.mu.Lock()
	upTo, keeps := d.acks, d.kept.len > 0
	d.mu.Unlock()
	if !keeps {
		return 0
	}
	err := d.syncs.after(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if !d.unsynced && ctx.Err() == nil {
			d.unsynced = true
			d.cfg.Log.Error().Err(err).Msg("the sink could not sync: its events stay in the journal")
		}
		return 0
	}
	if d.unsynced {
		d.unsynced = false
		d.cfg.Log.Info().Msg("the sink syncs again")
	}
	return d.settle(func(e *entry) bool { return e.mark <= upTo })
}

// rounds lets many wait for one Sync, which begins after each of them has come.
type rounds struct {
	sync func() error

	mu   sync.Mutex
	next *round
	busy bool
}

type round struct {
	done chan struct{}
	err  error
}

// after returns what a Sync said that began after the call, or ctx's error.
func (r *rounds) after(ctx context.Context) error {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.busy {
		r.busy = true
		go r.run()
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *rounds) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next, r.busy = nil, now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		now.err = r.sync()
		close(now.done)
	}
}
