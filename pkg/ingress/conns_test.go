package ingress_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress"
)

// limited is a rig whose server has at most n connections open.
func limited(tb testing.TB, n int) *rig {
	tb.Helper()
	r := newRig(tb)
	r.conns, r.seen = n, r.watch()
	return r.serve(tb)
}

// refused sends what is no delivery, and waits until the server is ready for more.
func (r *rig) refused(tb testing.TB, c *client) {
	tb.Helper()
	c.send(tb, draft{target: "/"}.text()).want(tb, 404, notFound)
	r.idle(tb, c, len(draft{target: "/"}.text()), 1)
}

// good brings an authentic delivery.
func (r *rig) good(tb testing.TB, c *client) {
	tb.Helper()
	c.send(tb, draft{body: known}.text()).want(tb, 202, accepted("published", "msg_1"))
	r.idle(tb, c, len(draft{body: known}.text()), 1)
}

// idle waits until the server has read n more bytes of a client, has answered so many more requests, and waits for
// what comes next.
func (r *rig) idle(tb testing.TB, c *client, n, requests int) {
	tb.Helper()
	c.sent += n
	c.requests += requests
	r.seen.idle(tb, c, c.sent, c.requests)
}

// quiet is a connection of which the server has read a text and waits for more.
func (r *rig) quiet(tb testing.TB, text string) *client {
	tb.Helper()
	c := r.dial(tb)
	c.write(tb, text)
	r.idle(tb, c, len(text), 0)
	return c
}

// A connection more than there may be costs the oldest one of strangers, whatever it does, and however often.
func TestOldestStrangerIsClosed(t *testing.T) {
	r := limited(t, 4)
	head, _, _ := strings.Cut(draft{body: known}.text(), "\r\n\r\n")
	strangers := []*client{r.quiet(t, ""), r.quiet(t, "POST"), r.quiet(t, head+"\r\n\r\n{"), r.quiet(t, "")}
	r.refused(t, strangers[3]) // which is no credit
	for _, c := range strangers {
		newer := r.quiet(t, "")
		c.wantClosed(t)
		r.refused(t, newer)
		r.refused(t, newer)
	}
	r.wantUnverified(t, 0)
}

// Those who brought something authentic keep half of the places against any number of strangers, and have all as long
// as there are few strangers.
func TestKnownConnectionsAreKept(t *testing.T) {
	r := limited(t, 4)
	known := []*client{r.quiet(t, ""), r.quiet(t, ""), r.quiet(t, ""), r.quiet(t, "")}
	for _, c := range known {
		r.good(t, c)
	}
	r.good(t, known[0]) // now that of known[1] is the longest ago
	r.refused(t, known[1])
	strangers := []*client{r.quiet(t, "")}
	known[1].wantClosed(t)
	strangers = append(strangers, r.quiet(t, ""))
	known[2].wantClosed(t)
	for range 3 {
		strangers = append(strangers, r.quiet(t, ""))
		strangers[0].wantClosed(t)
		strangers = strangers[1:]
	}
	r.refused(t, strangers[0])
	r.refused(t, strangers[1])
	r.good(t, known[3])
	r.good(t, known[0])
}

// Where an authentic delivery is under way, the connection stays; a new one is closed if there are only such.
func TestDeliveriesUnderWayAreKept(t *testing.T) {
	r := limited(t, 2)
	b := newBroker(t)
	r.deliverer.answer = b.deliver
	clients := []*client{r.dial(t), r.dial(t)}
	for _, c := range clients {
		c.write(t, draft{body: known}.text())
		await(t, "the delivery", b.asked)
	}
	for range 3 {
		r.dial(t).wantClosed(t)
	}
	for range clients {
		b.answer <- nil
	}
	for _, c := range clients {
		c.receive(t, "POST").want(t, 202, accepted("published", "msg_1"))
		r.idle(t, c, len(draft{body: known}.text()), 1)
	}
	r.deliverer.answer = nil
	newer := r.dial(t) // there is one to close now
	r.good(t, newer)
}

