package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// fake stands for a JetStream that answers what a real one says only in distress: respond gets each attempt.
func fake(t *testing.T, cfg jetstream.Config, respond func(attempt int, m *nats.Msg)) *jetstream.Sink {
	t.Helper()
	b := startBroker(t, func(o *server.Options) { o.JetStream = false })
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	attempts := 0
	if _, err := nc.Subscribe("gemini.>", func(m *nats.Msg) { attempts++; respond(attempts, m) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	cfg.URL = b.url()
	s, _ := openSink(t, cfg)
	eventuallyDown(t, s, "there is no JetStream") // so it is connected
	return s
}

func ackOf(seq int, duplicate bool) []byte {
	return fmt.Appendf(nil, `{"stream":"GEMINI","seq":%d,"duplicate":%v}`, seq, duplicate)
}

func errorOf(code int) []byte {
	return fmt.Appendf(nil, `{"error":{"code":500,"err_code":%d,"description":"told by the test"},"stream":"GEMINI","seq":0}`, code)
}

// TestVerdicts: which of the server's errors mean never, which not now, and which are worth another attempt.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		codes []int
		want  string
	}{
		{[]int{10054, 10097}, "never"},
		{[]int{10002, 10023, 10047, 10077, 10109, 10039, 10076, 65000}, "not now"},
		{[]int{10008, 10009, 10063, 10118, 10158, 10163, 10167}, "again"},
	} {
		for _, code := range c.codes {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				s := fake(t, jetstream.Config{}, func(attempt int, m *nats.Msg) {
					if attempt == 1 {
						_ = m.Respond(errorOf(code))
					} else {
						_ = m.Respond(ackOf(7, false))
					}
				})
				ack, err := s.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(1))
				got := "not now"
				switch {
				case err == nil && ack.Position.Sequence == 7:
					got = "again"
				case isRefused(err):
					got = "never"
				case errors.Is(err, sinks.ErrUnknown):
					got = "unknown"
				}
				if got != c.want {
					t.Errorf("got %s (%v), want %s", got, err, c.want)
				}
				if err != nil && !strings.Contains(err.Error(), "told by the test") {
					t.Errorf("the server's words are not in %q", err)
				}
			})
		}
	}
}

// TestNoAnswer: the event is sent again under the same id until ctx ends, and may be stored then.
func TestNoAnswer(t *testing.T) {
	var attempts atomic.Int32
	s := fake(t, jetstream.Config{}, func(n int, m *nats.Msg) {
		if m.Header.Get("Nats-Msg-Id") == "msg_1" {
			attempts.Add(1)
		}
	})
	_, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1)) // an attempt takes a third of it, up to a second
	if !errors.Is(err, sinks.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrUnknown because of the deadline", err)
	}
	if n := attempts.Load(); n < 2 || n > 4 {
		t.Errorf("%d attempts, want 3", n)
	}
}

// TestLateAnswer: an answer to the first attempt counts while the second is under way.
func TestLateAnswer(t *testing.T) {
	var reply string
	s := fake(t, jetstream.Config{}, func(attempt int, m *nats.Msg) {
		if attempt == 1 {
			reply = m.Reply
			return
		}
		m.Reply = reply
		_ = m.Respond(ackOf(9, false))
	})
	ack, err := s.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(1))
	if err != nil || ack.Position.Sequence != 9 {
		t.Errorf("got %+v, %v, want sequence 9", ack, err)
	}
}

// TestOwnDuplicate: a second attempt that finds the first one stored is no duplicate; one that finds an older record is.
func TestOwnDuplicate(t *testing.T) {
	var found atomic.Int32
	attempts := map[string]int{} // by where the answer goes, which is for each Publish another place
	s := fake(t, jetstream.Config{}, func(_ int, m *nats.Msg) {
		attempts[m.Reply]++
		switch n := int(found.Load()); {
		case n == 0:
			_ = m.Respond(ackOf(4, false))
		case attempts[m.Reply] > 1:
			_ = m.Respond(ackOf(n, true))
		}
	})
	for _, c := range []struct {
		found int32
		want  bool
	}{{0, false}, {5, false}, {4, true}, {5, true}, {6, false}} {
		found.Store(c.found)
		ack, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1))
		if err != nil || ack.Duplicate != c.want {
			t.Errorf("record %d: got %+v, %v, want Duplicate %v", c.found, ack, err, c.want)
		}
	}
}

