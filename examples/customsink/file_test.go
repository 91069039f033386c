package customsink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gembridge/bridge/examples/customsink"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	features := sinkstest.Features{Count: 1000, TooLarge: customsink.MaxEvent + 1<<10}
	sinkstest.Run(t, features, func(t *testing.T) sinkstest.Harness {
		path := filepath.Join(t.TempDir(), "events.jsonl")
		return sinkstest.Harness{
			Sink:   open(t, path),
			Stored: func(t *testing.T) []sinkstest.Record { return stored(t, path) },
		}
	})
}

// TestReopen: what was acknowledged is a duplicate for the next process, what it finds half written is not there.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first := open(t, path)
	positions := map[schema.Key]sinks.Position{}
	for _, e := range []*schema.Event{sinkstest.Event(1), sinkstest.DeadLetter(1), sinkstest.Event(2)} {
		positions[e.Key()] = publish(t, first, e, false).Position
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	torn := sinkstest.Event(3).Structured
	appendTo(t, path, torn[:len(torn)-1])

	second := open(t, path)
	for _, e := range []*schema.Event{sinkstest.Event(1), sinkstest.DeadLetter(1), sinkstest.Event(2)} {
		if got, want := publish(t, second, e, true).Position, positions[e.Key()]; got != want {
			t.Errorf("%+v: at %+v, want %+v", e.Key(), got, want)
		}
	}
	publish(t, second, sinkstest.Event(3), false)
	publish(t, second, sinkstest.Event(3), true)
	if got := len(stored(t, path)); got != 4 {
		t.Errorf("%d events are stored, want 4", got)
	}
}

func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	publish(t, open(t, path), sinkstest.Event(1), false)
	appendTo(t, path, []byte("no event\n"))
	if _, err := customsink.Open(path); err == nil || !strings.Contains(err.Error(), "events.jsonl, line 2: ") {
		t.Errorf("got %v, want an error that names line 2", err)
	}
	if _, err := customsink.Open(filepath.Dir(path)); err == nil {
		t.Error("a directory was opened as a file")
	}
}

// TestBroken: after a failed write the sink is down, and the id is not taken.
func TestBroken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f := open(t, path)
	publish(t, f, sinkstest.Event(1), false)
	f.Break()
	if _, err := f.Publish(t.Context(), sinkstest.Event(2)); !errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("the write that failed: %v, want ErrUnknown", err)
	}
	for _, i := range []int{1, 2} {
		if ack, err := f.Publish(t.Context(), sinkstest.Event(i)); err == nil {
			t.Errorf("event %d afterwards: %+v, want an error", i, ack)
		}
	}
	if err := f.Ready(t.Context()); err == nil {
		t.Error("ready")
	}
	publish(t, open(t, path), sinkstest.Event(2), false)
}

func TestRefusesLineBreak(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "events.jsonl"))
	e := sinkstest.Event(1)
	e.Structured = bytes.Replace(e.Structured, []byte(","), []byte(",\n"), 1)
	if _, err := f.Publish(t.Context(), e); err == nil {
		t.Error("an event of two lines was stored")
	} else if _, refused := errors.AsType[*sinks.RefusedError](err); !refused {
		t.Errorf("got %v, want a RefusedError", err)
	}
}

func open(t *testing.T, path string) *customsink.File {
	t.Helper()
	f, err := customsink.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(context.WithoutCancel(t.Context())) })
	return f
}

func publish(t *testing.T, f *customsink.File, e *schema.Event, duplicate bool) sinks.Ack {
	t.Helper()
	ack, err := f.Publish(t.Context(), e)
	if err != nil || ack.Duplicate != duplicate {
		t.Fatalf("%+v: %+v, %v, want Duplicate %v", e.Key(), ack, err, duplicate)
	}
	return ack
}

func appendTo(t *testing.T, path string, data []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// stored reads the file as a consumer would.
func stored(t *testing.T, path string) (all []sinkstest.Record) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		event := bytes.TrimSuffix(line, []byte("\n"))
		var attributes struct{ ID, Type string }
		if err := json.Unmarshal(event, &attributes); err != nil {
			t.Fatalf("%v in %.200s", err, line)
		}
		all = append(all, sinkstest.Record{Dead: attributes.Type == schema.TypeDeadLetter, ID: attributes.ID, Event: event})
	}
	return all
}
