package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/schema"
)

// outcomes are what "bridge dead replay --json" tells, by letter.
func outcomes(t *testing.T, environ []string, code int, args ...string) map[string]outcome {
	t.Helper()
	stdout, _ := dead(t, environ, code, append([]string{"replay", "--json"}, args...)...)
	all := map[string]outcome{}
	for _, o := range parsed[outcome](t, stdout) {
		all[o.ID] = o
	}
	return all
}

func said(all map[string]outcome) string {
	var lines []string
	for id, o := range all {
		lines = append(lines, fmt.Sprint(id, ": ", o.Outcome, " ", o.Event))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

// replayAll replays as an operator would who has found out what was wrong.
func replayAll(t *testing.T, environ []string, schemas string) {
	t.Helper()
	environ = append(slices.Clone(environ), "BRIDGE_ON_UNKNOWN=dead-letter")
	const left = "msg_no_id: invalid , msg_no_version: invalid , msg_nonsense: invalid , msg_strange: unknown_type "
	if got := said(outcomes(t, environ, exitFailure, "--all")); got != left {
		t.Errorf("as they were: %s", got)
	}
	const first = "msg_no_id: invalid , msg_no_version: %s msg_no_version, msg_nonsense: invalid , msg_strange: unknown_type "
	if got, want := said(outcomes(t, environ, exitFailure, "--all", "--dry-run", "--schema-dir", schemas)), fmt.Sprintf(first, "would publish"); got != want {
		t.Errorf("dry run: %s", got)
	}
	if got := listed(t, environ, "msg_no_version"); len(got) != 1 || len(got[0].Replayed) != 0 {
		t.Errorf("a dry run leaves %+v", got)
	}
	if got, want := said(outcomes(t, environ, exitFailure, "--all", "--schema-dir", schemas)), fmt.Sprintf(first, "published"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// A second time there is nothing to do; by force there is.
	if got := said(outcomes(t, environ, exitOK, "msg_no_version")); got != "msg_no_version: replayed msg_no_version" {
		t.Errorf("again: %s", got)
	}
	for n := 1; n <= 2; n++ {
		want := fmt.Sprint("msg_no_version: published msg_no_version.replay-", n)
		if got := said(outcomes(t, environ, exitOK, "--force", "msg_no_version", "--schema-dir", schemas)); got != want {
			t.Errorf("by force: %s, want %s", got, want)
		}
	}
	if got := said(outcomes(t, slices.Concat(environ, []string{"BRIDGE_ON_UNKNOWN=publish"}), exitOK, "--type", "tuning.done")); got != "msg_strange: published msg_strange" {
		t.Errorf("with another policy: %s", got)
	}

	all := listed(t, environ)
	if len(all) != 4 {
		t.Fatalf("marks are taken for letters: %+v", all)
	}
	var replayed []string
	for _, s := range all {
		for _, r := range s.Replayed {
			replayed = append(replayed, fmt.Sprint(s.ID, " ", r.Event, " ", r.Result))
		}
	}
	want := []string{
		"msg_no_version msg_no_version published", "msg_no_version msg_no_version.replay-1 published", "msg_no_version msg_no_version.replay-2 published",
		"msg_strange msg_strange published",
	}
	if !slices.Equal(replayed, want) {
		t.Errorf("replayed: %q, want %q", replayed, want)
	}
}

// mustHaveReplayed looks at what consumers have of replayAll.
func mustHaveReplayed(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	want := map[string]int{"msg_no_version": 1, "msg_no_version.replay-1": 1, "msg_no_version.replay-2": 1, "msg_strange": 1}
	if got := stored(t, js, "GEMINI"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events: %v, want %v", got, want)
	}
	want = map[string]int{
		"msg_no_id": 1, "msg_no_version": 1, "msg_strange": 1, "msg_nonsense": 1,
		"msg_no_version.replayed": 1, "msg_no_version.replay-1.replayed": 1, "msg_no_version.replay-2.replayed": 1, "msg_strange.replayed": 1,
	}
	if got := stored(t, js, "GEMINI_DEAD"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("dead letters: %v, want %v", got, want)
	}
	s, err := js.Stream(soon(t), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(soon(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != "gemini.video.generated" || m.Header.Get("webhook-id") != "msg_no_version" || m.Header.Get("traceparent") != traceParent ||
		!strings.Contains(string(m.Data), `"original":`+noVersion) || !strings.Contains(string(m.Data), `"source":"urn:example:of-the-letter"`) {
		t.Errorf("got %s, %v\n%s", m.Subject, m.Header, m.Data)
	}
}

const letterSource = "BRIDGE_SOURCE=urn:example:of-the-letter"

// TestDeadReplay: of an external server, with and without a bridge beside it; of an embedded one that runs, and of one
// that does not.
func TestDeadReplay(t *testing.T) {
	t.Run("external", func(t *testing.T) {
		t.Parallel()
		url := startBroker(t).url()
		environ := remote(t, url)
		withLetters(t, append(slices.Clone(environ), letterSource))
		replayAll(t, environ, corrected(t))
		mustHaveReplayed(t, connect(t, url))
	})
	for _, journal := range []string{"on", "off"} {
		t.Run("running, journal "+journal, func(t *testing.T) {
			t.Parallel()
			environ := local(t, "BRIDGE_NATS_EMBEDDED_TOKEN="+natsToken, "BRIDGE_JOURNAL="+journal)
			b := spawn(t, append(slices.Clone(environ), letterSource, "BRIDGE_ON_UNKNOWN=dead-letter")).up(t)
			b.becomes(t, 200, "{Name:nats State:ok")
			for _, l := range [][2]string{{"msg_no_id", noID}, {"msg_no_version", noVersion}, {"msg_strange", strange}, {"msg_nonsense", nonsense}} {
				b.must(t, "dead-lettered", l[0], l[1])
			}
			replayAll(t, environ, corrected(t))
			// What was said to be published is there, whatever happens then.
			b.signal(syscall.SIGKILL)
			b.exit(t)
			b = launch(t, environ).up(t)
			b.becomes(t, 200, "{Name:nats State:ok")
			b.drained(t)
			mustHaveReplayed(t, connect(t, b.nats, tokenOption))
		})
	}
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		environ := local(t)
		b := withLetters(t, append(slices.Clone(environ), letterSource))
		if code := b.stop(t); code != exitOK {
			t.Fatalf("exit code %d\n%s", code, b.log)
		}
		replayAll(t, environ, corrected(t))
		b = launch(t, environ).up(t)
		b.becomes(t, 200, "{Name:nats State:ok")
		mustHaveReplayed(t, connect(t, b.nats))
		b.must(t, "duplicate", "msg_strange", strange)
	})
}

// TestDeadReplayDuplicate: an event whose id is there already is not stored again, and that is said.
func TestDeadReplayDuplicate(t *testing.T) {
	t.Parallel()
	url := startBroker(t).url()
	environ := remote(t, url)
	b := launch(t, environ).up(t)
	b.becomes(t, 200, "{Name:nats State:ok")
	b.must(t, "dead-lettered", "msg_1", noVersion)
	b.must(t, "published", "msg_1", sample(t, "batch.failed")) // the ids are two
	stdout, _ := dead(t, environ, exitOK, "replay", "msg_1", "--schema-dir", corrected(t))
	if !strings.HasPrefix(stdout, "msg_1  duplicate  video.generated  ") || !strings.Contains(stdout, "--force") {
		t.Errorf("got %s", stdout)
	}
	if got := listed(t, environ); len(got) != 1 || len(got[0].Replayed) != 1 || got[0].Replayed[0].Result != "duplicate" {
		t.Errorf("got %+v", got)
	}
	b.must(t, "published", "msg_1.replay-1", sample(t, "batch.failed")) // an id that is taken, and no mark tells
	if got := said(outcomes(t, environ, exitOK, "msg_1", "--force", "--schema-dir", corrected(t))); got != "msg_1: published msg_1.replay-2" {
		t.Errorf("by force: %s", got)
	}
	if got := stored(t, connect(t, url), "GEMINI"); got["msg_1"] != 1 || got["msg_1.replay-1"] != 1 || got["msg_1.replay-2"] != 1 || len(got) != 3 {
		t.Errorf("events: %v", got)
	}
}

// TestDeadReplayRefused: what the broker refused is refused again, and published once the broker takes it.
func TestDeadReplayRefused(t *testing.T) {
	t.Parallel()
	url := startBroker(t).url()
	js := connect(t, url)
	cfg := jetstream.StreamConfig{Name: "GEMINI", Subjects: []string{"gemini.>"}, Duplicates: 25 * time.Hour, MaxMsgSize: 200}
	if _, err := js.CreateStream(soon(t), cfg); err != nil {
		t.Fatal(err)
	}
	environ := remote(t, url)
	b := launch(t, environ).up(t)
	b.becomes(t, 200, "{Name:nats")
	body := sample(t, "batch.succeeded")
	b.must(t, "dead-lettered", "msg_1", body)
	if got := listed(t, environ); len(got) != 1 || got[0].Reason != "refused_by_sink" || got[0].Type != "batch.succeeded" {
		t.Fatalf("got %+v", got)
	}
	if got := said(outcomes(t, environ, exitFailure, "--reason", "refused_by_sink")); got != "msg_1: refused " {
		t.Errorf("got %s", got)
	}
	if got := listed(t, environ); len(got[0].Replayed) != 0 {
		t.Errorf("a refused letter is marked: %+v", got)
	}
	cfg.MaxMsgSize = -1
	if _, err := js.UpdateStream(soon(t), cfg); err != nil {
		t.Fatal(err)
	}
	if got := said(outcomes(t, environ, exitOK, "--reason", "refused_by_sink")); got != "msg_1: published msg_1" {
		t.Errorf("got %s", got)
	}
	if msgs := consume(t, js, "GEMINI", 1); !strings.Contains(string(msgs[0].Data()), `"original":`+body) {
		t.Errorf("got %s", msgs[0].Data())
	}
}

// TestForcedNumber: a number is not used twice, even when the broker has long forgotten the id.
func TestForcedNumber(t *testing.T) {
	r := replay{marks: marks{}}
	for _, c := range []struct {
		event string
		want  int
	}{{"", 1}, {"msg_1", 1}, {"msg_1.replay-1", 2}, {"msg_1.replay-x", 2}, {"msg_2.replay-9", 2}, {"msg_1.replay-7", 8}, {"msg_1.replay-3", 8}} {
		if c.event != "" {
			r.marks.add(schema.Mark{Letter: "msg_1", Event: c.event})
		}
		if got := r.next("msg_1"); got != c.want {
			t.Errorf("after %q: %d, want %d", c.event, got, c.want)
		}
	}
}
