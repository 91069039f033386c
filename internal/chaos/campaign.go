package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gembridge/bridge/internal/chaos/ledger"
)

// patience is how long anything may take before that is a fault of its own.
const patience = time.Minute

// happened is one fault as it went.
type happened struct {
	kind      string
	begun     time.Time
	ended     time.Time
	published time.Time     // the first delivery, posted after the end, that the brokers took
	forwarded time.Duration // until nothing waited any more, from the end
	refused   int           // requests answered otherwise than 2xx, or not at all, from begin to recovery
}

// schedule is which faults happen, in which order, by the seed alone.
func schedule(rng *rand.Rand, all []kind, n int) []kind {
	total := 0
	if len(all) == 0 {
		return nil
	}
	for _, k := range all {
		total += k.share
	}
	var plan []kind
	for _, k := range all {
		for range max(1, n*k.share/total) {
			plan = append(plan, k)
		}
	}
	for len(plan) < n {
		plan = append(plan, all[0])
	}
	rng.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	return orderly(rng, plan)
}

// orderly moves what takes events out of the journal behind all that takes them out of the broker. One copy of two may
// be lost, and the brokers are read at the end; with both gone, nothing is promised.
func orderly(rng *rand.Rand, plan []kind) []kind {
	last := -1
	for i, k := range plan {
		if k.wrongs == inBroker {
			last = i
		}
	}
	var before, moved []kind
	for _, k := range plan[:last+1] {
		if k.wrongs == inJournal {
			moved = append(moved, k)
		} else {
			before = append(before, k)
		}
	}
	after := slices.Clone(plan[last+1:])
	for _, k := range moved {
		after = slices.Insert(after, rng.IntN(len(after)+1), k)
	}
	return append(before, after...)
}

// fitting is what can happen in a world, of the kinds that are wanted.
func fitting(w *world, wanted func(kind) bool) []kind {
	var fit []kind
	for _, k := range kinds() {
		if k.fits(w) && wanted(k) {
			fit = append(fit, k)
		}
	}
	return fit
}

// suffer lets the planned faults happen under load, each after the one before was got over.
func (r *run) suffer(ctx context.Context, w *world, seed uint64, plan []kind) (past []happened, wrong []string, err error) {
	journaled := w.journaled()
	for i, k := range plan {
		if ctx.Err() != nil {
			return past, wrong, ctx.Err()
		}
		rng := rand.New(rand.NewPCG(seed, 1<<32+uint64(i)))
		pause(ctx, 50*time.Millisecond+soon(rng, 250*time.Millisecond))
		if k.accepts || k.wrongs == inBroker {
			// One copy of an event may be lost, not both.
			if err := w.bridge.appends(ctx); err != nil {
				wrong = append(wrong, fmt.Sprintf("before fault %d, %s: %v", i+1, k.name, err))
			}
		}
		h := happened{kind: k.name, begun: time.Now()}
		first := w.book.Count()
		err := k.do(ctx, w, rng)
		h.ended = time.Now()
		if broken := violation(""); errors.As(err, &broken) {
			wrong = append(wrong, fmt.Sprintf("%s: %v", k.name, broken))
		} else if err != nil {
			return past, wrong, fmt.Errorf("fault %d, %s: %w", i+1, k.name, err)
		}
		if err := w.recover(ctx, first, &h); err != nil {
			wrong = append(wrong, fmt.Sprintf("fault %d, %s, ended at %s: %v", i+1, k.name, h.ended.Format(clock), err))
			return append(past, h), wrong, nil // what follows would say nothing
		}
		var refusals map[string]int
		h.refused, refusals = w.refusals(first, h.begun)
		if k.accepts && journaled && h.refused > 0 {
			wrong = append(wrong, fmt.Sprintf("fault %d, %s at %s: the endpoint did not go on answering 2xx: %v", i+1, k.name, h.begun.Format(clock), refusals))
		}
		r.logf("  %3d %-40s %6d ms, published after %5d ms, forwarded after %5d ms, refused %v", i+1, k.name,
			h.ended.Sub(h.begun).Milliseconds(), h.published.Sub(h.ended).Milliseconds(), h.forwarded.Milliseconds(), refusals)
		past = append(past, h)
	}
	// A stream of dead letters that is gone is found missing with the next dead letter.
	pause(ctx, 2*time.Second)
	return past, wrong, nil
}

