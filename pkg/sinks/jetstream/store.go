package jetstream

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// settled is how old a change must be at a sync for the file to be passed over by the next one: two changes within one tick
// of the file system's clock look like one.
const settled = time.Second

// doubtful is the file that says, to a process that comes after this one, that a sync failed.
const doubtful = "unsynced"

// store is the directory of a server that syncs lazily. One file after the other is synced, and only those that have
// changed: syncfs(2) would write what everybody else has on the same disk as well (with 200 MiB of that, 180 ms
// instead of half a millisecond). Twelve thousand files, 100 GiB of events, are looked through in 40 ms.
type store struct {
	dir  string
	sync func(*os.File) error

	mu     sync.Mutex
	synced map[string]fs.FileInfo // as they were before they were synced last; empty at first
}

func newStore(dir string) *store { return &store{dir: dir, sync: (*os.File).Sync} }

// flush returns nil once everything that was in the store before is on disk. After an error only rewrite can tell.
func (s *store) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.each(os.O_RDONLY, func(*os.File) error { return nil }); err != nil {
		return errors.Join(err, s.setDoubtful())
	}
	return nil
}

// rewrite does what flush does after one that failed: the operating system may take for written what never reached the
// disk, and another fsync would believe it. So every file that may be concerned is written once more, byte for byte.
func (s *store) rewrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.each(os.O_RDWR, func(f *os.File) error {
		buf := make([]byte, 1<<20)
		for at := int64(0); ; {
			n, err := f.ReadAt(buf, at)
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return errors.Join(err, s.setDoubtful())
	}
	if err := os.Remove(filepath.Join(s.dir, doubtful)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// each calls first with every regular file that may have changed since the last call that returned nil, opened with flag,
// then syncs it, and every such directory.
func (s *store) each(flag int, first func(*os.File) error) error {
	synced := make(map[string]fs.FileInfo, len(s.synced))
	now := time.Now()
	err := filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		info, err := entry.Info()
		switch {
		case err != nil:
			return gone(err)
		case !info.IsDir() && !info.Mode().IsRegular():
			return nil
		}
		if was := s.synced[path]; was != nil && os.SameFile(was, info) && was.Size() == info.Size() && was.ModTime().Equal(info.ModTime()) {
			synced[path] = was
			return nil
		}
		if info.IsDir() {
			err = s.one(path, os.O_RDONLY, func(*os.File) error { return nil })
			if errors.Is(err, syscall.EINVAL) { // a file system that has nothing to sync there
				err = nil
			}
		} else {
			err = s.one(path, flag, first)
		}
		if err == nil && now.Sub(info.ModTime()) > settled {
			synced[path] = info
		}
		return gone(err)
	})
	if err == nil {
		s.synced = synced
	}
	return err
}

func (s *store) one(path string, flag int, first func(*os.File) error) error {
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // what counts is the sync
	if err := first(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return s.sync(f)
}

// gone passes over what the server has removed meanwhile.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// mend rewrites a store that an earlier process left after a failed sync.
func (s *store) mend() error {
	if _, err := os.Lstat(filepath.Join(s.dir, doubtful)); err != nil {
		return gone(err)
	}
	return s.rewrite()
}

// setDoubtful need not reach the disk: when the page cache is lost there is no more doubt.
func (s *store) setDoubtful() error {
	return os.WriteFile(filepath.Join(s.dir, doubtful), nil, 0o600)
}
