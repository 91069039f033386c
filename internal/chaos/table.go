package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gembridge/bridge/internal/chaos/ledger"
)

// row is what is told of one kind of fault in one topology.
type row struct {
	topology, kind                       string
	times, answered                      int
	missing, altered, doubled, reordered int
	refused                              int
	published, forwarded                 []time.Duration
}

// table is rows in the order in which they came up.
type table struct {
	rows []*row
}

func (t *table) row(topology, kind string) *row {
	for _, r := range t.rows {
		if r.topology == topology && r.kind == kind {
			return r
		}
	}
	r := &row{topology: topology, kind: kind}
	t.rows = append(t.rows, r)
	return r
}

// ofFaults is the row of each fault of a campaign.
type ofFaults []*row

// enter adds the faults of a campaign, and how many answers each of them put to the test.
func (t *table) enter(topology string, past []happened, answered []int) ofFaults {
	var rows ofFaults
	for i, h := range past {
		r := t.row(topology, h.kind)
		rows = append(rows, r)
		r.times++
		r.answered += answered[i]
		r.refused += h.refused
		if !h.published.IsZero() {
			r.published = append(r.published, h.published.Sub(h.ended))
			r.forwarded = append(r.forwarded, h.forwarded)
		}
	}
	return rows
}

// blame adds what a report found to the faults that it is to be laid to.
func (rows ofFaults) blame(past []happened, report ledger.Report, times struct{ altered, doubled []time.Time }) {
	missing, reordered := report.Times()
	for i, n := range attribute(past, missing) {
		rows[i].missing += n
	}
	for i, n := range attribute(past, reordered) {
		rows[i].reordered += n
	}
	for i, n := range attribute(past, times.altered) {
		rows[i].altered += n
	}
	for i, n := range attribute(past, times.doubled) {
		rows[i].doubled += n
	}
}

func (t *table) faults() int {
	n := 0
	for _, r := range t.rows {
		n += r.times
	}
	return n
}

// markdown is the table as it stands in the documentation.
func (t *table) markdown() string {
	var b strings.Builder
	b.WriteString("| bridge with | what happened | times | answered 2xx | missing | altered | doubled | out of order | refused meanwhile | published again after, ms (p50 / max) | all forwarded after, ms (p50 / max) |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	total := row{}
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d | %s | %s |\n", r.topology, r.kind, r.times, r.answered,
			r.missing, r.altered, r.doubled, r.reordered, r.refused, spread(r.published), spread(r.forwarded))
		total.times += r.times
		total.answered += r.answered
		total.missing += r.missing
		total.altered += r.altered
		total.doubled += r.doubled
		total.reordered += r.reordered
		total.refused += r.refused
	}
	fmt.Fprintf(&b, "| **all** | | **%d** | **%d** | **%d** | **%d** | **%d** | **%d** | **%d** | | |\n", total.times, total.answered,
		total.missing, total.altered, total.doubled, total.reordered, total.refused)
	return b.String()
}

func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "–"
	}
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%d / %d", sorted[len(sorted)/2].Milliseconds(), sorted[len(sorted)-1].Milliseconds())
}

const (
	tableBegins = "<!-- written by make chaos: -->\n"
	tableEnds   = "<!-- to here -->\n"
)

// replace puts text between the marks in a file.
func replace(path, text string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(content, []byte(tableBegins))
	_, after, ends := bytes.Cut(rest, []byte(tableEnds))
	if !begins || !ends {
		return errors.New(path + " has no place for the table")
	}
	return os.WriteFile(path, slices.Concat(before, []byte(tableBegins), []byte(text), []byte(tableEnds), after), 0o644)
}
