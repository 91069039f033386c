package ledger

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is what is wrong with what a broker holds.
type Report struct {
	Obligations int
	Records     int

	Missing    []Event    // answered 2xx, and not there
	Altered    []Record   // there with other bytes, another key or among the wrong ones
	Invented   []Record   // there and never sent
	Doubled    []Record   // the second and further ones of an id
	Reordered  []Reversal // answered one after the other, and stored the other way round
	Unanswered []Event    // never answered 2xx, however often they were sent
}

// Reversal is two events of one key in the wrong order: After was first sent when Before had been answered 2xx.
type Reversal struct{ Before, After Event }

// Check compares what was sent with what a broker holds, all of it.
func Check(events []Event, records []Record) Report {
	report := Report{Records: len(records)}
	sent := make(map[string]*Event, len(events))
	for i := range events {
		sent[events[i].ID] = &events[i]
	}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int {
		return cmp.Or(strings.Compare(a.Log, b.Log), cmp.Compare(a.Position, b.Position))
	})
	there := make(map[string]bool, len(records))
	latest := map[[2]string]*Event{} // by log and key: of those stored so far, the one that was first sent last
	for _, record := range records {
		event := sent[record.ID]
		if event == nil {
			report.Invented = append(report.Invented, record)
			continue
		}
		if record.Dead != event.Dead || !bytes.Equal(record.Body, event.Body) || event.Key != "" && record.Key != event.Key {
			report.Altered = append(report.Altered, record)
		}
		if there[record.ID] {
			report.Doubled = append(report.Doubled, record)
			continue // the first one counts for the order
		}
		there[record.ID] = true
		if event.Key == "" {
			continue
		}
		place := [2]string{record.Log, event.Key}
		last := latest[place]
		if last != nil && !event.Answered.IsZero() && event.Answered.Before(last.Sent) {
			report.Reordered = append(report.Reordered, Reversal{Before: *event, After: *last})
		}
		if last == nil || last.Sent.Before(event.Sent) {
			latest[place] = event
		}
	}
	for _, event := range events {
		switch {
		case event.Answered.IsZero():
			report.Unanswered = append(report.Unanswered, event)
		case there[event.ID]:
			report.Obligations++
		default:
			report.Obligations++
			report.Missing = append(report.Missing, event)
		}
	}
	return report
}

// Lines says what is wrong, a line each. Duplicates are told apart, for whether they are a fault depends on the broker.
func (r Report) Lines() (faults, doubled []string) {
	const clock = "15:04:05.000000"
	for _, e := range r.Missing {
		faults = append(faults, fmt.Sprintf("missing: %s (key %s), answered %s at %s", e.ID, e.Key, e.Result, e.Answered.Format(clock)))
	}
	for _, record := range r.Altered {
		faults = append(faults, fmt.Sprintf("altered: %s at %s %d (key %q, dead letter %t): %q", record.ID, record.Log, record.Position, record.Key, record.Dead, record.Body))
	}
	for _, record := range r.Invented {
		faults = append(faults, fmt.Sprintf("invented: %s at %s %d: %q", record.ID, record.Log, record.Position, record.Body))
	}
	for _, v := range r.Reordered {
		faults = append(faults, fmt.Sprintf("out of order: %s, answered %s at %s, stands behind %s, first sent at %s",
			v.Before.ID, v.Before.Result, v.Before.Answered.Format(clock), v.After.ID, v.After.Sent.Format(clock)))
	}
	for _, e := range r.Unanswered {
		faults = append(faults, fmt.Sprintf("never answered 2xx: %s (key %s), since %s", e.ID, e.Key, e.Sent.Format(clock)))
	}
	for _, record := range r.Doubled {
		doubled = append(doubled, fmt.Sprintf("doubled: %s, again at %s %d", record.ID, record.Log, record.Position))
	}
	return faults, doubled
}

// Times are when what is wrong was answered, for finding the fault that did it.
func (r Report) Times() (missing, reordered []time.Time) {
	for _, e := range r.Missing {
		missing = append(missing, e.Answered)
	}
	for _, v := range r.Reordered {
		reordered = append(reordered, v.After.Answered)
	}
	return missing, reordered
}
