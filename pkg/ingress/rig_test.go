package ingress_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
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
	addr      string                          // of the server, once there is one
	conns     int                             // bound of its connections; 0 is one that is not reached
	below     func(net.Listener) net.Listener // if not nil, wraps what the server's listener stands on
	seen      *watch                          // how the connections fare, if somebody looks
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
	follow := r.server.ConnState
	r.server.ConnState = func(c net.Conn, state http.ConnState) {
		follow(c, state)
		switch state {
		case http.StateIdle:
			if r.seen != nil {
				r.seen.answered(c)
			}
		case http.StateNew:
			serving.Add(1)
		case http.StateClosed:
			serving.Done()
		}
	}
	if r.below != nil {
		listener = r.below(listener)
	}
	listener = ingress.NewListener(listener, cmp.Or(r.conns, 1000), zerolog.New(&r.log))
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
