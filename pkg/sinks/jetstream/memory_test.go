package jetstream_test

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// forgetful is a sink whose callback counts.
type forgetful struct {
	*jetstream.Sink
	log   *logs
	calls atomic.Int32
}

func openForgetful(t *testing.T, url string) *forgetful {
	t.Helper()
	f := &forgetful{}
	f.Sink, f.log = openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: url}})
	f.OnForgotten(func() { f.calls.Add(1) })
	eventuallyAccepting(t, f.Sink)
	return f
}

// eventuallyAccepting waits for a Ready that a weakened promise does not keep.
func eventuallyAccepting(t *testing.T, s *jetstream.Sink) {
	t.Helper()
	eventually(t, "accepting", func() error {
		err := ready(t, s)
		if _, degraded := errors.AsType[*sinks.DegradedError](err); degraded {
			return nil
		}
		return err
	})
}

// setBack stops the broker and gives it the store of earlier.
func setBack(t *testing.T, b *broker, earlier string) {
	t.Helper()
	b.stop(t)
	if err := os.RemoveAll(b.opts.StoreDir); err != nil {
		t.Fatal(err)
	}
	copyDir(t, b.opts.StoreDir, earlier)
}

func copyDir(t *testing.T, to, from string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// copyStore returns a copy of the broker's store, made while the broker is down.
func copyStore(t *testing.T, b *broker) string {
	t.Helper()
	b.stop(t)
	dir := t.TempDir()
	copyDir(t, dir, b.opts.StoreDir)
	b.start(t)
	return dir
}

// elsewhere runs fn while the broker is up where the sink does not find it.
func elsewhere(t *testing.T, b *broker, fn func(js natsjs.JetStream)) {
	t.Helper()
	b.stop(t)
	port := b.opts.Port
	b.opts.Port = freePort(t)
	b.start(t)
	fn(b.admin(t))
	b.stop(t)
	b.opts.Port = port
}

// TestForgotten: each time ten events and a dead letter are acked, then something happens, and the sink finds out.
func TestForgotten(t *testing.T) {
	const halfway = 5
	for name, c := range map[string]struct {
		stream func(*natsjs.StreamConfig) // made by hand if there is one
		happen func(t *testing.T, b *broker, half string)
		want   string // in the log, "" if nothing is forgotten
	}{
		"restart": {nil, func(t *testing.T, b *broker, _ string) { b.stop(t); b.start(t) }, ""},
		"set back": {nil, func(t *testing.T, b *broker, half string) {
			setBack(t, b, half)
			b.start(t)
		}, "stream GEMINI ends at 5, and had acknowledged 10"},
		"set back and gone on": {nil, func(t *testing.T, b *broker, half string) {
			setBack(t, b, half)
			elsewhere(t, b, func(js natsjs.JetStream) {
				for i := range 20 {
					if _, err := js.Publish(t.Context(), "gemini.other", nil, natsjs.WithMsgID(string(rune('a'+i)))); err != nil {
						t.Fatal(err)
					}
				}
			})
			b.start(t)
		}, "stream GEMINI has another event than msg_9 at 10"},
		"emptied": {nil, func(t *testing.T, b *broker, _ string) {
			b.stop(t)
			if err := os.RemoveAll(b.opts.StoreDir); err != nil {
				t.Fatal(err)
			}
			b.start(t)
		}, "missing"},
		"one record removed": {nil, func(t *testing.T, b *broker, _ string) {
			elsewhere(t, b, func(js natsjs.JetStream) {
				s, err := js.Stream(t.Context(), "GEMINI")
				if err != nil {
					t.Fatal(err)
				}
				if err := s.DeleteMsg(t.Context(), 10); err != nil {
					t.Fatal(err)
				}
			})
			b.start(t)
		}, "no longer has msg_9 at 10"},
		// As after a power failure that took the records and left the index: counting goes on.
		"purged and restarted": {nil, func(t *testing.T, b *broker, _ string) {
			purge(t, b)
			b.stop(t)
			b.start(t)
		}, "no longer has msg_9 at 10"},
		"purged": {nil, func(t *testing.T, b *broker, _ string) { purge(t, b); cut(t, b) }, ""},
		"expired": {func(c *natsjs.StreamConfig) { c.MaxAge, c.Duplicates = time.Second, time.Second }, func(t *testing.T, b *broker, _ string) {
			js := b.admin(t)
			eventually(t, "expired", func() error {
				s, err := js.Stream(t.Context(), "GEMINI")
				if err == nil && s.CachedInfo().State.Msgs > 0 {
					err = errEnough
				}
				return err
			})
			b.stop(t)
			b.start(t)
		}, ""},
		"consumed": {func(c *natsjs.StreamConfig) { c.Retention = natsjs.WorkQueuePolicy }, func(t *testing.T, b *broker, _ string) {
			consumer, err := b.admin(t).CreateConsumer(t.Context(), "GEMINI", natsjs.ConsumerConfig{Durable: "worker"})
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				m, err := consumer.Next()
				if err != nil {
					t.Fatal(err)
				}
				if err := m.DoubleAck(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			b.stop(t)
			b.start(t)
		}, ""},
		"dead letters set back": {nil, func(t *testing.T, b *broker, _ string) {
			elsewhere(t, b, func(js natsjs.JetStream) {
				s, err := js.Stream(t.Context(), "GEMINI_DEAD")
				if err != nil {
					t.Fatal(err)
				}
				if err := s.DeleteMsg(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
			})
			b.start(t)
		}, "stream GEMINI_DEAD no longer has msg_0 at 1"},
		"made anew while away": {nil, func(t *testing.T, b *broker, _ string) {
			elsewhere(t, b, func(js natsjs.JetStream) {
				if err := js.DeleteStream(t.Context(), "GEMINI"); err != nil {
					t.Fatal(err)
				}
				if _, err := js.CreateStream(t.Context(), good()); err != nil {
					t.Fatal(err)
				}
				for i := range 10 {
					if _, err := js.Publish(t.Context(), "gemini.a", nil, natsjs.WithMsgID(sinkstest.Event(i).ID)); err != nil {
						t.Fatal(err)
					}
				}
			})
			b.start(t)
		}, "deleted and made anew"},
		"deleted": {nil, func(t *testing.T, b *broker, _ string) {
			if err := b.admin(t).DeleteStream(t.Context(), "GEMINI"); err != nil {
				t.Fatal(err)
			}
		}, "missing"},
		"made anew": {nil, func(t *testing.T, b *broker, _ string) {
			js := b.admin(t)
			if err := js.DeleteStream(t.Context(), "GEMINI"); err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateStream(t.Context(), good()); err != nil {
				t.Fatal(err)
			}
		}, "has stored an event at 1, and had acknowledged another at 10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, nil)
			if c.stream != nil {
				cfg := good()
				c.stream(&cfg)
				if _, err := b.admin(t).CreateStream(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
			}
			f := openForgetful(t, b.url())
			for i := range halfway {
				publish(t, f.Sink, i)
			}
			half := copyStore(t, b)
			eventuallyAccepting(t, f.Sink)
			for i := halfway; i < 10; i++ {
				publish(t, f.Sink, i)
			}
			if _, err := f.Publish(t.Context(), sinkstest.DeadLetter(0)); err != nil {
				t.Fatal(err)
			}
			c.happen(t, b, half)

			// The next event is let through after the finding only, and then all is as it was.
			eventually(t, "published", func() error {
				_, err := f.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(10))
				return err
			})
			eventuallyAccepting(t, f.Sink)
			want := int32(0)
			if c.want != "" {
				want = 1
			}
			if got := f.calls.Load(); got != want || f.log.count("has forgotten") != int(want) || want > 0 && f.log.count(c.want) == 0 {
				t.Errorf("told %d times, want %d and in the log %q:\n%s", got, want, c.want, f.log)
			}
			publish(t, f.Sink, 11)
			b.stop(t)
			b.start(t)
			eventuallyAccepting(t, f.Sink)
			publish(t, f.Sink, 12)
			if got := f.calls.Load(); got != want {
				t.Errorf("told %d times after another restart, want %d still:\n%s", got, want, f.log)
			}
		})
	}
}

func purge(t *testing.T, b *broker) {
	t.Helper()
	s, err := b.admin(t).Stream(t.Context(), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// cut breaks the sink's connection, and returns once it is gone.
func cut(t *testing.T, b *broker) {
	t.Helper()
	conns, err := b.server.Connz(&server.ConnzOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conns.Conns {
		if c.Name == "bridge" {
			if err := b.server.DisconnectClientByID(c.Cid); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestNothingToForget: a stream that is missing before anything was acked has forgotten nothing.
func TestNothingToForget(t *testing.T) {
	b := startBroker(t, nil)
	f := openForgetful(t, b.url())
	if err := b.admin(t).DeleteStream(t.Context(), "GEMINI"); err != nil {
		t.Fatal(err)
	}
	publish(t, f.Sink, 0)
	if f.calls.Load() != 0 {
		t.Errorf("told %d times", f.calls.Load())
	}
}

// TestForgottenDuplicate: what the broker says is there already, after a restart of the bridge, may be lost too.
func TestForgottenDuplicate(t *testing.T) {
	b := startBroker(t, nil)
	first := openForgetful(t, b.url())
	for i := range 5 {
		publish(t, first.Sink, i)
	}
	half := copyStore(t, b)
	eventuallyAccepting(t, first.Sink)
	for i := 5; i < 10; i++ {
		publish(t, first.Sink, i)
	}
	second := openForgetful(t, b.url())
	for i := range 10 {
		if ack := publish(t, second.Sink, i); !ack.Duplicate {
			t.Errorf("%d: %+v, want a duplicate", i, ack)
		}
	}
	setBack(t, b, half)
	b.start(t)
	eventuallyReady(t, second.Sink)
	if second.calls.Load() != 1 {
		t.Errorf("told %d times, want once", second.calls.Load())
	}
}

// TestNothingBetween: nothing is published from the loss until forgotten has returned.
func TestNothingBetween(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}})
	told, release := make(chan struct{}, 1), make(chan struct{})
	s.OnForgotten(func() { told <- struct{}{}; <-release })
	eventuallyReady(t, s)
	publish(t, s, 0)
	half := copyStore(t, b)
	eventuallyReady(t, s)
	publish(t, s, 1)
	setBack(t, b, half)
	b.start(t)
	<-told
	ctx := ctxOf(t, time.Minute)
	start := time.Now()
	if _, err := s.Publish(ctx, sinkstest.Event(2)); err == nil || !strings.Contains(err.Error(), "asked whether it still has") {
		t.Errorf("Publish: %v, want it not to be published", err)
	}
	if err := ready(t, s); err == nil {
		t.Error("ready while it is being told")
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("both took %s", took)
	}
	if n := len(stored(t, b)); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	close(release)
	eventuallyReady(t, s)
	publish(t, s, 2)
}
