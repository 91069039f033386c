package durable

import (
	"context"
	"errors"
	"fmt"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

type step uint8

const (
	underWay step = iota
	succeeded
	failed
	omitted
)

// flight is one delivery from its beginning until publish and append have both ended, which may be long after its
// callers have gone. Everything but event and done is guarded by Journaled.mu.
type flight struct {
	event *schema.Event
	id    digest
	lane  uint64
	epoch uint64        // when the publish began
	done  chan struct{} // closed when told

	published  step
	outcome    outcome // of the publish, once it succeeded
	publishErr error
	cancel     func() // ends the publish
	appended   step
	appendErr  error
	entry      *entry // once appended
	placed     bool   // the entry is where it belongs
	syncing    bool   // a Sync of the sink is awaited, for lack of a journal

	told   bool // result and err are what callers hear
	result schema.Result
	err    error
	left   bool // the first caller has gone, and the journal does not have it
}

// outcome is what became of an event, or why nothing did.
type outcome struct {
	result schema.Result
	err    error
	final  bool // nothing is left to be kept: it is durable elsewhere, as a dead letter or in quarantine
}

func (f *flight) over() bool {
	return f.published != underWay && f.appended != underWay && !f.syncing
}

// launch begins the delivery of an event whose id is not held: publish and append at once. While an event of its
// partition key waits, it is only appended, so that it goes behind that one.
func (d *Journaled) launch(id digest, event *schema.Event) *flight {
	f := &flight{event: event, id: id, lane: d.laneOf(event.Key(), event.PartitionKey), epoch: d.epoch, done: make(chan struct{})}
	d.flights[id] = f
	if d.lanes[f.lane] != nil {
		f.published = omitted
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), d.cfg.AckTimeout)
		f.cancel = cancel
		go func() {
			defer cancel()
			out := d.attempt(ctx, event)
			d.mu.Lock()
			defer d.mu.Unlock()
			f.published, f.outcome = succeeded, out
			if out.err != nil {
				f.published, f.publishErr = failed, out.err
			} else if f.told && f.result == schema.Spooled || !f.told && out.result == schema.Spooled {
				d.count(out, event.Dead)
			}
			d.judge(f)
		}()
	}
	go func() {
		seq, err := d.write(event)
		d.mu.Lock()
		defer d.mu.Unlock()
		f.appended, f.appendErr = succeeded, err
		if err != nil {
			f.appended = failed
		} else {
			f.entry = &entry{seq: seq, id: id, lane: f.lane, dead: event.Dead, air: f.published == underWay}
			d.entries[id] = f.entry
		}
		d.judge(f)
	}()
	return f
}

// attempt publishes the event, or buries it if the sink refuses it.
func (d *Journaled) attempt(ctx context.Context, event *schema.Event) outcome {
	ack, err := d.cfg.publish(ctx, d.sink, event)
	refused, ok := errors.AsType[*sinks.RefusedError](err)
	switch {
	case ok && event.Dead:
		return d.setAside(event, refused)
	case ok:
		// A delivery of its own: the letter is in the sink or in the journal before the event leaves it.
		result, err := d.deliver(context.Background(), event.Refused(refused.Error()), true)
		if err != nil {
			err = fmt.Errorf("dead letter of an event that was %w: %w", refused, err)
		}
		return outcome{result: result, err: err, final: true}
	case err != nil:
		return outcome{err: err}
	}
	return outcome{result: resultOf(event, ack)}
}

// write appends the event to the journal, in which it makes room if it has to.
func (d *Journaled) write(event *schema.Event) (seq uint64, err error) {
	payload, err := event.MarshalBinary()
	if err != nil {
		return 0, err
	}
	if seq, err = d.journal.Append(payload); !errors.Is(err, journal.ErrFull) {
		return seq, err
	}
	d.room <- struct{}{} // one after the other
	defer func() { <-d.room }()
	for {
		if seq, err = d.journal.Append(payload); !errors.Is(err, journal.ErrFull) || !d.makeRoom() {
			return seq, err
		}
	}
}

// judge is called when something became known of a flight. It puts the record where it belongs, and tells the callers
// what they may rely on.
func (d *Journaled) judge(f *flight) {
	d.place(f)
	if !f.told {
		if result, err, known := d.verdict(f); known {
			f.tell(result, err)
		}
	}
	if f.left && (f.over() || f.entry != nil) {
		f.left = false
		d.left--
	}
	if f.over() {
		delete(d.flights, f.id)
	}
	d.pump()
}

func (f *flight) tell(result schema.Result, err error) {
	f.told, f.result, f.err = true, result, err
	close(f.done)
}

// place puts a record that is in the journal behind its publish.
func (d *Journaled) place(f *flight) {
	if f.published == succeeded {
		d.sign = true
	}
	e := f.entry
	if e == nil || f.published == underWay || f.placed {
		return
	}
	f.placed = true
	e.air = false
	if f.published == succeeded && (f.outcome.final || f.epoch == d.epoch) {
		d.done(e, f.outcome.final)
		return
	}
	d.spool(e, f.publishErr) // with an ack from before the sink forgot, too
}

// verdict is the table of replies.
func (d *Journaled) verdict(f *flight) (result schema.Result, err error, known bool) { //nolint:revive // an error among results, not beside one
	acked := f.published == succeeded
	switch {
	case acked && (f.outcome.final || f.appended == succeeded):
		return f.outcome.result, nil, true
	case f.appended == succeeded && f.published != underWay:
		return schema.Spooled, nil, true
	case f.appended != failed || f.published == underWay:
		return 0, nil, false
	case acked && f.epoch != d.epoch:
		return 0, fmt.Errorf("%w: the sink forgot what it had acknowledged: %w", sinks.ErrUnknown, f.appendErr), true
	case acked && d.syncer == nil:
		return f.outcome.result, nil, true
	case acked && !f.syncing:
		f.syncing = true
		go d.sync(f)
		return 0, nil, false
	case acked:
		return 0, nil, false
	case f.published == omitted:
		return 0, fmt.Errorf("an event of the same partition key waits, and the journal does not take this one: %w", f.appendErr), true
	}
	return 0, fmt.Errorf("%w; and the journal: %w", f.publishErr, f.appendErr), true
}

// sync makes an acknowledged event durable that the journal did not take.
func (d *Journaled) sync(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.AckTimeout)
	defer cancel()
	err := d.syncs.after(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	f.syncing = false
	if err == nil && f.epoch != d.epoch {
		err = fmt.Errorf("%w: it forgot what it had acknowledged", sinks.ErrUnknown)
	}
	if err != nil {
		f.tell(0, fmt.Errorf("the sink could not sync: %w; and the journal: %w", err, f.appendErr))
	} else {
		f.tell(f.outcome.result, nil)
	}
	d.judge(f)
}

// timeout tells the callers of a flight what they may rely on at the end of their patience, if they may on anything.
func (d *Journaled) timeout(f *flight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case f.told:
	case f.entry != nil:
		d.spool(f.entry, ErrTimeout)
		f.tell(schema.Spooled, nil)
		d.pump()
	case f.published == succeeded && d.syncer == nil && f.epoch == d.epoch: // the journal hangs
		f.tell(f.outcome.result, nil)
	}
}