// TestRefusedLater: a refusal of the second attempt says nothing of the first.
func TestRefusedLater(t *testing.T) {
	s := fake(t, jetstream.Config{}, func(attempt int, m *nats.Msg) {
		if attempt == 2 {
			_ = m.Respond(errorOf(10054))
		}
	})
	_, err := s.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(1))
	if !errors.Is(err, sinks.ErrUnknown) || isRefused(err) || !strings.Contains(err.Error(), "told by the test") {
		t.Errorf("got %v, want ErrUnknown", err)
	}
}

// TestOtherAnswers: somebody who answers on the subject is not the stream.
func TestOtherAnswers(t *testing.T) {
	s := fake(t, jetstream.Config{}, func(attempt int, m *nats.Msg) {
		switch attempt {
		case 1:
			_ = m.Respond([]byte("thanks"))
		case 2:
			_ = m.Respond([]byte(`{"ok":true}`))
		case 3:
			_ = m.Respond(ackOf(3, false))
		}
	})
	ack, err := s.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(1))
	if err != nil || ack.Position.Sequence != 3 {
		t.Errorf("got %+v, %v, want sequence 3", ack, err)
	}
	_, err = s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(2))
	if !errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
}

// TestHealth: an embedded server on a full disk says nothing; Health does.
func TestHealth(t *testing.T) {
	var sick atomic.Bool
	var silent atomic.Bool
	full := errors.New("no space left on device")
	s := fake(t, jetstream.Config{Health: func() error {
		if sick.Load() {
			return full
		}
		return nil
	}}, func(_ int, m *nats.Msg) {
		if !silent.Load() {
			_ = m.Respond(ackOf(1, false))
		}
	})
	sick.Store(true)
	if err := ready(t, s); !errors.Is(err, full) {
		t.Errorf("Ready: %v, want Health's error", err)
	}
	if _, err := s.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(1)); err != nil {
		t.Errorf("Health is asked although the broker answers: %v", err)
	}
	silent.Store(true)
	ctx := ctxOf(t, time.Minute)
	_, err := s.Publish(ctx, sinkstest.Event(2))
	if !errors.Is(err, full) || !errors.Is(err, sinks.ErrUnknown) || ctx.Err() != nil {
		t.Errorf("got %v, want Health's error and ErrUnknown before the deadline", err)
	}
	_, err = s.Publish(ctx, sinkstest.Event(3))
	if !errors.Is(err, full) || errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("while it is known to be sick: %v, want Health's error, nothing sent", err)
	}
	sick.Store(false)
	silent.Store(false)
	if _, err := s.Publish(ctx, sinkstest.Event(3)); err != nil {
		t.Errorf("healthy again: %v", err)
	}
}

// TestLimits: what a real stream says when it is full, and when an event is too large for it.
func TestLimits(t *testing.T) {
	b := startBroker(t, nil)
	cfg := good()
	cfg.MaxMsgs, cfg.MaxMsgSize = 1, 10_000
	js := b.admin(t)
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, _ := openOn(t, b)
	ctx := ctxOf(t, time.Minute)
	_, err := s.Publish(ctx, sinkstest.LargeEvent(1, 20_000))
	if !isRefused(err) || !strings.Contains(err.Error(), "too large for stream GEMINI: nats stream edit GEMINI --max-msg-size=-1") {
		t.Errorf("too large: %v, want a RefusedError with the command", err)
	}
	publish(t, s, 1)
	_, err = s.Publish(ctx, sinkstest.Event(2))
	if api, ok := errors.AsType[*natsjs.APIError](err); !ok || api.ErrorCode != 10077 || isRefused(err) || errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("full: %v, want a not now with the API's error", err)
	}
	if ctx.Err() != nil {
		t.Error("a full stream is told at the deadline only")
	}
	if err := js.DeleteStream(ctx, "GEMINI"); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 2)
}
