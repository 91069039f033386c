package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// journalOf runs "bridge journal" and returns what it prints.
func journalOf(t *testing.T, environ []string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := invoke(t, environ, "", append([]string{"journal"}, args...)...)
	if got != code {
		t.Fatalf("bridge journal %q: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// inJournal are the ids that "bridge journal list" tells.
func inJournal(t *testing.T, environ []string) (ids []string) {
	t.Helper()
	stdout, _ := journalOf(t, environ, exitOK, "list", "--json")
	for _, e := range parsed[entry](t, stdout) {
		ids = append(ids, e.ID)
	}
	return ids
}

// spooled is a bridge whose broker is away, and that has spooled events.
func spooled(t *testing.T, count int, more ...string) (b *bridge, environ, ids []string) {
	t.Helper()
	environ = append(remote(t, "nats://"+freeAddr(t)), more...)
	b = launch(t, environ).up(t)
	return b, environ, spool(t, b, count)
}

// TestJournalCommands: they read beside the running bridge, and what they print is what is there.
func TestJournalCommands(t *testing.T) {
	t.Parallel()
	b, environ, ids := spooled(t, 6)
	b.must(t, "spooled", "msg_dead", "[")
	b.must(t, "spooled", "3", ofJob(7)) // an id that looks like a number
	ids = append(ids, "msg_dead", "3")

	stdout, _ := journalOf(t, environ, exitOK, "list", "--json")
	all := parsed[entry](t, stdout)
	for i, e := range all {
		if e.ID != ids[i] || e.Sink != "nats" || e.Seq == 0 || e.Bytes < 100 || e.Received.IsZero() || e.Key == "" || e.Type == "" {
			t.Errorf("entry %d: %+v, want %s", i, e, ids[i])
		}
	}
	if len(all) != len(ids) || all[0].Key != "batches/0" || all[6].Type != "bridge.dead_letter" {
		t.Fatalf("got %+v", all)
	}
	table, _ := journalOf(t, environ, exitOK, "list")
	if strings.Count(table, "\n") != len(ids)+1 || !strings.Contains(table, "com.google.gemini.batch.succeeded") {
		t.Errorf("got\n%s", table)
	}

	stdout, _ = journalOf(t, environ, exitOK, "export")
	if got := idsOf(t, stdout); !slices.Equal(got, ids) {
		t.Errorf("exported %v, want %v", got, ids)
	}
	for names, want := range map[string][]string{
		"msg_4 msg_0": {"msg_0", "msg_4"}, "3": {"3"}, // the id, not the number
		fmt.Sprint(all[1].Seq): {"msg_1"}, fmt.Sprint(all[1].Seq, " msg_1"): {"msg_1"}, "--sink nats msg_dead": {"msg_dead"},
	} {
		stdout, _ := journalOf(t, environ, exitOK, append([]string{"export"}, strings.Fields(names)...)...)
		if got := idsOf(t, stdout); !slices.Equal(got, want) {
			t.Errorf("export %s: %v, want %v", names, got, want)
		}
	}
	stdout, _ = journalOf(t, environ, exitOK, "show", "msg_2")
	if !strings.HasPrefix(stdout, fmt.Sprintf("journal of nats, record %d, received 20", all[2].Seq)) || !strings.Contains(stdout, "\n  \"id\": \"msg_2\",\n") {
		t.Errorf("got\n%s", stdout)
	}
	if _, stderr := journalOf(t, environ, exitFailure, "show", "msg_none"); !strings.Contains(stderr, `no such event: "msg_none"`) {
		t.Errorf("got %s", stderr)
	}
	if _, stderr := journalOf(t, environ, exitFailure, "export", "msg_1", "99999", "x"); !strings.Contains(stderr, `no such event: "x", 99999`) {
		t.Errorf("got %s", stderr)
	}
	stdout, _ = journalOf(t, environ, exitOK, "verify", "--json")
	got := parsed[verdict](t, stdout)
	if len(got) != 1 || got[0].Sink != "nats" || got[0].Records != len(ids) || got[0].Damaged != 0 || got[0].Segments == 0 || got[0].Bytes == 0 || got[0].Version == 0 {
		t.Errorf("got %+v", got)
	}

	// Only a stopped bridge gives events up.
	if _, stderr := journalOf(t, environ, exitFailure, "drop", "--all", "--yes"); !strings.Contains(stderr, "held by process") {
		t.Errorf("got %s", stderr)
	}
	if n := b.waiting(t); n != len(ids) {
		t.Errorf("%d events wait", n)
	}
}

// TestJournalDrop: what is dropped is not forwarded, the rest is.
func TestJournalDrop(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	url := broker.url()
	broker.stop()
	environ := remote(t, url)
	b := launch(t, environ).up(t)
	ids := spool(t, b, 6)
	if code := b.stop(t); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, b.log)
	}
	stdout, stderr := journalOf(t, environ, exitFailure, "drop", "msg_1", "msg_2")
	if strings.Count(stdout, "\n") != 3 || !strings.Contains(stderr, "2 would be dropped: add --yes to do it") {
		t.Errorf("got %s%s", stdout, stderr)
	}
	if _, stderr := journalOf(t, environ, exitFailure, "drop", "msg_1", "msg_none", "--yes"); !strings.Contains(stderr, "no such event") {
		t.Errorf("got %s", stderr)
	}
	if got := inJournal(t, environ); !slices.Equal(got, ids) {
		t.Fatalf("the journal has %v, want %v", got, ids)
	}
	journalOf(t, environ, exitOK, "drop", "msg_1", "msg_2", "--yes")
	want := []string{"msg_0", "msg_3", "msg_4", "msg_5"}
	if got := inJournal(t, environ); !slices.Equal(got, want) {
		t.Fatalf("the journal has %v, want %v", got, want)
	}
	broker.start(t)
	b = launch(t, environ).up(t).connected(t)
	b.drained(t)
	if got := stored(t, connect(t, url), "GEMINI"); len(got) != 4 || got["msg_1"]+got["msg_2"] > 0 {
		t.Errorf("the broker has %v", got)
	}
}

// TestStrandedEvents: events for a sink that is not used any more, or in a journal that is off, keep the bridge from
// starting, until somebody decides.
func TestStrandedEvents(t *testing.T) {
	t.Parallel()
	b, environ, _ := spooled(t, 3)
	if code := b.stop(t); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, b.log)
	}
	toKafka := slices.DeleteFunc(slices.Clone(environ), func(line string) bool { return strings.HasPrefix(line, "BRIDGE_NATS") })
	toKafka = append(toKafka, "BRIDGE_SINK=kafka", "BRIDGE_KAFKA_BROKERS="+freeAddr(t))
	off := append(slices.Clone(environ), "BRIDGE_JOURNAL=off")
	for _, c := range []struct{ environ, want []string }{
		{toKafka, []string{"the journal has 3 events for the sink nats", "BRIDGE_SINK", "bridge journal list"}},
		{off, []string{"BRIDGE_JOURNAL is off while the journal has 3 events", "nats"}},
	} {
		b := launch(t, c.environ)
		if code := b.exit(t); code != exitFailure {
			t.Errorf("exit code %d, want %d", code, exitFailure)
		}
		b.log.line(t, append(c.want, "not started")...)
	}
	stdout, _ := journalOf(t, toKafka, exitOK, "export", "--sink", "nats")
	if got := idsOf(t, stdout); len(got) != 3 {
		t.Errorf("exported %v", got)
	}
	journalOf(t, toKafka, exitOK, "drop", "--all", "--yes", "--sink", "nats")
	launch(t, toKafka).up(t)
	launch(t, off).up(t)
}

