// Package customsink shows how to write a sink of one's own: it appends events to a file, one line of CloudEvents JSON
// each. Its test runs the conformance suite that every sink of the bridge passes.
package customsink

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// MaxEvent is the size in bytes above which an event is refused, so that readers know how long a line may be.
const MaxEvent = 4 << 20

// File is a sink. Only one process at a time may have it open: it would not know another one's lines.
//
// Events are written and synced one after the other, which is simple and as slow as the disk's fsync. Ids are
// remembered for as long as the file holds them, and nothing is ever taken out of it.
type File struct {
	turn chan struct{} // full while a call has its turn; unlike a mutex, waiting for it ends with a context
	file *os.File
	seen map[schema.Key]uint64 // the number of the line that holds an event, from 1 on
	last uint64                // line of the file
	over error                 // why the file cannot be used any more
}

var _ sinks.Sink = (*File)(nil)

// Open opens or creates the file at path and reads which events it holds. A last line that has no end is cut off: its
// process died before it acknowledged it. The error is the file's, or names a line that is no event.
func Open(path string) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	f := &File{turn: make(chan struct{}, 1), file: file, seen: map[schema.Key]uint64{}}
	// A process that died may have left lines unsynced, and from now on they are answered "duplicate".
	if err := errors.Join(f.load(), file.Sync(), syncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return f, nil
}

func (f *File) load() error {
	end := int64(0)
	for reader := bufio.NewReader(f.file); ; {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return f.file.Truncate(end)
		}
		if err != nil {
			return err
		}
		var event struct{ ID, Type string }
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("%s, line %d: %w", f.file.Name(), f.last+1, err)
		}
		f.last++
		f.seen[schema.Key{Dead: event.Type == schema.TypeDeadLetter, ID: event.ID}] = f.last
		end += int64(len(line))
	}
}

// syncDir makes a new file's name durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Publish implements [sinks.Sink].
func (f *File) Publish(ctx context.Context, event *schema.Event) (sinks.Ack, error) {
	if len(event.Structured) > MaxEvent || bytes.IndexByte(event.Structured, '\n') >= 0 {
		return sinks.Ack{}, &sinks.RefusedError{Reason: fmt.Sprintf("it is not a line of at most %d bytes", MaxEvent)}
	}
	if err := f.begin(ctx); err != nil {
		return sinks.Ack{}, err // neither ErrUnknown nor a RefusedError: nothing was written
	}
	defer f.end()
	if line, known := f.seen[event.Key()]; known {
		return sinks.Ack{Position: sinks.Position{Sequence: line}, Duplicate: true}, nil
	}
	_, err := f.file.Write(append(bytes.Clone(event.Structured), '\n')) // a clone, for the event is not ours to change
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil { // Some of it may be on the disk; a second fsync would not tell. Open finds out.
		f.over = err
		return sinks.Ack{}, fmt.Errorf("%w: %w", sinks.ErrUnknown, err)
	}
	f.last++
	f.seen[event.Key()] = f.last // only now: an id is not remembered before its event is durable
	return sinks.Ack{Position: sinks.Position{Sequence: f.last}}, nil
}

// Ready implements [sinks.Sink].
func (f *File) Ready(ctx context.Context) error {
	if err := f.begin(ctx); err != nil {
		return err
	}
	f.end()
	return nil
}

// Close implements [sinks.Sink].
func (f *File) Close(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer f.end()
	if errors.Is(f.over, sinks.ErrClosed) {
		return nil
	}
	f.over = sinks.ErrClosed
	return f.file.Close()
}

// begin waits for the turn. Without an error, the caller has it until end.
func (f *File) begin(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := f.over
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		f.end()
	}
	return err
}

func (f *File) end() { <-f.turn }
