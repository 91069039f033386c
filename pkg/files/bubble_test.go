package files_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
)

// bubble is a running watcher in a synctest bubble: time passes only while the test waits for it.
type bubble struct {
	t       *testing.T
	dir     string
	watcher *files.Watcher

	mu       sync.Mutex
	applied  []string // contents of a group joined with "+"
	refused  string   // apply refuses contents that contain it
	failures []string
	log      bytes.Buffer
}

var errRefused = errors.New("refused by apply")

// inBubble runs test with a watcher of the default interval.
func inBubble(t *testing.T, test func(*bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, dir: t.TempDir()}
		b.watcher = files.New(files.Config{
			Log:       zerolog.New(b),
			OnFailure: b.onFailure,
		})
		go b.watcher.Run(t.Context())
		test(b)
	})
}

func (b *bubble) path(name string) string { return filepath.Join(b.dir, name) }

// Write takes the watcher's log.
func (b *bubble) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(line)
}

func (b *bubble) onFailure(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = append(b.failures, name)
}

// refuse makes apply refuse contents with this in them.
func (b *bubble) refuse(contents string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = contents
}

func (b *bubble) apply(contents [][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	joined := string(bytes.Join(contents, []byte("+")))
	if b.refused != "" && strings.Contains(joined, b.refused) {
		return errRefused
	}
	b.applied = append(b.applied, joined)
	return nil
}

// watch starts to watch files in b.dir and forgets the first apply.
func (b *bubble) watch(names ...string) {
	b.t.Helper()
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = b.path(name)
	}
	if err := b.watcher.Watch("secrets", paths, b.apply); err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applied = nil
}

// write writes a file in place.
func (b *bubble) write(name, content string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := f.WriteString(content); err != nil {
		b.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// do fails the test on err.
func (b *bubble) do(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// looks lets the watcher look n times.
func (b *bubble) looks(n int) {
	<-time.After(time.Duration(n) * files.DefaultInterval)
	synctest.Wait()
}

// want checks what was applied since the last want.
func (b *bubble) want(applied ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.applied, applied) {
		b.t.Errorf("applied %q, want %q", b.applied, applied)
	}
	b.applied = nil
}

// wantLog checks how many failures were reported, and the log's messages, since the last wantLog.
func (b *bubble) wantLog(failures int, messages ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.failures) != failures {
		b.t.Errorf("OnFailure called %d times, want %d", len(b.failures), failures)
	}
	for _, name := range b.failures {
		if name != "secrets" {
			b.t.Errorf("OnFailure(%q), want the group's name", name)
		}
	}
	lines := slices.Collect(strings.Lines(b.log.String()))
	if len(lines) != len(messages) {
		b.t.Fatalf("log has %d lines, want %d:\n%s", len(lines), len(messages), b.log.String())
	}
	for i, line := range lines {
		if !strings.Contains(line, messages[i]) || !strings.Contains(line, `"file":"secrets","paths":["`+b.dir) {
			b.t.Errorf("log line %d is %s, want %q and the file's name and paths", i, line, messages[i])
		}
	}
	b.failures = nil
	b.log.Reset()
}

const (
	reloaded = "file reloaded"
	unusable = "stays in use"
	again    = "file is again what is in use"
)
