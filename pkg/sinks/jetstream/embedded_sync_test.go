package jetstream_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// lazy is a lazily syncing server with its sink.
type lazy struct {
	server    *jetstream.Embedded
	sink      *jetstream.LazySink
	disk      *disk
	cfg       jetstream.EmbeddedConfig
	log       *logs
	forgotten atomic.Int32
}

func startLazy(t *testing.T, dir string) *lazy {
	t.Helper()
	l := &lazy{cfg: embeddedConfig(dir), log: &logs{}, disk: newDisk(dir)}
	l.cfg.Lazy, l.cfg.Log = true, zerolog.New(l.log)
	l.server = startEmbeddedServer(t, l.cfg)
	l.server.OnFsync(l.disk.fsync)
	sink, err := jetstream.NewLazy(jetstream.Config{Log: l.cfg.Log}, l.server)
	if err != nil {
		t.Fatal(err)
	}
	l.sink = sink
	sink.OnForgotten(func() { l.forgotten.Add(1) })
	t.Cleanup(func() {
		if err := sink.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	eventuallyReady(t, sink.Sink)
	return l
}

func (l *lazy) sync(t *testing.T) {
	t.Helper()
	if err := l.sink.Sync(ctxOf(t, 20*time.Second)); err != nil {
		t.Fatalf("Sync: %v", err)
	}
}

// mustRemember starts a server on dir and sees that it knows the first n events.
func mustRemember(t *testing.T, dir string, n int) {
	t.Helper()
	l := startLazy(t, dir)
	held := map[string][]byte{}
	for _, r := range storedAt(t, l.server.ClientURL()) {
		held[r.ID] = r.Event
	}
	for i := range n {
		if e := sinkstest.Event(i); held[e.ID] == nil {
			t.Errorf("%s is lost", e.ID)
		} else if ack := publish(t, l.sink.Sink, i); !ack.Duplicate {
			t.Errorf("%s is not known any more", e.ID)
		}
	}
}

func TestSinkKinds(t *testing.T) {
	l := startLazy(t, t.TempDir())
	if l.server.SyncAlways() {
		t.Error("a lazy server syncs always")
	}
	for _, s := range []sinks.Sink{l.sink, l.sink.Sink} {
		_, syncs := s.(sinks.Syncer)
		_, forgets := s.(sinks.Forgetful)
		if want := s == sinks.Sink(l.sink); syncs != want || !forgets {
			t.Errorf("%T: Syncer %t, Forgetful %t, want %t and true", s, syncs, forgets, want)
		}
	}
}

// TestPowerFailure: what was acked before a Sync that went well is on the disk, however much is stored meanwhile.
func TestPowerFailure(t *testing.T) {
	l := startLazy(t, t.TempDir())
	var acked atomic.Int32
	var publishing sync.WaitGroup
	enough, cancel := context.WithCancel(t.Context())
	publishing.Go(func() {
		for i := 0; enough.Err() == nil; i++ {
			e := sinkstest.Event(i)
			if i%5 == 0 { // so that there are several block files
				e = sinkstest.LargeEvent(i, 500<<10)
			}
			if _, err := l.sink.Publish(t.Context(), e); err != nil {
				t.Error(err)
				return
			}
			acked.Store(int32(i) + 1)
		}
	})
	n := 0
	for round := 0; round < 10 || n < 100; round++ {
		n = int(acked.Load())
		l.sync(t)
	}
	dir := l.disk.afterPowerFailure(t)
	cancel()
	publishing.Wait()
	if blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "GEMINI", "msgs", "*.blk")); err != nil || len(blocks) < 2 {
		t.Errorf("%d block files, %v, want several", len(blocks), err)
	}
	mustRemember(t, dir, n)
}

// TestCloseSyncs: nothing that was acked is lost by a power failure after a clean stop.
func TestCloseSyncs(t *testing.T) {
	l := startLazy(t, t.TempDir())
	for i := range 20 {
		publish(t, l.sink.Sink, i)
	}
	if err := l.sink.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeEmbedded(t, l.server)
	if err := l.sink.Sync(t.Context()); err == nil {
		t.Error("a Sync after Close went well")
	}
	mustRemember(t, l.disk.afterPowerFailure(t), 20)
}

// TestCloseTellsOfAFailedSync: then nobody may take what was acked for durable.
func TestCloseTellsOfAFailedSync(t *testing.T) {
	dir := t.TempDir()
	l := &lazy{cfg: embeddedConfig(dir), disk: newDisk(dir)}
	l.cfg.Lazy = true
	e, err := jetstream.StartEmbedded(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	nc, js := embeddedBridge(t, e)
	makeEmbeddedStreams(t, js)
	embeddedPublish(t, js, "gemini.a", "1", "x")
	nc.Close()
	e.OnFsync(l.disk.fsync)
	l.disk.set(syscall.EIO, nil)
	if err := e.Close(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close: %v, want EIO", err)
	}
	// The next process rewrites what may never have been written, and only then takes the doubt away.
	marker := filepath.Join(dir, "unsynced")
	before := modified(t, dir)
	if _, err := os.Stat(marker); err != nil {
		t.Error(err)
	}
	startLazy(t, dir)
	if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the doubt is still there: %v", err)
	}
	if after := modified(t, dir); !after.After(before) {
		t.Error("nothing was rewritten")
	}
}

