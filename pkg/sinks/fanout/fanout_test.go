package fanout_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
)

// A fan-out is a Deliverer, and so is what it is made of.
var (
	_ ingress.Deliverer = (*fanout.Fanout)(nil)
	_ fanout.Deliverer  = (*fanout.Fanout)(nil)
	_ fanout.Deliverer  = (*durable.Deliverer)(nil)
)

const (
	published = schema.Published
	duplicate = schema.Duplicate
	dead      = schema.DeadLettered
	spooled   = schema.Spooled
)

var (
	errAway  = errors.New("broker away")
	errOther = errors.New("another error")
)

func TestDeliver(t *testing.T) {
	for _, tt := range []struct {
		name        string
		nats, kafka step
		want        schema.Result
		errs        []error  // all that the error matches
		words       []string // all that it says
	}{
		{"both published", step{result: published}, step{result: published}, published, nil, nil},
		{"both duplicates", step{result: duplicate}, step{result: duplicate}, duplicate, nil, nil},
		{"new to the second", step{result: duplicate}, step{result: published}, published, nil, nil},
		{"new to the first", step{result: published}, step{result: duplicate}, published, nil, nil},
		{"both dead", step{result: dead}, step{result: dead}, dead, nil, nil},
		{"refused by the first", step{result: dead}, step{result: published}, dead, nil, nil},
		{"refused by the second", step{result: published}, step{result: dead}, dead, nil, nil},
		{"refused by one, known to the other", step{result: duplicate}, step{result: dead}, dead, nil, nil},

		{"both spooled", step{result: spooled}, step{result: spooled}, spooled, nil, nil},
		{"spooled by the first", step{result: spooled}, step{result: published}, spooled, nil, nil},
		{"spooled by the second", step{result: published}, step{result: spooled}, spooled, nil, nil},
		{"spooled by one, known to the other", step{result: duplicate}, step{result: spooled}, spooled, nil, nil},
		{"spooled by one, refused by the other", step{result: spooled}, step{result: dead}, dead, nil, nil},
		{"fails beside a spooled one", step{result: spooled}, step{err: errAway}, 0, []error{errAway}, []string{"kafka: broker away"}},

		{"first fails", step{err: errAway}, step{result: published}, 0, []error{errAway}, []string{"nats: broker away"}},
		{"second fails", step{result: published}, step{err: errAway}, 0, []error{errAway}, []string{"kafka: broker away"}},
		{"fails beside a duplicate", step{result: duplicate}, step{err: errAway}, 0, []error{errAway}, []string{"kafka: broker away"}},
		{"fails beside a dead letter", step{err: errAway}, step{result: dead}, 0, []error{errAway}, []string{"nats: broker away"}},
		{"both fail", step{err: errAway}, step{err: errOther}, 0, []error{errAway, errOther}, []string{"nats: broker away", "kafka: another error"}},
		{"unknown", step{result: published}, step{err: sinks.ErrUnknown}, 0, []error{sinks.ErrUnknown}, []string{"kafka: "}},
		{"a result beside an error is none", step{result: published, err: errAway}, step{result: published}, 0, []error{errAway}, []string{"nats: "}},
		{"panic", step{panics: "no luck"}, step{result: published}, 0, []error{sinks.ErrUnknown}, []string{"nats: ", "no luck", "scripted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nats, kafka := script(tt.nats), script(tt.kafka)
			event := &schema.Event{ID: "msg_1"}
			got, err := two(nats, kafka).Deliver(t.Context(), event)
			if got != tt.want || (err == nil) != (tt.errs == nil) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
			for _, want := range tt.errs {
				if !errors.Is(err, want) {
					t.Errorf("error %v does not match %v", err, want)
				}
			}
			for _, want := range tt.words {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v does not say %q", err, want)
				}
			}
			if err != nil && len(tt.errs) == 1 && strings.Contains(err.Error(), "nats: ") == strings.Contains(err.Error(), "kafka: ") {
				t.Errorf("error %v names not just the part that failed", err)
			}
			for name, part := range map[string]*scripted{"nats": nats, "kafka": kafka} {
				if !slices.Equal(part.events, []*schema.Event{event}) {
					t.Errorf("%s got %d events, want the one", name, len(part.events))
				}
			}
		})
	}
}

