package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
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
	err = readEvents(stop, cfg, *dead, start, func(place string, event []byte, err error) error {
		if err != nil { // somebody else's
			fmt.Fprintf(sh.err, "bridge tail: %s: %v\n", place, err)
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

// readEvents reads as a consumer from the broker that the bridge of the same settings publishes to; from NATS, if it
// publishes to both. fn gets each record's place and event, or why it is none.
func readEvents(ctx context.Context, cfg *Config, dead bool, from beginning, fn func(place string, event []byte, err error) error) error {
	if !cfg.uses(jetstream.Name) {
		reader, err := newKafkaReader(cfg, dead)
		if err != nil {
			return err
		}
		defer reader.Close()
		return reader.Read(ctx, from.kafka(), func(r kafka.Record) error {
			event, err := r.Event()
			return fn(fmt.Sprintf("%s, partition %d, offset %d", r.Topic, r.Partition, r.Offset), event, err)
		})
	}
	reader, err := newJetStreamReader(cfg, dead)
	if err != nil {
		return err
	}
	defer reader.Close()
	return reader.Read(ctx, from.jetstream(), func(r jetstream.Record) error {
		event, err := r.Event()
		return fn(fmt.Sprintf("%s, record %d", r.Subject, r.Sequence), event, err)
	})
}

func newJetStreamReader(cfg *Config, dead bool) (*jetstream.Reader, error) {
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

// beginning is where to begin: at the oldest record, at the next one, or since a time.
type beginning struct {
	next  bool
	since time.Time
}

func parseFrom(from string, now time.Time) (beginning, error) {
	switch from {
	case "start":
		return beginning{}, nil
	case "new":
		return beginning{next: true}, nil
	}
	ago, err := time.ParseDuration(from)
	if err != nil || ago <= 0 {
		return beginning{}, fmt.Errorf("--from %q is neither start, new nor a duration like 1h", from)
	}
	return beginning{since: now.Add(-ago)}, nil
}

func (b beginning) jetstream() jetstream.From {
	switch {
	case b.next:
		return jetstream.FromNew()
	case !b.since.IsZero():
		return jetstream.FromSince(b.since)
	}
	return jetstream.FromStart()
}

func (b beginning) kafka() kafka.From {
	switch {
	case b.next:
		return kafka.FromNew()
	case !b.since.IsZero():
		return kafka.FromSince(b.since)
	}
	return kafka.FromStart()
}
