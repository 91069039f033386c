package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errHeld appears when another process has the data directory.
var errHeld = errors.New("the data directory is in use")

const lockRetry = 100 * time.Millisecond

// lockDir takes dir, which it creates if need be, for this process alone: two brokers on one store silently lose
// acknowledged events. It waits until ctx ends for another process to let go, and tells waiting before every try what
// for; the error is then the same. It matches errHeld and ctx's, and names the other process. The kernel lets go of a
// lock when its process dies, however it dies.
func lockDir(ctx context.Context, dir string, waiting func(held error)) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("BRIDGE_DATA_DIR: lock %s: %w", file.Name(), err)
		}
		held := fmt.Errorf("%w: %s is held by process %s; give each bridge a BRIDGE_DATA_DIR of its own", errHeld, dir, holder(file))
		waiting(held)
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("%w (%w)", held, ctx.Err())
		}
	}
	if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	return file.Close, nil
}

// tryLockDir is lockDir that does not wait: the error matches errHeld.
func tryLockDir(dir string) (unlock func() error, err error) {
	at, cancel := context.WithCancel(context.Background())
	cancel()
	return lockDir(at, dir, func(error) {})
}

// holder is what the process that has the lock wrote into it.
func holder(file *os.File) string {
	pid, _ := io.ReadAll(io.NewSectionReader(file, 0, 32))
	return strings.TrimSpace(string(pid))
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
