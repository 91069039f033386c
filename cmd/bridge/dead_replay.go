package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

const deadReplayUsage = `Usage: bridge dead replay [ID …] [--all] [filters] [--dry-run] [--force] [--schema-dir DIR] [--json]

Validates dead letters anew and publishes those that are valid as events, each under the id of its delivery, so that
a consumer which has had it already knows it. One that is still invalid stays what it is. A replayed letter is marked by
a record ID.replayed beside it; it is not replayed a second time.

  --all              every dead letter; otherwise ids or filters are needed
` + filterUsage + `  --dry-run          say what would happen, and publish nothing; whether an id is a duplicate only the broker knows
  --force            also those that were replayed, or whose id the broker has; the event's id is then ID.replay-1,
                     or with the next number that is free
  --schema-dir DIR   schemas to judge by, instead of BRIDGE_SCHEMA_DIR
  --json             one JSON object per line: id, outcome, event, type, detail

Outcomes: published; duplicate (the broker has the id, nothing was stored); replayed (earlier, nothing was done);
invalid, unknown_type (BRIDGE_ON_UNKNOWN is not "publish") and refused (by the broker, for ever), which are left as they
are; failed (not now), which ends the command. With --dry-run "would publish" instead of the first two.

Exit code: 0 when every letter was published, a duplicate or replayed; 1 when one was not, or an id was not found;
2 when settings or the command line are wrong.
`

// The outcomes of a letter.
const (
	outcomePublished = "published"
	outcomeDuplicate = "duplicate"
	outcomeWould     = "would publish"
	outcomeReplayed  = "replayed"
	outcomeInvalid   = "invalid"
	outcomeUnknown   = "unknown_type"
	outcomeRefused   = "refused"
	outcomeFailed    = "failed"
)

// errLeft appears when letters are still to be replayed.
var errLeft = errors.New("not every dead letter was replayed")

// outcome is what became of one letter.
type outcome struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Event   string `json:"event"` // id of the event; empty if there is none
	Type    string `json:"type"`
	Detail  string `json:"detail"`

	err error // the command ends with it
}

func deadReplayCommand(args []string, sh shell) int {
	f := newDeadFlags("replay", deadReplayUsage)
	all, dryRun, force := f.Bool("all", false, ""), f.Bool("dry-run", false, ""), f.Bool("force", false, "")
	schemaDir, asJSON := f.String("schema-dir", "", ""), f.Bool("json", false, "")
	ids, code, done := f.parseMixed(args, sh)
	if done {
		return code
	}
	filter, err := f.filter(ids, time.Now())
	if err == nil && filter.isEmpty() != *all {
		err = errors.New("name ids or a filter, or --all for every dead letter")
	}
	if err != nil {
		return f.mistake(err, sh)
	}
	return f.withBroker(*f.sink, sh, func(ctx context.Context, b *deadBroker) error {
		if *schemaDir == "" {
			*schemaDir = b.cfg.SchemaDir
		}
		registry, err := schema.NewRegistry(*schemaDir)
		if err != nil {
			return err
		}
		r := &replay{filter: filter, registry: registry, unknown: ingress.Policy(b.cfg.OnUnknown), dryRun: *dryRun, force: *force, done: map[string]string{}, marks: marks{}}
		if !*dryRun {
			if r.publisher, err = b.publish(ctx); err != nil {
				return err
			}
			defer func() { _ = r.publisher.close() }()
		}
		r.say = func(o outcome) error { return o.write(sh.out) }
		if *asJSON {
			r.say = func(o outcome) error { return writeLines(sh.out, []outcome{o}) }
		}
		return r.run(ctx, b)
	})
}

func (o outcome) write(w io.Writer) error {
	parts := []string{cell(o.ID), o.Outcome, cell(o.Type)}
	if o.Event != "" && o.Event != o.ID {
		parts = append(parts, "as "+cell(o.Event))
	}
	if o.Detail != "" {
		parts = append(parts, printable(o.Detail))
	}
	_, err := fmt.Fprintln(w, strings.Join(parts, "  "))
	return err
}

