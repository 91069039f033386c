// Package ingress receives webhooks over HTTP. A delivery travels one road, verify → validate → normalize →
// deliver → reply, on the goroutine that net/http gave it, and never turns back.
package ingress

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/schema"
)

// Deliverer makes an event durable. It returns nil only when the event will outlive the process; any error is
// answered 503, so that the sender tries again.
type Deliverer interface {
	Deliver(ctx context.Context, event *schema.Event) (schema.Result, error)
}

// Policy says what becomes of an authentic delivery that is not a known, valid event.
type Policy string

const (
	Publish    Policy = "publish"
	DeadLetter Policy = "dead-letter"
	Reject     Policy = "reject" // answered 422; the sender will try for 24 hours, then the event is lost
)

const defaultUnverified = 64 << 20

// Config is what a Handler needs. Every field is required unless it says otherwise.
type Config struct {
	Path        string // where static deliveries arrive; dynamic ones at Path/<token>
	Verifier    *verify.Verifier
	Registry    *schema.Registry
	Deliverer   Deliverer
	Source      string // the events' source
	OnInvalid   Policy // DeadLetter or Reject
	OnUnknown   Policy // Publish, DeadLetter or Reject
	MaxBody     int    // bytes
	MaxInflight int    // verified deliveries at once
	// MaxUnverified is the memory that bodies share until they are verified, in bytes; default 64 MiB. With less than
	// MaxBody the largest bodies never find room.
	MaxUnverified int
	Metrics       *Metrics
	Log           zerolog.Logger
	// RefusalLines is how many requests that are not authentic have a log line each, for every reason of its own: in one
	// second, and in ten while there are more. One line then tells of all others. Default 5.
	RefusalLines int
	Left         func() int       // publishes under way whose request has gone: they count as in flight. Optional
	Now          func() time.Time // default time.Now
}

// Handler answers webhooks. It is an http.Handler without routes of its own: any other path is a 404.
type Handler struct {
	cfg      Config
	bodies   bodies
	inflight atomic.Int64
	refusals refusals
}

// New returns a Handler. It does not start anything.
func New(cfg Config) *Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Left == nil {
		cfg.Left = func() int { return 0 }
	}
	h := &Handler{cfg: cfg, refusals: refusals{logger: cfg.Log, lines: cmp.Or(cfg.RefusalLines, defaultRefusalLines)}}
	h.bodies.account = unverified{limit: cmp.Or(cfg.MaxUnverified, defaultUnverified), now: cfg.Now}
	cfg.Metrics.inflight(func() float64 { return float64(h.inflight.Load()) + float64(cfg.Left()) })
	cfg.Metrics.unverified(func() float64 { return float64(h.bodies.account.bytes()) })
	return h
}

// Close logs what the log still owes of refused requests. Call it when no request comes any more.
func (h *Handler) Close() { h.refusals.flush() }

// passage is what becomes known of one delivery on its way.
type passage struct {
	started  time.Time
	id       string // webhook-id as claimed, until verified
	proof    verify.Delivery
	typ      string
	job      string
	reason   schema.Reason // of the dead letter, if it became one
	bodySize int
}

// ServeHTTP carries one delivery from its first byte to the reply.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := passage{started: h.cfg.Now()}
	result, err := h.road(w, r, &p)
	rep := replyTo(result, err)
	if errors.Is(err, errCut) || rep.code == http.StatusUnauthorized && ends(r) {
		w.Header().Set("Connection", "close") // in the first case nothing more can be read from it
	}
	rep.write(w, p.id)
	h.cfg.Metrics.observe(&p, rep, err, h.cfg.Now())
	h.log(&p, rep, err)
	if connOf(r).evicted() {
		panic(http.ErrAbortHandler) // net/http would keep what is left of the connection for another half second
	}
}

// road takes a place in flight only for a verified body, and has given it back when the reply is written: neither a
// slow sender nor one that does not read its reply holds one.
func (h *Handler) road(w http.ResponseWriter, r *http.Request, p *passage) (schema.Result, error) {
	attempt, err := h.head(r)
	if err != nil {
		return 0, h.explain(w, r, err)
	}
	p.id = attempt.ID()
	body, err := h.bodies.read(w, r, h.cfg.MaxBody)
	defer h.bodies.put(body)
	switch {
	case err != nil && connOf(r).evicted():
		return 0, errCut
	case err != nil:
		return 0, err
	}
	p.bodySize = len(body.bytes)
	if p.proof, err = h.cfg.Verifier.Body(attempt, body.bytes); err != nil {
		return 0, err
	}
	h.bodies.account.release(body)
	connOf(r).verified()
	p.id = p.proof.ID // with a JWT it is another one

	if int(h.inflight.Add(1))+h.cfg.Left() > h.cfg.MaxInflight {
		h.inflight.Add(-1)
		return 0, errOverload
	}
	defer h.inflight.Add(-1)
	event, err := h.event(r, p, p.proof.Event(body.bytes))
	if err != nil {
		return 0, err
	}
	result, err := h.cfg.Deliverer.Deliver(r.Context(), event)
	if err != nil {
		// Its text alone: nothing that it wraps may pass for a fault of the request.
		return 0, errors.New("not delivered: " + err.Error())
	}
	if result == schema.DeadLettered && !event.Dead {
		p.reason = schema.ReasonRefused
	}
	return result, nil
}

// explainable is the largest body that is read only to tell the operator more.
const explainable = 64 << 10

// explain tells more of a delivery whose timestamp alone is wrong, now and then: for that its body must be read, but not
// from a sender that wants to be asked for it first.
func (h *Handler) explain(w http.ResponseWriter, r *http.Request, err error) error {
	if r.ContentLength < 0 || r.ContentLength > explainable || r.Header["Expect"] != nil || !h.cfg.Verifier.WantsBody(err) {
		return err
	}
	body, unreadable := h.bodies.read(w, r, h.cfg.MaxBody)
	defer h.bodies.put(body)
	if unreadable != nil {
		return err
	}
	return h.cfg.Verifier.Explain(err, body.bytes)
}

// event validates and normalizes a verified body. What is no event becomes a dead letter, or an error by policy.
func (h *Handler) event(r *http.Request, p *passage, body []byte) (*schema.Event, error) {
	delivery := schema.Delivery{
		ID: p.proof.ID, Source: h.cfg.Source, Scheme: p.proof.Scheme, Received: p.started,
		TraceParent: traceParent(r.Header), Header: r.Header,
	}
	doc, err := h.cfg.Registry.Validate(body)
	if invalid, ok := errors.AsType[*schema.InvalidError](err); ok {
		p.typ = invalid.Type
		if h.cfg.OnInvalid == Reject {
			return nil, invalid
		}
		p.reason = schema.ReasonInvalid
		return schema.DeadLetter(delivery, invalid.Type, p.reason, invalid.Violations, body), nil
	}
	p.typ = doc.Type
	if doc.Known || h.cfg.OnUnknown == Publish {
		event := schema.Normalize(doc, delivery)
		p.job = event.Subject
		return event, nil
	}
	violations := []schema.Violation{{Pointer: "/type", Message: "no schema knows this type and version"}}
	if h.cfg.OnUnknown == Reject {
		return nil, &schema.InvalidError{Type: doc.Type, Violations: violations}
	}
	p.reason = schema.ReasonUnknown
	return schema.DeadLetter(delivery, doc.Type, p.reason, violations, body), nil
}
