package schema

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gembridge/bridge/schemas"
)

// TypeDeadLetter is the CloudEvents type of every dead letter.
const TypeDeadLetter = "bridge.dead_letter"

// Reason says why an authentic delivery became a dead letter.
type Reason string

const (
	ReasonInvalid Reason = "invalid_event"   // not valid by the schemas
	ReasonUnknown Reason = "unknown_type"    // type or version unknown, and BRIDGE_ON_UNKNOWN=dead-letter
	ReasonRefused Reason = "refused_by_sink" // the broker will never take the event
)

// Reasons returns every reason.
func Reasons() []Reason { return []Reason{ReasonInvalid, ReasonUnknown, ReasonRefused} }

// A dead letter keeps these headers of its request.
var keptHeaders = [...]string{"webhook-id", "webhook-timestamp", "content-type", "user-agent", "traceparent"}

// Bounds on what a hostile request can make of a dead letter, in bytes as written: with them, an event is at
// most twice its body and 32 KiB.
const (
	maxHeaders = 8 << 10
	maxErrors  = 16 << 10
)

// DeadLetter makes a dead letter of a delivery whose body is not published as an event. name is the body's
// type, or empty when it has none that can be used.
func DeadLetter(d Delivery, name string, reason Reason, violations []Violation, body []byte) *Event {
	return deadLetter(d, name, reason, violations, keep(d.Header), body)
}

// Refused makes the dead letter of an event that a sink refuses for ever. words say why.
func (e *Event) Refused(words string) *Event {
	d := Delivery{ID: e.ID, Source: e.Source, Scheme: e.Scheme, Received: e.Received, TraceParent: e.TraceParent}
	headers := []Attribute{{"webhook-id", e.WebhookID}}
	if e.TraceParent != "" {
		headers = append(headers, Attribute{"traceparent", e.TraceParent})
	}
	return deadLetter(d, e.Name, ReasonRefused, []Violation{{Message: clip(words)}}, headers, e.Original)
}

func deadLetter(d Delivery, name string, reason Reason, violations []Violation, headers []Attribute, body []byte) *Event {
	received := d.Received.UTC().Format(time.RFC3339Nano)
	e := &Event{
		ID: d.ID, Source: d.Source, Type: TypeDeadLetter, Time: received, DataSchema: schemas.DeadLetterURI, PartitionKey: d.ID,
		Name: name, Dead: true, WebhookID: d.ID, TraceParent: d.TraceParent, Scheme: d.Scheme, Received: d.Received,
	}
	b := openEvent(make([]byte, 0, 1024+2*len(body)), e)
	from := len(b)
	b = quoteMember(b, `{"reason":`, string(reason))
	b = appendErrors(b, violations)
	b = appendHeaders(b, headers)
	b = appendBody(b, body)
	b = quoteMember(b, `,"received":`, received)
	b = quoteMember(b, `,"scheme":`, d.Scheme)
	b = append(b, '}')
	to := len(b)
	e.Structured = append(b, '}')
	e.Data = e.Structured[from:to:to]
	return e
}

func appendErrors(b []byte, violations []Violation) []byte {
	b = append(b, `,"errors":[`...)
	start := len(b)
	for _, v := range violations {
		mark := len(b)
		if mark > start {
			b = append(b, ',')
		}
		b = quoteMember(b, `{"pointer":`, v.Pointer)
		b = quoteMember(b, `,"message":`, v.Message)
		b = append(b, '}')
		if len(b)-start > maxErrors {
			b = b[:mark]
			break
		}
	}
	return append(b, ']')
}

// appendHeaders leaves out a header that has no room and goes on with the next.
func appendHeaders(b []byte, headers []Attribute) []byte {
	b = append(b, `,"headers":{`...)
	start := len(b)
	for _, h := range headers {
		mark := len(b)
		if mark > start {
			b = append(b, ',')
		}
		b = quoteMember(b, "", h.Name)
		b = quoteMember(b, ":", h.Value)
		if len(b)-start > maxHeaders {
			b = b[:mark]
		}
	}
	return append(b, '}')
}

// appendBody writes the body as text, or as base64 when it is not UTF-8 or base64 is shorter: a body of control
// characters would grow sixfold as a JSON string.
func appendBody(b, body []byte) []byte {
	if utf8.Valid(body) {
		mark := len(b)
		b = append(b, `,"body":`...)
		b, _ = jsontext.AppendQuote(b, body)
		if len(b)-mark <= base64.StdEncoding.EncodedLen(len(body))+len(`,"body_base64":""`) {
			return b
		}
		b = b[:mark]
	}
	b = append(b, `,"body_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, body)
	return append(b, '"')
}

func keep(header http.Header) []Attribute {
	var kept []Attribute
	for _, name := range keptHeaders {
		if values := header.Values(name); len(values) > 0 {
			kept = append(kept, Attribute{name, strings.Join(values, ", ")})
		}
	}
	return kept
}
