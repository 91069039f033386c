package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

func TestMistakes(t *testing.T) {
	rubbish := filepath.Join(t.TempDir(), "rubbish")
	if err := os.WriteFile(rubbish, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "nats://127.0.0.1:1"
	for _, c := range []struct {
		name string
		cfg  jetstream.Config
		want []string
	}{
		{"no URL", jetstream.Config{}, []string{"BRIDGE_NATS_URL: number 1 is not a URL"}},
		{"no host", jetstream.Config{Conn: jetstream.Conn{URL: "nats://:4222"}}, []string{"BRIDGE_NATS_URL: number 1"}},
		{"malformed second", jetstream.Config{Conn: jetstream.Conn{URL: url + ",nats://joe:hush@h:port"}}, []string{"BRIDGE_NATS_URL: number 2"}},
		{"scheme", jetstream.Config{Conn: jetstream.Conn{URL: "http://h"}}, []string{"scheme other than nats, tls, ws and wss"}},
		{"mixed", jetstream.Config{Conn: jetstream.Conn{URL: "nats://h,wss://h"}}, []string{"cannot be mixed"}},
		{
			"two credentials",
			jetstream.Config{Conn: jetstream.Conn{URL: url, Token: secret.New("hush"), User: "joe"}},
			[]string{"BRIDGE_NATS_TOKEN, BRIDGE_NATS_USER: only one"},
		},
		{"password alone", jetstream.Config{Conn: jetstream.Conn{URL: url, Password: secret.New("hush")}}, []string{"BRIDGE_NATS_PASSWORD needs BRIDGE_NATS_USER"}},
		{"bad creds", jetstream.Config{Conn: jetstream.Conn{URL: url, Creds: contentOf(rubbish)}}, []string{"BRIDGE_NATS_CREDS"}},
		{"bad nkey", jetstream.Config{Conn: jetstream.Conn{URL: url, NKey: contentOf(rubbish)}}, []string{"BRIDGE_NATS_NKEY"}},
		{"all names at once", jetstream.Config{
			Conn: jetstream.Conn{URL: url}, Stream: "a.b", Prefix: "a..b", Replicas: 6, MaxAge: time.Hour, DeadMaxAge: time.Hour,
		}, []string{
			"BRIDGE_NATS_STREAM", "BRIDGE_NATS_SUBJECT_PREFIX", "BRIDGE_NATS_REPLICAS: 1 to 5",
			"BRIDGE_NATS_MAX_AGE: 1h is less than BRIDGE_DEDUP_WINDOW, 25h", "BRIDGE_DEAD_MAX_AGE: 1h is less than BRIDGE_DEDUP_WINDOW, 25h",
		}},
		{"wildcard", jetstream.Config{Conn: jetstream.Conn{URL: url}, Prefix: "a.>"}, []string{"BRIDGE_NATS_SUBJECT_PREFIX"}},
	} {
		s, err := jetstream.New(c.cfg)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			_ = s.Close(t.Context())
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %q, want %q in it", c.name, err, w)
			}
		}
		if strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: a secret is told: %v", c.name, err)
		}
	}
}

// TestBrokerLater: the bridge is up before its broker, as in Kubernetes.
func TestBrokerLater(t *testing.T) {
	b := startBroker(t, nil) // to have a port
	b.stop(t)
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: "nats://joe:hush@" + strings.TrimPrefix(b.url(), "nats://")}})
	eventuallyDown(t, s, "cannot be reached", strings.TrimPrefix(b.url(), "nats://"))
	// A broker that has been away for longer than a hiccup is not waited for.
	ctx := ctxOf(t, time.Hour)
	if _, err := s.Publish(ctx, sinkstest.Event(1)); err == nil || errors.Is(err, sinks.ErrUnknown) || isRefused(err) {
		t.Errorf("Publish: %v, want a not now", err)
	}
	b.start(t)
	eventuallyReady(t, s)
	publish(t, s, 1)
	if down, up := l.count("cannot be reached"), l.count("connected to NATS at"); down != 1 || up != 1 {
		t.Errorf("logged %d and %d times, want once each:\n%s", down, up, l)
	}
	if strings.Contains(l.String(), "hush") || strings.Contains(l.String(), "joe") {
		t.Errorf("the URL's user is told:\n%s", l)
	}
}

// TestHiccup: a publish under way waits out the restart of a broker, if that is quick.
func TestHiccup(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	eventually(t, "restarted quickly", func() error {
		began := time.Now()
		b.stop(t)
		var took time.Duration
		var starting sync.WaitGroup
		starting.Go(func() { b.start(t); took = time.Since(began) })
		_, err := s.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(1))
		starting.Wait()
		if err == nil {
			return nil
		}
		if took < 300*time.Millisecond {
			t.Fatalf("Publish: %v, and the restart took %v", err, took)
		}
		eventuallyReady(t, s)
		return err
	})
}

