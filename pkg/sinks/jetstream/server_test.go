package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// broker is a nats-server in the process that can be stopped and started on its port and store.
type broker struct {
	opts   *server.Options
	server *server.Server
}

// newBroker prepares a server; change may alter its options.
func newBroker(t *testing.T, change func(*server.Options)) *broker {
	t.Helper()
	b := &broker{opts: &server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: freePort(t), NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 64 << 20,
	}}
	if change != nil {
		change(b.opts)
	}
	t.Cleanup(func() { b.stop(t) })
	return b
}

// freePort returns a port below those that the system gives out, so that it stays free while nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func startBroker(t *testing.T, change func(*server.Options)) *broker {
	t.Helper()
	b := newBroker(t, change)
	b.start(t)
	return b
}

func (b *broker) start(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(b.opts.Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("nats-server did not start")
	}
	b.server = s
}

func (b *broker) stop(*testing.T) {
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
		b.server = nil
	}
}

func (b *broker) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", b.opts.Port) }

// admin returns JetStream through a connection of its own; opts hold credentials if they are needed.
func (b *broker) admin(t *testing.T, opts ...nats.Option) natsjs.JetStream {
	t.Helper()
	nc, err := nats.Connect(b.url(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc, natsjs.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// logs collects a logger's lines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) count(text string) int { return strings.Count(l.String(), text) }

// openSink returns a sink on cfg that is closed with the test, and its log.
func openSink(t *testing.T, cfg jetstream.Config) (*jetstream.Sink, *logs) {
	t.Helper()
	l := &logs{}
	cfg.Log = zerolog.New(l)
	s, err := jetstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, l
}

// openOn returns a ready sink on the broker.
func openOn(t *testing.T, b *broker) (*jetstream.Sink, *logs) {
	t.Helper()
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}})
	eventuallyReady(t, s)
	return s, l
}

func publish(t *testing.T, s *jetstream.Sink, i int) sinks.Ack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ack, err := s.Publish(ctx, sinkstest.Event(i))
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return ack
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // an election may have to be held again, for ten seconds each
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s in time: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func ready(t *testing.T, s *jetstream.Sink) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return s.Ready(ctx)
}

func eventuallyReady(t *testing.T, s *jetstream.Sink) {
	t.Helper()
	eventually(t, "ready", func() error { return ready(t, s) })
}

// eventuallyDown waits for an error of Ready that holds all the words.
func eventuallyDown(t *testing.T, s *jetstream.Sink, words ...string) (text string) {
	t.Helper()
	var last error
	eventually(t, "down because of "+strings.Join(words, ", "), func() error {
		last = ready(t, s)
		if last == nil {
			return errors.New("ready")
		}
		for _, w := range words {
			if !strings.Contains(last.Error(), w) {
				return last
			}
		}
		return nil
	})
	return last.Error()
}

func ctxOf(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}
