package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// FS is what a Log needs of a file system. It is a seam for tests.
type FS interface {
	Files
	Dirs
	Locker
}

// Files opens, renames and removes files.
type Files interface {
	// Open takes the flags of os.OpenFile.
	Open(name string, flag int) (File, error)
	Rename(from, to string) error
	Remove(name string) error
}

// Dirs makes, lists and syncs directories.
type Dirs interface {
	// Mkdir makes one directory. Its errors match fs.ErrExist and fs.ErrNotExist as those of os.Mkdir do.
	Mkdir(dir string) error
	// List returns the names in a directory.
	List(dir string) ([]string, error)
	// SyncDir makes what was created, renamed and removed in dir durable.
	SyncDir(dir string) error
}

// Locker keeps others out.
type Locker interface {
	// Lock makes the file if need be and locks it until Close or the end of the process. It returns ErrLocked at
	// once when another has it.
	Lock(name string) (io.Closer, error)
}

// File is an open file. ReadAt may run beside Close, and then returns fs.ErrClosed.
type File interface {
	Bytes
	// Sync makes the file's bytes and its size durable.
	Sync() error
	Close() error
}

// Bytes is what is in a file.
type Bytes interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
}

// makeDir makes dir and what is missing above it, each durable in its parent.
func makeDir(fsys FS, dir string) error {
	parent := filepath.Dir(dir)
	err := fsys.Mkdir(dir)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
		err = fsys.Mkdir(dir)
	}
	made := err == nil
	if !made && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Those that were there as well: a process that made them may have been killed before this. Where we may not, or
	// where the file system does not know how, it was somebody else who made them.
	for ; parent != dir; dir, parent, made = parent, filepath.Dir(parent), false {
		if err := fsys.SyncDir(parent); err != nil && (made || !isForeign(err)) {
			return err
		}
	}
	return nil
}

func isForeign(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EROFS)
}

// osFS is the operating system's.
type osFS struct{}

type osFile struct{ *os.File }

func (osFS) Open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }
func (osFS) Mkdir(dir string) error       { return os.Mkdir(dir, 0o700) }

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock uses flock: the kernel lets go of it when the process dies, however it dies.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
		err = fmt.Errorf("%w by process %s", ErrLocked, strings.TrimSpace(string(pid)))
	}
	if err == nil {
		// Only for the message above, so a full disk must not keep a journal from being opened.
		_ = f.Truncate(0)
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Sync() error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := conn.Control(func(fd uintptr) { err = datasync(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return os.NewSyscallError("fdatasync", err)
}
