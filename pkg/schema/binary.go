package schema

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrBinary appears when bytes are not the binary form of an event, or one of a version that this program does not know.
var ErrBinary = errors.New("not an event in binary form")

// The binary form of an event, as the journal keeps it. All numbers are unsigned varints (encoding/binary), all strings
// their length and their bytes:
//
//	byte   version, 1
//	byte   flags: 1 = dead letter
//	string id, partition key
//	varint when it was received: seconds since 1970 (signed, zigzag), then nanoseconds (unsigned)
//	string source, type, subject, time, data schema, name, webhook id, traceparent, scheme
//	number data: 0 = nil, else its length + 1 and then where it begins in the structured event
//	number original: likewise
//	string structured, up to the end
const (
	binaryVersion = 1
	binaryDead    = 1
)

// Label is what the binary form begins with: enough to know an event without decoding it.
type Label struct {
	Key          Key
	PartitionKey string
	Received     time.Time
}

// MarshalBinary returns the event in binary form.
func (e *Event) MarshalBinary() ([]byte, error) { return e.AppendBinary(nil) }

// AppendBinary appends the event in binary form to b. The error says that Data or Original is not a part of Structured.
func (e *Event) AppendBinary(b []byte) ([]byte, error) {
	data, ok := offset(e.Structured, e.Data)
	if !ok {
		return b, fmt.Errorf("event %s: data is not a part of it", e.ID)
	}
	original, ok := offset(e.Structured, e.Original)
	if !ok {
		return b, fmt.Errorf("event %s: the original is not a part of it", e.ID)
	}
	if b == nil {
		b = make([]byte, 0, 256+len(e.ID)+len(e.PartitionKey)+len(e.Subject)+len(e.Structured))
	}
	flags := byte(0)
	if e.Dead {
		flags |= binaryDead
	}
	b = append(b, binaryVersion, flags)
	b = appendString(b, e.ID)
	b = appendString(b, e.PartitionKey)
	b = binary.AppendVarint(b, e.Received.Unix())
	b = binary.AppendUvarint(b, uint64(e.Received.Nanosecond()))
	for _, s := range [...]string{e.Source, e.Type, e.Subject, e.Time, e.DataSchema, e.Name, e.WebhookID, e.TraceParent, e.Scheme} {
		b = appendString(b, s)
	}
	b = appendPart(b, e.Data, data)
	b = appendPart(b, e.Original, original)
	b = binary.AppendUvarint(b, uint64(len(e.Structured)))
	return append(b, e.Structured...), nil
}

// UnmarshalBinary sets the event to what b holds, of which it keeps a copy. The error matches ErrBinary; e is then as
// it was. Received is in UTC.
func (e *Event) UnmarshalBinary(b []byte) error {
	r := reader{rest: bytes.Clone(b)}
	label := r.label()
	got := Event{ID: label.Key.ID, Dead: label.Key.Dead, PartitionKey: label.PartitionKey, Received: label.Received}
	for _, s := range [...]*string{
		&got.Source, &got.Type, &got.Subject, &got.Time, &got.DataSchema, &got.Name, &got.WebhookID, &got.TraceParent, &got.Scheme,
	} {
		*s = string(r.bytes())
	}
	data, dataAt := r.part()
	original, originalAt := r.part()
	if structured := r.bytes(); len(structured) > 0 {
		got.Structured = structured
	}
	got.Data = r.cut(got.Structured, data, dataAt)
	got.Original = r.cut(got.Structured, original, originalAt)
	switch {
	case r.err != nil:
		return r.err
	case len(r.rest) > 0:
		return fmt.Errorf("%w: %d bytes behind it", ErrBinary, len(r.rest))
	}
	*e = got
	return nil
}

// ReadLabel returns what an event in binary form begins with. The error matches ErrBinary. That it is nil says nothing
// of the rest.
func ReadLabel(b []byte) (Label, error) {
	r := reader{rest: b}
	label := r.label()
	return label, r.err
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPart(b, part []byte, at int) []byte {
	if part == nil {
		return append(b, 0)
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(len(part))+1), uint64(at))
}

// offset is where part stands in whole. As a rule nothing but braces follows it.
func offset(whole, part []byte) (at int, ok bool) {
	for braces := 1; braces <= 2; braces++ {
		at = len(whole) - braces - len(part)
		if at >= 0 && bytes.Equal(whole[at:at+len(part)], part) {
			return at, true
		}
	}
	at = bytes.Index(whole, part)
	return at, at >= 0
}

// reader takes the binary form apart. After an error it yields nothing.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrBinary, what)
	}
	r.rest = nil
}

func (r *reader) label() Label {
	if len(r.rest) < 2 || r.rest[0] != binaryVersion || r.rest[1]&^binaryDead != 0 {
		r.fail("unknown version")
		return Label{}
	}
	label := Label{Key: Key{Dead: r.rest[1]&binaryDead != 0}}
	r.rest = r.rest[2:]
	label.Key.ID = string(r.bytes())
	label.PartitionKey = string(r.bytes())
	seconds, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail("it ends too early")
		return label
	}
	r.rest = r.rest[n:]
	nanos := r.number()
	if nanos > 999_999_999 {
		r.fail("no time")
	}
	label.Received = time.Unix(seconds, int64(nanos)).UTC()
	return label
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail("it ends too early")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) bytes() []byte {
	size := r.number()
	if size > uint64(len(r.rest)) {
		r.fail("it ends too early")
		return nil
	}
	b := r.rest[:size:size]
	r.rest = r.rest[size:]
	return b
}

// part returns a part's length + 1, or 0 if it is nil, and where it begins.
func (r *reader) part() (size, at uint64) {
	if size = r.number(); size > 0 {
		at = r.number()
	}
	return size, at
}

func (r *reader) cut(whole []byte, size, at uint64) []byte {
	if size == 0 {
		return nil
	}
	size--
	if at > uint64(len(whole)) || size > uint64(len(whole))-at {
		r.fail("a part lies outside")
		return nil
	}
	return whole[at : at+size : at+size]
}
