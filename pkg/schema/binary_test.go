package schema_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
)

// everyEvent is all that the bridge makes of the examples and of bodies that nobody would send.
func everyEvent(tb testing.TB) []*schema.Event {
	tb.Helper()
	r := registry(tb, "")
	var all []*schema.Event
	for _, ex := range append(examples(tb), oddBodies()...) {
		e := normalize(tb, r, string(ex.body))
		all = append(all, e, e.Refused("message size exceeds maximum allowed"),
			schema.DeadLetter(delivery(), "ping", schema.ReasonUnknown, nil, ex.body))
	}
	for _, tt := range badBodies() {
		_, invalid := validate(tb, r, []byte(tt.body))
		if invalid == nil {
			tb.Fatalf("%s: valid", tt.name)
		}
		all = append(all, schema.DeadLetter(delivery(), invalid.Type, schema.ReasonInvalid, invalid.Violations, []byte(tt.body)))
	}
	return append(all,
		&schema.Event{},
		&schema.Event{ID: "a", Dead: true, Received: time.Unix(-5, 7).UTC()},
		&schema.Event{ID: "empty parts", Structured: []byte(`{}`), Data: []byte{}, Original: []byte{}},
		&schema.Event{ID: "in the middle", Structured: []byte(`{"data":{"a":1},"b":2}`), Data: []byte(`{"a":1}`), Original: []byte("1")},
	)
}

func TestBinaryRoundTrip(t *testing.T) {
	for _, e := range everyEvent(t) {
		b, err := e.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		want := *e
		want.Received = e.Received.UTC()
		before := bytes.Clone(b)
		var got schema.Event
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatalf("%s: %v", e.ID, err)
		}
		clear(b) // what was read is a copy
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v, want\n%+v", got, want)
		}
		if cap(got.Data) != len(got.Data) || cap(got.Original) != len(got.Original) {
			t.Errorf("%s: appending to a part would write into the event", e.ID)
		}
		label, err := schema.ReadLabel(before)
		if wantLabel := (schema.Label{Key: e.Key(), PartitionKey: e.PartitionKey, Received: want.Received}); err != nil || label != wantLabel {
			t.Errorf("label: got %+v, %v, want %+v", label, err, wantLabel)
		}
		// The bytes are the event's alone: an appended one is the same, behind what was there.
		again, err := got.AppendBinary([]byte("before"))
		if err != nil || !bytes.Equal(again, append([]byte("before"), before...)) {
			t.Errorf("%s: appended %q, %v, want %q", e.ID, again, err, before)
		}
	}
}

func TestBinaryOfAForeignPart(t *testing.T) {
	for name, e := range map[string]*schema.Event{
		"data":     {ID: "a", Structured: []byte(`{"data":1}`), Data: []byte("2")},
		"original": {ID: "a", Structured: []byte(`{"data":1}`), Data: []byte("1"), Original: []byte("2")},
	} {
		if b, err := e.MarshalBinary(); err == nil {
			t.Errorf("%s: got %q, want an error: it is not a part of the event", name, b)
		}
	}
}

// No end too early is taken for a whole, nor is anything behind the end.
func TestBinaryBroken(t *testing.T) {
	e := everyEvent(t)[0]
	whole, err := e.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(name string, b []byte) {
		t.Helper()
		got := schema.Event{ID: "untouched"}
		if err := got.UnmarshalBinary(b); !errors.Is(err, schema.ErrBinary) {
			t.Errorf("%s: got %v, want ErrBinary", name, err)
		}
		if !reflect.DeepEqual(got, schema.Event{ID: "untouched"}) {
			t.Errorf("%s: the event was touched: %+v", name, got)
		}
	}
	for n := range whole {
		wrong("cut", whole[:n])
	}
	wrong("longer", append(bytes.Clone(whole), 0))
	newer := bytes.Clone(whole)
	newer[0] = 2
	wrong("newer", newer)
	flags := bytes.Clone(whole)
	flags[1] |= 2
	wrong("unknown flag", flags)
	for name, b := range map[string][]byte{
		"nothing":      {},
		"huge id":      {1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"no such time": {1, 0, 0, 0, 0, 0x80, 0x94, 0xeb, 0xdc, 3},
	} {
		if _, err := schema.ReadLabel(b); !errors.Is(err, schema.ErrBinary) {
			t.Errorf("%s: got %v, want ErrBinary", name, err)
		}
	}
	// Nine empty strings after the label, then data of one byte in an event of none.
	outside := append(bytes.Repeat([]byte{0}, 4+2+9), 2, 0, 0, 0)
	outside[0] = 1
	wrong("outside", outside)
}

func FuzzBinary(f *testing.F) {
	for _, e := range everyEvent(f) {
		if b, err := e.MarshalBinary(); err == nil && len(b) < 4096 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e schema.Event
		err := e.UnmarshalBinary(b)
		label, labelErr := schema.ReadLabel(b)
		if err != nil {
			if !errors.Is(err, schema.ErrBinary) {
				t.Fatal(err)
			}
			return
		}
		if want := (schema.Label{Key: e.Key(), PartitionKey: e.PartitionKey, Received: e.Received}); labelErr != nil || label != want {
			t.Errorf("label: got %+v, %v, want %+v", label, labelErr, want)
		}
		again, err := e.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var got schema.Event
		if err := got.UnmarshalBinary(again); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, %v, want %+v", got, err, e)
		}
	})
}
