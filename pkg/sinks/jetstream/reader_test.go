package jetstream_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

func mustTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestReadFrom(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	conn := jetstream.Conn{URL: b.url()}
	publish(t, s, 0)
	publish(t, s, 1)
	all := readN(t, conn, "GEMINI", sinks.FromStart(), 2)
	for i, r := range all {
		if r.Position.Sequence != uint64(i+1) || r.Time.IsZero() {
			t.Errorf("record %d: sequence %d at %s", i, r.Position.Sequence, r.Time)
		}
	}
	publish(t, s, 2)
	since := readN(t, conn, "GEMINI", sinks.FromSince(all[1].Time), 2)
	if since[0].Position.Sequence != 2 || since[1].Position.Sequence != 3 {
		t.Errorf("since the second: got %d, %d, want 2, 3", since[0].Position.Sequence, since[1].Position.Sequence)
	}
}

// TestReadNew reads over a restart of the broker: nothing old comes, nothing new is missed or comes twice.
func TestReadNew(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	publish(t, s, 0)
	r, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: b.url()}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	seen := make(chan uint64, 10)
	done := make(chan error, 1)
	go func() {
		done <- r.Read(ctx, sinks.FromNew(), func(r sinks.Record) error { seen <- r.Position.Sequence; return nil })
	}()
	js := b.admin(t)
	eventually(t, "reading", func() error {
		stream, err := js.Stream(ctx, "GEMINI")
		if err == nil && stream.CachedInfo().State.Consumers == 0 {
			err = errors.New("no consumer")
		}
		return err
	})
	publish(t, s, 1)
	if got := <-seen; got != 2 {
		t.Errorf("first new record: %d, want 2", got)
	}
	b.stop(t)
	b.start(t)
	eventuallyReady(t, s)
	publish(t, s, 2)
	publish(t, s, 3)
	for want := uint64(3); want <= 4; want++ {
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("after the restart: %d, want %d", got, want)
			}
		case err := <-done:
			t.Fatalf("Read ended: %v", err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v, want the context's error", err)
	}
}

func TestReadErrors(t *testing.T) {
	b := startBroker(t, nil)
	r, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: b.url()}, Stream: "NONE"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.Read(t.Context(), sinks.FromStart(), func(sinks.Record) error { return nil })
	if err == nil || !errors.Is(err, sinks.ErrMissing) || !strings.Contains(err.Error(), "stream NONE: ") || !strings.Contains(err.Error(), "not found") {
		t.Errorf("missing stream: %v", err)
	}
	b.stop(t)
	_, err = jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: "nats://joe:hush@" + strings.TrimPrefix(b.url(), "nats://")}})
	if err == nil || !strings.Contains(err.Error(), "cannot be reached") || strings.Contains(err.Error(), "hush") {
		t.Errorf("no broker: %v", err)
	}
}

// TestReadToEnd: what is there is read, also when the last ones are gone, and nothing is waited for.
func TestReadToEnd(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	publish(t, s, 0)
	js := b.admin(t)
	stream, err := js.Stream(t.Context(), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	r, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: b.url()}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	read := func(from sinks.From, each func(uint64)) (got []uint64) {
		t.Helper()
		from.ToEnd = true
		if err := r.Read(ctx, from, func(r sinks.Record) error {
			got = append(got, r.Position.Sequence)
			each(r.Position.Sequence)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	nothing := func(uint64) {}
	if got := read(sinks.FromStart(), nothing); !slices.Equal(got, []uint64{1}) {
		t.Errorf("one record: %v", got)
	}
	for i := 1; i < 5; i++ {
		publish(t, s, i)
	}
	if got := read(sinks.FromNew(), nothing); got != nil {
		t.Errorf("new: %v", got)
	}
	if got := read(sinks.FromSince(time.Now().Add(time.Hour)), nothing); got != nil {
		t.Errorf("since later: %v", got)
	}
	// More comes while it reads: that is behind the end.
	if got := read(sinks.FromStart(), func(n uint64) { publish(t, s, 100+int(n)) }); !slices.Equal(got, []uint64{1, 2, 3, 4, 5}) {
		t.Errorf("while more comes: %v", got)
	}
	if err := stream.DeleteMsg(ctx, 10); err != nil {
		t.Fatal(err)
	}
	if got := read(sinks.FromStart(), nothing); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("without the last: %v", got)
	}
	if err := stream.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	if got := read(sinks.FromStart(), nothing); got != nil {
		t.Errorf("of an empty stream: %v", got)
	}
}

func TestEvent(t *testing.T) {
	binary := func(pairs ...string) map[string][]string {
		h := map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"s"}, "ce-type": {"t"}}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = []string{pairs[i+1]}
		}
		return h
	}
	const head = `{"specversion":"1.0","id":"1","source":"s","type":"t",`
	for _, c := range []struct {
		name   string
		header map[string][]string
		data   string
		want   string // or
		err    string
	}{
		{"structured", map[string][]string{"Content-Type": {"application/cloudevents+json"}}, `{"a":1}`, `{"a":1}`, ""},
		{"structured, other case", map[string][]string{"content-type": {"Application/CloudEvents+json; charset=utf-8"}}, `{}`, `{}`, ""},
		{"structured, not JSON", map[string][]string{"Content-Type": {"application/cloudevents+json"}}, `{`, "", "not JSON"},
		{"binary", binary(), `{"b":1e400}`, head + `"data":{"b":1e400}}`, ""},
		{"extensions by name", binary("ce-zz", "1", "ce-aa", "2", "Nats-Msg-Id", "1"), `1`, head + `"aa":"2","zz":"1","data":1}`, ""},
		{"escapes", binary("ce-subject", "%22%5C%20%C3%A9%25"), `1`, head + `"subject":"\"\\ é%","data":1}`, ""},
		{"lower case", binary("ce-subject", "%c3%a9"), `1`, head + `"subject":"é","data":1}`, ""},
		{"not JSON", binary("ce-datacontenttype", "text/plain"), `hello`, head + `"datacontenttype":"text/plain","data_base64":"aGVsbG8="}`, ""},
		{"overlong UTF-8", binary("ce-subject", "%C0%A0"), `1`, "", "not UTF-8"},
		{"cut off", binary("ce-subject", "a%4"), `1`, "", "ends early"},
		{"no digits", binary("ce-subject", "%zz"), `1`, "", "header ce-subject"},
		{"no event", map[string][]string{"Content-Type": {"application/json"}}, `{}`, "", "no ce-specversion"},
		{"no header", nil, `{}`, "", "no ce-specversion"},
	} {
		got, err := jetstream.EventOf(c.header, []byte(c.data))
		switch {
		case c.err == "" && err != nil, string(got) != c.want:
			t.Errorf("%s: got %s, %v, want %s", c.name, got, err, c.want)
		case c.err != "" && (!errors.Is(err, sinks.ErrNoEvent) || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: got %v, want %s", c.name, err, c.err)
		}
	}
}
