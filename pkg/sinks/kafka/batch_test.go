package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// TestEncode reads batches back with kafka-go's decoder.
func TestEncode(t *testing.T) {
	events := []*schema.Event{sinkstest.Event(0), sinkstest.DeadLetter(1), sinkstest.LargeEvent(2, 100_000)}
	for i := 3; i < 300; i++ { // numbers in the batch of one byte and of two
		events = append(events, sinkstest.Event(i))
	}
	events[1].TraceParent = ""
	events[2].PartitionKey = ""
	now := time.UnixMilli(1_790_000_000_123)
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for _, mode := range []Mode{Structured, Binary} {
			t.Run(fmt.Sprint(name, mode), func(t *testing.T) {
				codec, _ := compression(name)
				var batch []*pending
				for _, e := range events {
					batch = append(batch, &pending{record: newRecord(e, mode)})
				}
				set, err := newEncoder(codec).encode(nil, producer{1 << 40, 7}, 1<<30, now, batch)
				if err != nil {
					t.Fatal(err)
				}
				records := decode(t, set)
				if len(records) != len(events) {
					t.Fatalf("%d records, want %d", len(records), len(events))
				}
				for i, r := range records {
					if r.offset != int64(i) || !r.time.Equal(now) {
						t.Errorf("record %d: offset %d, time %s", i, r.offset, r.time)
					}
					if !r.hasKey || r.key != events[i].PartitionKey {
						t.Errorf("record %d: key %q, there %v", i, r.key, r.hasKey)
					}
					if want := newRecord(events[i], mode); !slices.Equal(r.headers, want.headers) || !bytes.Equal(r.value, want.value) {
						t.Errorf("record %d: %v %.100q", i, r.headers, r.value)
					}
				}
				if codec != 0 && len(set) > 100_000 {
					t.Errorf("%d bytes when compressed", len(set))
				}
				h := set[4:]
				if id, epoch, sequence := binary.BigEndian.Uint64(h[43:]), binary.BigEndian.Uint16(h[51:]), binary.BigEndian.Uint32(h[53:]); id != 1<<40 || epoch != 7 || sequence != 1<<30 {
					t.Errorf("producer %d, epoch %d, sequence %d", id, epoch, sequence)
				}
			})
		}
	}
}

// TestEncodeReuse: the buffer of one batch serves the next, also when it is longer or shorter.
func TestEncodeReuse(t *testing.T) {
	e := newEncoder(0)
	var b []byte
	for _, n := range []int{3, 200, 1} {
		var batch []*pending
		for i := range n {
			batch = append(batch, &pending{record: newRecord(sinkstest.Event(i), Structured)})
		}
		before := cap(b)
		var err error
		if b, err = e.encode(b, producer{1, 1}, 0, time.Now(), batch); err != nil {
			t.Fatal(err)
		}
		if n == 1 && cap(b) != before {
			t.Error("a shorter batch took new memory")
		}
		if records := decode(t, b); len(records) != n || !bytes.Equal(records[n-1].value, sinkstest.Event(n-1).Structured) {
			t.Errorf("batch of %d: %d records", n, len(records))
		}
	}
}

// TestRecordSize: most is never less than what a record takes.
func TestRecordSize(t *testing.T) {
	for _, i := range []int{0, 1, 63, 64, 8191, 8192, 1 << 20} {
		for _, e := range []*schema.Event{sinkstest.Event(i), sinkstest.LargeEvent(1, 70_000)} {
			r := newRecord(e, Binary)
			if n := len(r.appendTo(nil, i)); n > r.most() || n < r.most()-10 {
				t.Errorf("record %d takes %d bytes, at most %d", i, n, r.most())
			}
		}
	}
}

func TestAfter(t *testing.T) {
	for _, c := range []struct {
		sequence int32
		n        int
		want     int32
	}{{0, 1, 1}, {5, 100, 105}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 1, 1, math.MaxInt32}, {math.MaxInt32 - 2, 10, 7}} {
		if got := after(c.sequence, c.n); got != c.want {
			t.Errorf("%d and %d: %d, want %d", c.sequence, c.n, got, c.want)
		}
	}
}

// TestHeaders: the names and values of the CloudEvents Kafka binding, in both modes.
func TestHeaders(t *testing.T) {
	e := sinkstest.Event(7)
	structured := []header{
		{"content-type", "application/cloudevents+json; charset=UTF-8"},
		{"webhook-id", "msg_7"},
		{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	}
	if r := newRecord(e, Structured); !slices.Equal(r.headers, structured) || !bytes.Equal(r.value, e.Structured) {
		t.Errorf("structured: %v", r.headers)
	}
	binary := []header{
		{"ce_specversion", "1.0"},
		{"ce_id", "msg_7"},
		{"ce_source", "//generativelanguage.googleapis.com"},
		{"ce_type", "com.google.gemini.batch.succeeded"},
		{"ce_subject", "batches/job €2"},
		{"ce_time", "2026-01-22T12:00:00Z"},
		{"content-type", "application/json"},
		{"ce_dataschema", "https://example.com/event-v1.schema.json"},
		{"ce_partitionkey", "batches/job €2"},
		{"webhook-id", "msg_7"},
		{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	}
	if r := newRecord(e, Binary); !slices.Equal(r.headers, binary) || !bytes.Equal(r.value, e.Data) {
		t.Errorf("binary: %v", r.headers)
	}
	e = sinkstest.DeadLetter(7)
	e.Subject, e.Time, e.TraceParent = "", "", ""
	for _, h := range newRecord(e, Binary).headers {
		if strings.Contains("ce_subject ce_time traceparent", h.name) || h.value == "" {
			t.Errorf("dead letter has header %v", h)
		}
	}
}

type decoded struct {
	offset  int64
	time    time.Time
	hasKey  bool
	key     string
	value   []byte
	headers []header
}

func decode(t *testing.T, set []byte) []decoded {
	t.Helper()
	var rs protocol.RecordSet
	if n, err := rs.ReadFrom(bytes.NewReader(set)); err != nil || n != int64(len(set)) {
		t.Fatalf("read %d of %d bytes: %v", n, len(set), err)
	}
	var all []decoded
	for {
		r, err := rs.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		d := decoded{offset: r.Offset, time: r.Time, hasKey: r.Key != nil}
		key, _ := protocol.ReadAll(r.Key)
		d.key = string(key)
		d.value, _ = protocol.ReadAll(r.Value)
		for _, h := range r.Headers {
			d.headers = append(d.headers, header{h.Key, string(h.Value)})
		}
		all = append(all, d)
	}
}
