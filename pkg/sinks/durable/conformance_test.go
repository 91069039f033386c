package durable_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// What every sink promises, a sink behind a journal promises too.
func TestConformance(t *testing.T) {
	sinkstest.Run(t, sinkstest.Features{Count: 2000, Restart: true}, func(t *testing.T) sinkstest.Harness {
		n := &natsServer{options: &server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
		}}
		n.start(t)
		t.Cleanup(func() { n.stop(t) })
		url := fmt.Sprintf("nats://127.0.0.1:%d", n.options.Port)
		sink, err := jetstream.New(jetstream.Config{Conn: jetstream.Conn{URL: url}, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		return sinkstest.Harness{
			Sink: newDecorated(t, sink), Stop: n.stop, Start: n.start,
			Stored: func(t *testing.T) []sinkstest.Record { return stored(t, url) },
		}
	})
}

func TestConformanceLazy(t *testing.T) {
	sinkstest.Run(t, sinkstest.Features{Count: 2000}, func(t *testing.T) sinkstest.Harness {
		e, err := jetstream.StartEmbedded(jetstream.EmbeddedConfig{
			Dir: filepath.Join(t.TempDir(), "nats"), Addr: "127.0.0.1:0", Lazy: true,
			Prefix: jetstream.DefaultPrefix, Stream: jetstream.DefaultStream, Log: zerolog.Nop(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		sink, err := jetstream.NewLazy(jetstream.Config{Log: zerolog.Nop()}, e)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := sinks.Sink(sink).(sinks.Syncer); !ok {
			t.Fatal("the embedded broker's sink does not sync")
		}
		return sinkstest.Harness{
			Sink:   newDecorated(t, sink),
			Stored: func(t *testing.T) []sinkstest.Record { return stored(t, e.ClientURL()) },
		}
	})
}

// decorated is a Journaled in the shape of a sink, for the suite knows nothing else.
type decorated struct {
	*durable.Journaled
	published atomic.Uint64
}

func newDecorated(t *testing.T, sink sinks.Sink) *decorated {
	t.Helper()
	dir := t.TempDir()
	log, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), MaxBytes: 64 << 20, SegmentBytes: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	d, err := durable.NewJournaled(sink, log, durable.JournaledConfig{
		Config: durable.Config{AckTimeout: 30 * time.Second}, Keep: time.Minute, Quarantine: filepath.Join(dir, "quarantine"), Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return &decorated{Journaled: d}
}

// Publish is Deliver until the event has left the journal, for the suite then looks into the broker.
func (d *decorated) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	var spooled bool
	for {
		result, err := d.Deliver(ctx, e)
		switch {
		case errors.Is(err, sinks.ErrClosed):
			return sinks.Ack{}, err
		case err != nil:
			return sinks.Ack{}, fmt.Errorf("%w: %w", sinks.ErrUnknown, err)
		case result == schema.Duplicate && !spooled:
			return sinks.Ack{Duplicate: true}, nil
		case result != schema.Spooled:
			return sinks.Ack{Position: sinks.Position{Sequence: d.published.Add(1)}}, nil
		}
		spooled = true
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return sinks.Ack{}, fmt.Errorf("%w: %w", sinks.ErrUnknown, ctx.Err())
		}
	}
}

// Ready is down with the sink, as the suite wants it.
func (d *decorated) Ready(ctx context.Context) error {
	err := d.Journaled.Ready(ctx)
	if err != nil && strings.Contains(err.Error(), "events are spooled") {
		return errors.New(err.Error())
	}
	return err
}

// natsServer is a server in this process that can be stopped, and started at its place with its store.
type natsServer struct {
	options *server.Options
	server  *server.Server
}

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	var err error
	if n.server, err = server.NewServer(n.options.Clone()); err != nil {
		t.Fatal(err)
	}
	n.server.Start()
	if !n.server.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	n.options.Port = n.server.Addr().(*net.TCPAddr).Port
}

func (n *natsServer) stop(*testing.T) {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// stored returns what both streams hold.
func stored(t *testing.T, url string) []sinkstest.Record {
	t.Helper()
	var all []sinkstest.Record
	for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
		reader, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: url}, Stream: name})
		if err != nil {
			t.Fatal(err)
		}
		err = reader.Read(t.Context(), sinks.From{ToEnd: true}, func(r sinks.Record) error {
			all = append(all, sinkstest.Record{Dead: name == "GEMINI_DEAD", ID: r.Header["Nats-Msg-Id"][0], Event: r.Event})
			return r.Err
		})
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
	}
	return all
}