// Whoever has sent something and waits for the server is not closed for the server's slowness, unless all wait so.
func TestUnreadConnectionsArePassedOver(t *testing.T) {
	r := newRig(t)
	r.conns, r.seen = 3, r.watch()
	r.seen.gate = make(chan struct{})
	r.serve(t)
	unread := []*client{r.quiet(t, ""), r.quiet(t, "")}
	for _, c := range unread {
		c.write(t, draft{body: known}.text())
	}
	silent := r.quiet(t, "")
	newer := r.quiet(t, "")
	silent.wantClosed(t)
	newer.write(t, draft{body: known}.text())
	r.quiet(t, "") // now there is nobody else
	close(r.seen.gate)
	unread[0].wantClosed(t)
	for _, c := range []*client{unread[1], newer} {
		c.receive(t, "POST").want(t, 202, accepted("published", "msg_1"))
	}
}

// A sender whose body is cut off by newer connections is in the metrics as unavailable, and in the log for those who
// want to know everything.
func TestEvictedBody(t *testing.T) {
	r := newRig(t)
	r.conns, r.seen, r.log.more = 1, r.watch(), make(chan string, 8)
	ends := make(chan error, 2)
	r.serve(t, func(s *http.Server) {
		handler := s.Handler
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				end, _ := recover().(error)
				ends <- end
				if end != nil {
					panic(end)
				}
			}()
			handler.ServeHTTP(w, r)
		})
	})
	c := r.dial(t)
	head, _, _ := strings.Cut(draft{body: known}.text(), "\r\n\r\n")
	c.write(t, head+"\r\nExpect: 100-continue\r\n\r\n")
	if line, err := c.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("got %q, %v", line, err)
	}
	newer := r.dial(t)
	if line := await(t, "the log line", r.log.more); !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, `"connections":1`) {
		t.Errorf("log: got %s", line)
	}
	if line := await(t, "the log line", r.log.more); !strings.Contains(line, `"level":"debug"`) || !strings.Contains(line, `"result":"unavailable"`) {
		t.Errorf("log: got %s", line)
	}
	if end := await(t, "the end", ends); !errors.Is(end, http.ErrAbortHandler) {
		t.Errorf("got %v: net/http keeps what is left of the connection", end)
	}
	r.good(t, newer)
	if end := await(t, "the end", ends); end != nil {
		t.Errorf("the newer one: got %v", end)
	}
	if got := r.series(t)["bridge_deliveries_total{result=unavailable,type=other}"]; got != 1 {
		t.Errorf("%v counted as unavailable, want 1", got)
	}
}

// The bound is said to be reached once, not for each connection, and once to be over.
func TestBoundIsLogged(t *testing.T) {
	r := newRig(t)
	r.conns, r.seen, r.log.more = 4, r.watch(), make(chan string, 8)
	r.serve(t)
	var open []*client
	for range 20 {
		open = append(open, r.dial(t))
	}
	r.refused(t, open[19])
	for _, want := range []string{"connections at their bound", `"result":"not_found"`} {
		if line := await(t, "the log line", r.log.more); !strings.Contains(line, want) {
			t.Errorf("log: got %s, want %s", line, want)
		}
	}
	for _, c := range open {
		_ = c.Close()
	}
	if line := await(t, "the log line", r.log.more); !strings.Contains(line, "below their bound") {
		t.Errorf("log: got %s", line)
	}
}

