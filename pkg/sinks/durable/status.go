package durable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Left returns how many deliveries are under way whose caller has gone. What only waits in the journal is none.
func (d *Journaled) Left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left
}

// Held returns the ids of the deliveries under way that the journal does not have.
func (d *Journaled) Held() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, 0, len(d.flights))
	for _, f := range d.flights {
		if f.entry == nil && !f.told {
			ids = append(ids, f.event.ID)
		}
	}
	return ids
}

// Stats are a Journaled's numbers.
type Stats struct {
	Waiting       int           // events that the sink has not acknowledged
	Kept          int           // acknowledged events that are not past doubt
	Bytes         int64         // of the journal on disk
	OldestWaiting time.Duration // since the one that has waited longest was received or began to wait; 0 if none does
	Quarantined   uint64        // events and records set aside since the start, damaged records included
	KeepCut       uint64        // kept events that had to make room since the start
}

// Stats returns the numbers of this moment.
func (d *Journaled) Stats() Stats {
	usage := d.journal.Usage()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{
		Waiting: d.waiting.len, Kept: d.kept.len, Bytes: usage.Bytes,
		Quarantined: d.quarantined.Load() + usage.Damaged, KeepCut: d.keepCut,
	}
	if d.waiting.len > 0 {
		s.OldestWaiting = max(0, d.now()-d.waiting.first.at)
	}
	return s
}

// Ready returns nil when sink and journal are fine. It returns a *sinks.DegradedError when a delivery would be accepted
// durably while one of them is not, or while the journal is nearly full, and another error when neither would take it.
func (d *Journaled) Ready(ctx context.Context) error {
	sinkErr := d.sink.Ready(ctx)
	if errors.Is(sinkErr, sinks.ErrClosed) {
		return sinkErr
	}
	usage := d.journal.Usage()
	var details []string
	if degraded, ok := errors.AsType[*sinks.DegradedError](sinkErr); ok {
		details, sinkErr = append(details, degraded.Details...), nil
	}
	switch {
	case sinkErr != nil && usage.Err != nil:
		return fmt.Errorf("the sink is down and the journal does not take events: %w; %w", sinkErr, usage.Err)
	case sinkErr != nil:
		details = append(details, fmt.Sprintf("the sink is down, events are spooled: %v", sinkErr))
	case errors.Is(usage.Err, journal.ErrFull):
		details = append(details, "the journal is full, events are as durable as the sink's word: raise BRIDGE_JOURNAL_MAX_BYTES")
	case usage.Err != nil:
		details = append(details, fmt.Sprintf("the journal does not take events, they are as durable as the sink's word: "+
			"see to the disk of BRIDGE_DATA_DIR: %v", usage.Err))
	}
	if usage.Err == nil && usage.Bytes > usage.MaxBytes/10*9 && usage.MaxBytes > 0 {
		details = append(details, fmt.Sprintf("the journal has %d of %d bytes: raise BRIDGE_JOURNAL_MAX_BYTES", usage.Bytes, usage.MaxBytes))
	}
	if len(details) > 0 {
		return &sinks.DegradedError{Details: details}
	}
	return nil
}
