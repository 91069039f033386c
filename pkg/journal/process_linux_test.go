package journal_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

const (
	helperDir    = "JOURNAL_HELPER_DIR"
	helperRound  = "JOURNAL_HELPER_ROUND"
	helperStarve = "JOURNAL_HELPER_STARVE" // "files" or "mount"
	mountRefused = 75
)

// helper runs a test function of this file in a process of its own.
func helper(test, dir string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), append(env, helperDir+"="+dir)...)
	return cmd
}

func processConfig(dir string) journal.Config {
	return journal.Config{Dir: filepath.Join(dir, "journal"), MaxBytes: 64 << 20, SegmentBytes: 64 << 10}
}

// The process is killed again and again, over the same directory. What it said to be durable is there, what is there was
// appended, and nothing is there twice.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]uint64{}   // payload → sequence
	settling := map[uint64]bool{}  // Settle was called, or was about to be
	appending := map[string]bool{} // Append was called, or was about to be
	for round := range 8 {
		cmd := helper("TestKilledProcess", dir, helperRound+"="+strconv.Itoa(round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for sc := bufio.NewScanner(out); sc.Scan(); lines++ {
			word, rest, _ := strings.Cut(sc.Text(), " ")
			number, payload, _ := strings.Cut(rest, " ")
			switch seq, err := strconv.ParseUint(number, 10, 64); {
			case word == "append":
				appending[rest] = true
			case word == "acked" && err == nil:
				acked[payload] = seq
			case word == "settle" && err == nil:
				settling[seq] = true
			}
			if lines == 500+100*round {
				if err := cmd.Process.Kill(); err != nil { // SIGKILL
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); lines < 500 || err == nil {
			t.Fatalf("round %d: %d lines, %v", round, lines, err)
		}

		l := open(t, processConfig(dir))
		found := map[string]uint64{}
		if err := l.Read(0, func(seq uint64, payload []byte) error {
			p := strings.TrimRight(string(payload), ".")
			if found[p] != 0 || !appending[p] {
				t.Errorf("round %d: %d is %q: twice, or invented", round, seq, p)
			}
			found[p] = seq
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for p, seq := range acked {
			if found[p] != seq && !settling[seq] {
				t.Errorf("round %d: %q was acknowledged as %d and is found as %d", round, p, seq, found[p])
			}
		}
		if u := l.Usage(); u.Damaged != 0 {
			t.Errorf("round %d: %+v", round, u)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) < 1000 {
		t.Errorf("%d were acknowledged", len(acked))
	}
}

// TestKilledProcess does nothing when it is run as a test.
func TestKilledProcess(t *testing.T) {
	dir := os.Getenv(helperDir)
	if dir == "" || os.Getenv(helperRound) == "" {
		return
	}
	l, err := journal.Open(processConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	say := func(format string, args ...any) {
		_, _ = os.Stdout.WriteString(fmt.Sprintf(format, args...) + "\n") // one write, so that lines stay whole
	}
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				p := fmt.Sprintf("%s-%d-%d", os.Getenv(helperRound), w, i)
				say("append %s", p)
				seq, err := l.Append([]byte(p + strings.Repeat(".", 97*i%3000)))
				if err != nil {
					t.Error(err)
					return
				}
				say("acked %d %s", seq, p)
				if i%4 > 0 {
					say("settle %d", seq)
					l.Settle(seq)
				}
			}
		})
	}
	wg.Wait()
}

// A disk without space: an error, what was appended before stays readable, and it goes on when there is room. A process of
// its own is starved: by a small file system where the kernel lets us mount one, in a name space that ends with the
// process, and by a limit on the size of files everywhere.
func TestFullDisk(t *testing.T) {
	t.Run("limited files", func(t *testing.T) {
		if out, err := helper("TestStarvedProcess", t.TempDir(), helperStarve+"=files").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("small file system", func(t *testing.T) {
		cmd := helper("TestStarvedProcess", t.TempDir(), helperStarve+"=mount")
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
		case err != nil || !bytes.Contains(out, []byte("--- PASS")):
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestStarvedProcess does nothing when it is run as a test.
func TestStarvedProcess(t *testing.T) {
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
			return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 30 << 10, Max: limit.Max})
		}
		feed = func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit) }
		want = syscall.EFBIG
	case "mount":
		err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		if err == nil {
			err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m")
		}
		if err != nil {
			os.Exit(mountRefused)
		}
		starve = func() error {
			if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("ballast: %w", err)
			}
			return nil
		}
		feed = func() error { return os.Remove(ballast) }
		want = syscall.ENOSPC
	}
	l := open(t, processConfig(dir))
	var acked []string
	next := func() error {
		p := fmt.Sprint("payload ", len(acked), strings.Repeat(".", 1000))
		seq, err := l.Append([]byte(p))
		if err == nil {
			acked = append(acked, fmt.Sprint(seq, " ", p))
		}
		return err
	}
	for range 3 {
		for range 20 {
			if err := next(); err != nil {
				t.Fatal(err)
			}
		}
		if err := starve(); err != nil {
			t.Fatal(err)
		}
		var err error
		for n := 0; err == nil && n < 10_000; n++ {
			err = next()
		}
		if !errors.Is(err, journal.ErrFailing) || !errors.Is(err, want) || !errors.Is(l.Usage().Err, want) {
			t.Fatalf("got %v, want ErrFailing and %v", err, want)
		}
		if got := read(t, l, 0); strings.Join(got, "\n") != strings.Join(acked, "\n") {
			t.Fatalf("%d records, want %d", len(got), len(acked))
		}
		if err := feed(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // how soon is up to the journal
			if err := next(); err == nil {
				break
			} else if time.Since(start) > 5*time.Second {
				t.Fatalf("%v after there is room", err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, processConfig(dir))
	if got := read(t, l, 0); strings.Join(got, "\n") != strings.Join(acked, "\n") {
		t.Errorf("opened again: %d records, want %d", len(got), len(acked))
	}
}
