package ingress_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress"
)

func TestServerTimeouts(t *testing.T) {
	s := ingress.NewServer(http.NotFoundHandler(), 7*time.Second, zerolog.Nop())
	for _, tt := range []struct {
		name      string
		got, want time.Duration
	}{
		{"header", s.ReadHeaderTimeout, 5 * time.Second},
		{"body in all", s.ReadTimeout, 10 * time.Second},
		{"reply", s.WriteTimeout, 10*time.Second + 7*time.Second + 5*time.Second},
		{"idle", s.IdleTimeout, time.Minute},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	if s.MaxHeaderBytes != 16<<10 {
		t.Errorf("header limit: got %d, want %d", s.MaxHeaderBytes, 16<<10)
	}
}

// Whoever does not send a whole head in time is hung up on; net/http may say a word of its own before it does.
func TestSlowHead(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t).serve(t, func(s *http.Server) { s.ReadHeaderTimeout = 200 * time.Millisecond })
	text := draft{body: known}.text()
	wantCut := func(t *testing.T, c *client) {
		t.Helper()
		rest, err := io.ReadAll(c.in)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 && !strings.HasPrefix(string(rest), "HTTP/1.1 400 Bad Request\r\n") {
			t.Errorf("got %q, %v, want the end of the connection", rest, err)
		}
	}
	for _, part := range []string{"", "PO", text[:100], text[:strings.Index(text, "\r\n\r\n")+2]} {
		c := r.dial(t)
		c.write(t, part)
		wantCut(t, c)
	}
	c := r.dial(t)
	stopped := c.trickle(text)
	wantCut(t, c)
	_ = c.Close()
	<-stopped
	r.wantNothingDelivered(t)
	if got := r.log.String(); got != "" {
		t.Errorf("log: got %s, want nothing of what was no request", got)
	}
}

// A connection carries many deliveries, and refusals between them.
func TestKeepAlive(t *testing.T) {
	r := newRig(t).serve(t)
	c := r.dial(t)
	for range 3 {
		c.send(t, draft{body: known}.text()).want(t, 202, accepted("published", "msg_1"))
		c.send(t, draft{body: known, chunked: true}.text()).want(t, 202, accepted("published", "msg_1"))
		c.send(t, draft{body: known, signature: "-"}.text()).want(t, 401, unauthenticated)
		c.send(t, draft{body: known, method: "GET"}.text()).want(t, 405, notAllowed)
		c.send(t, draft{body: known, method: "HEAD"}.text()).want(t, 405, "")
		c.send(t, draft{body: known, target: "/"}.text()).want(t, 404, notFound)
		c.send(t, draft{body: "?"}.text()).want(t, 202, accepted("dead-lettered", "msg_1"))
	}
}

func TestIdle(t *testing.T) {
	r := newRig(t).serve(t, func(s *http.Server) { s.IdleTimeout = 100 * time.Millisecond })
	c := r.dial(t)
	c.send(t, draft{body: known}.text()).want(t, 202, accepted("published", "msg_1"))
	c.wantClosed(t)
}

// What net/http has to say goes into the same log: a panic is for everybody, a broken handshake for who asks.
func TestServerLog(t *testing.T) {
	var log bytes.Buffer
	s := ingress.NewServer(http.NotFoundHandler(), time.Second, zerolog.New(&log))
	for text, want := range map[string]string{
		"http: TLS handshake error from 192.0.2.1:1: EOF\n":          `{"level":"debug","message":"http: TLS handshake error from 192.0.2.1:1: EOF"}` + "\n",
		"http: panic serving 192.0.2.1:1: a defect\ngoroutine 1:\nx": `{"level":"error","message":"http: panic serving 192.0.2.1:1: a defect\ngoroutine 1:\nx"}` + "\n",
	} {
		log.Reset()
		s.ErrorLog.Print(text)
		if got := log.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Above the level that is asked for there is no line at all.
func TestLogLevel(t *testing.T) {
	for level, want := range map[zerolog.Level]int{zerolog.InfoLevel: 3, zerolog.WarnLevel: 2, zerolog.ErrorLevel: 0, zerolog.Disabled: 0} {
		r := newRig(t, func(c *ingress.Config) { c.Log = c.Log.Level(level) })
		r.do(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
		r.do(t, draft{body: "?"}).want(t, 202, accepted("dead-lettered", "msg_1"))
		r.do(t, draft{body: known, signature: "-"}).want(t, 401, unauthenticated)
		if got := len(r.log.lines(t)); got != want {
			t.Errorf("%v: got %d lines, want %d", level, got, want)
		}
	}
}

// Without a clock of its own a handler has the machine's.
func TestDefaultClock(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.Now = nil })
	before := time.Now()
	r.do(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
	if got := r.one(t).Received; got.Before(before) || got.After(time.Now()) {
		t.Errorf("received at %v, want now", got)
	}
}
