package durable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
)

// Close refuses what comes from now on, waits for deliveries under way and forwards what waits, as long as ctx has time
// and the sink takes something. Then it syncs a sinks.Syncer for the last time, closes the sink, and the journal last.
//
// It returns ctx's error when deliveries were left behind that the journal does not have, joined with those of the sink
// and of the journal. Events that still wait are no error: Stats tells their number, and the next start forwards them.
func (d *Journaled) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.freshStart()
	d.pump()
	d.mu.Unlock()

	drain, cancel := reserve(ctx)
	defer cancel()
	d.until(drain, func() bool { return d.unsafe() == 0 && !d.progress() })
	d.mu.Lock()
	d.endForwarding()
	d.mu.Unlock()
	d.until(ctx, func() bool { return d.routes[0].out+d.routes[1].out == 0 })
	if d.syncer != nil && ctx.Err() == nil {
		d.checkpoint(ctx)
	}
	d.mu.Lock()
	for _, f := range d.flights {
		if !f.told && f.entry != nil {
			d.spool(f.entry, ErrTimeout)
			f.tell(schema.Spooled, nil)
		}
	}
	left, hanging := d.unsafe(), len(d.flights) > 0
	d.mu.Unlock()
	var err error
	switch {
	case left > 0:
		err = errors.Join(fmt.Errorf("%d deliveries under way: %w", left, drain.Err()), d.sink.Close(ctx))
	case hanging: // the journal has what the sink may never tell about
		brief, cancel := context.WithTimeout(ctx, d.cfg.AttemptTimeout)
		defer cancel()
		if err = d.sink.Close(brief); brief.Err() != nil && errors.Is(err, brief.Err()) {
			err = nil
		}
	default:
		err = d.sink.Close(ctx)
	}
	d.endLife()
	d.loops.Wait()
	if n := d.Stats().Waiting; n > 0 {
		d.cfg.Log.Warn().Int(LogKeyEvents, n).Msg("events wait in the journal for the next start")
	}
	return errors.Join(err, d.closeJournal())
}

// closeJournal passes over marks that could not be written: those events are offered again, and known by their ids.
func (d *Journaled) closeJournal() error {
	err := d.journal.Close()
	if errors.Is(err, journal.ErrFailing) || errors.Is(err, journal.ErrFull) {
		d.cfg.Log.Warn().Err(err).Msg("the journal could not note what is settled: the next start offers it again")
		return nil
	}
	return err
}

// unsafe returns how many deliveries are under way whose callers have not been told anything. The caller holds mu.
func (d *Journaled) unsafe() int {
	n := 0
	for _, f := range d.flights {
		if !f.told {
			n++
		}
	}
	return n
}

// reserve keeps some of ctx's time for what comes after the draining.
func reserve(ctx context.Context) (context.Context, context.CancelFunc) {
	end, bounded := ctx.Deadline()
	if !bounded {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(time.Until(end)/4, time.Second)))
}

// freshStart lets everything that waits be tried at once, whatever failed before.
func (d *Journaled) freshStart() {
	for i := range d.routes {
		d.routes[i].failures, d.routes[i].rounds, d.routes[i].acked = 0, 0, false
	}
	for _, l := range d.lanes {
		l.parked = false
		d.wake(l)
	}
}

// progress tells whether forwarding may get somewhere. It does not where every lane, or very many attempts in a row,
// failed; where some succeeded meanwhile, it takes more.
//
// A lane whose first is in the air for a caller that was told already goes on when that has landed, and not before.
func (d *Journaled) progress() bool {
	stuck := map[uint64]*route{}
	for _, f := range d.flights {
		if f.entry != nil && f.entry.air {
			stuck[f.lane] = d.routeOf(f.entry)
		}
	}
	for i := range d.routes {
		r := &d.routes[i]
		lanes := r.lanes
		for lane, route := range stuck {
			if route == r && d.lanes[lane] != nil {
				lanes--
			}
		}
		limit := min(lanes, probes)
		if r.acked {
			limit = min(4*lanes, probes)
		}
		if r.out > 0 || lanes > 0 && r.failures < limit {
			return true
		}
	}
	return false
}

// until waits for cond, which is asked after every change, at most until ctx ends.
func (d *Journaled) until(ctx context.Context, cond func() bool) {
	met := make(chan struct{})
	watch := func() {
		if cond() {
			close(met)
			d.watch = nil
		}
	}
	d.mu.Lock()
	d.watch = watch
	watch()
	d.mu.Unlock()
	select {
	case <-met:
	case <-ctx.Done():
	}
	d.mu.Lock()
	d.watch = nil
	d.mu.Unlock()
}
