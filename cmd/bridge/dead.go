package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

const deadUsage = `Usage: bridge dead list|show|replay

Works with dead letters: authentic deliveries that could not become an event, and events that the broker refused.

  bridge dead list      prints them, with their reasons
  bridge dead show      prints one with its headers and its body
  bridge dead replay    publishes them as the events that they should have been

bridge dead <command> --help tells more. The broker is that of the settings: BRIDGE_NATS_URL and its credentials;
BRIDGE_SINK=kafka and BRIDGE_KAFKA_BROKERS; or the server embedded in a bridge, running or stopped, whose data is in
BRIDGE_DATA_DIR.
`

// filterUsage is of the flags that list and replay share.
const filterUsage = `  --type TYPE        those whose body has this type; "unreadable" for those whose body has none
  --reason REASON    invalid_event, unknown_type or refused_by_sink
  --since TIME       received then or later: 2026-01-22T12:00:00Z, or a duration ago, like 1h
  --until TIME       received before
  --sink nats|kafka  whose dead letters, where BRIDGE_SINK names both
`

func deadCommand(args []string, sh shell) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "list":
		return deadListCommand(args, sh)
	case "show":
		return deadShowCommand(args, sh)
	case "replay":
		return deadReplayCommand(args, sh)
	}
	return groupCommand("dead", command, deadUsage, sh)
}

// groupCommand is what a group of commands says when none of them was named.
func groupCommand(group, command, usage string, sh shell) int {
	if slices.Contains([]string{"help", "--help", "-help", "-h"}, command) {
		fmt.Fprint(sh.out, usage)
		return exitOK
	}
	if command == "" {
		fmt.Fprint(sh.err, usage)
	} else {
		fmt.Fprintf(sh.err, "bridge %s: unknown command %q\n\n%s", group, command, usage)
	}
	return exitUsage
}

// deadFlags are those that choose dead letters.
type deadFlags struct {
	flags
	typ, reason, since, until, sink *string
}

func newDeadFlags(command, usage string) deadFlags {
	f := newFlags("dead "+command, usage)
	return deadFlags{f, f.String("type", "", ""), f.String("reason", "", ""), f.String("since", "", ""), f.String("until", "", ""), f.String("sink", "", "")}
}

// deadFilter tells which dead letters are meant.
type deadFilter struct {
	ids          []string // any, if there are none
	typ          string
	reason       schema.Reason
	since, until time.Time
}

// unreadable is how the type is called of a body that has none.
const unreadable = "unreadable"

// filter is what the flags and operands say.
func (f deadFlags) filter(ids []string, now time.Time) (deadFilter, error) {
	filter := deadFilter{ids: ids, typ: *f.typ, reason: schema.Reason(*f.reason)}
	if filter.reason != "" && !slices.Contains(schema.Reasons(), filter.reason) {
		return filter, fmt.Errorf("--reason %q is none of %v", filter.reason, schema.Reasons())
	}
	var errs [2]error
	filter.since, errs[0] = parseTime("--since", *f.since, now)
	filter.until, errs[1] = parseTime("--until", *f.until, now)
	return filter, errors.Join(errs[:]...)
}

func parseTime(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago < 0 {
		return time.Time{}, fmt.Errorf("%s %q is neither a time like %s nor a duration like 1h", name, text, now.UTC().Format(time.RFC3339))
	}
	return now.Add(-ago), nil
}

func (f deadFilter) isEmpty() bool {
	return len(f.ids) == 0 && f.typ == "" && f.reason == "" && f.since.IsZero() && f.until.IsZero()
}

func (f deadFilter) matches(l *schema.Letter) bool {
	switch {
	case len(f.ids) > 0 && !slices.Contains(f.ids, l.ID):
	case f.typ != "" && f.typ != l.Type && (f.typ != unreadable || l.Type != ""):
	case f.reason != "" && f.reason != l.Reason:
	case !f.since.IsZero() && l.Received.Before(f.since):
	case !f.until.IsZero() && !l.Received.Before(f.until):
	default:
		return true
	}
	return false
}

// chosenSink is the sink that a command is about.
func chosenSink(cfg *Config, flag string) (string, error) {
	switch {
	case flag == "" && !strings.Contains(cfg.Sink, ","):
		return cfg.Sink, nil
	case flag == "":
		return "", fmt.Errorf("BRIDGE_SINK names two brokers: choose one with --sink %s", strings.Replace(cfg.Sink, ",", " or --sink ", 1))
	case !cfg.uses(flag):
		return "", fmt.Errorf("--sink %q: BRIDGE_SINK is %s", flag, cfg.Sink)
	}
	return flag, nil
}

// scanDead reads all that there is of dead letters, and calls letter and mark with them in the broker's order; either
// may be nil. strange gets what is neither.
func scanDead(ctx context.Context, reader sinks.Reader, letter func(sinks.Record, *schema.Letter) error, mark func(schema.Mark), strange func(sinks.Record, error)) error {
	return reader.Read(ctx, sinks.From{ToEnd: true}, func(r sinks.Record) error {
		if r.Err != nil {
			strange(r, r.Err)
			return nil //nolint:nilerr // it goes on with the next
		}
		if m, ok := schema.ReadMark(r.Event); ok {
			if mark != nil {
				mark(m)
			}
			return nil
		}
		switch l, err := schema.Reopen(r.Event); {
		case err != nil:
			strange(r, err)
		case letter != nil:
			l.TraceParent = headerOf(r, "traceparent")
			return letter(r, l)
		}
		return nil
	})
}

// headerOf returns the first value of a record's header.
func headerOf(r sinks.Record, name string) string {
	for k, values := range r.Header {
		if strings.EqualFold(k, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// marks are how letters were replayed, by their ids.
type marks map[string][]schema.Mark

func (m marks) add(mark schema.Mark) { m[mark.Letter] = append(m[mark.Letter], mark) }
