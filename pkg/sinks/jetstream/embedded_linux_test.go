package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// No acknowledgement before its fsync, as the kernel sees it: between two of them there is a write to the
// stream's block file and then an fsync of that file which has succeeded.
func TestEmbeddedSyncsBeforeAck(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err == nil {
		err = exec.Command(strace, "-f", "-o", os.DevNull, "true").Run()
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("strace: %v", err)
		}
		t.Logf("strace: %v; what is left is TestEmbeddedSyncAlways", err)
		return
	}
	const n = 50
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := helperCommand("TestEmbeddedPublishProcess", t.TempDir(), helperCount+"="+fmt.Sprint(n), helperWorkers+"=1", helperRound+"=traced")
	cmd.Args = append([]string{strace, "-f", "-qq", "-y", "-s", "80", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o", trace}, cmd.Args...)
	cmd.Path = strace
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	acks, syncs, faults := readTrace(string(calls))
	for _, fault := range faults {
		t.Error(fault)
	}
	if acks != n || syncs < n {
		t.Errorf("%d acknowledged, %d fsyncs of the block file, want %d and at least as many", acks, syncs, n)
	}
}

var (
	tracedCall    = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(.*)$`)
	tracedResumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
)

// readTrace counts acknowledgements and block syncs, and finds acknowledgements without one.
func readTrace(trace string) (acks, syncs int, faults []string) {
	const (
		clean = iota
		written
		synced
	)
	state := clean
	syncing := map[string]bool{} // by thread: an fsync of the block under way, which began after the write
	syncEnds := func(thread, rest string) {
		if syncing[thread] && strings.HasSuffix(rest, "= 0") {
			syncs++
			if state == written {
				state = synced
			}
		}
		delete(syncing, thread)
	}
	for line := range strings.Lines(trace) {
		line = strings.TrimSpace(line)
		if m := tracedResumed.FindStringSubmatch(line); m != nil {
			if strings.Contains(m[2], "sync") {
				syncEnds(m[1], m[3])
			}
			continue
		}
		m := tracedCall.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, call, file, rest := m[1], m[2], m[3], m[4]
		block := strings.Contains(file, "/GEMINI/msgs/") && strings.HasSuffix(file, ".blk")
		switch {
		case strings.Contains(call, "sync") && block:
			syncing[thread] = state != clean
			if !strings.HasSuffix(rest, "<unfinished ...>") {
				syncEnds(thread, rest)
			}
		case strings.Contains(call, "write") && block:
			state = written
			clear(syncing) // those under way may have begun too early
		case call == "write" && strings.Contains(rest, `"acked `):
			acks++
			if state != synced {
				faults = append(faults, fmt.Sprintf("acknowledged before its fsync (write to the block: %t): %s", state == written, line))
			}
			state = clean
		}
	}
	return acks, syncs, faults
}

