package ingress

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/schema"
)

const otherType = "other"

// Metrics are the series of the road. Types that no schema knows count as "other", so that a sender cannot make
// series at will.
type Metrics struct {
	registry    prometheus.Registerer
	deliveries  map[[2]string]prometheus.Counter
	last        map[string]prometheus.Gauge
	deadLetters map[schema.Reason]prometheus.Counter
	failures    map[verify.Reason]prometheus.Counter
	verified    *prometheus.CounterVec
	seconds     prometheus.Histogram
}

// NewMetrics registers the series, all of them at zero but for bridge_verified_total, whose keys come with the secrets.
func NewMetrics(registry prometheus.Registerer, types []string) *Metrics {
	m := &Metrics{
		registry:    registry,
		deliveries:  map[[2]string]prometheus.Counter{},
		last:        map[string]prometheus.Gauge{},
		deadLetters: map[schema.Reason]prometheus.Counter{},
		failures:    map[verify.Reason]prometheus.Counter{},
		verified: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bridge_verified_total", Help: "Authentic deliveries by scheme and by the last four characters of the key.",
		}, []string{"scheme", "key"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "bridge_request_seconds", Help: "From a request's head to its reply.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bridge_deliveries_total", Help: "Requests by the result or error that was answered, and by event type.",
	}, []string{"result", "type"})
	last := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "bridge_last_delivery_timestamp_seconds", Help: "Unix time of the last delivery answered 2xx; 0 before the first.",
	}, []string{"type"})
	for _, typ := range append([]string{otherType}, types...) {
		m.last[typ] = last.WithLabelValues(typ)
		for _, token := range tokens() {
			m.deliveries[[2]string{token, typ}] = deliveries.WithLabelValues(token, typ)
		}
	}
	deadLetters := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bridge_dead_letters_total", Help: "Dead letters stored, by reason.",
	}, []string{"reason"})
	for _, reason := range schema.Reasons() {
		m.deadLetters[reason] = deadLetters.WithLabelValues(string(reason))
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bridge_verify_failures_total", Help: "Requests answered 401, by reason.",
	}, []string{"reason"})
	for _, reason := range verify.Reasons() {
		m.failures[reason] = failures.WithLabelValues(string(reason))
	}
	registry.MustRegister(deliveries, last, deadLetters, failures, m.verified, m.seconds)
	return m
}

// DeadLetters is the counter of dead letters of a reason, for those that come to be after their delivery was answered.
func (m *Metrics) DeadLetters(reason schema.Reason) prometheus.Counter { return m.deadLetters[reason] }

func (m *Metrics) inflight(value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bridge_inflight", Help: "Verified deliveries under way, publishes included whose sender has left.",
	}, value))
}

func (m *Metrics) unverified(value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bridge_unverified_bytes", Help: "Memory of the bodies that are not verified yet.",
	}, value))
}

func (m *Metrics) observe(p *passage, rep reply, err error, now time.Time) {
	typ := p.typ
	if _, known := m.last[typ]; !known {
		typ = otherType
	}
	m.deliveries[[2]string{rep.token, typ}].Inc()
	m.seconds.Observe(now.Sub(p.started).Seconds())
	if p.proof.Scheme != "" {
		m.verified.WithLabelValues(p.proof.Scheme, p.proof.Key).Inc()
	}
	if failure, ok := errors.AsType[*verify.Failure](err); ok {
		m.failures[failure.Reason].Inc()
	}
	if err != nil {
		return
	}
	m.last[typ].Set(float64(now.Unix()))
	if p.reason != "" && rep.token != schema.Duplicate.String() { // one that is spooled counts as well
		m.deadLetters[p.reason].Inc()
	}
}