// replay is one run of the command.
type replay struct {
	filter        deadFilter
	registry      *schema.Registry
	unknown       ingress.Policy
	dryRun, force bool
	publisher     publisher // nil in a dry run
	marks         marks
	done          map[string]string // outcomes by letter
	say           func(outcome) error
}

// run reads twice: which letters are replayed is known only at the end, and their bodies need not all be in memory.
func (r *replay) run(ctx context.Context, b *deadBroker) error {
	if err := b.scanDead(ctx, nil, r.marks.add); err != nil {
		return err
	}
	err := b.scanDead(ctx, func(_ sinks.Record, l *schema.Letter) error {
		if _, again := r.done[l.ID]; again || !r.filter.matches(l) {
			return nil
		}
		o := r.letter(ctx, l)
		r.done[l.ID] = o.Outcome
		return errors.Join(r.say(o), o.err)
	}, nil)
	if err != nil {
		return err
	}
	var missing []string
	for _, id := range r.filter.ids {
		if _, found := r.done[id]; !found {
			missing = append(missing, strconv.QuoteToASCII(id))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("no such dead letter, or not one of those that the filters leave: %s", strings.Join(missing, ", "))
	}
	for _, o := range r.done {
		if slices.Contains([]string{outcomeInvalid, outcomeUnknown, outcomeRefused}, o) {
			return errLeft
		}
	}
	return nil
}

// letter is the road from validation on.
func (r *replay) letter(ctx context.Context, l *schema.Letter) outcome {
	o := outcome{ID: l.ID, Type: l.Type}
	if earlier := r.marks[l.ID]; len(earlier) > 0 && !r.force {
		o.Outcome, o.Event, o.Detail = outcomeReplayed, earlier[0].Event, "at "+clock(earlier[0].Replayed)
		return o
	}
	doc, err := r.registry.Validate(l.Body)
	if invalid, ok := errors.AsType[*schema.InvalidError](err); ok {
		errs := make([]deadError, 0, len(invalid.Violations))
		for _, v := range invalid.Violations {
			errs = append(errs, deadError(v))
		}
		o.Outcome, o.Detail = outcomeInvalid, why(errs)
		return o
	}
	if !doc.Known && r.unknown != ingress.Publish {
		o.Outcome, o.Detail = outcomeUnknown, fmt.Sprintf("BRIDGE_ON_UNKNOWN is %s", r.unknown)
		return o
	}
	d := l.Delivery()
	n := r.next(l.ID)
	if r.force {
		d.ID = forcedID(l.ID, n)
	}
	if r.dryRun {
		o.Outcome, o.Event = outcomeWould, d.ID
		return o
	}
	event := schema.Normalize(doc, d)
	duplicate, err := r.publisher.publish(ctx, event)
	for r.force && err == nil && duplicate {
		n++
		d.ID = forcedID(l.ID, n)
		event = schema.Normalize(doc, d)
		duplicate, err = r.publisher.publish(ctx, event)
	}
	if refused, ok := errors.AsType[*sinks.RefusedError](err); ok {
		o.Outcome, o.Detail = outcomeRefused, refused.Error()
		return o
	}
	if err != nil {
		o.Outcome, o.Detail, o.err = outcomeFailed, err.Error(), fmt.Errorf("%s: %w", cell(l.ID), err)
		return o
	}
	result := schema.Published
	o.Outcome, o.Event = outcomePublished, event.ID
	if duplicate {
		result = schema.Duplicate
		o.Outcome, o.Detail = outcomeDuplicate, "the broker has an event of this id; --force publishes it under another"
	}
	if _, err := r.publisher.publish(ctx, l.Replayed(event, result, len(r.marks[l.ID]) > 0, time.Now())); err != nil {
		o.err = fmt.Errorf("%s is %s, but could not be marked as replayed: %w", cell(l.ID), o.Outcome, err)
	}
	return o
}

func forcedID(id string, n int) string { return id + ".replay-" + strconv.Itoa(n) }

// next is the number of the next event that a letter is replayed as by force.
func (r *replay) next(id string) int {
	n := 0
	for _, m := range r.marks[id] {
		if number, found := strings.CutPrefix(m.Event, id+".replay-"); found {
			if i, err := strconv.Atoi(number); err == nil {
				n = max(n, i)
			}
		}
	}
	return n + 1
}
