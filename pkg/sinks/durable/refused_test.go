package durable_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

func TestRefusedBecomesADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		sink := &fake{publish: func(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
			if e.Dead {
				return g.publish(ctx, e)
			}
			return sinks.Ack{}, fmt.Errorf("publish: %w", &sinks.RefusedError{Reason: "too large", Err: errBroken})
		}}
		d := newDeliverer(t, sink)
		e := event(t, "a")
		first := deliver(t.Context(), d, e)
		synctest.Wait()
		second := deliver(t.Context(), d, event(t, "a"))
		synctest.Wait()
		if got := d.Held(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("held %q, want a until the dead letter's outcome is known", got)
		}
		g <- outcome{}
		if o := <-first; o.result != schema.DeadLettered || o.err != nil {
			t.Errorf("got %+v, want dead-lettered", o)
		}
		if o := <-second; o.result != schema.Duplicate || o.err != nil {
			t.Errorf("second: got %+v, want a duplicate", o)
		}
		got := sink.published()
		if len(got) != 2 || got[0] != e || !got[1].Dead {
			t.Fatalf("published %v, want the event and its dead letter", got)
		}
		letter := got[1]
		if letter.ID != "a" || letter.Name != "batch.succeeded" || letter.TraceParent != e.TraceParent || letter.WebhookID != "a" {
			t.Errorf("dead letter %+v", *letter)
		}
		var data struct {
			Reason, Body string
			Errors       []struct{ Pointer, Message string }
			Headers      map[string]string
		}
		if err := json.Unmarshal(letter.Data, &data); err != nil {
			t.Fatal(err)
		}
		if data.Reason != "refused_by_sink" || data.Body != string(e.Original) {
			t.Errorf("reason %q, body %s, want refused_by_sink and %s", data.Reason, data.Body, e.Original)
		}
		if want := map[string]string{"webhook-id": "a", "traceparent": e.TraceParent}; fmt.Sprint(data.Headers) != fmt.Sprint(want) {
			t.Errorf("headers %q, want %q", data.Headers, want)
		}
		if len(data.Errors) != 1 || data.Errors[0].Pointer != "" || !strings.Contains(data.Errors[0].Message, "too large: broken") {
			t.Errorf("errors %q", data.Errors)
		}

		// A later delivery of it is refused again, and its letter is there.
		retry := deliver(t.Context(), d, event(t, "a"))
		g <- outcome{result: schema.Duplicate}
		if o := <-retry; o.result != schema.Duplicate || o.err != nil {
			t.Errorf("retry: got %+v, want a duplicate", o)
		}
	})
}

func TestDeadLetterFails(t *testing.T) {
	for name, want := range map[string]error{
		"refused as well": &sinks.RefusedError{Reason: "dead letters too"},
		"not now":         errBroken,
		"unknown":         sinks.ErrUnknown,
		"closed":          sinks.ErrClosed,
	} {
		t.Run(name, func(t *testing.T) {
			sink := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
				if e.Dead {
					return sinks.Ack{}, want
				}
				return sinks.Ack{}, &sinks.RefusedError{Reason: "too large"}
			}}
			d := newDeliverer(t, sink)
			for round := 1; round <= 2; round++ {
				result, err := d.Deliver(t.Context(), event(t, "a"))
				if result != 0 || !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), "too large") {
					t.Errorf("got %v, %v, want %v and why there was a dead letter", result, err, want)
				}
				if got := len(sink.published()); got != 2*round {
					t.Errorf("%d publishes, want %d", got, 2*round)
				}
			}
		})
	}
}