// net/http takes any number of header lines that its limit of bytes holds; here there are at most 128 lines in a head.
func TestHeadOfManyLines(t *testing.T) {
	r := newRig(t)
	r.seen = r.watch()
	r.serve(t, func(s *http.Server) { s.ReadHeaderTimeout = 2 * patience })
	genuine := draft{body: known}.text()
	lines := strings.Count(genuine, "\n") - 1
	with := func(n int) string {
		return strings.Replace(genuine, "\r\n", "\r\n"+strings.Repeat("x:\n", n-lines), 1)
	}
	for _, keptAlive := range []bool{false, true} {
		for n, code := range map[int]int{128: 202, 129: 400, 2000: 400} {
			for name, text := range map[string]string{"": with(n), ", after empty lines": "\n\n" + with(n)} {
				if !keptAlive && name != "" {
					continue // net/http takes those after a request only
				}
				t.Run(fmt.Sprintf("%d lines%s, kept alive %v", n, name, keptAlive), func(t *testing.T) {
					c := r.dial(t)
					if keptAlive {
						r.good(t, c)
					}
					if code == 202 {
						c.send(t, text).want(t, 202, accepted("published", "msg_1"))
						return
					}
					c.wantRefusal(t, text)
				})
			}
		}
	}
	t.Run("in pieces", func(t *testing.T) {
		text := with(129)
		c := r.dial(t)
		c.write(t, text[:len(text)/2])
		c.wantRefusal(t, text[len(text)/2:])
	})
	t.Run("in a head that came with another request", func(t *testing.T) {
		c := r.dial(t)
		c.write(t, draft{target: "/"}.text()+with(200)[:600])
		c.write(t, with(200)[600:601]) // net/http may read this one by itself
		c.receive(t, "POST").want(t, 404, notFound)
		c.wantRefusal(t, with(200)[601:])
	})
	t.Run("in the body", func(t *testing.T) {
		body := strings.Replace(known, "{", "{"+strings.Repeat("\n", 5000), 1)
		c := r.dial(t)
		for range 2 {
			c.send(t, draft{body: body}.text()).want(t, 202, accepted("published", "msg_1"))
		}
	})
}

// wantRefusal sends what net/http refuses by itself. It may hang up before it has read all, and then its reply can be
// lost.
func (c *client) wantRefusal(tb testing.TB, text string) {
	tb.Helper()
	_, _ = io.WriteString(c, text)
	got, err := io.ReadAll(c.in)
	if errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		tb.Errorf("got %.40q, %v, want 400 and the end of the connection", got, err)
	}
}

// A client that does not read what it is answered holds no place among the deliveries under way.
func TestUnreadReplyHoldsNoPlace(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.MaxInflight = 1 })
	w := &stuckWriter{nowhere: nowhere{header: http.Header{}}, writing: make(chan struct{}), free: make(chan struct{})}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(known))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{
		"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {fmt.Sprint(signedAt.Unix())}, "Webhook-Signature": {sign("msg_1", "1769083200", known)},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.handler.ServeHTTP(w, request)
	}()
	await(t, "the reply", w.writing)
	r.wantInflight(t, 0)
	r.wantUnverified(t, 0)
	r.do(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
	close(w.free)
	await(t, "the end", done)
}

type stuckWriter struct {
	nowhere
	writing, free chan struct{}
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	close(w.writing)
	<-w.free
	return len(b), nil
}

// ConnCost is what operators reckon with, and what the bridge derives its bound from.
func TestConnCost(t *testing.T) {
	const n, maxHeader = 300, 16 << 10
	fat := draft{lines: []string{"X-Large: " + strings.Repeat("x", 14<<10)}, length: "1000"}.text()
	short := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%c%c%c:\n", 'a'+i%26, 'a'+i/26%26, 'a'+i/676)
		}
		return b.String()
	}
	worst := draft{lines: []string{"X-Large: " + strings.Repeat("x", 14<<10), strings.TrimSuffix(short(110), "\n")}, length: "1000"}.text()
	pipelined := draft{target: "/"}.text() + "POST / HTTP/1.1\r\n" + short(110) + "X: "
	pipelined += strings.Repeat("x", maxHeader+4095-len(pipelined)+len(draft{target: "/"}.text()))
	requests := map[string]int{"kept alive": 1, "a head of many lines that came with another request": 1}
	for name, text := range map[string]string{
		"nothing": "", "kept alive": draft{target: "/"}.text(), "half a head": "POST", "a large head": fat, "a large head, half": fat[:14<<10],
		"a large head of many lines": worst, "a head of many lines that came with another request": pipelined,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.seen = r.watch()
			r.serve(t)
			before := inUse()
			var clients []net.Conn
			for range n {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				if _, err := io.WriteString(c, text); err != nil {
					t.Fatal(err)
				}
				clients = append(clients, c)
			}
			for _, c := range clients {
				r.seen.idle(t, c, len(text), requests[name])
			}
			cost := (inUse() - before) / n
			t.Logf("%d bytes", cost)
			if cost > ingress.ConnCost {
				t.Errorf("a connection costs %d bytes, more than %d", cost, ingress.ConnCost)
			}
			runtime.KeepAlive(clients)
		})
	}
}

func inUse() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
