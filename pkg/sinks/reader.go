package sinks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Reader reads what a broker has of one stream or topic, as any consumer may, and takes nothing away.
type Reader interface {
	// Read calls fn with one record after the other, in the broker's order (on Kafka, that of each partition), and
	// waits for new ones. It goes on over lost connections until ctx ends or fn returns an error, and returns that
	// error. It returns nil only after the last record of a From that has an end. A stream or topic that does not
	// exist is an error that matches ErrMissing.
	Read(ctx context.Context, from From, fn func(Record) error) error
}

// From says where to begin. The zero value is FromStart.
type From struct {
	// New begins with the first record stored after Read was called.
	New bool
	// Since, unless it is zero, begins with the first record stored then or later.
	Since time.Time
	// ToEnd ends with the last record that was there when Read was called.
	ToEnd bool
}

// FromStart begins with the oldest record.
func FromStart() From { return From{} }

// FromNew begins with the first record stored after Read was called.
func FromNew() From { return From{New: true} }

// FromSince begins with the first record stored at t or later.
func FromSince(t time.Time) From { return From{Since: t} }

// Record is one record of a stream or topic.
type Record struct {
	Name     string // of the subject or topic
	Position Position
	Time     time.Time           // when it was stored
	Key      string              // by which Kafka chose the partition; empty elsewhere
	Header   map[string][]string // names as they were written
	Data     []byte
	// Event is the CloudEvent in the JSON format, whichever content mode the record has; nil if Err is not.
	Event []byte
	// Err matches ErrNoEvent when the record holds no CloudEvent.
	Err error
}

var (
	// ErrNoEvent appears when a record holds no CloudEvent in either content mode.
	ErrNoEvent = errors.New("record holds no CloudEvent")

	// ErrMissing appears when the stream or topic that is to be read does not exist.
	ErrMissing = errors.New("not found")
)

// JoinEvent makes the JSON form of an event in binary content mode: the attributes in the order of
// schema.Event.Attributes, then extensions by name, then data. Attributes that are empty are left out. The error
// matches ErrNoEvent; an attribute is then not UTF-8.
func JoinEvent(attributes map[string]string, data []byte) ([]byte, error) {
	names := []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey"}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	b := []byte{'{'}
	for _, name := range names {
		if attributes[name] == "" {
			continue
		}
		for _, text := range []string{name, attributes[name]} {
			var err error
			if b, err = jsontext.AppendQuote(b, text); err != nil {
				return nil, fmt.Errorf("%w: attribute %q: %w", ErrNoEvent, name, err)
			}
			b = append(b, ':')
		}
		b[len(b)-1] = ','
	}
	if jsontext.Value(data).IsValid() {
		b = append(append(b, `"data":`...), data...)
	} else {
		b = append(append(b, `"data_base64":"`...), base64.StdEncoding.EncodeToString(data)...)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}
