package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// of returns the value of a variable in environ, the last one, as the program sees it.
func of(environ []string, name string) (value string) {
	for _, line := range environ {
		if v, found := strings.CutPrefix(line, name+"="); found {
			value = v
		}
	}
	return value
}

// A letter for each reason why one may be what it is.
const (
	noID      = `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{}}`
	noVersion = `{"type":"video.generated","data":{"id":"videos/1","n":1.50}}`
	strange   = `{"type":"tuning.done","data":{"id":"tuned/1"}}`
	nonsense  = "no JSON \x1b[31m at all"
)

// withLetters is a bridge that has made four dead letters.
func withLetters(t *testing.T, environ []string) *bridge {
	t.Helper()
	b := launch(t, append(environ, "BRIDGE_ON_UNKNOWN=dead-letter")).up(t)
	b.becomes(t, 200, "{Name:nats State:ok")
	for _, l := range [][2]string{{"msg_no_id", noID}, {"msg_no_version", noVersion}, {"msg_strange", strange}, {"msg_nonsense", nonsense}} {
		b.must(t, "dead-lettered", l[0], l[1])
	}
	return b
}

// corrected is a schema directory by which noVersion is valid.
func corrected(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "video.generated.schema.json"), []byte(`{"type":"object"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// dead runs "bridge dead" and returns what it prints.
func dead(t *testing.T, environ []string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := invoke(t, environ, "", append([]string{"dead"}, args...)...)
	if got != code {
		t.Fatalf("bridge dead %q: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// listed is what "bridge dead list --json" tells.
func listed(t *testing.T, environ []string, args ...string) []deadSummary {
	t.Helper()
	stdout, stderr := dead(t, environ, exitOK, append([]string{"list", "--json"}, args...)...)
	if stderr != "" {
		t.Errorf("standard error: %s", stderr)
	}
	return parsed[deadSummary](t, stdout)
}

// parsed reads a JSON object per line.
func parsed[T any](t *testing.T, text string) (all []T) {
	t.Helper()
	for line := range strings.Lines(text) {
		var one T
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&one); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, one)
	}
	return all
}

func TestDeadList(t *testing.T) {
	t.Parallel()
	environ := remote(t, startBroker(t).url())
	before := time.Now()
	withLetters(t, environ)
	all := listed(t, environ)
	for i, want := range []deadSummary{
		{ID: "msg_no_id", Reason: "invalid_event", Type: "batch.succeeded", Bytes: len(noID), Place: "gemini-dead.batch.succeeded, record 1"},
		{ID: "msg_no_version", Reason: "invalid_event", Type: "video.generated", Bytes: len(noVersion), Place: "gemini-dead.video.generated, record 2"},
		{ID: "msg_strange", Reason: "unknown_type", Type: "tuning.done", Bytes: len(strange), Place: "gemini-dead.tuning.done, record 3"},
		{ID: "msg_nonsense", Reason: "invalid_event", Bytes: len(nonsense), Place: "gemini-dead.unreadable, record 4"},
	} {
		got := all[i]
		if got.ID != want.ID || got.Reason != want.Reason || got.Type != want.Type || got.Bytes != want.Bytes || got.Place != want.Place ||
			got.Scheme != "v1" || len(got.Replayed) != 0 || got.Received.Before(before.Add(-time.Second)) || len(got.Errors) == 0 {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}

	table, _ := dead(t, environ, exitOK, "list")
	if n := strings.Count(table, "\n"); n != 5 || strings.Contains(table, "\x1b") || !strings.Contains(table, "/data: missing property") {
		t.Errorf("got\n%s", table)
	}
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, 4},
		{[]string{"msg_strange"}, 1},
		{[]string{"msg_strange", "msg_no_id", "msg_none"}, 2},
		{[]string{"--type", "batch.succeeded"}, 1},
		{[]string{"--type", "unreadable"}, 1},
		{[]string{"--type", "none"}, 0},
		{[]string{"--reason", "invalid_event"}, 3},
		{[]string{"--reason", "unknown_type", "--type", "tuning.done"}, 1},
		{[]string{"--reason", "unknown_type", "--type", "batch.succeeded"}, 0},
		{[]string{"--since", "1h"}, 4},
		{[]string{"--since", soon}, 0},
		{[]string{"--until", "1h"}, 0},
		{[]string{"--until", soon}, 4},
		{[]string{"--sink", "nats"}, 4},
	} {
		if got := listed(t, environ, c.args...); len(got) != c.want {
			t.Errorf("%q: %d letters, want %d", c.args, len(got), c.want)
		}
	}
}

func TestDeadShow(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"structured", "binary"} {
		environ := remote(t, startBroker(t).url(), "BRIDGE_CONTENT_MODE="+mode)
		b := withLetters(t, environ)
		b.must(t, "dead-lettered", "msg_bytes", "\xff\x00")
		b.must(t, "dead-lettered", "msg_hidden", `{"type":"batch.failed","s":"`+"\u202e\u009b"+`"}`)
		for _, c := range []struct {
			id   string
			want []string
		}{
			{"msg_no_id", []string{"msg_no_id", "invalid_event", "/data: missing property", "webhook-id: msg_no_id", "traceparent: " + traceParent, "\n  \"data\": {}\n}\n", "record 1"}},
			{"msg_nonsense", []string{`no JSON \u001b[31m at all`}},
			{"msg_bytes", []string{"00000000  ff 00"}},
			{"msg_hidden", []string{`"s": "\u202e\u009b"`}},
		} {
			stdout, stderr := dead(t, environ, exitOK, "show", c.id)
			for _, want := range c.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("%s: no %q in\n%s%s", c.id, want, stdout, stderr)
				}
			}
			if strings.ContainsAny(stdout, "\x1b\u009b\u202e") {
				t.Errorf("%s: it may command the terminal", c.id)
			}
		}
		stdout, _ := dead(t, environ, exitOK, "show", "msg_nonsense", "--json")
		if got := idsOf(t, stdout); !slices.Equal(got, []string{"msg_nonsense"}) {
			t.Errorf("got %v", got)
		}
		if _, stderr := dead(t, environ, exitFailure, "show", "msg_none"); !strings.Contains(stderr, `there is no dead letter "msg_none"`) {
			t.Error(stderr)
		}
	}
}

// TestDeadMistakes: what is wrong is told before anything is done.
func TestDeadMistakes(t *testing.T) {
	t.Parallel()
	data := "BRIDGE_DATA_DIR=" + t.TempDir()
	both := []string{data, "BRIDGE_SINK=nats,kafka", "BRIDGE_KAFKA_BROKERS=127.0.0.1:1", "BRIDGE_NATS_URL=nats://" + freeAddr(t)}
	for _, c := range []struct {
		environ []string
		args    []string
		code    int
		want    string
	}{
		{nil, nil, exitUsage, "Usage: bridge dead"},
		{nil, []string{"lst"}, exitUsage, `bridge dead: unknown command "lst"`},
		{nil, []string{"list", "--reason", "none"}, exitUsage, `bridge dead list: --reason "none" is none of [invalid_event`},
		{nil, []string{"list", "--since", "yesterday"}, exitUsage, `bridge dead list: --since "yesterday" is neither`},
		{nil, []string{"list", "--until", "-1h"}, exitUsage, `bridge dead list: --until "-1h" is neither`},
		{nil, []string{"show"}, exitUsage, "bridge dead show: name one id, not 0"},
		{nil, []string{"show", "a", "b"}, exitUsage, "bridge dead show: name one id, not 2"},
		{nil, []string{"replay"}, exitUsage, "bridge dead replay: name ids or a filter, or --all"},
		{nil, []string{"replay", "a", "--all"}, exitUsage, "bridge dead replay: name ids or a filter, or --all"},
		{[]string{"BRIDGE_SINK=x"}, []string{"list"}, exitUsage, `BRIDGE_SINK: "x"`},
		{both, []string{"list"}, exitUsage, "bridge dead list: BRIDGE_SINK names two brokers: choose one with --sink nats or --sink kafka"},
		{[]string{data}, []string{"list", "--sink", "kafka"}, exitUsage, `bridge dead list: --sink "kafka": BRIDGE_SINK is nats`},
		{both, []string{"list", "--sink", "nats"}, exitFailure, "bridge dead list: NATS at 127.0.0.1:"},
		{[]string{data, "BRIDGE_NATS_EMBEDDED_ADDR=" + freeAddr(t)}, []string{"replay", "--all"}, exitFailure, "bridge dead replay: no embedded server has its data in "},
		{[]string{data, "BRIDGE_NATS_EMBEDDED_ADDR=" + freeAddr(t)}, []string{"list"}, exitFailure, "bridge dead list: NATS at 127.0.0.1:"},
	} {
		code, stdout, stderr := invoke(t, c.environ, "", append([]string{"dead"}, c.args...)...)
		if code != c.code || stdout != "" || !strings.HasPrefix(stderr, c.want) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	if entries, err := os.ReadDir(of([]string{data}, "BRIDGE_DATA_DIR")); err != nil || len(entries) > 0 {
		t.Errorf("they leave %v, %v in the data directory", entries, err)
	}

	environ := remote(t, startBroker(t).url())
	withLetters(t, environ)
	stdout, stderr := dead(t, environ, exitFailure, "replay", "msg_no_id", "msg_none")
	if !strings.HasPrefix(stdout, "msg_no_id  invalid  batch.succeeded  /data: missing property") || !strings.Contains(stderr, `no such dead letter`) || !strings.Contains(stderr, `"msg_none"`) {
		t.Errorf("stdout %s, stderr %s", stdout, stderr)
	}
}

func TestMixedArguments(t *testing.T) {
	for _, c := range []struct {
		args, want string
		flag       bool
	}{
		{"a b", "[a b]", false},
		{"a --json b", "[a b]", true},
		{"--json a", "[a]", true},
		{"a b --json", "[a b]", true},
		{"a -- --json", "[a --json]", false},
		{"--json -- -x --", "[-x --]", true},
		{"", "[]", false},
	} {
		f := newFlags("x", "")
		asJSON := f.Bool("json", false, "")
		operands, _, done := f.parseMixed(strings.Fields(c.args), shell{})
		if done || fmt.Sprint(operands) != c.want || *asJSON != c.flag {
			t.Errorf("%q: %q, %v", c.args, operands, *asJSON)
		}
	}
}
