package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gembridge/bridge/pkg/sinks"
)

// readyTimeout bounds how long a probe waits for a broker to answer.
const readyTimeout = 2 * time.Second

// The states of a part.
const (
	stateOK       = "ok"
	stateDegraded = "degraded" // accepts, but a promise is weakened
	stateDown     = "down"
)

// part is one thing that readiness depends on.
type part struct {
	name  string
	ready func(context.Context) error // as sinks.Sink.Ready
}

type partState struct {
	Name   string   `json:"name"`
	State  string   `json:"state"`
	Detail []string `json:"detail,omitempty"`
}

func (p part) state(ctx context.Context) partState {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := p.ready(ctx)
	if err == nil {
		return partState{Name: p.name, State: stateOK}
	}
	if degraded, ok := errors.AsType[*sinks.DegradedError](err); ok {
		return partState{p.name, stateDegraded, degraded.Details}
	}
	return partState{p.name, stateDown, []string{err.Error()}}
}

// readiness is the list of parts. Parts are added while the admin listener serves already.
type readiness struct {
	mu    sync.Mutex
	parts []part
}

func (r *readiness) add(p part) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parts = append(r.parts, p)
}

func (r *readiness) list() []part {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.parts)
}

// phase is what the daemon says of itself: an error while it starts or stops.
type phase struct{ why atomic.Pointer[error] }

func (p *phase) set(err error) { p.why.Store(&err) }

func (p *phase) ready(context.Context) error { return *p.why.Load() }

// newAdmin returns the handler of the admin listener. Health says that the process lives; readiness, that a delivery
// would be accepted durably now.
func newAdmin(metrics prometheus.Gatherer, ready *readiness) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		body := struct {
			Status string      `json:"status"`
			Parts  []partState `json:"parts"`
		}{Status: stateOK, Parts: []partState{}}
		code := http.StatusOK
		for _, p := range ready.list() {
			state := p.state(r.Context())
			body.Parts = append(body.Parts, state)
			switch {
			case state.State == stateDown:
				body.Status, code = stateDown, http.StatusServiceUnavailable
			case state.State == stateDegraded && body.Status == stateOK:
				body.Status = stateDegraded
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(body)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}
