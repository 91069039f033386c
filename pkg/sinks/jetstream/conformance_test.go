package jetstream_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

func TestConformance(t *testing.T) {
	for name, mode := range map[string]jetstream.Mode{"structured": jetstream.Structured, "binary": jetstream.Binary} {
		t.Run(name, func(t *testing.T) {
			sinkstest.Run(t, sinkstest.Features{TooLarge: 2 << 20, Restart: true}, func(t *testing.T) sinkstest.Harness {
				b := startBroker(t, nil)
				s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, ContentMode: mode})
				if mode == jetstream.Structured { // with and without
					s.OnForgotten(func() { t.Error("the broker is said to have forgotten something") })
				}
				return sinkstest.Harness{
					Sink: s, Stop: b.stop, Start: b.start,
					Stored: func(t *testing.T) []sinkstest.Record { return stored(t, b) },
				}
			})
		})
	}
}

// TestConformanceEmbedded reads back as a stranger, who may only consume.
func TestConformanceEmbedded(t *testing.T) {
	sinkstest.Run(t, sinkstest.Features{TooLarge: 2 << 20}, func(t *testing.T) sinkstest.Harness {
		e, err := jetstream.StartEmbedded(jetstream.EmbeddedConfig{
			Dir: filepath.Join(t.TempDir(), "nats"), Addr: "127.0.0.1:0", Prefix: jetstream.DefaultPrefix, Stream: jetstream.DefaultStream, Log: zerolog.Nop(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{ConnOptions: e.ConnOptions()}, Health: e.Healthy})
		return sinkstest.Harness{
			Sink: s, Stored: func(t *testing.T) []sinkstest.Record { return storedAt(t, e.ClientURL()) },
		}
	})
}

// TestConformanceLazy syncs all the while.
func TestConformanceLazy(t *testing.T) {
	sinkstest.Run(t, sinkstest.Features{TooLarge: 2 << 20}, func(t *testing.T) sinkstest.Harness {
		l := startLazy(t, t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		var syncing sync.WaitGroup
		syncing.Go(func() {
			for ctx.Err() == nil {
				if err := l.sink.Sync(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
		t.Cleanup(func() {
			cancel()
			syncing.Wait()
			if l.forgotten.Load() > 0 {
				t.Error("the broker is said to have forgotten something")
			}
		})
		return sinkstest.Harness{
			Sink: l.sink, Stored: func(t *testing.T) []sinkstest.Record { return storedAt(t, l.server.ClientURL()) },
		}
	})
}

// TestConformanceCluster has one cluster for all cases, and streams of its own for each.
func TestConformanceCluster(t *testing.T) {
	nodes := startCluster(t)
	var urls []string
	for _, b := range nodes {
		urls = append(urls, b.url())
	}
	url := strings.Join(urls, ",")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	sinkstest.Run(t, sinkstest.Features{TooLarge: 2 << 20, Leader: true, Restart: true}, func(t *testing.T) sinkstest.Harness {
		for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
			eventually(t, "deleted", func() error {
				err := js.DeleteStream(ctxOf(t, 2*time.Second), name)
				if errors.Is(err, natsjs.ErrStreamNotFound) {
					return nil
				}
				return err
			})
		}
		s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: url}, Replicas: 3})
		var away []*broker
		return sinkstest.Harness{
			Sink: s, Stored: func(t *testing.T) []sinkstest.Record { return storedAt(t, url) },
			KillLeader: func(t *testing.T) {
				away = []*broker{leader(t, js, nodes)}
				away[0].stop(t)
			},
			Stop: func(t *testing.T) {
				away = nodes
				for _, b := range away {
					b.stop(t)
				}
			},
			Start: func(t *testing.T) {
				for _, b := range away {
					b.start(t)
				}
				for _, b := range away {
					eventually(t, "in sync", func() error { return inSync(t, js, b) })
				}
			},
		}
	})
}

// stored returns what both streams hold.
func stored(t *testing.T, b *broker) []sinkstest.Record {
	t.Helper()
	return storedAt(t, b.url())
}

func storedAt(t *testing.T, url string) []sinkstest.Record {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var all []sinkstest.Record
	for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
		for _, r := range readAll(t, js, jetstream.Conn{URL: url}, stream) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			all = append(all, sinkstest.Record{Dead: stream == "GEMINI_DEAD", ID: r.Header["Nats-Msg-Id"][0], Event: r.Event})
		}
	}
	return all
}

var errEnough = errors.New("enough")

// readAll returns what the stream holds now.
func readAll(t *testing.T, js natsjs.JetStream, conn jetstream.Conn, stream string) []sinks.Record {
	t.Helper()
	var info natsjs.Stream
	eventually(t, "found", func() (err error) { info, err = js.Stream(ctxOf(t, 2*time.Second), stream); return err })
	n := info.CachedInfo().State.Msgs
	if n == 0 {
		return nil
	}
	return readN(t, conn, stream, sinks.FromStart(), int(n))
}

func readN(t *testing.T, conn jetstream.Conn, stream string, from sinks.From, n int) []sinks.Record {
	t.Helper()
	r, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: conn, Stream: stream})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var records []sinks.Record
	err = r.Read(ctx, from, func(r sinks.Record) error {
		records = append(records, r)
		if len(records) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("%d of %d records of %s: %v", len(records), n, stream, err)
	}
	return records
}
