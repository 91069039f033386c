package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// TypeReplayed is the CloudEvents type of the record that marks a dead letter as replayed.
const TypeReplayed = "bridge.dead_letter.replayed"

// replayedSuffix makes a mark's id of the letter's.
const replayedSuffix = ".replayed"

// ErrNoLetter appears when an event is not a dead letter.
var ErrNoLetter = errors.New("not a dead letter")

// Letter is a dead letter that was read back: what the bridge knew of the delivery.
type Letter struct {
	ID       string // of the delivery
	Source   string
	Reason   Reason
	Errors   []Violation
	Headers  map[string]string // those that were kept, by their names in lower case
	Body     []byte            // as signed; of an event that a sink refused, its data.original
	Received time.Time
	Scheme   string
	Type     string // the body's own; empty when it has none that can be used

	// TraceParent is not in the event: it is the header of the record that holds it. Who reads that sets it.
	TraceParent string
}

// Reopen reads a dead letter, an event in its JSON form. The error matches ErrNoLetter.
func Reopen(event []byte) (*Letter, error) {
	var e struct {
		ID, Source, Type string
		Data             struct {
			Reason     Reason
			Errors     []Violation
			Headers    map[string]string
			Body       *string
			BodyBase64 *[]byte `json:"body_base64"`
			Received   time.Time
			Scheme     string
		}
	}
	if err := json.Unmarshal(event, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLetter, err)
	}
	l := &Letter{
		ID: e.ID, Source: e.Source, Reason: e.Data.Reason, Errors: e.Data.Errors, Headers: e.Data.Headers,
		Received: e.Data.Received, Scheme: e.Data.Scheme,
	}
	switch {
	case e.Type != TypeDeadLetter:
		return nil, fmt.Errorf("%w: its type is %q", ErrNoLetter, e.Type)
	case e.ID == "":
		return nil, fmt.Errorf("%w: it has no id", ErrNoLetter)
	case (e.Data.Body == nil) == (e.Data.BodyBase64 == nil):
		return nil, fmt.Errorf("%w: it must have body or body_base64", ErrNoLetter)
	case e.Data.Body != nil:
		l.Body = []byte(*e.Data.Body)
	default:
		l.Body = *e.Data.BodyBase64
	}
	if doc, err := decode(l.Body); err == nil {
		if typ, _ := doc.root["type"].(string); fault(typ, maxTypeBytes) == "" {
			l.Type = typ
		}
	}
	return l, nil
}

// Delivery is the letter's, so that Normalize makes the event that it should have been.
func (l *Letter) Delivery() Delivery {
	return Delivery{ID: l.ID, Source: l.Source, Scheme: l.Scheme, Received: l.Received, TraceParent: l.TraceParent}
}

// Mark says that a dead letter was replayed.
type Mark struct {
	ID       string    // of the mark itself
	Letter   string    // id of the letter
	Event    string    // id of the event that was published
	Result   string    // Published or Duplicate, as text
	Replayed time.Time // when
}

// Replayed returns the record that marks the letter as replayed under the id of event. It goes where dead letters go, to
// the same subject or partition. Its id is the letter's with ".replayed" behind it, or, if that is taken by an earlier
// mark, the event's.
func (l *Letter) Replayed(event *Event, result Result, again bool, now time.Time) *Event {
	of := l.ID
	if again {
		of = event.ID
	}
	at := now.UTC().Format(time.RFC3339Nano)
	m := &Event{
		ID: of + replayedSuffix, Source: l.Source, Type: TypeReplayed, Time: at, PartitionKey: l.ID,
		Name: l.Type, Dead: true, WebhookID: l.ID, Scheme: l.Scheme, Received: now,
	}
	b := openEvent(make([]byte, 0, 512), m)
	from := len(b)
	b = quoteMember(b, `{"letter":`, l.ID)
	b = quoteMember(b, `,"event":`, event.ID)
	b = quoteMember(b, `,"result":`, result.String())
	b = quoteMember(b, `,"replayed":`, at)
	b = append(b, '}')
	to := len(b)
	m.Structured = append(b, '}')
	m.Data = m.Structured[from:to:to]
	return m
}

// ReadMark reads a mark, an event in its JSON form. It is false when the event is none.
func ReadMark(event []byte) (Mark, bool) {
	var e struct {
		ID, Type string
		Data     Mark
	}
	if json.Unmarshal(event, &e) != nil || e.Type != TypeReplayed || e.Data.Letter == "" {
		return Mark{}, false
	}
	e.Data.ID = e.ID
	return e.Data, true
}
