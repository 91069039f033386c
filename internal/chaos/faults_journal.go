package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

// What must be known of the journal's files to damage them where it hurts; docs/journal-format.md has the rest. Records
// begin at multiples of 8 bytes: a magic, a kind, and at 4 the length of the payload, which begins at 32.
const (
	segments      = "journal/*/*.seg"
	recordsBegin  = 4096 + 64
	recordMagic   = "\xffr\x01"
	recordPayload = 32
)

func (w *world) segments() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(w.bridge.dir, segments))
	slices.Sort(files)
	return files, err
}

func (w *world) journaled() bool {
	files, err := w.segments()
	return err == nil && len(files) > 0
}

// record is where one stands in a segment's bytes.
type record struct{ begin, end int }

func recordsIn(segment []byte) []record {
	var all []record
	for at := recordsBegin; at+recordPayload <= len(segment); {
		if !bytes.HasPrefix(segment[at:], []byte(recordMagic)) {
			at += 8
			continue
		}
		r := record{at, at + recordPayload + int(binary.LittleEndian.Uint32(segment[at+4:]))}
		if r.end > len(segment) {
			break
		}
		all = append(all, r)
		at = (r.end + 7) &^ 7
	}
	return all
}

// stopped kills the bridge, lets do change a journal segment that holds records, and starts the bridge again.
func stopped(w *world, rng *rand.Rand, least int, do func(segment []byte, all []record) error) error {
	if _, err := w.bridge.signal(syscall.SIGKILL); err != nil {
		return err
	}
	files, err := w.segments()
	if err != nil {
		return err
	}
	// Newest first, so that it is mostly the one that was being written; each sink has its own.
	slices.Reverse(files)
	if rng.IntN(4) == 0 {
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	}
	for _, file := range files {
		segment, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		all := recordsIn(segment)
		if len(all) < least {
			continue
		}
		if err := do(segment, all); err != nil {
			return err
		}
		return errors.Join(overwrite(file, segment), w.bridge.start())
	}
	return w.bridge.start() // all settled and deleted: there is nothing to damage
}

func overwrite(path string, content []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.Write(content)
	return err
}

// tearJournal leaves what a power failure leaves of a group that was being written: the first bytes of a record, behind
// the last whole one. Nobody was told that it is durable.
func tearJournal(_ context.Context, w *world, rng *rand.Rand) error {
	return stopped(w, rng, 1, func(segment []byte, all []record) error {
		end := (all[len(all)-1].end + 7) &^ 7
		for end < len(segment) && !zero(segment[end:min(end+64, len(segment))]) {
			end += 8 // past marks, which are records of another kind
		}
		model := all[rng.IntN(len(all))]
		torn := segment[model.begin:model.end][:1+rng.IntN(model.end-model.begin-1)]
		copy(segment[end:], bytes.Clone(torn))
		return nil
	})
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// flipJournal flips a bit of a record whose event the broker has: the event must not be missing, and what happened to
// the record must be told.
func flipJournal(ctx context.Context, w *world, rng *rand.Rand) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := w.forwarded(waiting); err != nil {
		return err
	}
	flipped := false
	err := stopped(w, rng, 60, func(segment []byte, all []record) error {
		// The last ones may not have been published when the bridge was killed.
		r := all[rng.IntN(len(all)-50)]
		segment[r.begin+rng.IntN(r.end-r.begin)] ^= 1 << rng.IntN(8)
		flipped = true
		return nil
	})
	if err != nil || !flipped || w.nats == nil {
		return err // an embedded broker's records are settled within seconds, and are then nobody's concern
	}
	for {
		series, err := w.bridge.metrics()
		switch {
		case err == nil && sum(series, "bridge_journal_quarantined_total") > 0:
			return nil
		case err == nil && waiting.Err() == nil:
		case waiting.Err() != nil:
			return violation(fmt.Sprintf("a bit was flipped in the journal, and bridge_journal_quarantined_total is 0 (%v)", err))
		}
		pause(waiting, 5*time.Millisecond)
	}
}

// loseUnsynced is what a power failure does to a bridge with its own broker: the broker's store, which is synced every
// second or so, is that of some moments ago, and the journal is whole. The store is older than what it had synced if the
// journal's marks say so, which come after a sync; then it is another moment's turn.
func loseUnsynced(ctx context.Context, w *world, rng *rand.Rand) error {
	store := filepath.Join(w.bridge.dir, "nats")
	old := filepath.Join(w.dir, "nats.old")
	for range 30 {
		before, err := w.stopAndLook(func() error { return os.CopyFS(old, os.DirFS(store)) })
		if err != nil {
			return err
		}
		pause(ctx, 20*time.Millisecond+soon(rng, 500*time.Millisecond))
		unsynced := false
		_, err = w.stopAndLook(func() error {
			after, err := w.settled()
			if unsynced = err == nil && after == before; !unsynced {
				return err
			}
			if _, err := w.bridge.signal(syscall.SIGKILL); err != nil {
				return err
			}
			return errors.Join(os.RemoveAll(store), os.CopyFS(store, os.DirFS(old)))
		})
		if err := errors.Join(err, os.RemoveAll(old)); err != nil {
			return err
		}
		if unsynced {
			return w.bridge.start()
		}
		pause(ctx, 100*time.Millisecond)
	}
	return violation("thirty times, something was settled within moments of a copy of the store: that does not wait for a sync")
}

// stopAndLook lets do work while the bridge is stopped, and returns what was settled then.
func (w *world) stopAndLook(do func() error) (settled string, err error) {
	pid := w.bridge.pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return "", err
	}
	settled, err = w.settled()
	err = errors.Join(err, do())
	_ = syscall.Kill(pid, syscall.SIGCONT) // do may have ended it
	return settled, err
}

// settled identifies the journal's marks on the disk.
func (w *world) settled() (string, error) {
	newest := uint64(0)
	report, err := journal.Scan(filepath.Join(w.bridge.dir, "journal", "nats"), func(r journal.Record) error {
		if r.Settled {
			newest = max(newest, r.Seq)
		}
		return nil
	})
	return fmt.Sprint(report.Segments, report.Settled, newest), err
}
