// Package sinkstest is the conformance suite of sinks: what the bridge relies on, whatever the broker. A sink's own
// test supplies the broker and calls Run.
package sinkstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Features says how far the suite goes with a sink.
type Features struct {
	// Count is how many events the concurrent case publishes. Default 10,000.
	Count int
	// TooLarge is the size in bytes of an event that the broker never takes. The case is left out if it is 0.
	TooLarge int
	// Restart says that every Harness has Stop and Start. The cases that need them are left out otherwise.
	Restart bool
	// Leader says that every Harness has KillLeader and Start: the broker is several servers, of which it survives the
	// loss of one. The case that needs them is left out otherwise.
	Leader bool
}

// Harness is a sink on a broker that holds nothing yet. Whatever is opened is closed with t.Cleanup.
type Harness struct {
	Sink sinks.Sink
	// Stored returns everything that the broker holds: events in the order in which it would hand those of one
	// partition key to a consumer, dead letters likewise.
	Stored func(t *testing.T) []Record
	// Stop ends the broker, Start brings it back at the same place with what it had stored.
	Stop, Start func(t *testing.T)
	// KillLeader ends the server that takes what is published, or the partition of Event(0), without a farewell.
	KillLeader func(t *testing.T)
}

// Record is one event or dead letter as the broker holds it.
type Record struct {
	Dead  bool
	ID    string
	Event []byte // CloudEvents JSON format, in every content mode
}

const (
	publishTimeout = 30 * time.Second // for publishes that must succeed
	hang           = 10 * time.Second // what should be prompt and takes this long, hangs
)

// Run runs the suite. open is called once for each case.
func Run(t *testing.T, f Features, open func(t *testing.T) Harness) {
	if f.Count == 0 {
		f.Count = 10_000
	}
	type testCase struct {
		name string
		test func(t *testing.T, h Harness)
	}
	cases := []testCase{
		{"ByteForByte", byteForByte},
		{"Duplicate", duplicate},
		{"DeadLetterOfSameID", deadLetterOfSameID},
		{"OrderPerKey", orderPerKey},
		{"Concurrent", func(t *testing.T, h Harness) { concurrent(t, h, f.Count) }},
		{"Large", large},
		{"Cancelled", cancelled},
		{"CancelledUnderWay", cancelledUnderWay},
		{"Close", closed},
		{"CloseWaits", closeWaits},
	}
	if f.TooLarge > 0 {
		cases = append(cases, testCase{"TooLarge", func(t *testing.T, h Harness) { tooLarge(t, h, f.TooLarge) }})
	}
	if f.Restart {
		cases = append(cases,
			testCase{"BrokerAway", brokerAway},
			testCase{"ReadyFollowsBroker", readyFollowsBroker},
			testCase{"RestartLosesNothing", func(t *testing.T, h Harness) { losesNothing(t, h, h.Stop) }},
		)
	}
	if f.Leader {
		cases = append(cases, testCase{"LeaderLosesNothing", func(t *testing.T, h Harness) {
			losesNothing(t, h, func(t *testing.T) {
				h.KillLeader(t)
				insist(t, h.Sink, DeadLetter(1)) // the others take it
			})
		}})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			eventually(t, "ready", func() error { return accepting(t, h.Sink) })
			c.test(t, h)
		})
	}
}

// Event returns the i-th event. Three in a row share a partition key, and bytes are of the kind that a sink must not
// touch: escapes, numbers that no float holds, keys in no order.
func Event(i int) *schema.Event { return event(i, false, 0) }

// DeadLetter returns the i-th dead letter, whose id is that of the i-th event.
func DeadLetter(i int) *schema.Event { return event(i, true, 0) }

// LargeEvent returns the i-th event with about size bytes.
func LargeEvent(i, size int) *schema.Event { return event(i, false, size) }

func event(i int, dead bool, size int) *schema.Event {
	id := "msg_" + strconv.Itoa(i)
	job := "batches/job €" + strconv.Itoa(i/3)
	e := &schema.Event{
		ID: id, Source: "//generativelanguage.googleapis.com", Type: "com.google.gemini.batch.succeeded", Subject: job,
		Time: "2026-01-22T12:00:00Z", DataSchema: "https://example.com/event-v1.schema.json", PartitionKey: job,
		Name: "batch.succeeded", Dead: dead, WebhookID: id,
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	if dead {
		e.Type = "bridge.dead_letter"
	}
	data := fmt.Sprintf(`{"z":12345678901234567890.10,"n":%d,"a":"\u00e9 é \/ %s"}`, i, strings.Repeat("x", max(0, size-600)))
	var b bytes.Buffer
	b.WriteByte('{')
	for _, a := range e.Attributes() {
		fmt.Fprintf(&b, "%q:\"%s\",", a.Name, a.Value)
	}
	b.WriteString(`"data":`)
	from := b.Len()
	b.WriteString(data)
	b.WriteByte('}')
	e.Structured = b.Bytes()
	e.Data = e.Structured[from : len(e.Structured)-1 : len(e.Structured)-1]
	if !dead {
		e.Original = e.Data
	}
	return e
}

// publish calls Publish and sees that the event is untouched.
func publish(t *testing.T, s sinks.Sink, e *schema.Event, timeout time.Duration) (sinks.Ack, error) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	before := *e
	before.Structured = bytes.Clone(e.Structured) // Data and Original are parts of it
	ack, err := s.Publish(ctx, e)
	if !reflect.DeepEqual(before, *e) {
		t.Errorf("Publish changed event %s", e.ID)
	}
	return ack, err
}

func mustPublish(t *testing.T, s sinks.Sink, e *schema.Event) sinks.Ack {
	t.Helper()
	ack, err := publish(t, s, e, publishTimeout)
	if err != nil {
		t.Fatalf("Publish %s: %v", e.ID, err)
	}
	return ack
}

// insist publishes until it is acked, as the sender of a webhook does.
func insist(t *testing.T, s sinks.Sink, e *schema.Event) {
	t.Helper()
	eventually(t, "published", func() error {
		_, err := publish(t, s, e, 3*time.Second)
		return err
	})
}

// mustHold sees that the broker holds exactly the events, each once, whatever the order.
func mustHold(t *testing.T, h Harness, want ...*schema.Event) {
	t.Helper()
	left := map[schema.Key][]byte{}
	for _, e := range want {
		left[e.Key()] = e.Structured
	}
	for _, r := range h.Stored(t) {
		key := schema.Key{Dead: r.Dead, ID: r.ID}
		bytesWant, found := left[key]
		if !found {
			t.Errorf("%+v is stored and should not be, or is stored twice", key)
		} else if !bytes.Equal(r.Event, bytesWant) {
			t.Errorf("%+v is stored as\n%.300s, want\n%.300s", key, r.Event, bytesWant)
		}
		delete(left, key)
	}
	for key := range left {
		t.Errorf("%+v is not stored", key)
	}
}

// accepting asks Ready, for which a weakened promise is good enough.
func accepting(t *testing.T, s sinks.Sink) error {
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	err := s.Ready(ctx)
	if _, degraded := errors.AsType[*sinks.DegradedError](err); degraded {
		return nil
	}
	return err
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(4 * publishTimeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s in time: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// events returns the first n events.
func events(n int) []*schema.Event {
	all := make([]*schema.Event, n)
	for i := range all {
		all[i] = Event(i)
	}
	return slices.Clip(all)
}
