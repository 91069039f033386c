package jetstream_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

const traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestStructuredMessage(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	publish(t, s, 7)
	got := first(t, b, "GEMINI")
	if want := "gemini.batch.succeeded"; got.Name != want {
		t.Errorf("subject: got %s, want %s", got.Name, want)
	}
	mustHaveHeaders(t, got, map[string]string{
		"Content-Type": "application/cloudevents+json", "Nats-Msg-Id": "msg_7", "webhook-id": "msg_7", "traceparent": traceParent,
	})
	var e event.Event
	if err := json.Unmarshal(got.Data, &e); err != nil {
		t.Fatalf("CloudEvents SDK: %v", err)
	}
	mustBeEvent(t, e, sinkstest.Event(7))
}

func TestBinaryMessage(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, ContentMode: jetstream.Binary})
	eventuallyReady(t, s)
	publish(t, s, 7)
	got := first(t, b, "GEMINI")
	mustHaveHeaders(t, got, map[string]string{
		"Content-Type": "application/json", "Nats-Msg-Id": "msg_7", "webhook-id": "msg_7", "traceparent": traceParent,
		"ce-specversion": "1.0", "ce-id": "msg_7", "ce-source": "//generativelanguage.googleapis.com",
		"ce-type": "com.google.gemini.batch.succeeded", "ce-subject": "batches/job%20%E2%82%AC2", "ce-time": "2026-01-22T12:00:00Z",
		"ce-datacontenttype": "application/json", "ce-dataschema": "https://example.com/event-v1.schema.json",
		"ce-partitionkey": "batches/job%20%E2%82%AC2",
	})
	// The SDK's NATS module is not in go.mod, and does not decode percent signs either: the event by hand.
	e := event.New(got.Header["ce-specversion"][0])
	for k, v := range got.Header {
		name, found := strings.CutPrefix(k, "ce-")
		if !found || name == "specversion" {
			continue
		}
		value, err := url.PathUnescape(v[0])
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "id":
			e.SetID(value)
		case "source":
			e.SetSource(value)
		case "type":
			e.SetType(value)
		case "subject":
			e.SetSubject(value)
		case "time":
			if err := e.Context.SetTime(mustTime(t, value)); err != nil {
				t.Fatal(err)
			}
		case "datacontenttype":
			e.SetDataContentType(value)
		case "dataschema":
			e.SetDataSchema(value)
		default:
			e.SetExtension(name, value)
		}
	}
	e.DataEncoded = got.Data
	mustBeEvent(t, e, sinkstest.Event(7))
}

// TestSparseEvent: what an event does not have makes no header.
func TestSparseEvent(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, ContentMode: jetstream.Binary})
	eventuallyReady(t, s)
	e := &schema.Event{
		ID: "jwt_1", Source: "s", Type: "t", PartitionKey: "jwt_1", Name: "ping", Data: []byte(`1`),
		Structured: []byte(`{"specversion":"1.0","id":"jwt_1","source":"s","type":"t","datacontenttype":"application/json","partitionkey":"jwt_1","data":1}`),
	}
	if _, err := s.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got := first(t, b, "GEMINI")
	mustHaveHeaders(t, got, map[string]string{
		"Content-Type": "application/json", "Nats-Msg-Id": "jwt_1", "ce-specversion": "1.0", "ce-id": "jwt_1", "ce-source": "s",
		"ce-type": "t", "ce-datacontenttype": "application/json", "ce-partitionkey": "jwt_1",
	})
	if got.Err != nil || string(got.Event) != string(e.Structured) {
		t.Errorf("Event: got %s, %v, want %s", got.Event, got.Err, e.Structured)
	}
}

// TestHeaderValues: the examples of the NATS binding, and what it names.
func TestHeaderValues(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, ContentMode: jetstream.Binary})
	eventuallyReady(t, s)
	for i, c := range []struct{ value, want string }{
		{"Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"},
		{`100% "sure"`, "100%25%20%22sure%22"},
		{"a\r\nb: c\x7f", "a%0D%0Ab:%20c%7F"},
		{"plain/~!", "plain/~!"},
	} {
		e := sinkstest.Event(i)
		e.Subject = c.value
		if _, err := s.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		got := readN(t, jetstream.Conn{URL: b.url()}, "GEMINI", sinks.FromStart(), i+1)[i].Header["ce-subject"]
		if !slices.Equal(got, []string{c.want}) {
			t.Errorf("%q: got %q, want %s", c.value, got, c.want)
		}
	}
}

func TestDeadLetterSubjects(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	for i, c := range []struct{ name, want string }{
		{"batch.failed", "gemini-dead.batch.failed"}, {"", "gemini-dead.unreadable"}, {"a b", "gemini-dead.a-20b"},
	} {
		e := sinkstest.DeadLetter(i)
		e.Name = c.name
		if _, err := s.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		records := readN(t, jetstream.Conn{URL: b.url()}, "GEMINI_DEAD", sinks.FromStart(), i+1)
		if got := records[i].Name; got != c.want {
			t.Errorf("name %q: subject %s, want %s", c.name, got, c.want)
		}
	}
}

// TestUnfitID: ids that a header cannot carry unchanged would be recognised as another's.
func TestUnfitID(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	for _, id := range []string{"", "a b", " a", "a\r\nNats-Rollup: all", "é", "a\x00"} {
		e := sinkstest.Event(1)
		e.ID = id
		_, err := s.Publish(t.Context(), e)
		if _, refused := errors.AsType[*sinks.RefusedError](err); !refused {
			t.Errorf("id %q: %v, want a RefusedError", id, err)
		}
	}
}

func first(t *testing.T, b *broker, stream string) sinks.Record {
	t.Helper()
	return readN(t, jetstream.Conn{URL: b.url()}, stream, sinks.FromStart(), 1)[0]
}

func mustHaveHeaders(t *testing.T, r sinks.Record, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for k, v := range r.Header {
		if len(v) != 1 {
			t.Errorf("header %s: %d times", k, len(v))
		}
		got[k] = v[0]
	}
	if !maps.Equal(got, want) {
		t.Errorf("headers:\n got %v\nwant %v", sorted(got), sorted(want))
	}
}

func sorted(m map[string]string) []string {
	var all []string
	for k, v := range m {
		all = append(all, k+": "+v)
	}
	slices.Sort(all)
	return all
}

func mustBeEvent(t *testing.T, got event.Event, want *schema.Event) {
	t.Helper()
	if err := got.Validate(); err != nil {
		t.Errorf("CloudEvents SDK: %v", err)
	}
	for _, c := range []struct{ name, got, want string }{
		{"id", got.ID(), want.ID},
		{"source", got.Source(), want.Source},
		{"type", got.Type(), want.Type},
		{"subject", got.Subject(), want.Subject},
		{"dataschema", got.DataSchema(), want.DataSchema},
		{"datacontenttype", got.DataContentType(), "application/json"},
		{"partitionkey", got.Extensions()["partitionkey"].(string), want.PartitionKey},
		{"data", string(got.Data()), string(want.Data)},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
	if want := mustTime(t, want.Time); !got.Time().Equal(want) {
		t.Errorf("time: got %s, want %s", got.Time(), want)
	}
}
