package journal_test

import (
	"errors"
	"io"
	"io/fs"
)

type memFile struct {
	m      *memFS
	inode  *inode
	closed bool
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.inode.bytes)), nil
}

func (f *memFile) ReadAt(b []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	switch {
	case f.m.crashed:
		return 0, errCrashed
	case f.closed:
		return 0, fs.ErrClosed
	case at >= int64(len(f.inode.bytes)):
		return 0, io.EOF
	}
	n := copy(b, f.inode.bytes[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	switch {
	case f.closed:
		return 0, fs.ErrClosed
	case f.m.crashed:
		return 0, errCrashed
	}
	_, err := f.m.change("write")
	if err != nil {
		b = b[:f.m.rand.IntN(len(b)+1)]
	}
	if grow := int(at) + len(b) - len(f.inode.bytes); grow > 0 {
		f.inode.bytes = append(f.inode.bytes, make([]byte, grow)...)
	}
	copy(f.inode.bytes[at:], b)
	for p := int(at) / page; p*page < int(at)+len(b); p++ {
		f.inode.dirty[p] = true
	}
	return len(b), err
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.m.syncs++
	happens, err := f.m.change("sync")
	if happens {
		if grow := len(f.inode.bytes) - len(f.inode.disk); grow > 0 {
			f.inode.disk = append(f.inode.disk, make([]byte, grow)...)
		}
		for p := range f.inode.dirty {
			if err == nil || f.m.rand.IntN(2) == 0 {
				f.m.torn = f.m.torn || err != nil
				copy(f.inode.disk[p*page:min((p+1)*page, len(f.inode.disk))], f.inode.bytes[p*page:])
			}
		}
	}
	if !errors.Is(err, errCrashed) {
		clear(f.inode.dirty) // also after an error: nobody will write these pages again
	}
	return err
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.closed = true
	return nil
}
