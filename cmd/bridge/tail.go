package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

const tailUsage = `Usage: bridge tail [--from start|new|DURATION] [--dead] [-n COUNT]

Prints the events that consumers of the configured broker receive, one JSON CloudEvent per line, until it is
stopped. It reads as any consumer does and takes nothing away. The broker is that of the settings: BRIDGE_NATS_URL
and its credentials, or the server embedded in a bridge that runs on this machine.

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
	reader, err := newReader(cfg, *dead)
	if err != nil {
		fmt.Fprintln(sh.err, "bridge tail:", err)
		return exitFailure
	}
	defer reader.Close()

	stop, _, release := follow(sh.signals())
	defer release()
	left := *count
	err = reader.Read(stop, start, func(record jetstream.Record) error {
		event, err := record.Event()
		if err != nil { // somebody else's
			fmt.Fprintf(sh.err, "bridge tail: %s, record %d: %v\n", record.Subject, record.Sequence, err)
			return nil
		}
		if _, err := fmt.Fprintf(sh.out, "%s\n", event); err != nil {
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

// newReader connects as a consumer to the broker that the bridge of the same settings publishes to.
func newReader(cfg *Config, dead bool) (*jetstream.Reader, error) {
	nats, err := natsConn(cfg)
	if err != nil {
		return nil, err
	}
	if nats.URL == "" {
		token, err := fromFile(cfg.NATS.EmbeddedToken, cfg.NATS.EmbeddedTokenFile)
		if err != nil {
			return nil, fmt.Errorf("BRIDGE_NATS_EMBEDDED_TOKEN_FILE: %w", err)
		}
		nats = jetstream.Conn{URL: "nats://" + reachable(cfg.NATS.EmbeddedAddr), Token: token}
	}
	stream := cfg.NATS.Stream
	if dead {
		stream += "_DEAD"
	}
	return jetstream.NewReader(jetstream.ReaderConfig{Conn: nats, Stream: stream})
}

// reachable is an address to listen on as a client on this machine dials it.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// errEnough ends a Read whose reader has seen as many events as it wanted.
var errEnough = errors.New("enough")

func parseFrom(from string, now time.Time) (jetstream.From, error) {
	switch from {
	case "start":
		return jetstream.FromStart(), nil
	case "new":
		return jetstream.FromNew(), nil
	}
	ago, err := time.ParseDuration(from)
	if err != nil || ago <= 0 {
		return jetstream.From{}, fmt.Errorf("--from %q is neither start, new nor a duration like 1h", from)
	}
	return jetstream.FromSince(now.Add(-ago)), nil
}
