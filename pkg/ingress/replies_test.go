package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/schema"
)

type (
	fields = map[string]any
	counts = map[string]float64
)

// TestReplies is the table of replies: what the client sees, the one line of the log, and every series that moved.
func TestReplies(t *testing.T) {
	const (
		info = "info"
		warn = "warn"
	)
	broken := errors.New("nats: no response from stream")
	answer := func(result schema.Result, err error) func(*rig) {
		return func(r *rig) { r.deliverer.answer = answering(result, err) }
	}

	// verified is what an authentic delivery logs and counts.
	verified := fields{"delivery": "msg_1", "scheme": "v1", "key": secretTail}
	authentic := func(line fields) fields {
		maps.Copy(line, verified)
		return line
	}
	count := func(series ...string) counts {
		c := counts{"bridge_request_seconds_count": 1}
		for _, s := range series {
			c[s] = 1
		}
		return c
	}
	const verifiedTotal = "bridge_verified_total{key=LaSw,scheme=v1}"
	// deliveredIn adds what a delivery that reached the Deliverer counts; typ says that it was answered 2xx.
	deliveredIn := func(c counts, typ string) counts {
		c[verifiedTotal] = 1
		c["bridge_request_seconds_sum"] = 0.25
		if typ != "" {
			c["bridge_last_delivery_timestamp_seconds{type="+typ+"}"] = float64(signedAt.Unix())
		}
		return c
	}

	for _, tt := range []struct {
		name    string
		draft   draft
		config  func(*ingress.Config)
		rig     func(*rig)
		code    int
		body    string
		level   string
		log     fields
		metrics counts
	}{
		{
			"published",
			draft{body: known},
			nil, nil,
			202, accepted("published", "msg_1"), info,
			authentic(fields{"status": 202.0, "result": "published", "type": "batch.succeeded", "job": "batches/1", "bytes": 102.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=published,type=batch.succeeded}"), "batch.succeeded"),
		},
		{
			"published, of an unknown type",
			draft{body: unknown},
			nil, nil,
			202, accepted("published", "msg_1"), info,
			authentic(fields{"status": 202.0, "result": "published", "type": "tuning.done", "job": "tunedModels/1", "bytes": 102.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=published,type=other}"), "other"),
		},
		{
			"duplicate",
			draft{body: known},
			nil, answer(schema.Duplicate, nil),
			202, accepted("duplicate", "msg_1"), info,
			authentic(fields{"status": 202.0, "result": "duplicate", "type": "batch.succeeded", "job": "batches/1", "bytes": 102.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=duplicate,type=batch.succeeded}"), "batch.succeeded"),
		},
		{
			"spooled",
			draft{body: known},
			nil, answer(schema.Spooled, nil),
			202, accepted("spooled", "msg_1"), info,
			authentic(fields{"status": 202.0, "result": "spooled", "type": "batch.succeeded", "job": "batches/1", "bytes": 102.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=spooled,type=batch.succeeded}"), "batch.succeeded"),
		},
		{
			"dead-lettered: invalid",
			draft{body: invalid},
			nil, nil,
			202, accepted("dead-lettered", "msg_1"), warn,
			authentic(fields{"status": 202.0, "result": "dead-lettered", "type": "batch.succeeded", "reason": "invalid_event", "bytes": 86.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=dead-lettered,type=batch.succeeded}", "bridge_dead_letters_total{reason=invalid_event}"), "batch.succeeded"),
		},
		{
			"dead-lettered: no JSON",
			draft{body: "?"},
			nil, nil,
			202, accepted("dead-lettered", "msg_1"), warn,
			authentic(fields{"status": 202.0, "result": "dead-lettered", "reason": "invalid_event", "bytes": 1.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=dead-lettered,type=other}", "bridge_dead_letters_total{reason=invalid_event}"), "other"),
		},
		{
			"dead-lettered: unknown",
			draft{body: unknown},
			func(c *ingress.Config) { c.OnUnknown = ingress.DeadLetter }, nil,
			202, accepted("dead-lettered", "msg_1"), warn,
			authentic(fields{"status": 202.0, "result": "dead-lettered", "type": "tuning.done", "reason": "unknown_type", "bytes": 102.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=dead-lettered,type=other}", "bridge_dead_letters_total{reason=unknown_type}"), "other"),
		},
		{
			"dead-lettered: refused by the sink",
			draft{body: known},
			nil, answer(schema.DeadLettered, nil),
			202, accepted("dead-lettered", "msg_1"), warn,
			authentic(fields{"status": 202.0, "result": "dead-lettered", "type": "batch.succeeded", "job": "batches/1", "reason": "refused_by_sink", "bytes": 102.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=dead-lettered,type=batch.succeeded}", "bridge_dead_letters_total{reason=refused_by_sink}"), "batch.succeeded"),
		},
		{
			"a dead letter that was there",
			draft{body: invalid},
			nil, answer(schema.Duplicate, nil),
			202, accepted("duplicate", "msg_1"), info,
			authentic(fields{"status": 202.0, "result": "duplicate", "type": "batch.succeeded", "reason": "invalid_event", "bytes": 86.0, "ms": 250.0}),
			deliveredIn(count("bridge_deliveries_total{result=duplicate,type=batch.succeeded}"), "batch.succeeded"),
		},
		{
			"no signature",
			draft{body: known, signature: "-"},
			nil, nil,
			401, unauthenticated, warn,
			fields{"status": 401.0, "result": "unauthenticated", "bytes": 0.0, "ms": 0.0, "error": "unauthenticated: no webhook-signature header"},
			count("bridge_deliveries_total{result=unauthenticated,type=other}", "bridge_verify_failures_total{reason=header_missing}"),
		},
		{
			"another body's signature",
			draft{body: known, signature: sign("msg_1", "1769083200", unknown)},
			nil, nil,
			401, unauthenticated, warn,
			fields{
				"status": 401.0, "result": "unauthenticated", "delivery": "msg_1", "bytes": 102.0, "ms": 0.0,
				"error": "unauthenticated: none of 1 v1 signatures fits any of 1 secrets",
			},
			count("bridge_deliveries_total{result=unauthenticated,type=other}", "bridge_verify_failures_total{reason=signature_mismatch}"),
		},
		{
			"a token",
			draft{body: known, target: path + "/0123456789abcdef0123456789abcdef"},
			nil, nil,
			401, unauthenticated, warn,
			fields{"status": 401.0, "result": "unauthenticated", "bytes": 0.0, "ms": 0.0, "error": "unauthenticated: no token for dynamic deliveries is configured"},
			count("bridge_deliveries_total{result=unauthenticated,type=other}", "bridge_verify_failures_total{reason=token_unknown}"),
		},
		{
			"another path",
			draft{body: known, target: "/webhooks"},
			nil, nil,
			404, notFound, info,
			fields{"status": 404.0, "result": "not_found", "bytes": 0.0, "ms": 0.0, "error": "not the webhook path"},
			count("bridge_deliveries_total{result=not_found,type=other}"),
		},
		{
			"another method",
			draft{body: known, method: "GET"},
			nil, nil,
			405, notAllowed, info,
			fields{"status": 405.0, "result": "method_not_allowed", "bytes": 0.0, "ms": 0.0, "error": "not a POST"},
			count("bridge_deliveries_total{result=method_not_allowed,type=other}"),
		},
		{
			"an encoding",
			draft{body: known, lines: []string{"Content-Encoding: gzip"}},
			nil, nil,
			415, badEncoding, info,
			fields{"status": 415.0, "result": "unsupported_encoding", "bytes": 0.0, "ms": 0.0, "error": "content encoding other than identity"},
			count("bridge_deliveries_total{result=unsupported_encoding,type=other}"),
		},
		{
			"declared too large",
			draft{body: strings.Repeat(" ", maxBody+1)},
			nil, nil,
			413, tooLarge, warn,
			fields{"status": 413.0, "result": "too_large", "bytes": 0.0, "ms": 0.0, "error": "body over the limit"},
			count("bridge_deliveries_total{result=too_large,type=other}"),
		},
		{
			"too large",
			draft{body: strings.Repeat(" ", maxBody+1), chunked: true},
			nil, nil,
			413, tooLarge, warn,
			fields{"status": 413.0, "result": "too_large", "delivery": "msg_1", "bytes": 0.0, "ms": 0.0, "error": "body over the limit"},
			count("bridge_deliveries_total{result=too_large,type=other}"),
		},
		{
			"a broken body",
			draft{body: known, broken: true},
			nil, nil,
			400, badRequest, info,
			fields{"status": 400.0, "result": "bad_request", "delivery": "msg_1", "bytes": 0.0, "ms": 0.0, "error": "body could not be read: invalid byte in chunk length"},
			count("bridge_deliveries_total{result=bad_request,type=other}"),
		},
		{
			"rejected: invalid",
			draft{body: `{"type":"batch.succeeded"`},
			func(c *ingress.Config) { c.OnInvalid = ingress.Reject }, nil,
			422, invalidEvent, warn,
			authentic(fields{
				"status": 422.0, "result": "invalid_event", "bytes": 25.0, "ms": 0.0,
				"error": `invalid event: "": not JSON as of RFC 7493: unexpected EOF (at byte 25) (1 violations)`,
			}),
			count("bridge_deliveries_total{result=invalid_event,type=other}", verifiedTotal),
		},
		{
			"rejected: invalid, of a known type",
			draft{body: invalid},
			func(c *ingress.Config) { c.OnInvalid = ingress.Reject }, nil,
			422, invalidEvent, warn,
			authentic(fields{
				"status": 422.0, "result": "invalid_event", "type": "batch.succeeded", "bytes": 86.0, "ms": 0.0,
				"error": `invalid event: "/data": missing property 'id' (1 violations)`,
			}),
			count("bridge_deliveries_total{result=invalid_event,type=batch.succeeded}", verifiedTotal),
		},
		{
			"rejected: unknown",
			draft{body: unknown},
			func(c *ingress.Config) { c.OnUnknown = ingress.Reject }, nil,
			422, invalidEvent, warn,
			authentic(fields{
				"status": 422.0, "result": "invalid_event", "type": "tuning.done", "bytes": 102.0, "ms": 0.0,
				"error": `invalid event: "/type": no schema knows this type and version (1 violations)`,
			}),
			count("bridge_deliveries_total{result=invalid_event,type=other}", verifiedTotal),
		},
		{
			"not durable",
			draft{body: known},
			nil, answer(0, broken),
			503, unavailable, warn,
			authentic(fields{
				"status": 503.0, "result": "unavailable", "type": "batch.succeeded", "job": "batches/1", "bytes": 102.0, "ms": 250.0,
				"error": "not delivered: nats: no response from stream",
			}),
			deliveredIn(count("bridge_deliveries_total{result=unavailable,type=batch.succeeded}"), ""),
		},
		{
			"not durable, and a result that is none",
			draft{body: known},
			nil, answer(schema.DeadLettered, broken),
			503, unavailable, warn,
			authentic(fields{
				"status": 503.0, "result": "unavailable", "type": "batch.succeeded", "job": "batches/1", "bytes": 102.0, "ms": 250.0,
				"error": "not delivered: nats: no response from stream",
			}),
			deliveredIn(count("bridge_deliveries_total{result=unavailable,type=batch.succeeded}"), ""),
		},
		{
			"a dead letter, not durable",
			draft{body: invalid},
			nil, answer(0, broken),
			503, unavailable, warn,
			authentic(fields{
				"status": 503.0, "result": "unavailable", "type": "batch.succeeded", "reason": "invalid_event", "bytes": 86.0, "ms": 250.0,
				"error": "not delivered: nats: no response from stream",
			}),
			deliveredIn(count("bridge_deliveries_total{result=unavailable,type=batch.succeeded}"), ""),
		},
		{
			"too many",
			draft{body: known},
			func(c *ingress.Config) { c.MaxInflight = 0 }, nil,
			503, unavailable, warn,
			authentic(fields{"status": 503.0, "result": "unavailable", "bytes": 102.0, "ms": 0.0, "error": "too many deliveries in flight"}),
			count("bridge_deliveries_total{result=unavailable,type=other}", verifiedTotal),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.config == nil {
				tt.config = func(*ingress.Config) {}
			}
			r := newRig(t, tt.config).serve(t)
			if tt.rig != nil {
				tt.rig(r)
			}
			r.send(t, tt.draft).want(t, tt.code, tt.body)
			want := fields{"level": tt.level, "message": "delivery"}
			maps.Copy(want, tt.log)
			if got := r.line(t); !reflect.DeepEqual(got, want) {
				t.Errorf("log:\n got %v\nwant %v", got, want)
			}
			if got := r.series(t); !reflect.DeepEqual(got, tt.metrics) {
				t.Errorf("metrics:\n got %v\nwant %v", got, tt.metrics)
			}
		})
	}
}

// Whatever the Deliverer's error is or wraps, it is the bridge's trouble and not the sender's fault.
func TestDelivererErrorIs503(t *testing.T) {
	for _, err := range []error{
		errors.New("any"), context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, http.ErrHandlerTimeout,
		verify.ErrUnauthenticated, verify.ErrNoKeys, &verify.Failure{Reason: verify.HeaderMissing},
		&schema.InvalidError{Violations: []schema.Violation{{Message: "wrong"}}}, &http.MaxBytesError{Limit: 1},
	} {
		for _, err := range []error{err, fmt.Errorf("wrapped: %w", err), errors.Join(errors.New("one"), err)} {
			t.Run(fmt.Sprintf("%T %v", err, err), func(t *testing.T) {
				r := newRig(t)
				r.deliverer.answer = answering(0, err)
				r.do(t, draft{body: known}).want(t, 503, unavailable)
				if got, want := r.line(t)["error"], "not delivered: "+err.Error(); got != want {
					t.Errorf("log: got error %q, want %q", got, want)
				}
				want := counts{
					"bridge_deliveries_total{result=unavailable,type=batch.succeeded}": 1,
					"bridge_verified_total{key=LaSw,scheme=v1}":                        1,
					"bridge_request_seconds_count":                                     1,
					"bridge_request_seconds_sum":                                       0.25,
				}
				if got := r.series(t); !reflect.DeepEqual(got, want) {
					t.Errorf("metrics:\n got %v\nwant %v", got, want)
				}
			})
		}
	}
}

// The time of the last delivery is that of its reply, and stays through what is answered otherwise.
func TestLastDelivery(t *testing.T) {
	const name = "bridge_last_delivery_timestamp_seconds{type=batch.succeeded}"
	r := newRig(t)
	for range 3 {
		r.do(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
	}
	if got, want := r.series(t)[name], float64(signedAt.Unix()); got != want {
		t.Errorf("after 750 ms: got %f, want %f", got, want)
	}
	r.do(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
	r.clock.advance(time.Minute)
	r.deliverer.answer = answering(0, errors.New("away"))
	r.do(t, draft{body: known}).want(t, 503, unavailable)
	r.do(t, draft{body: known, signature: "-"}).want(t, 401, unauthenticated)
	if got, want := r.series(t)[name], float64(signedAt.Unix()+1); got != want {
		t.Errorf("after a second, and a minute of failures: got %f, want %f", got, want)
	}
}

// Dashboards and alerts rely on these: names, labels, and that all of them are there before the first delivery.
func TestSeriesBeforeTheFirstDelivery(t *testing.T) {
	want := counts{"bridge_inflight": 0, "bridge_unverified_bytes": 0, "bridge_request_seconds_count": 0, "bridge_request_seconds_sum": 0}
	for _, typ := range []string{
		"batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled", "interaction.completed",
		"interaction.requires_action", "interaction.failed", "interaction.cancelled", "video.generated", "other",
	} {
		want["bridge_last_delivery_timestamp_seconds{type="+typ+"}"] = 0
		for _, result := range []string{
			"published", "duplicate", "dead-lettered", "spooled", "unauthenticated", "not_found", "method_not_allowed",
			"unsupported_encoding", "too_large", "bad_request", "invalid_event", "unavailable",
		} {
			want["bridge_deliveries_total{result="+result+",type="+typ+"}"] = 0
		}
	}
	for _, reason := range []string{"invalid_event", "unknown_type", "refused_by_sink"} {
		want["bridge_dead_letters_total{reason="+reason+"}"] = 0
	}
	for _, reason := range []string{
		"token_unknown", "header_missing", "header_repeated", "id_malformed", "timestamp_malformed", "signature_too_long",
		"too_many_signatures", "signature_malformed", "static_off", "dynamic_off", "wrong_path", "no_v1_signature",
		"jwt_malformed", "jwt_audience", "timestamp_too_old", "timestamp_too_new", "signature_mismatch", "body_altered",
		"jwt_algorithm", "jwt_header", "key_unknown", "jwt_expired", "jwt_too_new", "jwt_too_old", "jwt_claims",
		"body_disagrees",
	} {
		want["bridge_verify_failures_total{reason="+reason+"}"] = 0
	}
	if got := newRig(t).allSeries(t); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// Types that no schema knows do not make series, whoever sends them.
func TestSeriesDoNotGrow(t *testing.T) {
	r := newRig(t)
	r.do(t, draft{body: known}).want(t, 202, accepted("published", "msg_1"))
	before := len(r.allSeries(t))
	for i := range 10 {
		r.do(t, draft{body: fmt.Sprintf(`{"type":"new.type%d"}`, i)}).want(t, 202, accepted("published", "msg_1"))
	}
	all := r.allSeries(t)
	if len(all) != before {
		t.Errorf("%d series, want %d", len(all), before)
	}
	if got := all["bridge_deliveries_total{result=published,type=other}"]; got != 10 {
		t.Errorf("other: got %v, want 10", got)
	}
}
