// Package files re-reads small files when they change: secrets, tokens, certificate pairs, credentials.
//
// It compares contents at an interval and asks the file system for nothing else. Notifications (inotify) do not
// work over NFS and follow neither a rename nor the symlink that Kubernetes swaps; modification times stay the
// same when a file is restored or written twice within their resolution.
package files

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// MaxSize is how many bytes a watched file may have. A larger one counts as unreadable.
const MaxSize = 1 << 20

// DefaultInterval is the time between two looks at the files.
const DefaultInterval = time.Second

// Keys of the log lines.
const (
	LogKeyFile  = "file"  // the name given to Watch
	LogKeyPaths = "paths" // the files behind it
)

// Config of a Watcher. The zero value works, without a log.
type Config struct {
	// Interval is the time between two looks, DefaultInterval when zero or less. A change is applied after two
	// looks have found the same, so at most two intervals after the last write.
	Interval time.Duration

	// Log gets one line per change of state: reloaded, unusable, usable again. Never contents.
	Log zerolog.Logger

	// OnFailure is called with the name given to Watch, each time that the files have become unusable in
	// another way. It may be nil, and must not block.
	OnFailure func(name string)
}

// Watcher looks after groups of files. Make one with New.
type Watcher struct {
	interval  time.Duration
	log       zerolog.Logger
	onFailure func(name string)

	mu     sync.Mutex
	groups []*group
}

// group is a set of files that is applied together. After Watch only Run touches it.
type group struct {
	name  string
	paths []string
	apply func(contents [][]byte) error

	inUse  state // what was applied last
	seen   state // what the last look found
	failed state // what was reported as unusable; zero when the files are fine
}

// state is what a look found. It keeps no contents, so no copy of a secret outlives its use. The zero value
// stands for nothing; no look returns it.
type state struct {
	digest [sha256.Size]byte
	err    string
}

// New returns a Watcher that watches nothing yet.
func New(cfg Config) *Watcher {
	w := &Watcher{interval: cfg.Interval, log: cfg.Log, onFailure: cfg.OnFailure}
	if w.interval <= 0 {
		w.interval = DefaultInterval
	}
	if w.onFailure == nil {
		w.onFailure = func(string) {}
	}
	return w
}

// Watch reads the files at paths and calls apply with their contents, in the order of paths. The error says
// which file could not be read, or is what apply returned; then nothing is watched.
//
// From then on, while Run runs, apply is called from Run's goroutine with all contents of the group whenever
// one of them has changed and stayed the same from one look to the next. If apply returns an error, or a file
// is missing, unreadable, not a regular file or larger than MaxSize, that is reported once and what was
// applied last stays in use; the same contents are not offered again. So apply must change nothing when
// it fails, and its error is logged, so it must not quote contents. The slices are apply's to keep.
//
// A writer that pauses for longer than an interval in the middle of a file is taken for one that has
// finished: apply then sees half a file. Writing beside it and renaming avoids that.
func (w *Watcher) Watch(name string, paths []string, apply func(contents [][]byte) error) error {
	g := &group{name: name, paths: slices.Clone(paths), apply: apply}
	contents, found, err := read(g.paths)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := apply(contents); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	g.inUse = found

	w.mu.Lock()
	defer w.mu.Unlock()
	w.groups = append(w.groups, g)
	return nil
}

// Run looks at the files until ctx ends. Call it once. A file system that does not answer holds it up, and
// with it only reloading.
func (w *Watcher) Run(ctx context.Context) {
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		w.mu.Lock()
		groups := w.groups
		w.mu.Unlock()
		for _, g := range groups {
			w.look(g)
		}
	}
}

func (w *Watcher) look(g *group) {
	contents, found, err := read(g.paths)
	if found != g.seen {
		// The file may be half written, or the pair half swapped: the next look tells. It holds for errors
		// too, since a file that is deleted and written again is missing for a moment.
		g.seen = found
		return
	}

	switch found {
	case g.inUse:
		if g.failed != (state{}) {
			g.failed = state{}
			w.log.Info().Str(LogKeyFile, g.name).Strs(LogKeyPaths, g.paths).Msg("file is again what is in use")
		}
		return
	case g.failed:
		return
	}

	if err == nil {
		err = g.apply(contents)
	}
	if err != nil {
		g.failed = found
		w.log.Error().Str(LogKeyFile, g.name).Strs(LogKeyPaths, g.paths).Err(err).
			Msg("changed file is unusable, what was read before stays in use")
		w.onFailure(g.name)
		return
	}
	g.inUse, g.failed = found, state{}
	w.log.Info().Str(LogKeyFile, g.name).Strs(LogKeyPaths, g.paths).Msg("file reloaded")
}

// read returns the contents of all files and a state that differs whenever anything in them does.
func read(paths []string) ([][]byte, state, error) {
	contents := make([][]byte, len(paths))
	digest := sha256.New()
	for i, path := range paths {
		content, err := readFile(path)
		if err != nil {
			return nil, state{err: err.Error()}, err
		}
		contents[i] = content
		// With the length in front, bytes that move from one file to the next make another digest.
		digest.Write(binary.BigEndian.AppendUint64(nil, uint64(len(content))))
		digest.Write(content)
	}
	return contents, state{digest: [sha256.Size]byte(digest.Sum(nil))}, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		// Opening a pipe would block, and a second reading find it empty.
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxSize {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("larger than 1 MiB")}
	}
	return content, nil
}