// The reader of traces must itself be able to find a fault.
func TestReadTrace(t *testing.T) {
	const write, ack = `7 pwrite64(9</d/GEMINI/msgs/1.blk>, "x", 1, 0) = 1`, `8 write(1<pipe:[1]>, "acked traced-0-1\n", 17) = 17`
	for name, test := range map[string]struct {
		trace  []string
		faults int
	}{
		"in order":             {[]string{write, `7 fsync(9</d/GEMINI/msgs/1.blk>) = 0`, ack}, 0},
		"resumed":              {[]string{write, `7 fsync(9</d/GEMINI/msgs/1.blk> <unfinished ...>`, `7 <... fsync resumed>) = 0`, ack}, 0},
		"no fsync":             {[]string{write, ack}, 1},
		"no write":             {[]string{ack}, 1},
		"fsync too late":       {[]string{write, ack, `7 fsync(9</d/GEMINI/msgs/1.blk>) = 0`}, 1},
		"fsync too early":      {[]string{`7 fsync(9</d/GEMINI/msgs/1.blk>) = 0`, write, ack}, 1},
		"began too early":      {[]string{`7 fsync(9</d/GEMINI/msgs/1.blk> <unfinished ...>`, write, `7 <... fsync resumed>) = 0`, ack}, 1},
		"not ended":            {[]string{write, `7 fsync(9</d/GEMINI/msgs/1.blk> <unfinished ...>`, ack, `7 <... fsync resumed>) = 0`}, 1},
		"failed":               {[]string{write, `7 fsync(9</d/GEMINI/msgs/1.blk>) = -1 EIO (Input/output error)`, ack}, 1},
		"another file":         {[]string{write, `7 fsync(9</d/GEMINI/msgs/index.db>) = 0`, ack}, 1},
		"another stream":       {[]string{write, `7 fsync(9</d/GEMINI_DEAD/msgs/1.blk>) = 0`, ack}, 1},
		"one for two acks":     {[]string{write, `7 fsync(9</d/GEMINI/msgs/1.blk>) = 0`, ack, ack}, 1},
		"one for two messages": {[]string{write, `7 fsync(9</d/GEMINI/msgs/1.blk>) = 0`, ack, write, ack}, 1},
	} {
		if _, _, faults := readTrace(strings.Join(test.trace, "\n")); len(faults) != test.faults {
			t.Errorf("%s: %q, want %d faults", name, faults, test.faults)
		}
	}
}

// A disk without space: no acknowledgement, a health that says why, and a new start as soon as there is room, with
// everything that was acknowledged. A process of its own is starved: by a small file system where the kernel lets us
// mount one, in a name space that ends with the process, and by a limit on the size of files everywhere.
func TestEmbeddedFullDisk(t *testing.T) {
	for _, lazy := range []string{"", "lazy"} {
		t.Run("limited files "+lazy, func(t *testing.T) {
			if out, err := helperCommand("TestEmbeddedStarvedProcess", t.TempDir(), helperStarve+"=files", helperLazy+"="+lazy).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
		t.Run("small file system "+lazy, func(t *testing.T) {
			cmd := helperCommand("TestEmbeddedStarvedProcess", t.TempDir(), helperStarve+"=mount", helperLazy+"="+lazy)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			if os.Geteuid() != 0 {
				cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
			}
			out, err := cmd.CombinedOutput()
			switch exit := (*exec.ExitError)(nil); {
			case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), errors.As(err, &exit) && exit.ExitCode() == mountRefused:
				t.Logf("no mounts here (%v); what is left is the limit on files", err)
			case err != nil:
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

const (
	helperStarve = "EMBEDDED_HELPER_STARVE" // "files" or "mount"
	helperLazy   = "EMBEDDED_HELPER_LAZY"   // not empty
	mountRefused = 75
)

// TestEmbeddedStarvedProcess does nothing when it is run as a test.
func TestEmbeddedStarvedProcess(t *testing.T) {
	dir := os.Getenv(helperDir)
	ballast := filepath.Join(dir, "ballast")
	var starve, feed func() error
	var want syscall.Errno
	switch os.Getenv(helperStarve) {
	case "":
		return
	case "files":
		signal.Ignore(syscall.SIGXFSZ)
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		starve = func() error {
			return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 256 << 10, Max: limit.Max})
		}
		feed = func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit) }
		want = syscall.EFBIG
	case "mount":
		err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		if err == nil {
			err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m")
		}
		if err != nil {
			os.Exit(mountRefused)
		}
		starve = func() error {
			err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600)
			if !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("ballast: %w", err)
			}
			return os.Truncate(ballast, 14<<20)
		}
		feed = func() error { return os.Remove(ballast) }
		want = syscall.ENOSPC
	}
	log := &logs{}
	cfg := embeddedConfig(filepath.Join(dir, "nats"))
	cfg.Lazy, cfg.Log = os.Getenv(helperLazy) != "", zerolog.New(log)
	e := startEmbeddedServer(t, cfg)
	_, js := embeddedBridge(t, e)
	makeEmbeddedStreams(t, js)
	if want == syscall.ENOSPC {
		starveByLimit(t, e, js)
	}
	s := openOnEmbedded(t, e, cfg.Lazy)
	told := make(chan struct{}, 100)
	s.OnForgotten(func() { told <- struct{}{} })
	consumer, err := nats.Connect(e.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()

	if err := starve(); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for ; acked < 10_000; acked++ {
		ctx := ctxOf(t, 3*time.Second)
		if _, err = s.Publish(ctx, sinkstest.LargeEvent(acked, 20<<10)); err == nil {
			continue
		}
		if !errors.Is(err, sinks.ErrUnknown) || !strings.Contains(err.Error(), "write error") || !strings.Contains(err.Error(), want.Error()) || ctx.Err() != nil {
			t.Errorf("after %d events: %v, want ErrUnknown and the reason before the deadline", acked, err)
		}
		break
	}
	if acked == 0 || acked == 10_000 {
		t.Errorf("%d were acknowledged", acked)
	}
	if want == syscall.ENOSPC {
		// It stays down, and says so, until there is room.
		for start := time.Now(); time.Since(start) < time.Second; time.Sleep(50 * time.Millisecond) {
			if _, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(acked)); err == nil || errors.Is(err, sinks.ErrUnknown) || !strings.Contains(err.Error(), want.Error()) {
				t.Fatalf("Publish: %v, want it not to be sent", err)
			}
			if err := ready(t, s); err == nil || !strings.Contains(err.Error(), want.Error()) {
				t.Fatalf("Ready: %v, want %v", err, want)
			}
		}
	}
	if err := feed(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published", func() error {
		_, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(acked))
		return err
	})
	eventuallyReady(t, s)

	stored := embeddedStored(t, js)
	for i := range acked + 1 {
		if id := sinkstest.Event(i).ID; stored[id] == "" {
			t.Errorf("%s of %d was acknowledged and is lost", id, acked)
		}
	}
	eventually(t, "reconnected", func() error {
		if !consumer.IsConnected() || consumer.Reconnects == 0 || consumer.ConnectedUrl() != e.ClientURL() {
			return errors.New(consumer.Status().String())
		}
		return nil
	})
	if got := len(told) > 0; got != cfg.Lazy {
		t.Errorf("the sink told that something may be forgotten: %t, want %t", got, cfg.Lazy)
	}
	if want == syscall.ENOSPC {
		for _, line := range []string{"it is started anew when", "started anew after"} {
			if n := log.count(line); n != 1 {
				t.Errorf("logged %q %d times, want once:\n%s", line, n, log)
			}
		}
	}
}

