package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/secret"
)

const (
	path    = "/webhooks/gemini"
	source  = "//generativelanguage.googleapis.com"
	maxBody = 384 << 10

	// The secret of the published example of Standard Webhooks.
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretTail    = "LaSw"

	// patience is how long a test waits for what should come at once, on a machine that is busy.
	patience = 20 * time.Second
)

var signedAt = time.Unix(1769083200, 0)

// known is the body of a known event, and unknown that of another one.
const (
	known   = `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/1"}}`
	unknown = `{"type":"tuning.done","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"tunedModels/1"}}`
	invalid = `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{}}`
)

// rig is a handler with all that it needs and all that can be seen of it. Its clock moves only while the
// Deliverer works.
type rig struct {
	ingress.Config
	handler   *ingress.Handler
	server    *http.Server
	addr      string // of the server, once there is one
	clock     clock
	deliverer deliverer
	registry  *prometheus.Registry
	log       logLines
}

// newRig makes a handler with the default policies. It gets its server from serve.
func newRig(tb testing.TB, change ...func(*ingress.Config)) *rig {
	tb.Helper()
	r := &rig{registry: prometheus.NewRegistry(), clock: clock{now: signedAt}}
	r.deliverer.clock = &r.clock
	verifier, err := verify.New(verify.Config{Secrets: []secret.Text{secret.New(signingSecret)}, Now: r.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	schemas := schemaRegistry()
	r.Config = ingress.Config{
		Path: path, Verifier: verifier, Registry: schemas, Deliverer: &r.deliverer, Source: source,
		OnInvalid: ingress.DeadLetter, OnUnknown: ingress.Publish, MaxBody: maxBody, MaxInflight: 4096,
		Metrics: ingress.NewMetrics(r.registry, schemas.Types()), Log: zerolog.New(&r.log), Now: r.clock.Now,
	}
	for _, c := range change {
		c(&r.Config)
	}
	r.handler = ingress.New(r.Config)
	return r
}

var schemaRegistry = sync.OnceValue(func() *schema.Registry {
	r, err := schema.NewRegistry("")
	if err != nil {
		panic(err)
	}
	return r
})

// serve starts the public server, with changes to its time-outs, and stops it at the end of the test.
func (r *rig) serve(tb testing.TB, change ...func(*http.Server)) *rig {
	tb.Helper()
	r.server = ingress.NewServer(r.handler, 3*time.Second, zerolog.New(&r.log))
	for _, c := range change {
		c(r.server)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r.addr = listener.Addr().String()
	var serving sync.WaitGroup
	r.server.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			serving.Add(1)
		case http.StateClosed:
			serving.Done()
		}
	}
	serving.Go(func() { _ = r.server.Serve(listener) })
	tb.Cleanup(func() {
		_ = r.server.Close()
		serving.Wait() // net/http lingers for half a second over what it has not read
	})
	return r
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// deliverer records what reaches it. Unless it has an answer it accepts everything, in 250 ms of its clock.
type deliverer struct {
	clock  *clock // if nil, in no time
	answer func(context.Context, *schema.Event) (schema.Result, error)

	mu     sync.Mutex
	events []*schema.Event
}

func (d *deliverer) Deliver(ctx context.Context, event *schema.Event) (schema.Result, error) {
	d.mu.Lock()
	d.events = append(d.events, event)
	d.mu.Unlock()
	if d.clock != nil {
		d.clock.advance(250 * time.Millisecond)
	}
	if d.answer != nil {
		return d.answer(ctx, event)
	}
	if event.Dead {
		return schema.DeadLettered, nil
	}
	return schema.Published, nil
}

func answering(result schema.Result, err error) func(context.Context, *schema.Event) (schema.Result, error) {
	return func(context.Context, *schema.Event) (schema.Result, error) { return result, err }
}

// delivered returns what reached the Deliverer.
func (r *rig) delivered() []*schema.Event {
	r.deliverer.mu.Lock()
	defer r.deliverer.mu.Unlock()
	return slices.Clone(r.deliverer.events)
}

// forget empties the log and the list of events.
func (r *rig) forget() {
	r.deliverer.mu.Lock()
	defer r.deliverer.mu.Unlock()
	r.deliverer.events = nil
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.text.Reset()
}

// one returns the only event that reached the Deliverer.
func (r *rig) one(tb testing.TB) *schema.Event {
	tb.Helper()
	events := r.delivered()
	if len(events) != 1 {
		tb.Fatalf("%d events reached the Deliverer, want 1", len(events))
	}
	return events[0]
}

func (r *rig) wantNothingDelivered(tb testing.TB) {
	tb.Helper()
	if events := r.delivered(); len(events) > 0 {
		tb.Errorf("%d events reached the Deliverer, want none", len(events))
	}
}

// logLines keeps what is logged.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan string // if not nil, gets each line as well
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	l.text.Write(line)
	l.mu.Unlock()
	if l.more != nil {
		l.more <- string(line)
	}
	return len(line), nil
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logLines) lines(tb testing.TB) []map[string]any {
	tb.Helper()
	var all []map[string]any
	for line := range strings.Lines(l.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			tb.Fatalf("log line %q: %v", line, err)
		}
		all = append(all, fields)
	}
	return all
}