// modified is when the block file of events was written last.
func modified(t *testing.T, dir string) time.Time {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "GEMINI", "msgs", "1.blk"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// TestFailedSync: the store is down at once, what may not have been written is written once more, the server is
// started anew and the sink tells that it may have forgotten something.
func TestFailedSync(t *testing.T) {
	l := startLazy(t, t.TempDir())
	for i := range 10 {
		publish(t, l.sink.Sink, i)
	}
	before := modified(t, l.cfg.Dir)
	l.disk.set(syscall.EIO, nil)
	if err := l.sink.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync: %v, want EIO", err)
	}
	if err := ready(t, l.sink.Sink); !errors.Is(err, syscall.EIO) {
		t.Errorf("Ready: %v, want EIO", err)
	}
	if _, err := l.sink.Publish(ctxOf(t, 20*time.Second), sinkstest.Event(10)); !errors.Is(err, syscall.EIO) || errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("Publish: %v, want EIO, nothing sent", err)
	}
	if err := l.sink.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("second Sync: %v, want EIO: another fsync proves nothing", err)
	}
	l.disk.set(nil, nil)
	eventuallyReady(t, l.sink.Sink)
	if l.forgotten.Load() != 1 {
		t.Errorf("forgotten was called %d times, want once", l.forgotten.Load())
	}
	if after := modified(t, l.cfg.Dir); !after.After(before) {
		t.Error("the block file was not rewritten")
	}
	publish(t, l.sink.Sink, 10)
	l.sync(t)
	mustRemember(t, l.disk.afterPowerFailure(t), 11)
	for _, line := range []string{"it is started anew when", "started anew after"} {
		if n := l.log.count(line); n != 1 {
			t.Errorf("logged %q %d times, want once:\n%s", line, n, l.log)
		}
	}
}

// TestSlowSync: a disk that does not answer counts as down until it does.
func TestSlowSync(t *testing.T) {
	l := startLazy(t, t.TempDir())
	release := make(chan struct{})
	l.disk.set(nil, release)
	if err := l.sink.Sync(ctxOf(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Sync: %v, want its context's error", err)
	}
	eventuallyDown(t, l.sink.Sink, "no answer from the disk")
	l.disk.set(nil, nil)
	close(release)
	eventuallyReady(t, l.sink.Sink)
	if l.forgotten.Load() != 0 || l.log.count("started anew") != 0 {
		t.Errorf("started anew:\n%s", l.log)
	}
}

// TestSyncDuringAnother: a run over the store that had begun before the call may have passed by what was stored since.
func TestSyncDuringAnother(t *testing.T) {
	l := startLazy(t, t.TempDir())
	publish(t, l.sink.Sink, 0)
	release := make(chan struct{})
	l.disk.set(nil, release)
	results := make(chan error, 2)
	go func() { results <- l.sink.Sync(t.Context()) }()
	<-l.disk.held
	publish(t, l.sink.Sink, 1)
	go func() { results <- l.sink.Sync(t.Context()) }()
	l.disk.set(nil, nil)
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	blocks := 0
	for _, name := range l.disk.takeSyncs() {
		if strings.HasSuffix(name, filepath.Join("GEMINI", "msgs", "1.blk")) {
			blocks++
		}
	}
	if blocks != 2 {
		t.Errorf("the block was synced %d times, want twice", blocks)
	}
}

// TestSyncPassesOver: only what has changed is synced.
func TestSyncPassesOver(t *testing.T) {
	l := startLazy(t, t.TempDir())
	publish(t, l.sink.Sink, 0)
	past := time.Now().Add(-time.Hour)
	if err := filepath.WalkDir(l.cfg.Dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, past, past))
	}); err != nil {
		t.Fatal(err)
	}
	l.sync(t)
	if n := len(l.disk.takeSyncs()); n < 5 {
		t.Errorf("%d synced at first, want all", n)
	}
	l.sync(t)
	if names := l.disk.takeSyncs(); len(names) > 0 {
		t.Errorf("synced without need: %q", names)
	}
	publish(t, l.sink.Sink, 1)
	l.sync(t)
	names := l.disk.takeSyncs()
	if !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, "1.blk") }) || len(names) > 3 {
		t.Errorf("synced %q, want the block", names)
	}
}
