package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/gembridge/bridge/pkg/sinks"
)

// idsOf reads the events of "bridge tail".
func idsOf(t *testing.T, stdout string) (ids []string) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		var e event.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if err := e.Validate(); err != nil || len(e.Data()) == 0 {
			t.Fatalf("%v in %s", err, line)
		}
		ids = append(ids, e.ID())
	}
	return ids
}

func TestTail(t *testing.T) {
	for _, mode := range []string{"structured", "binary"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := launch(t, local(t, "BRIDGE_CONTENT_MODE="+mode, "BRIDGE_NATS_EMBEDDED_TOKEN="+natsToken)).up(t)
			body := sample(t, "batch.succeeded")
			for _, id := range []string{"msg_1", "msg_2", "msg_3"} {
				b.must(t, "published", id, body)
			}
			b.must(t, "dead-lettered", "msg_dead", "[")
			environ := []string{"BRIDGE_NATS_EMBEDDED_ADDR=" + strings.TrimPrefix(b.nats, "nats://"), "BRIDGE_NATS_EMBEDDED_TOKEN=" + natsToken}
			for _, c := range []struct {
				args, ids []string
			}{
				{[]string{"--from", "start", "-n", "2"}, []string{"msg_1", "msg_2"}},
				{[]string{"--from", "1h", "-n", "3"}, []string{"msg_1", "msg_2", "msg_3"}},
				{[]string{"--dead", "--from", "start", "-n", "1"}, []string{"msg_dead"}},
			} {
				code, stdout, stderr := invoke(t, environ, "", append([]string{"tail"}, c.args...)...)
				if got := idsOf(t, stdout); code != exitOK || stderr != "" || fmt.Sprint(got) != fmt.Sprint(c.ids) {
					t.Errorf("%q: exit code %d, %v, stderr %q, want %v", c.args, code, got, stderr, c.ids)
				}
			}

			// Only what is new. It is there once it prints.
			live := command(t, environ, "tail")
			n := 0
			eventually(t, func() error {
				n++
				b.must(t, "published", fmt.Sprint("msg_new_", n), body)
				if len(live.out.lines()) < 2 {
					return errNotYet
				}
				return nil
			})
			if code := live.stop(t); code != exitOK || live.log.String() != "" {
				t.Errorf("exit code %d, stderr %s", code, live.log)
			}
			for _, id := range idsOf(t, live.out.String()) {
				if !strings.HasPrefix(id, "msg_new_") {
					t.Errorf("%s is not new", id)
				}
			}
		})
	}
}

// TestTailEvent: what is printed is the whole event, byte by byte the same in both content modes.
func TestTailEvent(t *testing.T) {
	t.Parallel()
	var printed [2]string
	body := strings.Replace(sample(t, "batch.failed"), `"id":"batches/`, `"id":"b\u00e4tches/%20/`, 1)
	for i, mode := range []string{"structured", "binary"} {
		b := launch(t, local(t, "BRIDGE_CONTENT_MODE="+mode)).up(t)
		b.must(t, "published", "msg_1", body)
		_, printed[i], _ = invoke(t, []string{"BRIDGE_NATS_URL=" + b.nats}, "", "tail", "--from", "start", "-n", "1")
	}
	if printed[0] != printed[1] || !strings.Contains(printed[0], `"original":`+body) {
		t.Errorf("structured: %s\nbinary: %s", printed[0], printed[1])
	}
}

// TestTailOfAnothersStream: a record that is no event is said to be none, and the next one is read.
func TestTailOfAnothersStream(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	js := connect(t, broker.url())
	environ := []string{"BRIDGE_NATS_URL=" + broker.url()}
	if code, _, stderr := invoke(t, environ, "", "tail"); code != exitFailure || !strings.Contains(stderr, "stream GEMINI") {
		t.Errorf("without a stream: exit code %d, %s", code, stderr)
	}
	b := launch(t, remote(t, broker.url())).up(t).connected(t)
	b.becomes(t, 200)
	for _, data := range []string{"junk", "{}"} {
		if _, err := js.Publish(soon(t), "gemini.junk", []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	b.must(t, "published", "msg_1", sample(t, "batch.succeeded"))
	code, stdout, stderr := invoke(t, environ, "", "tail", "--from", "start", "-n", "1")
	if code != exitOK || fmt.Sprint(idsOf(t, stdout)) != "[msg_1]" || strings.Count(stderr, "no CloudEvent") != 2 || !strings.Contains(stderr, "record 1") {
		t.Errorf("exit code %d, stdout %s, stderr %s", code, stdout, stderr)
	}
	s, err := js.Stream(soon(t), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State; got.Msgs != 3 || got.FirstSeq != 1 {
		t.Errorf("tail took something away: %+v", got)
	}
}

func TestParseFrom(t *testing.T) {
	now := time.Date(2026, 1, 22, 12, 0, 0, 0, time.UTC)
	since := now.Add(-90 * time.Minute)
	for text, want := range map[string]sinks.From{"start": {}, "new": {New: true}, "90m": {Since: since}} {
		if got, err := parseFrom(text, now); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0s", "-1h", "1", "1d", "Start"} {
		if _, err := parseFrom(text, now); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		":4222": "127.0.0.1:4222", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "127.0.0.1:1", "10.0.0.1:4222": "10.0.0.1:4222", "[::1]:2": "[::1]:2", "host:3": "host:3",
	} {
		if got := reachable(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
