package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// second is the environment of another bridge on the data directory of environ, with known addresses.
func second(t *testing.T, environ []string, more ...string) (all []string, public, admin string) {
	t.Helper()
	public, admin = freeAddr(t), freeAddr(t)
	return append(append(slices.Clip(environ), "BRIDGE_ADDR="+public, "BRIDGE_ADMIN_ADDR="+admin), more...), public, admin
}

func pidOf(t *testing.T, environ []string) string {
	t.Helper()
	for _, line := range environ {
		if dir, ok := strings.CutPrefix(line, "BRIDGE_DATA_DIR="); ok {
			text, err := os.ReadFile(filepath.Join(dir, "LOCK"))
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatal("no data directory")
	return ""
}

func TestOneProcessPerDataDir(t *testing.T) {
	t.Parallel()
	environ := local(t)
	first := spawn(t, environ).up(t)
	first.becomes(t, http.StatusOK)
	first.must(t, "published", "msg_1", sample(t, "batch.failed"))
	pid := pidOf(t, environ)
	if pid == strconv.Itoa(os.Getpid()) {
		t.Fatal("the first one has no process of its own")
	}

	refused, public, admin := second(t, environ, "BRIDGE_SHUTDOWN_TIMEOUT=5s")
	b := launch(t, refused)
	b.admin = "http://" + admin
	b.becomes(t, http.StatusServiceUnavailable, "{Name:bridge State:down", "starting", "held by process "+pid, "BRIDGE_DATA_DIR")
	if conn, err := net.Dial("tcp", public); err == nil {
		conn.Close()
		t.Error("it accepts webhooks without a data directory")
	}
	if code := b.exit(t); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	b.log.line(t, `"level":"error"`, "not started", "held by process "+pid, "BRIDGE_DATA_DIR")
	if waiting := b.log.lines("waiting for the data directory"); len(waiting) != 1 {
		t.Errorf("waiting: %q", waiting)
	}
	if _, err := b.ready(); err == nil {
		t.Error("its admin listener is still there")
	}

	// The first one had no harm of it, and its successor knows what it knew.
	for _, end := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGTERM, exitOK}, {syscall.SIGKILL, -1}} {
		next := spawn(t, environ)
		next.log.line(t, "waiting for the data directory", "held by process "+pidOf(t, environ))
		first.must(t, "duplicate", "msg_1", sample(t, "batch.failed"))
		first.signal(end.signal)
		next.up(t).becomes(t, http.StatusOK)
		if code := first.exit(t); code != end.code {
			t.Errorf("the first one: exit code %d, want %d", code, end.code)
		}
		next.must(t, "duplicate", "msg_1", sample(t, "batch.failed"))
		first = next
	}
	consume(t, connect(t, first.nats), "GEMINI", 1)
}

// TestSignalWhileWaiting: a bridge that waits for the data directory ends as it was asked.
func TestSignalWhileWaiting(t *testing.T) {
	t.Parallel()
	environ := local(t, "BRIDGE_SHUTDOWN_TIMEOUT=1h")
	launch(t, environ).up(t)
	b := launch(t, environ)
	b.log.line(t, "waiting for the data directory")
	if code := b.stop(t); code != exitOK {
		t.Errorf("exit code %d, want %d\n%s", code, exitOK, b.log)
	}
	if lines := b.log.lines(`"level":"error"`); len(lines) > 0 {
		t.Errorf("errors: %q", lines)
	}
}

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by it")
	never := func(held error) { t.Errorf("waits: %v", held) }
	unlock, err := lockDir(t.Context(), dir, never)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v, want a directory for its owner alone", info, err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	waits := 0
	_, err = lockDir(ctx, dir, func(held error) {
		if !errors.Is(held, errHeld) || !strings.Contains(held.Error(), dir+" is held by process "+strconv.Itoa(os.Getpid())+";") {
			t.Errorf("held: %v", held)
		}
		if waits++; waits == 2 {
			cancel(nil)
		}
	})
	if !errors.Is(err, errHeld) || !errors.Is(err, context.Canceled) || waits != 2 {
		t.Errorf("after %d tries: %v", waits, err)
	}

	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	// It is let go while another waits.
	unlock, err = lockDir(t.Context(), dir, never)
	if err != nil {
		t.Fatal(err)
	}
	ctx, done := context.WithTimeout(t.Context(), patience)
	defer done()
	again, err := lockDir(ctx, dir, func(error) { _ = unlock() })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again() }()
	// A file in the way names the setting.
	if _, err := lockDir(t.Context(), writeFile(t, ""), never); err == nil || !strings.Contains(err.Error(), "BRIDGE_DATA_DIR") {
		t.Errorf("a file in the directory's place: %v", err)
	}
}
