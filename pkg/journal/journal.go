// Package journal is a log of records on the local disk. Append returns when its record is on the disk, with one sync
// for all who came meanwhile; records are read in order or one by one, settled in any order, and their files deleted
// from the front. It knows nothing of what is in a record.
//
// The format of the files is docs/journal-format.md.
package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"
)

var (
	// ErrFull appears when MaxBytes are in use and no segment at the front is settled. It ends when one is.
	ErrFull = errors.New("journal full")

	// ErrFailing appears when the disk refused a write, a sync or a new segment: it is full, or broken. The cause
	// is wrapped beside it. It ends by itself, at most a second after the disk takes writes again.
	ErrFailing = errors.New("journal failing")

	// ErrTooLarge appears when a record does not fit into a segment.
	ErrTooLarge = errors.New("record too large for the journal")

	// ErrClosed appears after Close.
	ErrClosed = errors.New("journal closed")

	// ErrGone appears when there is no such record, or it is settled.
	ErrGone = errors.New("no such record in the journal")

	// ErrDamaged appears when a record's bytes on the disk are no longer those that were appended.
	ErrDamaged = errors.New("record damaged")

	// ErrNewer appears when a segment was written by a newer version of this package. Nothing was changed.
	ErrNewer = errors.New("journal of a newer version")

	// ErrLocked appears when another process, or another Log in this one, has the directory. The message names
	// the holder's process id.
	ErrLocked = errors.New("journal in use")
)

const (
	// DefaultSegmentBytes is the size of a segment file.
	DefaultSegmentBytes = 8 << 20

	minSegmentBytes = 16 << 10
	maxSegmentBytes = 1 << 30 // an entry holds offsets in 32 bits

	retryAfter = time.Second            // how often a failing disk is tried
	flushAfter = 500 * time.Millisecond // how long a mark waits for a group that takes it along
)

// Config says where a Log is and how large it may get.
type Config struct {
	// Dir is the directory, made if it is missing, with mode 0700. It is locked while the Log is open. Required.
	Dir string
	// MaxBytes bounds the segments on disk, the prepared one included. At least two segments. Required.
	MaxBytes int64
	// SegmentBytes is the size of a segment file, at least 16 KiB. Default DefaultSegmentBytes. It may differ from
	// the one that existing segments were made with.
	SegmentBytes int64
	// FS is the file system. Default the operating system's.
	FS FS
}

// Log is an open journal. It is safe for concurrent use.
type Log struct {
	cfg        Config
	lock       io.Closer
	background sync.WaitGroup
	closing    sync.Once
	closeErr   error

	files  sync.Mutex // held while segment files are made or removed; taken before mu
	serial uint64     // of the newest segment file; guarded by files

	mu      sync.Mutex
	index             // next, acked and active are changed by the leading group only
	active  *segment  // takes the next group; nil after a failure
	spare   *segment  // prepared, empty
	why     error     // why the last append failed, nil when it did not
	stuck   error     // why the active segment was given up, or none could be made after it
	tried   time.Time // when a new segment was last tried while stuck
	pending []uint64  // settled, but no mark is in the log yet
	flush   *time.Timer
	tending bool // removal and preparation are under way in the background
	again   bool // and are to be done once more
	closed  bool

	busy     bool     // a group is led
	queue    []*group // collecting; the first one is led, or next
	expected int      // members that the next group will have when those whom the last one released are back
	released time.Time
	took     time.Duration // the last write and sync
	buffers  [][]byte      // of groups that are done
}

// Usage is a Log's state at a moment.
type Usage struct {
	Bytes    int64 // of all segment files, the prepared one included
	MaxBytes int64
	Records  int    // not settled
	Damaged  uint64 // records found damaged since Open, and by it
	// TornBytes is what Open found behind the last good record of a segment: groups that a crash cut short, which
	// nobody was told to be durable, or damage to the last records, which looks alike.
	TornBytes int64
	// Err says why appends fail now: ErrFull, ErrFailing with its cause, or nil.
	Err error
}

// Open opens the journal in cfg.Dir, or makes it, and reads it through. Every record that it finds is on the disk when
// it returns, also if a killed process had not yet synced it.
//
// Errors are ErrLocked, ErrNewer, a mistake in cfg, or the file system's.
func Open(cfg Config) (*Log, error) {
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = DefaultSegmentBytes
	}
	if cfg.FS == nil {
		cfg.FS = osFS{}
	}
	switch {
	case cfg.SegmentBytes < minSegmentBytes || cfg.SegmentBytes > maxSegmentBytes:
		return nil, fmt.Errorf("journal: a segment of %d bytes: must be %d to %d", cfg.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	case cfg.MaxBytes < 2*cfg.SegmentBytes:
		return nil, fmt.Errorf("journal: at most %d bytes: must be two segments of %d or more", cfg.MaxBytes, cfg.SegmentBytes)
	}
	cfg.SegmentBytes &^= 7
	if err := makeDir(cfg.FS, filepath.Clean(cfg.Dir)); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := cfg.FS.Lock(filepath.Join(cfg.Dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", cfg.Dir, err)
	}
	l := &Log{cfg: cfg, lock: lock}
	if err := l.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", cfg.Dir, err), l.closeFiles())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tend()
	return l, nil
}

// Usage returns the Log's state. After Close it is the last one.
func (l *Log) Usage() Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Usage{
		Bytes:     l.bytes(),
		MaxBytes:  l.cfg.MaxBytes,
		Records:   l.records(),
		Damaged:   l.damaged,
		TornBytes: l.torn,
		Err:       l.why,
	}
}

// bytes is the size of all segment files.
func (l *Log) bytes() int64 {
	var n int64
	for _, s := range l.segs {
		n += s.size
	}
	if l.spare != nil {
		n += l.spare.size
	}
	return n
}

// Sync writes the marks of what was settled before the call, and syncs them. Without it that happens within a second.
// It returns ErrFull, ErrFailing or ErrClosed when they could not be written; the records stay settled until the process
// ends.
func (l *Log) Sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 {
		if l.closed {
			return ErrClosed
		}
		if err := l.join(l.collecting(0)); err != nil {
			return err
		}
	}
	return nil
}

// Close waits for appends under way, writes the last marks, closes the files and releases the lock. Appends that come
// later get ErrClosed. It returns what Sync would. A second call waits for the first and returns the same.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.mu.Lock()
		l.closed = true
		if l.flush != nil {
			l.flush.Stop()
		}
		for l.closeErr == nil && (l.busy || len(l.pending) > 0) {
			l.closeErr = l.join(l.collecting(0)) // done after all who came before
		}
		l.mu.Unlock()
		l.background.Wait()
		l.closeErr = errors.Join(l.closeErr, l.closeFiles())
	})
	return l.closeErr
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, s := range l.segs {
		errs = append(errs, s.file.Close())
	}
	if l.spare != nil {
		errs = append(errs, l.spare.file.Close())
	}
	return errors.Join(append(errs, l.lock.Close())...)
}