// line returns the only line of the log.
func (r *rig) line(tb testing.TB) map[string]any {
	tb.Helper()
	lines := r.log.lines(tb)
	if len(lines) != 1 {
		tb.Fatalf("%d log lines, want 1: %v", len(lines), lines)
	}
	return lines[0]
}

// series returns every series that is not zero; a histogram makes a series of its count and one of its sum.
func (r *rig) series(tb testing.TB) map[string]float64 {
	tb.Helper()
	all := r.allSeries(tb)
	maps.DeleteFunc(all, func(_ string, v float64) bool { return v == 0 })
	return all
}

func (r *rig) allSeries(tb testing.TB) map[string]float64 {
	tb.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := family.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.GetHistogram() != nil:
				all[name+"_count"] = float64(m.GetHistogram().GetSampleCount())
				all[name+"_sum"] = m.GetHistogram().GetSampleSum()
			case m.GetCounter() != nil:
				all[name] = m.GetCounter().GetValue()
			default:
				all[name] = m.GetGauge().GetValue()
			}
		}
	}
	return all
}

// draft is a request in the making. What is empty becomes what a genuine delivery of body has; "-" leaves a header
// out.
type draft struct {
	method, target, proto    string
	id, timestamp, signature string
	lines                    []string // further header lines
	length                   string
	chunked                  bool // with a body of two chunks
	broken                   bool // with a chunk whose size is no number
	body                     string
}

