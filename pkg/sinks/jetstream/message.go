package jetstream

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Mode is the content mode of CloudEvents in which records are written.
type Mode int

const (
	// Structured puts the whole event as JSON into the record.
	Structured Mode = iota
	// Binary puts the event's data into the record and its attributes into "ce-" headers.
	Binary
)

// Names of headers, as they are written. nats.go looks headers up case-sensitively.
const (
	headerContentType = "Content-Type"
	headerMsgID       = "Nats-Msg-Id"
	headerWebhookID   = "webhook-id"
	headerTraceParent = "traceparent"
	headerAttribute   = "ce-"

	contentTypeEvent = "application/cloudevents+json"
)

// unreadable stands for the type of a dead letter that had none.
const unreadable = "unreadable"

// message makes the record of an event; a *sinks.RefusedError says that none can be made of it.
func (s *Sink) message(e *schema.Event) (*nats.Msg, error) {
	// The server compares ids byte by byte, but trims the header's value and ends it at a line break.
	if !isVisible(e.ID) {
		return nil, &sinks.RefusedError{Reason: "the event's id is not made of visible ASCII characters"}
	}
	m := &nats.Msg{Header: nats.Header{headerMsgID: {e.ID}}}
	if e.Dead {
		name := e.Name
		if name == "" {
			name = unreadable
		}
		m.Subject = Subject(s.dead.prefix, name)
	} else {
		m.Subject = Subject(s.events.prefix, e.Name)
	}
	if e.WebhookID != "" {
		m.Header[headerWebhookID] = []string{e.WebhookID}
	}
	if e.TraceParent != "" {
		m.Header[headerTraceParent] = []string{e.TraceParent}
	}
	if s.cfg.ContentMode == Structured {
		// No "ce-" headers beside it: consumers take those for the mark of binary mode.
		m.Header[headerContentType] = []string{contentTypeEvent}
		m.Data = e.Structured
		return m, nil
	}
	// The NATS binding maps datacontenttype like any other attribute (1.0.3-wip, 3.1.3.1). Content-Type beside it
	// is for consumers that know HTTP's way only; the binding reads it as "not structured", which is right.
	m.Header[headerContentType] = []string{schema.ContentType}
	for _, a := range e.Attributes() {
		m.Header[headerAttribute+a.Name] = []string{percentEncode(a.Value)}
	}
	m.Data = e.Data
	return m, nil
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

func isEncoded(c byte) bool { return c <= ' ' || c > '~' || c == '"' || c == '%' }

// percentEncode makes a header's value of an attribute's (CloudEvents NATS binding 1.0.3-wip, 3.1.3.2).
func percentEncode(s string) string {
	const digits = "0123456789ABCDEF"
	n := 0
	for i := range len(s) {
		if isEncoded(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; isEncoded(c) {
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// percentDecode undoes percentEncode. It is an error if the value is malformed or not UTF-8.
func percentDecode(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for s != "" {
		plain, rest, found := strings.Cut(s, "%")
		b = append(b, plain...)
		s = ""
		if found {
			if len(rest) < 2 {
				return "", errors.New("percent-encoding ends early")
			}
			c, err := hex.DecodeString(rest[:2])
			if err != nil {
				return "", fmt.Errorf("percent-encoding: %w", err)
			}
			b = append(b, c...)
			s = rest[2:]
		}
	}
	if !utf8.Valid(b) {
		return "", errors.New("not UTF-8")
	}
	return string(b), nil
}
