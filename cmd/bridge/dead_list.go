package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

const deadListUsage = `Usage: bridge dead list [ID …] [--json] [filters]

Prints dead letters, oldest first: all, or those with the given ids. REPLAYED tells when the last one was replayed.

` + filterUsage + `  --json             one JSON object per line: id, place, received, reason, type, scheme, bytes, errors, replayed

Exit code: 0 when they could be read, 1 when not, 2 when settings or the command line are wrong.
`

const deadShowUsage = `Usage: bridge dead show ID [--sink nats|kafka] [--json]

Prints the dead letter with the id: why it is one, the headers that were kept, and its body: JSON indented, other text
as it is, bytes that are no text in hexadecimal.

  --sink nats|kafka  whose dead letters, where BRIDGE_SINK names both
  --json             the dead letter as consumers receive it, a CloudEvent in one line

Exit code: 0 when there is one, 1 when there is none or it cannot be read, 2 when settings or the command line are wrong.
`

// deadSummary is what a list tells of a dead letter.
type deadSummary struct {
	ID       string         `json:"id"`
	Place    string         `json:"place"`
	Received time.Time      `json:"received"`
	Reason   schema.Reason  `json:"reason"`
	Type     string         `json:"type"`
	Scheme   string         `json:"scheme"`
	Bytes    int            `json:"bytes"`
	Errors   []deadError    `json:"errors"`
	Replayed []deadReplayed `json:"replayed"`
}

type deadError struct {
	Pointer string `json:"pointer"`
	Message string `json:"message"`
}

type deadReplayed struct {
	Event  string    `json:"event"`
	Result string    `json:"result"`
	Time   time.Time `json:"time"`
}

func summarize(place string, l *schema.Letter) deadSummary {
	s := deadSummary{
		ID: l.ID, Place: place, Received: l.Received, Reason: l.Reason, Type: l.Type, Scheme: l.Scheme, Bytes: len(l.Body),
		Errors: []deadError{}, Replayed: []deadReplayed{},
	}
	for _, e := range l.Errors {
		s.Errors = append(s.Errors, deadError(e))
	}
	return s
}

func (s *deadSummary) mark(all []schema.Mark) {
	for _, m := range all {
		s.Replayed = append(s.Replayed, deadReplayed{m.Event, m.Result, m.Replayed})
	}
}

func deadListCommand(args []string, sh shell) int {
	f := newDeadFlags("list", deadListUsage)
	asJSON := f.Bool("json", false, "")
	ids, code, done := f.parseMixed(args, sh)
	if done {
		return code
	}
	filter, err := f.filter(ids, time.Now())
	if err != nil {
		return f.mistake(err, sh)
	}
	return f.withBroker(*f.sink, sh, func(ctx context.Context, b *deadBroker) error {
		all, replayed := []deadSummary{}, marks{}
		err := b.scanDead(ctx, func(r sinks.Record, l *schema.Letter) error {
			if filter.matches(l) {
				all = append(all, summarize(place(b.sink, r), l))
			}
			return nil
		}, replayed.add)
		if err != nil {
			return err
		}
		slices.SortStableFunc(all, func(a, b deadSummary) int { return a.Received.Compare(b.Received) })
		for i := range all {
			all[i].mark(replayed[all[i].ID])
		}
		if *asJSON {
			return writeLines(sh.out, all)
		}
		return writeDeadTable(sh.out, all)
	})
}

// writeLines writes one JSON object per line.
func writeLines[T any](w io.Writer, all []T) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, one := range all {
		if err := encoder.Encode(one); err != nil {
			return err
		}
	}
	return nil
}

func writeDeadTable(w io.Writer, all []deadSummary) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tRECEIVED\tREASON\tTYPE\tBYTES\tREPLAYED\tWHY")
	for _, s := range all {
		replayed := "-"
		if n := len(s.Replayed); n > 0 {
			replayed = clock(s.Replayed[n-1].Time)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", cell(s.ID), clock(s.Received), cell(string(s.Reason)), cell(s.Type), s.Bytes, replayed, cell(why(s.Errors)))
	}
	return table.Flush()
}

// why is the first error in short, and how many more there are.
func why(errs []deadError) string {
	if len(errs) == 0 {
		return ""
	}
	text := strings.TrimPrefix(errs[0].Pointer+": "+errs[0].Message, ": ")
	if len(errs) > 1 {
		text += fmt.Sprintf(" (%d more)", len(errs)-1)
	}
	return text
}

// clock is a time as the tables have it.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func deadShowCommand(args []string, sh shell) int {
	f := newFlags("dead show", deadShowUsage)
	sink, asJSON := f.String("sink", "", ""), f.Bool("json", false, "")
	ids, code, done := f.parseMixed(args, sh)
	if done {
		return code
	}
	if len(ids) != 1 {
		return f.mistake(fmt.Errorf("name one id, not %d", len(ids)), sh)
	}
	return deadFlags{flags: f}.withBroker(*sink, sh, func(ctx context.Context, b *deadBroker) error {
		var at sinks.Record // the last one, should there be more
		var found *schema.Letter
		replayed := marks{}
		err := b.scanDead(ctx, func(r sinks.Record, l *schema.Letter) error {
			if l.ID == ids[0] {
				at, found = r, l
			}
			return nil
		}, replayed.add)
		switch {
		case err != nil:
			return err
		case found == nil:
			return errors.New("there is no dead letter " + strconv.QuoteToASCII(ids[0]))
		case *asJSON:
			_, err = fmt.Fprintf(sh.out, "%s\n", at.Event)
			return err
		}
		return writeLetter(sh.out, place(b.sink, at), found, replayed[found.ID])
	})
}
