package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gembridge/bridge/schemas"
)

// demonstrate runs "bridge demo" in a process of its own: nothing can be written but a temporary directory, and that
// one is returned.
func demonstrate(t *testing.T, args ...string) (b *bridge, temporary string) {
	t.Helper()
	temporary = t.TempDir()
	// Settings are not the demo's business, not even wrong ones.
	environ := []string{"TMPDIR=" + temporary, "HOME=/proc", "PATH=" + os.Getenv("PATH"), "BRIDGE_NATS_URL=nonsense", "BRIDGE_ADDR=:80", "BRIDGE_NO_SUCH=1"}
	return spawn(t, environ, append([]string{"demo"}, args...)...), temporary
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	for _, port := range []string{"4222", "8080", "9090"} {
		if listener, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil { // else somebody else has it, which is as good
			defer listener.Close()
		}
	}
	b, temporary := demonstrate(t)
	if code := b.exit(t); code != exitOK || b.log.String() != "" {
		t.Fatalf("exit code %d, stderr:\n%s", code, b.log)
	}
	mustBeEmpty(t, temporary)

	types := schemas.Types()
	var subject string
	for line := range strings.Lines(b.out.String()) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "gemini."):
			subject = line
		case strings.HasPrefix(line, "{"):
			if len(types) == 0 {
				t.Fatalf("one more event: %s", line)
			}
			var e event.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if err := e.Validate(); err != nil || e.Type() != "com.google.gemini."+types[0] || subject != "gemini."+types[0] {
				t.Errorf("%v: %s of type %s, want %s", err, subject, e.Type(), types[0])
			}
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := judges()[schemas.Event].Validate(doc); err != nil {
				t.Errorf("%s: %v", subject, err)
			}
			types = types[1:]
		}
	}
	if len(types) > 0 || !strings.HasSuffix(b.out.String(), "\n9 of 9 events received.\n") {
		t.Errorf("no %q in:\n%s", types, b.out)
	}
}

// TestInterruptedDemo: Ctrl-C at any moment leaves nothing behind.
func TestInterruptedDemo(t *testing.T) {
	for name, moment := range map[string]func(b *bridge, temporary string) error{
		"store": func(_ *bridge, temporary string) error {
			if found, err := filepath.Glob(filepath.Join(temporary, "bridge-demo-*")); err != nil || len(found) == 0 {
				return errNotYet
			}
			return nil
		},
		"bridge": func(b *bridge, _ string) error {
			if len(b.out.lines("A bridge runs at")) == 0 {
				return errNotYet
			}
			return nil
		},
		"event": func(b *bridge, _ string) error {
			if len(b.out.lines("specversion")) == 0 {
				return errNotYet
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, temporary := demonstrate(t)
			eventually(t, func() error { return moment(b, temporary) })
			b.signal(syscall.SIGINT)
			if code := b.exit(t); code != exitOK && code != exitFailure {
				t.Errorf("exit code %d", code)
			}
			mustBeEmpty(t, temporary)
		})
	}
}

// TestAbandonedDemo: whoever reads the output leaves, or the terminal is closed.
func TestAbandonedDemo(t *testing.T) {
	t.Run("reader leaves", func(t *testing.T) {
		t.Parallel()
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		temporary := t.TempDir()
		cmd := exec.Command(program, "demo")
		cmd.Env = []string{asBridge + "=1", "TMPDIR=" + temporary, "GOCOVERDIR=" + t.TempDir()}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReaderSize(out, 16).ReadString('\n'); err != nil {
			t.Error(err)
		}
		out.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		mustBeEmpty(t, temporary)
	})
	t.Run("terminal is closed", func(t *testing.T) {
		t.Parallel()
		b, temporary := demonstrate(t, "--stay")
		eventually(t, func() error {
			if len(b.out.lines("It stays")) == 0 {
				return errNotYet
			}
			return nil
		})
		b.signal(syscall.SIGHUP)
		if code := b.exit(t); code != exitOK {
			t.Errorf("exit code %d", code)
		}
		mustBeEmpty(t, temporary)
	})
}

var (
	sendLine = regexp.MustCompile(`(?m)^  (BRIDGE_SIGNING_SECRETS=.* send .*)$`)
	tailLine = regexp.MustCompile(`(?m)^  (BRIDGE_NATS_URL=.* tail)$`)
)

// TestDemoStay: the lines that it prints can be pasted into a shell, wherever the program is.
func TestDemoStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's $HOME and \"more\"")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "bridge")
	test, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(test, program); err != nil {
		copyFile(t, test, program)
	}
	for name, path := range map[string]string{"by its path": os.Getenv("PATH"), "by its name": dir + ":" + os.Getenv("PATH")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			temporary := t.TempDir()
			b := newBridge(t)
			environ := []string{"TMPDIR=" + temporary, "PATH=" + path, asBridge + "=1"}
			b.start(t, environ, program, "demo", "--stay")
			b.out.line(t, "Any NATS client")
			text := b.out.String()
			send, tail := sendLine.FindStringSubmatch(text), tailLine.FindStringSubmatch(text)
			if send == nil || tail == nil {
				t.Fatalf("no lines to paste in:\n%s", text)
			}
			if byName := strings.Contains(send[1], " bridge send "); byName != (name == "by its name") {
				t.Errorf("the program's name in %s", send[1])
			}

			consumer := newBridge(t)
			consumer.start(t, environ, "sh", "-c", "exec env "+tail[1])
			eventually(t, func() error {
				sender := exec.Command("sh", "-c", send[1])
				sender.Env = environ
				if out, err := sender.CombinedOutput(); err != nil || !bytes.HasPrefix(out, []byte("202 ")) {
					t.Fatalf("%v: %s", err, out)
				}
				if len(consumer.out.lines("com.google.gemini.video.generated")) == 0 {
					return errNotYet
				}
				return nil
			})
			consumer.signal(syscall.SIGTERM)
			if code := consumer.exit(t); code != exitOK || consumer.log.String() != "" {
				t.Errorf("tail: exit code %d\n%s", code, consumer.log)
			}
			b.signal(syscall.SIGINT)
			if code := b.exit(t); code != exitOK || b.log.String() != "" {
				t.Errorf("demo: exit code %d\n%s", code, b.log)
			}
			mustBeEmpty(t, temporary)
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o700); err != nil {
		t.Fatal(err)
	}
}