// TestJournalDamage: a flipped byte is found, told, and costs no other event.
func TestJournalDamage(t *testing.T) {
	t.Parallel()
	b, environ, ids := spooled(t, 5)
	if code := b.stop(t); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, b.log)
	}
	files, err := filepath.Glob(filepath.Join(of(environ, "BRIDGE_DATA_DIR"), "journal", "nats", "*"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := false
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(text), `"id":"msg_2"`); i > 0 {
			text[i+6] ^= 0x20
			flipped = true
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !flipped {
		t.Fatalf("no event in %v", files)
	}
	stdout, stderr := journalOf(t, environ, exitFailure, "verify", "--json")
	if got := parsed[verdict](t, stdout); len(got) != 1 || got[0].Records != 4 || got[0].Damaged != 1 || !strings.Contains(stderr, "damaged") {
		t.Errorf("got %s%s", stdout, stderr)
	}
	stdout, stderr = journalOf(t, environ, exitFailure, "export")
	if got, want := idsOf(t, stdout), slices.Delete(slices.Clone(ids), 2, 3); !slices.Equal(got, want) || !strings.Contains(stderr, "it is damaged") {
		t.Errorf("got %v, want %v; %s", got, want, stderr)
	}
	b = launch(t, environ).up(t)
	if n := b.waiting(t); n != 4 {
		t.Errorf("%d events wait, want 4", n)
	}
	if n := b.metrics(t)[`bridge_journal_quarantined_total{sink="nats"}`]; n != 1 {
		t.Errorf("%v records are told to be damaged, want 1", n)
	}
}

func TestJournalMistakes(t *testing.T) {
	t.Parallel()
	environ := []string{"BRIDGE_DATA_DIR=" + t.TempDir()}
	for _, c := range []struct {
		environ []string
		args    []string
		code    int
		want    string
	}{
		{nil, nil, exitUsage, "Usage: bridge journal"},
		{nil, []string{"lst"}, exitUsage, `bridge journal: unknown command "lst"`},
		{nil, []string{"list", "x"}, exitUsage, `bridge journal list: unexpected argument "x"`},
		{nil, []string{"show"}, exitUsage, "bridge journal show: name one id or number, not 0"},
		{nil, []string{"drop", "--yes"}, exitUsage, "bridge journal drop: name ids or numbers, or --all"},
		{nil, []string{"drop", "--all", "msg_1"}, exitUsage, "bridge journal drop: name ids or numbers, or --all"},
		{[]string{"BRIDGE_SINK=x"}, []string{"list"}, exitUsage, `BRIDGE_SINK: "x"`},
		{environ, []string{"list"}, exitFailure, "bridge journal list: there is no journal"},
		{environ, []string{"verify", "--sink", "kafka"}, exitFailure, "bridge journal verify: there is no journal kafka"},
		{environ, []string{"drop", "--all"}, exitFailure, "bridge journal drop: there is no journal"},
	} {
		code, stdout, stderr := invoke(t, c.environ, "", append([]string{"journal"}, c.args...)...)
		if code != c.code || stdout != "" || !strings.HasPrefix(stderr, c.want) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	if text, err := json.Marshal(entry{}); err != nil || !strings.Contains(string(text), `"received"`) {
		t.Errorf("%s, %v", text, err)
	}
	dir := of(environ, "BRIDGE_DATA_DIR")
	for _, sink := range []string{"nats", "kafka"} {
		if err := os.MkdirAll(filepath.Join(dir, "journal", sink), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, stderr := journalOf(t, environ, exitFailure, "drop", "--all", "--yes"); !strings.Contains(stderr, "choose one with --sink") {
		t.Errorf("two journals: %s", stderr)
	}
}