const clock = "15:04:05.000"

// recover waits until a delivery is published again and nothing waits.
func (w *world) recover(ctx context.Context, first int, h *happened) error {
	ctx, cancel := w.bridge.within(ctx)
	defer cancel()
	var err error
	if h.published, err = w.published(ctx, first, h.ended); err != nil {
		return err
	}
	all, err := w.forwarded(ctx)
	if err != nil {
		return err
	}
	h.forwarded = all.Sub(h.ended)
	if w.nats != nil && len(w.nats.nodes) > 1 {
		return w.nats.whole(ctx)
	}
	if w.kafka != nil && len(w.kafka.addrs) > 1 {
		return w.kafka.whole(ctx, w.topic)
	}
	return nil
}

// refusals counts, from answer number first on, what was asked after a time and not answered 2xx, less the senders that left
// by themselves.
func (w *world) refusals(first int, after time.Time) (n int, by map[string]int) {
	by = map[string]int{}
	for _, a := range w.book.Answers(first) {
		if !a.OK() && a.Result != callerLeft && a.Begun.After(after) {
			by[fmt.Sprint(a.Code, " ", a.Result)]++
			n++
		}
	}
	return n, by
}

// attribute counts, for each fault, the times that it is answerable for: those between its own recovery and that of the
// fault before. What is later counts for the last one.
func attribute(past []happened, times []time.Time) []int {
	counts := make([]int, len(past))
	for _, t := range times {
		for i, h := range past {
			if t.Before(h.published) || i == len(past)-1 {
				counts[i]++
				break
			}
		}
	}
	return counts
}

// settle judges a world at its end and enters it into the table.
func (r *run) settle(ctx context.Context, topology string, w *world, past []happened, kafkaDoubles bool) (wrong []string, err error) {
	reports, wrong, err := w.finish(ctx)
	if err != nil {
		return wrong, err
	}
	events, err := w.book.Events()
	if err != nil {
		return wrong, err
	}
	var answered []time.Time
	for _, e := range events {
		if !e.Answered.IsZero() {
			answered = append(answered, e.Answered)
		}
	}
	rows := r.table.enter(topology, past, attribute(past, answered))
	for sink, report := range reports {
		faults, doubled := report.Lines()
		for _, line := range faults {
			wrong = append(wrong, sink+": "+line)
		}
		for _, line := range doubled {
			if sink == "kafka" && kafkaDoubles {
				r.logf("  %s: %s", sink, line) // a number, and no fault
			} else {
				wrong = append(wrong, sink+": "+line)
			}
		}
		r.logf("  %s: %d answered 2xx, %d records, %d missing, %d altered, %d doubled, %d out of order", sink,
			report.Obligations, report.Records, len(report.Missing), len(report.Altered)+len(report.Invented), len(report.Doubled), len(report.Reordered))
		rows.blame(past, report, stored(events, report))
	}
	return wrong, nil
}

// stored are when the events were answered whose records are wrong otherwise than by missing.
func stored(events []ledger.Event, report ledger.Report) (times struct{ altered, doubled []time.Time }) {
	answered := map[string]time.Time{}
	for _, e := range events {
		answered[e.ID] = e.Answered
	}
	for _, record := range report.Altered {
		times.altered = append(times.altered, answered[record.ID])
	}
	for _, record := range report.Invented {
		times.altered = append(times.altered, answered[record.ID]) // the zero time: the first fault
	}
	for _, record := range report.Doubled {
		times.doubled = append(times.doubled, answered[record.ID])
	}
	return times
}