// A part that failed gets the event again with the retry, and so do those that have it already.
func TestRetry(t *testing.T) {
	nats := script(step{result: published}, step{result: duplicate}, step{result: duplicate}, step{result: duplicate})
	kafka := script(step{err: errAway}, step{err: errAway}, step{result: published}, step{result: duplicate})
	f := two(nats, kafka)
	for i, want := range []schema.Result{0, 0, published, duplicate} {
		got, err := f.Deliver(t.Context(), &schema.Event{ID: "msg_1"})
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("try %d: got %v, %v, want %v", i, got, err, want)
		}
	}
	if len(nats.events) != 4 || len(kafka.events) != 4 {
		t.Errorf("nats got %d tries, kafka %d, want 4 each", len(nats.events), len(kafka.events))
	}
}

func TestAllAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name        string
		nats, kafka step
		after       time.Duration
		want        schema.Result
		err         error
	}{
		{"as long as the slowest", step{wait: time.Second, result: published}, step{wait: 2 * time.Second, result: published}, 2 * time.Second, published, nil},
		{"a failure waits for success", step{err: errAway}, step{wait: 2 * time.Second, result: published}, 2 * time.Second, 0, errAway},
		{"a duplicate waits", step{wait: 2 * time.Second, result: published}, step{result: duplicate}, 2 * time.Second, published, nil},
		{"a panic waits", step{panics: "no luck"}, step{wait: 2 * time.Second, result: published}, 2 * time.Second, 0, sinks.ErrUnknown},
		{"ctx ends the first", step{block: true}, step{result: published}, 3 * time.Second, 0, context.DeadlineExceeded},
		{"ctx ends the second", step{wait: time.Second, result: duplicate}, step{block: true}, 3 * time.Second, 0, context.DeadlineExceeded},
		{"ctx ends both", step{block: true}, step{block: true}, 3 * time.Second, 0, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				got := <-deliver(ctx, two(script(tt.nats), script(tt.kafka)), &schema.Event{ID: "msg_1"})
				if got.result != tt.want || !errors.Is(got.err, tt.err) || got.after != tt.after {
					t.Errorf("got %+v, want %v, %v after %v", got, tt.want, tt.err, tt.after)
				}
			})
		})
	}
}

// What one caller waits for is nothing to another.
func TestCallersDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := two(script(step{wait: time.Hour, result: published}, step{result: published}), script(step{result: published}, step{result: published}))
		slow := deliver(t.Context(), f, &schema.Event{ID: "msg_1"})
		synctest.Wait()
		if got := <-deliver(t.Context(), f, &schema.Event{ID: "msg_2"}); got.result != published || got.after != 0 {
			t.Errorf("got %+v, want published at once", got)
		}
		if got := <-slow; got.result != published || got.after != time.Hour {
			t.Errorf("got %+v, want published after an hour", got)
		}
	})
}

func TestNumberOfParts(t *testing.T) {
	event := &schema.Event{ID: "msg_1"}
	for name, f := range map[string]*fanout.Fanout{"New": fanout.New(), "zero value": {}} {
		if got, err := f.Deliver(t.Context(), event); got != 0 || err == nil {
			t.Errorf("%s: got %v, %v without parts, want an error", name, got, err)
		}
	}
	one := fanout.New(fanout.Part{Name: "nats", Deliverer: script(step{result: duplicate}, step{err: errAway})})
	if got, err := one.Deliver(t.Context(), event); got != duplicate || err != nil {
		t.Errorf("got %v, %v of one part, want duplicate", got, err)
	}
	if got, err := one.Deliver(t.Context(), event); got != 0 || !errors.Is(err, errAway) {
		t.Errorf("got %v, %v of one part, want its error", got, err)
	}
	parts := make([]fanout.Part, 5)
	for i := range parts {
		parts[i] = fanout.Part{Name: "part", Deliverer: script(step{result: duplicate})}
	}
	f := fanout.New(parts...)
	parts[4].Deliverer = script(step{err: errAway}) // the slice is the caller's own again
	if got, err := f.Deliver(t.Context(), event); got != duplicate || err != nil {
		t.Errorf("got %v, %v of five parts, want duplicate", got, err)
	}
}