// TestClosedForGood: the server ends the connection in a way after which nats.go does not reconnect.
func TestClosedForGood(t *testing.T) {
	b := startBroker(t, func(o *server.Options) { o.MaxControlLine = 256 })
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, Prefix: "gemini." + strings.Repeat("x", 120)})
	eventuallyReady(t, s)
	e := sinkstest.Event(1)
	e.Name = strings.Repeat("y", 127)
	if _, err := s.Publish(ctxOf(t, 500*time.Millisecond), e); err == nil || isRefused(err) {
		t.Errorf("Publish: %v, want a not now", err)
	}
	eventually(t, "closed by the server", func() error {
		if l.count("maximum control line exceeded") == 0 {
			return errors.New("not closed")
		}
		return nil
	})
	eventuallyReady(t, s)
	publish(t, s, 2)
	if l.count("connected to NATS at") < 2 {
		t.Errorf("not connected again:\n%s", l)
	}
}

// TestRevoked: the user is removed under an established connection, and comes back.
func TestRevoked(t *testing.T) {
	joe := &server.User{Username: "joe", Password: "hush"}
	other := &server.User{Username: "other", Password: "other"}
	b := startBroker(t, func(o *server.Options) { o.Users = []*server.User{joe, other} })
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), User: "joe", Password: secret.New("hush")}})
	eventuallyReady(t, s)
	reload := func(users ...*server.User) {
		opts := b.opts.Clone()
		opts.Users = users
		if err := b.server.ReloadOptions(opts); err != nil {
			t.Fatal(err)
		}
	}
	reload(other)
	eventuallyDown(t, s, "refuses the credentials", "BRIDGE_NATS_USER")
	reload(joe, other)
	eventuallyReady(t, s)
	publish(t, s, 1)
	if strings.Contains(l.String(), "hush") {
		t.Errorf("a secret is told:\n%s", l)
	}
}

// TestAckLost: the connection breaks between the store and its ack. The event is sent again under its id, is there
// once, and is not called a duplicate.
func TestAckLost(t *testing.T) {
	b := startBroker(t, nil)
	p := startProxy(t, strings.TrimPrefix(b.url(), "nats://"))
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: "nats://" + p.address}})
	eventuallyReady(t, s)
	publish(t, s, 0)
	p.cutAtAck()
	ack := publish(t, s, 1)
	if ack.Duplicate || ack.Position.Sequence != 2 {
		t.Errorf("got %+v, want sequence 2, new", ack)
	}
	if p.cuts() != 1 {
		t.Errorf("%d connections cut, want 1", p.cuts())
	}
	if n := len(stored(t, b)); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	if ack := publish(t, s, 1); !ack.Duplicate {
		t.Error("the next publish of the id is no duplicate")
	}
}

// TestStalled: the network takes nothing any more, and says nothing. Every Publish returns nevertheless.
func TestStalled(t *testing.T) {
	b := startBroker(t, nil)
	p := startProxy(t, strings.TrimPrefix(b.url(), "nats://"))
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: "nats://" + p.address}})
	eventuallyReady(t, s)
	release := p.stall()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := s.Publish(ctx, sinkstest.LargeEvent(i, 900<<10)); err == nil || isRefused(err) {
				t.Errorf("Publish: %v, want a not now", err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("a Publish hangs")
	}
	release()
	<-done
	eventually(t, "published", func() error {
		_, err := s.Publish(ctxOf(t, time.Second), sinkstest.Event(100))
		return err
	})
}

// TestCloseCuts: Close waits for a publish as long as it may, and cuts it then.
func TestCloseCuts(t *testing.T) {
	sent := make(chan struct{}, 10)
	s := fake(t, jetstream.Config{}, func(int, *nats.Msg) { sent <- struct{}{} })
	result := make(chan error, 1)
	go func() {
		_, err := s.Publish(context.WithoutCancel(t.Context()), sinkstest.Event(1))
		result <- err
	}()
	<-sent
	if err := s.Close(ctxOf(t, 100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v, want its context's error", err)
	}
	if err := <-result; !errors.Is(err, sinks.ErrUnknown) || !errors.Is(err, sinks.ErrClosed) {
		t.Errorf("Publish: %v, want ErrUnknown because of ErrClosed", err)
	}
}

// TestCloseWhileDialling: a server that accepts and says nothing does not hold up Close.
func TestCloseWhileDialling(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	s, err := jetstream.New(jetstream.Config{Conn: jetstream.Conn{URL: "nats://" + listener.Addr().String()}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	begun := time.Now()
	defer c.Close()
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.WithoutCancel(t.Context())) }()
	// The end of the connection, not the handshake's time-out of two seconds, ends the dial.
	if err := c.SetReadDeadline(begun.Add(1900 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the dial goes on: %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
}

// proxy is a network between a sink and a broker.
type proxy struct {
	address string

	mu    sync.Mutex
	cond  *sync.Cond
	still bool // nothing is carried
	cut   bool // the next ack ends its connection
	cutN  int
	conns []net.Conn
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String()}
	p.cond = sync.NewCond(&p.mu)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			wg.Go(func() { p.carry(in, out, false) })
			wg.Go(func() { p.carry(out, in, true) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		p.still = false
		p.cond.Broadcast()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *proxy) carry(from, to net.Conn, answers bool) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		for p.still {
			p.cond.Wait()
		}
		cut := answers && p.cut && bytes.Contains(buf[:n], []byte(`"seq":`))
		if cut {
			p.cut = false
			p.cutN++
		}
		p.mu.Unlock()
		if cut {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) cutAtAck() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

func (p *proxy) cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cutN
}

func (p *proxy) stall() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.still = false
		p.cond.Broadcast()
	}
}
