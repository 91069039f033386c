package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/sinks"
)

const tailUsage = `Usage: bridge tail [--from start|new|DURATION] [--dead] [-n COUNT]

Prints the events that consumers of the configured broker receive, one JSON CloudEvent per line, until it is
stopped. It reads as any consumer does and takes nothing away. The broker is that of the settings: BRIDGE_NATS_URL
and its credentials, or the server embedded in a bridge that runs on this machine; BRIDGE_SINK=kafka and
BRIDGE_KAFKA_BROKERS.

  --from start       from the oldest event that is kept
  --from new         only what comes from now on (the default)
  --from 1h          from one hour ago
  --dead             dead letters instead of events
  -n COUNT           stop after so many

A record that is no event is named on standard error, and passed over.
Exit code: 0 when stopped or done, 1 when the broker cannot be read, 2 when settings or the command line are wrong.
`

func tailCommand(args []string, sh shell) int {
	f := newFlags("tail", tailUsage)
	from := f.String("from", "new", "")
	dead := f.Bool("dead", false, "")
	count := f.Int("n", 0, "")
	if code, done := f.parse(args, sh); done {
		return code
	}
	start, err := parseFrom(*from, time.Now())
	if *count < 0 {
		err = fmt.Errorf("-n %d is no number of events", *count)
	}
	if err != nil {
		fmt.Fprintln(sh.err, "bridge tail:", err)
		return exitUsage
	}
	cfg, found := readConfig(sh.environ)
	if len(found) > 0 {
		fmt.Fprintln(sh.err, found)
		return exitUsage
	}
	stop, _, release := follow(sh.signals())
	defer release()
	left := *count
	sink, _, _ := strings.Cut(cfg.Sink, ",") // from NATS, if the bridge publishes to both
	err = readBroker(stop, cfg, sink, *dead, start, func(r sinks.Record) error {
		if r.Err != nil { // somebody else's
			fmt.Fprintf(sh.err, "bridge tail: %s: %v\n", place(sink, r), r.Err)
			return nil //nolint:nilerr // it goes on with the next
		}
		if _, err := fmt.Fprintf(sh.out, "%s\n", r.Event); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	})
	if err != nil && cfg.NATS.URL == "" {
		err = fmt.Errorf("%w (is a bridge running here, with its server at BRIDGE_NATS_EMBEDDED_ADDR?)", err)
	}
	if err != nil && !errors.Is(err, errEnough) && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(sh.err, "bridge tail:", err)
		return exitFailure
	}
	return exitOK
}

// errEnough ends a Read whose reader has seen as many events as it wanted.
var errEnough = errors.New("enough")

func parseFrom(from string, now time.Time) (sinks.From, error) {
	switch from {
	case "start":
		return sinks.FromStart(), nil
	case "new":
		return sinks.FromNew(), nil
	}
	ago, err := time.ParseDuration(from)
	if err != nil || ago <= 0 {
		return sinks.From{}, fmt.Errorf("--from %q is neither start, new nor a duration like 1h", from)
	}
	return sinks.FromSince(now.Add(-ago)), nil
}
