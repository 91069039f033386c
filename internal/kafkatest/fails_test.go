package kafkatest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// failing is a test that may fail: what it says is kept.
type failing struct {
	testing.TB
	said []string
}

func (f *failing) Fatal(args ...any)                 { f.said = append(f.said, fmt.Sprint(args...)); runtime.Goexit() }
func (f *failing) Fatalf(format string, args ...any) { f.Fatal(fmt.Sprintf(format, args...)) }

// fatal returns what do said when it ended the test.
func fatal(t *testing.T, do func(t testing.TB)) string {
	t.Helper()
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(f)
	}()
	<-done
	return strings.Join(f.said, "\n")
}

func TestFailsWithWhatToInstall(t *testing.T) {
	oldJava := filepath.Join(t.TempDir(), "java")
	if err := os.WriteFile(oldJava, []byte("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	noJava := pathWithout(t, "java")
	cached := os.Getenv("XDG_CACHE_HOME")
	for _, tt := range []struct {
		name, path, cache, want string
		options                 kafkatest.Options
	}{
		{"no Java", noJava, cached, "apt-get install default-jdk-headless", kafkatest.Options{}},
		{"old Java", filepath.Dir(oldJava) + ":" + noJava, cached, "Java 17 or newer", kafkatest.Options{}},
		{"no Maven", pathWithout(t, "mvn"), t.TempDir(), "apt-get install maven", kafkatest.Options{}},
		{"no openssl", pathWithout(t, "openssl"), cached, "apt-get install openssl", kafkatest.Options{TLS: true}},
		{"four nodes", os.Getenv("PATH"), cached, "--nodes is 1 or 3", kafkatest.Options{Nodes: 4}},
		{"a setting without sense", os.Getenv("PATH"), cached, "num.io.threads", kafkatest.Options{Set: map[string]string{"num.io.threads": "many"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			t.Setenv("PATH", tt.path)
			t.Setenv("XDG_CACHE_HOME", tt.cache)
			got := fatal(t, func(t testing.TB) { kafkatest.Start(t, tt.options) })
			if !strings.Contains(got, tt.want) || strings.Contains(got, "end of the cluster") {
				t.Errorf("failed with %q, want it to say %q", got, tt.want)
			}
			if left, _ := os.ReadDir(temp); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// pathWithout makes a PATH with all that PATH has, but one program.
func pathWithout(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, from := range filepath.SplitList(os.Getenv("PATH")) {
		entries, _ := os.ReadDir(from)
		for _, e := range entries {
			if e.Name() != program {
				os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())) //nolint:errcheck // the first of a name wins
			}
		}
	}
	return dir
}

func TestSharedStays(t *testing.T) {
	got := fatal(t, func(t testing.TB) {
		kafkatest.Shared(t, kafkatest.Options{}).Kill(1)
	})
	if !strings.Contains(got, "take a cluster from Start") {
		t.Errorf("a kill of a shared node: %q", got)
	}
	c := kafkatest.Shared(t, kafkatest.Options{TLS: true})
	c.CreateTopic(c.Topic(), 1, nil)
}

// With KAFKATEST_OWNER set this is the owner: it starts a cluster, tells its address and waits for its death.
func TestOwnerDies(t *testing.T) {
	if os.Getenv("KAFKATEST_OWNER") != "" {
		c := kafkatest.Start(t, kafkatest.Options{})
		fmt.Fprintln(os.Stdout, "cluster", c.Bootstrap()[0])
		select {}
	}
	temp := t.TempDir()
	owner := exec.Command(os.Args[0], "-test.run=^TestOwnerDies$")
	owner.Env = append(os.Environ(), "KAFKATEST_OWNER=1", "TMPDIR="+temp)
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		if err := owner.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := owner.Wait(); err == nil {
			t.Error("the owner ended by itself")
		}
	})
	t.Cleanup(kill)

	var addr string
	for line := bufio.NewScanner(stdout); addr == "" && line.Scan(); {
		addr, _ = strings.CutPrefix(line.Text(), "cluster ")
	}
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kill()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the broker outlives the process that started it")
	}
	// The keeper deletes last.
	gone, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		left, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-gone.Done():
			t.Fatalf("left behind: %v", left)
		}
	}
}

func TestTakenPort(t *testing.T) {
	var blocked net.Listener
	tries := 0
	c := kafkatest.StartAt(t, func() (net.Listener, error) {
		l, err := kafkatest.FreePorts()
		if tries++; err != nil || tries > 1 {
			return l, err
		}
		// The port behind is the broker's, the one behind that the controller's.
		blocked, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port+2))
		return l, err
	})
	defer blocked.Close()
	if tries != 2 {
		t.Errorf("%d tries, want another after the one with a taken port", tries)
	}
	c.CreateTopic(c.Topic(), 1, nil)
}

func TestSummary(t *testing.T) {
	var a, b testing.TB
	t.Run("a", func(t *testing.T) { a = t })
	t.Run("b", func(t *testing.T) { b = t })
	got := kafkatest.Summary(t, "pkg/x", a, b, a)
	if want := "kafka 1.2.3: 2 tests on 3 clusters in pkg/x"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
