package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// waiting is how many events wait in the journal of NATS.
func (b *bridge) waiting(t *testing.T) int {
	t.Helper()
	return int(b.metrics(t)[`bridge_journal_waiting{sink="nats"}`]) // 0 without a journal
}

// drained waits until no event waits in the journal of NATS.
func (b *bridge) drained(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if n := b.waiting(t); n > 0 {
			return fmt.Errorf("%v events wait", n)
		}
		return nil
	})
}

// ofJob is a body about a job.
func ofJob(job int) string {
	return fmt.Sprintf(`{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/%d"}}`, job)
}

// spool posts events of three jobs to a bridge whose broker is away, and returns their ids.
func spool(t *testing.T, b *bridge, count int) (ids []string) {
	t.Helper()
	b.becomes(t, http.StatusOK, "degraded", "events are spooled", "BRIDGE_NATS_URL")
	for n := range count {
		id := fmt.Sprint("msg_", n)
		b.must(t, "spooled", id, ofJob(n%3))
		ids = append(ids, id)
	}
	b.must(t, "spooled", ids[0], ofJob(0)) // once
	if n := b.waiting(t); n != count {
		t.Errorf("%d events wait, want %d", n, count)
	}
	b.sinkUp(t, 0)
	return ids
}

// mustHaveInOrder looks at what the broker has: each id once, those of a job in the order in which they came.
func mustHaveInOrder(t *testing.T, js jetstream.JetStream, count int) {
	t.Helper()
	last := map[string]int{}
	for _, m := range consume(t, js, "GEMINI", count) {
		var e struct{ ID, Subject string }
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(e.ID, "msg_%d", &n); err != nil {
			t.Fatal(err)
		}
		if before, some := last[e.Subject]; some && n <= before {
			t.Errorf("%s of %s came behind msg_%d", e.ID, e.Subject, before)
		}
		last[e.Subject] = n
	}
}

// TestBrokerAwaySpools: senders hear 202 while the broker is away, also over a restart of the bridge, and it gets all of
// it in order.
func TestBrokerAwaySpools(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	url := broker.url()
	broker.stop()
	environ := remote(t, url)
	b := launch(t, environ).up(t)
	spool(t, b, 20)
	if code := b.stop(t); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, b.log)
	}
	b.log.line(t, `"events":20`, "events wait in the journal for the next start")

	b = launch(t, environ).up(t)
	b.becomes(t, http.StatusOK, "events are spooled")
	if n := b.waiting(t); n != 20 {
		t.Errorf("%d events wait after the restart", n)
	}
	b.must(t, "spooled", "msg_20", ofJob(20%3))
	broker.start(t)
	b.connected(t).drained(t)
	b.must(t, "duplicate", "msg_3", ofJob(0))
	b.must(t, "published", "msg_21", ofJob(0))
	mustHaveInOrder(t, connect(t, url), 22)
	got := b.metrics(t)
	if n := got[`bridge_journal_kept{sink="nats"}`]; n != 22 {
		t.Errorf("%v events are kept, want all 22", n)
	}
	if n := got[`bridge_journal_oldest_waiting_seconds{sink="nats"}`]; n != 0 {
		t.Errorf("the oldest has waited for %v seconds", n)
	}
}

// TestEmbeddedIsSynced: what the embedded server acknowledged leaves the journal once it is synced, not by time.
func TestEmbeddedIsSynced(t *testing.T) {
	t.Parallel()
	environ := local(t)
	b := launch(t, environ).up(t)
	for n := range 10 {
		b.must(t, "published", fmt.Sprint("msg_", n), ofJob(n))
	}
	eventually(t, func() error {
		if n := b.metrics(t)[`bridge_journal_kept{sink="nats"}`]; n > 0 {
			return fmt.Errorf("%v events are kept", n)
		}
		return nil
	})
	if code := b.stop(t); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, b.log)
	}
	stdout, _ := journalOf(t, environ, exitOK, "list", "--json")
	if stdout != "" {
		t.Errorf("after a clean stop the journal has\n%s", stdout)
	}
}

// TestJournalOff: no journal is made, the broker alone decides, and its directory is not needed.
func TestJournalOff(t *testing.T) {
	t.Parallel()
	environ := local(t, "BRIDGE_JOURNAL=off")
	b := launch(t, environ).up(t)
	b.must(t, "published", "msg_1", ofJob(1))
	if _, err := os.Stat(filepath.Join(of(environ, "BRIDGE_DATA_DIR"), "journal")); !os.IsNotExist(err) {
		t.Errorf("a journal: %v", err)
	}
	for series := range b.metrics(t) {
		if strings.HasPrefix(series, "bridge_journal") {
			t.Errorf("there is %s", series)
		}
	}
	launch(t, remote(t, startBroker(t).url(), "BRIDGE_JOURNAL=off", "BRIDGE_DATA_DIR=/proc/none")).up(t).connected(t)
}

// TestLockWithExternalBroker: the journal is one process's own.
func TestLockWithExternalBroker(t *testing.T) {
	t.Parallel()
	environ := remote(t, startBroker(t).url())
	launch(t, environ).up(t).connected(t)
	b := launch(t, append(slices.Clone(environ), "BRIDGE_SHUTDOWN_TIMEOUT=300ms"))
	if code := b.exit(t); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	b.log.line(t, "not started", "held by process "+pidOf(t, environ), "BRIDGE_DATA_DIR")
}

// TestQuarantine: what the broker takes neither as an event nor as a dead letter is set aside.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	url := startBroker(t).url()
	js := connect(t, url)
	for name, subject := range map[string]string{"GEMINI": "gemini.>", "GEMINI_DEAD": "gemini-dead.>"} {
		cfg := jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Duplicates: 25 * time.Hour, MaxMsgSize: 2000}
		if _, err := js.CreateStream(soon(t), cfg); err != nil {
			t.Fatal(err)
		}
	}
	environ := remote(t, url)
	b := launch(t, environ).up(t).connected(t)
	b.must(t, "dead-lettered", "msg_large", strings.Replace(ofJob(1), "{", `{"large":"`+strings.Repeat("l", 5000)+`",`, 1))
	b.must(t, "published", "msg_small", ofJob(1))
	got := b.metrics(t)
	if got[`bridge_journal_quarantined_total{sink="nats"}`] != 1 || got[`bridge_journal_waiting{sink="nats"}`] != 0 {
		t.Errorf("quarantined %v, waiting %v", got[`bridge_journal_quarantined_total{sink="nats"}`], got[`bridge_journal_waiting{sink="nats"}`])
	}
	if files, err := os.ReadDir(filepath.Join(of(environ, "BRIDGE_DATA_DIR"), "quarantine", "nats")); err != nil || len(files) != 1 {
		t.Errorf("quarantine: %v, %v", files, err)
	}
}