func openOnEmbedded(t *testing.T, e *jetstream.Embedded, lazy bool) *jetstream.Sink {
	t.Helper()
	if !lazy {
		s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{ConnOptions: e.ConnOptions()}, Health: e.Healthy})
		return s
	}
	s, err := jetstream.NewLazy(jetstream.Config{Log: zerolog.Nop()}, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s.Sink
}

// starveByLimit fills what the server may have of the disk. That is refused at once and shuts nothing.
func starveByLimit(t *testing.T, e *jetstream.Embedded, js natsjs.JetStream) {
	acked, err := publishUntilRefused(t, js, "limited")
	if api := (&natsjs.APIError{}); !errors.As(err, &api) || api.ErrorCode != 10023 {
		t.Errorf("after %d messages: %v, want insufficient resources", acked, err)
	}
	if acked == 0 {
		t.Error("nothing was acknowledged")
	}
	if err := e.Healthy(); err != nil {
		t.Error(err)
	}
	stream, err := js.Stream(t.Context(), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil { // as if the events had expired
		t.Fatal(err)
	}
	embeddedPublish(t, js, "gemini.a", "within the limit", "x")
}

func publishUntilRefused(t *testing.T, js natsjs.JetStream, prefix string) (acked int, err error) {
	t.Helper()
	for ; acked < 10_000; acked++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = js.Publish(ctx, "gemini.a", make([]byte, 20<<10), natsjs.WithMsgID(fmt.Sprint(prefix, "-", acked)), natsjs.WithRetryAttempts(0))
		cancel()
		if err != nil {
			return acked, err
		}
	}
	return acked, nil
}
