// Package fanout delivers every event to several brokers. It adds nothing to what each part promises by itself: ids,
// duplicates and bounded waiting are the parts' own affair, and no part knows of another.
package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Deliverer makes an event durable in one place. It returns nil only when the event will outlive the process, answers
// schema.Duplicate when it has the event already, and returns promptly when ctx ends.
type Deliverer interface {
	Deliver(ctx context.Context, event *schema.Event) (schema.Result, error)
}

// Part is one place, as a rule a *durable.Deliverer over one sink. The name tells its errors from those of the others.
type Part struct {
	Name      string
	Deliverer Deliverer
}

// Fanout delivers to all its parts. It is safe for concurrent use if they are.
type Fanout struct{ parts []Part }

// New returns a Fanout over parts, of which there should be at least one.
func New(parts ...Part) *Fanout { return &Fanout{slices.Clone(parts)} }

// errNoParts appears when there is nothing to deliver to: without it, all of no parts would have succeeded.
var errNoParts = errors.New("fan-out without parts")

// Deliver hands the event to all parts at once and returns when every one has answered; as they return when ctx ends,
// so does it. A part that fails, or that has the event already, does not end the road for the others.
//
// A nil error means durable in every part. Any other joins the errors of the parts that failed, each behind its
// part's name; the event may be durable in the rest. The caller says "not now" and lets the same id come again: a part
// that has the event then answers schema.Duplicate, so that nothing is stored twice.
//
// The result is schema.DeadLettered if any part stored a dead letter: of an event that one broker took and another
// refuses for ever, the second one's consumers have only that. Otherwise it is schema.Spooled if any part has the event
// in its journal only, schema.Duplicate if all parts had the event already, else schema.Published.
func (f *Fanout) Deliver(ctx context.Context, event *schema.Event) (schema.Result, error) {
	if len(f.parts) == 0 {
		return 0, errNoParts
	}
	results := make([]schema.Result, len(f.parts))
	failures := make([]error, len(f.parts))
	var underway sync.WaitGroup
	for i, part := range f.parts {
		underway.Go(func() { results[i], failures[i] = part.deliver(ctx, event) })
	}
	underway.Wait()
	if err := errors.Join(failures...); err != nil {
		return 0, err
	}
	return combine(results), nil
}

// deliver is the part's. A panic in it costs this event its turn: on a goroutine that net/http did not start, it would
// otherwise end the process.
func (p Part) deliver(ctx context.Context, event *schema.Event) (result schema.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: panic: %v\n%s", sinks.ErrUnknown, v, debug.Stack())
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", p.Name, err)
		}
	}()
	return p.Deliverer.Deliver(ctx, event)
}

func combine(results []schema.Result) schema.Result {
	for _, first := range [...]schema.Result{schema.DeadLettered, schema.Spooled} {
		if slices.Contains(results, first) {
			return first
		}
	}
	if slices.ContainsFunc(results, func(r schema.Result) bool { return r != schema.Duplicate }) {
		return schema.Published
	}
	return schema.Duplicate
}