func (d draft) text() string {
	id, timestamp := or(d.id, "msg_1"), or(d.timestamp, fmt.Sprint(signedAt.Unix()))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\nHost: bridge.test\r\n", or(d.method, "POST"), or(d.target, path), or(d.proto, "HTTP/1.1"))
	header := func(name, value string) {
		if value != "-" {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	header("webhook-id", id)
	header("webhook-timestamp", timestamp)
	header("webhook-signature", or(d.signature, sign(id, timestamp, d.body)))
	for _, line := range d.lines {
		b.WriteString(line + "\r\n")
	}
	switch {
	case d.broken:
		header("Transfer-Encoding", "chunked")
		fmt.Fprintf(&b, "\r\n%x\r\n%s\r\nzz\r\n", len(d.body), d.body)
	case d.chunked:
		header("Transfer-Encoding", "chunked")
		b.WriteString("\r\n" + chunks(d.body))
	default:
		header("Content-Length", or(d.length, fmt.Sprint(len(d.body))))
		b.WriteString("\r\n" + d.body)
	}
	return b.String()
}

// chunks writes a body as two chunks and the end.
func chunks(body string) string {
	var b strings.Builder
	for _, part := range []string{body[:len(body)/2], body[len(body)/2:]} {
		if part != "" {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
		}
	}
	return b.String() + "0\r\n\r\n"
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// sign returns the signature of a delivery whose timestamp is not necessarily one.
func sign(id, timestamp, body string) string {
	t := signedAt
	if seconds, err := json.Number(timestamp).Int64(); err == nil {
		t = time.Unix(seconds, 0)
	}
	signature, err := verify.Sign(secret.New(signingSecret), id, t, []byte(body))
	if err != nil {
		panic(err)
	}
	return signature
}

// reply is what a client sees.
type reply struct {
	code   int
	header http.Header
	body   string
	close  bool // the server says that it will close the connection
}

// do has the handler answer a request, without a server.
func (r *rig) do(tb testing.TB, d draft) reply {
	tb.Helper()
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.text())))
	if err != nil {
		tb.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	r.handler.ServeHTTP(recorder, request)
	return reply{code: recorder.Code, header: recorder.Header(), body: recorder.Body.String()}
}

// send sends a request to the server, on a connection of its own.
func (r *rig) send(tb testing.TB, d draft) reply {
	tb.Helper()
	return r.dial(tb).send(tb, d.text())
}

// client is a connection to the server.
type client struct {
	*net.TCPConn
	in *bufio.Reader
}

func (r *rig) dial(tb testing.TB) *client {
	tb.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return &client{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c *client) send(tb testing.TB, text string) reply {
	tb.Helper()
	c.write(tb, text)
	method, _, _ := strings.Cut(text, " ")
	return c.receive(tb, method)
}

func (c *client) write(tb testing.TB, text string) {
	tb.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		tb.Fatal(err)
	}
}

// trickle sends a text byte by byte, until it is through or the server has hung up.
func (c *client) trickle(text string) (stopped <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := range len(text) {
			<-tick.C
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				return
			}
		}
	}()
	return done
}

// end says that nothing more will be sent, if the server has not hung up by itself.
func (c *client) end() { _ = c.CloseWrite() }

// receive reads the reply to a request of a method.
func (c *client) receive(tb testing.TB, method string) reply {
	tb.Helper()
	response, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		tb.Fatalf("no reply: %v", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body), response.Close}
}

// wantClosed fails the test unless the server closes the connection, having sent nothing more.
func (c *client) wantClosed(tb testing.TB) {
	tb.Helper()
	rest, err := io.ReadAll(c.in)
	if errors.Is(err, syscall.ECONNRESET) { // over what it has not read
		err = nil
	}
	if err != nil || len(rest) > 0 {
		tb.Errorf("got %q, %v, want the end of the connection", rest, err)
	}
}

// refusal is the body of a reply that is no success.
func refusal(token, words string) string {
	return `{"error":"` + token + `","message":"` + words + "\"}\n"
}

var (
	unauthenticated = refusal("unauthenticated", "the delivery could not be authenticated")
	notFound        = refusal("not_found", "no webhook is received at this path")
	notAllowed      = refusal("method_not_allowed", "webhooks are sent with POST")
	badEncoding     = refusal("unsupported_encoding", "the body must not be encoded")
	tooLarge        = refusal("too_large", "the body is larger than this endpoint takes")
	badRequest      = refusal("bad_request", "the body could not be read")
	invalidEvent    = refusal("invalid_event", "the body is not an event that this endpoint takes")
	unavailable     = refusal("unavailable", "the event could not be made durable now")
)

func accepted(status, id string) string { return `{"status":"` + status + `","id":"` + id + "\"}\n" }

// want checks status and body, and what holds for every reply.
func (got reply) want(tb testing.TB, code int, body string) {
	tb.Helper()
	if got.code != code || got.body != body {
		tb.Errorf("got %d %q, want %d %q", got.code, got.body, code, body)
	}
	if got.code >= 300 && got.code < 400 || got.code == http.StatusGone {
		tb.Errorf("status %d: the sender would give up or go elsewhere", got.code)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json",
		"Allow":        map[bool]string{true: "POST"}[code == http.StatusMethodNotAllowed],
		"Retry-After":  map[bool]string{true: "5"}[code == http.StatusServiceUnavailable],
		"Location":     "",
	} {
		if got := strings.Join(got.header[name], " and "); got != want {
			tb.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
