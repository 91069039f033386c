package kafka

import (
	"encoding/binary"

	"github.com/gembridge/bridge/pkg/schema"
)

// Mode is the content mode of CloudEvents in which records are written.
type Mode int

const (
	// Structured puts the whole event as JSON into the record.
	Structured Mode = iota
	// Binary puts the event's data into the record and its attributes into "ce_" headers.
	Binary
)

// Names of headers (CloudEvents Kafka protocol binding 1.0.2, 3.2 and 3.3). headerWebhookID holds the event's id and is
// what the index knows records by.
const (
	headerContentType = "content-type"
	headerWebhookID   = "webhook-id"
	headerTraceParent = "traceparent"
	headerAttribute   = "ce_"

	contentTypeEvent = "application/cloudevents+json; charset=UTF-8"
)

// record is what stands in the log.
type record struct {
	key     string
	headers []header
	value   []byte
	size    int // of what encode writes, without its length and its place in the batch
}

type header struct{ name, value string }

// newRecord makes the record of an event.
func newRecord(e *schema.Event, mode Mode) record {
	r := record{key: e.PartitionKey, value: e.Structured}
	if mode == Structured {
		// No "ce_" headers beside it: the Python SDK takes those for the mark of binary mode.
		r.add(headerContentType, contentTypeEvent)
	} else {
		r.value = e.Data
		r.headers = make([]header, 0, 12)
		for _, a := range e.Attributes() {
			if a.Name == "datacontenttype" {
				r.add(headerContentType, a.Value)
			} else {
				r.add(headerAttribute+a.Name, a.Value)
			}
		}
	}
	r.add(headerWebhookID, e.ID)
	if e.TraceParent != "" {
		r.add(headerTraceParent, e.TraceParent)
	}
	r.size = 2 + lenSized(len(r.key)) + lenSized(len(r.value)) + lenVarint(int64(len(r.headers)))
	for _, h := range r.headers {
		r.size += lenSized(len(h.name)) + lenSized(len(h.value))
	}
	return r
}

func (r *record) add(name, value string) { r.headers = append(r.headers, header{name, value}) }

// most is how long appendTo makes a batch longer at most.
func (r *record) most() int { return r.size + 2*binary.MaxVarintLen32 }

// appendTo writes the record as number i of its batch (record format 2, https://kafka.apache.org/documentation/#record).
// The key is never null, not even if it is empty.
func (r *record) appendTo(b []byte, i int) []byte {
	b = binary.AppendVarint(b, int64(r.size+lenVarint(int64(i))))
	b = append(b, 0, 0) // attributes, and the time after the batch's
	b = binary.AppendVarint(b, int64(i))
	b = appendSized(b, r.key)
	b = append(binary.AppendVarint(b, int64(len(r.value))), r.value...)
	b = binary.AppendVarint(b, int64(len(r.headers)))
	for _, h := range r.headers {
		b = appendSized(b, h.name)
		b = appendSized(b, h.value)
	}
	return b
}

func appendSized(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func lenSized(n int) int { return lenVarint(int64(n)) + n }

func lenVarint(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
