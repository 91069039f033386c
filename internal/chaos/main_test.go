package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "-child" {
		if err := child(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

var built sync.Mutex

// newRun is a run that says what it does to the test's log, with a bridge built from this tree.
func newRun(t *testing.T) *run {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	r := &run{out: toLog{t}, dir: t.TempDir()}
	r.only, r.kinds = regexp.MustCompile(""), regexp.MustCompile("")
	r.bridge = filepath.Join(r.dir, "bridge")
	if out, err := exec.Command("go", "build", "-o", r.bridge, "github.com/gembridge/bridge/cmd/bridge").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

type toLog struct{ t *testing.T }

func (l toLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// TestSmoke: a bridge with its own broker goes through what needs no further tools.
func TestSmoke(t *testing.T) {
	r := newRun(t)
	r.faults = 12
	r.kinds = regexp.MustCompile("^(bridge killed|bridge stopped|second process|senders' clocks|journal's last|journal's bit)")
	wrong, err := campaign("embedded NATS", setting{embedded: true, env: []string{"BRIDGE_ACK_TIMEOUT=8s"}}, r.faults)(t.Context(), r, filepath.Join(r.dir, "smoke"), 7)
	if err != nil || len(wrong) > 0 {
		t.Errorf("%v\n%s", err, strings.Join(wrong, "\n"))
	}
	answered := 0
	for _, row := range r.table.rows {
		answered += row.answered
	}
	if n := r.table.faults(); n < r.faults || answered < 10*n {
		t.Errorf("%d faults and %d answers: too few to prove anything", n, answered)
	}
}

// TestFindsLoss: without a journal, a broker that is set back loses what was answered 2xx, and that is told.
func TestFindsLoss(t *testing.T) {
	r := newRun(t)
	r.kinds = regexp.MustCompile("set back")
	forgetful := setting{nats: 1, env: []string{"BRIDGE_JOURNAL=off"}}
	wrong, err := campaign("one nats-server", forgetful, 1)(t.Context(), r, filepath.Join(r.dir, "loss"), 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(wrong) == 0 || !strings.HasPrefix(wrong[0], "nats: missing: msg_7_") {
		t.Errorf("%d things wrong, want missing events: %.1000q", len(wrong), wrong)
	}
	missing := 0
	for _, row := range r.table.rows {
		missing += row.missing
	}
	if missing == 0 {
		t.Errorf("the table has none missing:\n%s", r.table.markdown())
	}
}
