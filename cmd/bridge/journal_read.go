package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
)

const journalListUsage = `Usage: bridge journal list [--sink nats|kafka] [--json]

Prints the events in the journals that are not settled: the broker does not have them, or has acknowledged them and may
still forget them. AGE is the time since the event was received.

  --sink nats|kafka  the journal of one sink
  --json             one JSON object per line: sink, seq, id, type, key, received, bytes

Exit code: 0 when all could be read, 1 when not, 2 when settings or the command line are wrong.
`

const journalShowUsage = `Usage: bridge journal show ID|SEQ [--sink nats|kafka]

Prints an event in the journals, by its id or its number: where it is, and its JSON.

Exit code: 0 when there is one, 1 when there is none or it cannot be read, 2 when settings or the command line are wrong.
`

const journalExportUsage = `Usage: bridge journal export [ID|SEQ …] [--sink nats|kafka]

Prints events in the journals, all or those with the given ids or numbers, in the form in which consumers receive them:
one JSON CloudEvent per line, dead letters among them.

Exit code: 0 when all could be read, 1 when not, 2 when settings or the command line are wrong.
`

const journalVerifyUsage = `Usage: bridge journal verify [--sink nats|kafka] [--json]

Reads the journals through and counts: RECORDS that are not settled, SETTLED ones, DAMAGED ones, whose bytes are no
longer those that were written, and TORN bytes behind the last record, which a crash leaves behind when nobody had been
answered yet. Beside a running bridge what is being written just then counts as torn.

  --json             one JSON object per line: sink, version, segments, bytes, records, settled, damaged, torn_bytes

Exit code: 0 when nothing is damaged, 1 when something is or cannot be read, 2 when settings or the command line are
wrong.
`

func journalListCommand(args []string, sh shell) int {
	f := newJournalFlags("list", journalListUsage)
	asJSON := f.Bool("json", false, "")
	if code, done := f.parse(args, sh); done {
		return code
	}
	return f.run(sh, func(cfg *Config, sinks []string) error {
		all := []entry{}
		damaged := eachEvent(cfg, sinks, func(e entry, _ *schema.Event) error {
			all = append(all, e)
			return nil
		})
		write := writeEntries
		if *asJSON {
			write = writeLines[entry]
		}
		return errors.Join(damaged, write(sh.out, all))
	})
}

func writeEntries(w io.Writer, all []entry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SINK\tSEQ\tID\tTYPE\tKEY\tAGE\tBYTES")
	for _, e := range all {
		age := time.Since(e.Received).Round(time.Second)
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%v\t%d\n", e.Sink, e.Seq, cell(e.ID), cell(e.Type), cell(e.Key), age, e.Bytes)
	}
	return table.Flush()
}

func journalShowCommand(args []string, sh shell) int {
	f := newJournalFlags("show", journalShowUsage)
	names, code, done := f.parseMixed(args, sh)
	if done {
		return code
	}
	if len(names) != 1 {
		return f.mistake(fmt.Errorf("name one id or number, not %d", len(names)), sh)
	}
	return f.run(sh, func(cfg *Config, sinks []string) error {
		return eachNamed(cfg, sinks, names, func(e entry, event *schema.Event) error {
			var indented bytes.Buffer
			if err := json.Indent(&indented, event.Structured, "", "  "); err != nil {
				return err
			}
			_, err := fmt.Fprintf(sh.out, "journal of %s, record %d, received %s\n%s\n", e.Sink, e.Seq, clock(e.Received), printable(indented.String()))
			return err
		})
	})
}

func journalExportCommand(args []string, sh shell) int {
	f := newJournalFlags("export", journalExportUsage)
	names, code, done := f.parseMixed(args, sh)
	if done {
		return code
	}
	return f.run(sh, func(cfg *Config, sinks []string) error {
		return eachNamed(cfg, sinks, names, func(_ entry, event *schema.Event) error {
			_, err := fmt.Fprintf(sh.out, "%s\n", event.Structured)
			return err
		})
	})
}

// verdict is what verify tells of one journal.
type verdict struct {
	Sink      string `json:"sink"`
	Version   int    `json:"version"`
	Segments  int    `json:"segments"`
	Bytes     int64  `json:"bytes"`
	Records   int    `json:"records"`
	Settled   int    `json:"settled"`
	Damaged   uint64 `json:"damaged"`
	TornBytes int64  `json:"torn_bytes"`
}

func journalVerifyCommand(args []string, sh shell) int {
	f := newJournalFlags("verify", journalVerifyUsage)
	asJSON := f.Bool("json", false, "")
	if code, done := f.parse(args, sh); done {
		return code
	}
	return f.run(sh, func(cfg *Config, sinks []string) error {
		var all []verdict
		var wrong []error
		for _, sink := range sinks {
			var told, strange uint64
			report, err := journal.Scan(journalDir(cfg, sink), func(r journal.Record) error {
				event := &schema.Event{}
				switch {
				case r.Damaged:
					told++
					wrong = append(wrong, fmt.Errorf("journal of %s, record %d: damaged (%s, offset %d)", sink, r.Seq, cell(r.File), r.Offset))
				case !r.Settled && event.UnmarshalBinary(r.Payload) != nil:
					strange++
					wrong = append(wrong, fmt.Errorf("journal of %s, record %d: no event (%s, offset %d)", sink, r.Seq, cell(r.File), r.Offset))
				}
				return nil
			})
			if err != nil {
				wrong = append(wrong, fmt.Errorf("journal of %s: %w", sink, err))
				continue
			}
			if more := report.Damaged - min(told, report.Damaged); more > 0 {
				wrong = append(wrong, fmt.Errorf("journal of %s: %d more damages, of which no record is known", sink, more))
			}
			all = append(all, verdict{
				sink, report.Version, report.Segments, report.Bytes, report.Records - int(strange), report.Settled, report.Damaged + strange, report.TornBytes,
			})
		}
		write := writeVerdicts
		if *asJSON {
			write = writeLines[verdict]
		}
		return errors.Join(write(sh.out, all), errors.Join(wrong...))
	})
}

func writeVerdicts(w io.Writer, all []verdict) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SINK\tSEGMENTS\tBYTES\tRECORDS\tSETTLED\tDAMAGED\tTORN")
	for _, v := range all {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\n", v.Sink, v.Segments, v.Bytes, v.Records, v.Settled, v.Damaged, v.TornBytes)
	}
	return table.Flush()
}
