package jetstream_test

import (
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// fakeAPI is a JetStream that says what a test wants, behind a network that can be cut.
func fakeAPI(t *testing.T, respond func(m *nats.Msg)) (s *jetstream.Sink, b *broker) {
	t.Helper()
	b = startBroker(t, func(o *server.Options) { o.JetStream = false })
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	for _, subject := range []string{"gemini.>", "$JS.API.>"} {
		if _, err := nc.Subscribe(subject, respond); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	s, _ = openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}})
	return s, b
}

func header(id string) string {
	return base64.StdEncoding.EncodeToString([]byte("NATS/1.0\r\nNats-Msg-Id: " + id + "\r\n\r\n"))
}

const fakeInfo = `{"config":{"subjects":["gemini.>","gemini-dead.>"]},"state":{"last_seq":7},"created":"2026-01-01T00:00:00Z"}`

// TestNoAnswerToTheQuestion: as long as it is not known what the broker has, nothing is published.
func TestNoAnswerToTheQuestion(t *testing.T) {
	var silent atomic.Bool
	var published atomic.Int32
	s, b := fakeAPI(t, func(m *nats.Msg) {
		switch {
		case strings.HasPrefix(m.Subject, "gemini."):
			_ = m.Respond(ackOf(6+int(published.Add(1)), false))
		case strings.Contains(m.Subject, ".MSG.GET."):
			if !silent.Load() {
				_ = m.Respond([]byte(`{"message":{"seq":7,"hdrs":"` + header("msg_1") + `"}}`))
			}
		default:
			_ = m.Respond([]byte(strings.Replace(fakeInfo, `"last_seq":7`, `"last_seq":8`, 1)))
		}
	})
	var told atomic.Int32
	s.OnForgotten(func() { told.Add(1) })
	eventuallyAccepting(t, s)
	publish(t, s, 1)
	silent.Store(true)
	cut(t, b)
	eventuallyDown(t, s, "asked whether it still has")
	if _, err := s.Publish(ctxOf(t, time.Minute), sinkstest.Event(2)); err == nil || !strings.Contains(err.Error(), "asked whether it still has") {
		t.Errorf("Publish: %v", err)
	}
	if n := published.Load(); n != 1 {
		t.Errorf("%d published, want 1", n)
	}
	silent.Store(false)
	eventuallyAccepting(t, s)
	publish(t, s, 3)
	if told.Load() != 0 {
		t.Error("nothing was forgotten")
	}
}

// TestSetBackUnderTheConnection: where the server that we talk to is not the one that stores, no connection breaks. It is
// seen at the next look at the stream.
func TestSetBackUnderTheConnection(t *testing.T) {
	var back atomic.Bool
	s, _ := fakeAPI(t, func(m *nats.Msg) {
		switch {
		case strings.HasPrefix(m.Subject, "gemini."):
			_ = m.Respond(ackOf(7, false))
		case back.Load():
			_ = m.Respond([]byte(strings.Replace(fakeInfo, `"last_seq":7`, `"last_seq":6`, 1)))
		default:
			_ = m.Respond([]byte(fakeInfo))
		}
	})
	told := make(chan struct{}, 10)
	s.OnForgotten(func() { told <- struct{}{} })
	eventuallyAccepting(t, s)
	publish(t, s, 1)
	eventuallyAccepting(t, s)
	if len(told) > 0 {
		t.Error("told without reason")
	}
	back.Store(true)
	eventually(t, "told", func() error {
		if _ = ready(t, s); len(told) == 0 {
			return errEnough
		}
		return nil
	})
	<-told
	eventuallyAccepting(t, s)
	if len(told) > 0 {
		t.Error("told twice")
	}
}

// TestLateAckOfAnotherConnection: an ack of what was sent before the connection broke says nothing of what is there now.
func TestLateAckOfAnotherConnection(t *testing.T) {
	replies := make(chan string, 10)
	s, b := fakeAPI(t, func(m *nats.Msg) {
		switch {
		case strings.HasPrefix(m.Subject, "gemini."):
			replies <- m.Reply
		default:
			_ = m.Respond([]byte(fakeInfo))
		}
	})
	s.OnForgotten(func() {})
	eventuallyAccepting(t, s)
	acked := make(chan uint64, 1)
	go func() {
		ack, err := s.Publish(t.Context(), sinkstest.Event(1))
		if err != nil {
			t.Error(err)
		}
		acked <- ack.Position.Sequence
	}()
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	first := <-replies
	cut(t, b)
	second := first
	for second == first { // an attempt may have been sent again before the cut
		second = <-replies
	}
	for i, reply := range []string{first, second} {
		if err := nc.Publish(reply, ackOf(7+i, false)); err != nil {
			t.Fatal(err)
		}
	}
	if seq := <-acked; seq != 8 {
		t.Errorf("acked at %d, want 8", seq)
	}
}
