package jetstream_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// disk is what a power failure leaves: of a file what it held when it was synced last, of a directory the names that
// it held then. A file that has a name and was never synced is empty.
type disk struct {
	root string

	mu    sync.Mutex
	fail  error // of every fsync
	hold  chan struct{}
	held  chan struct{} // gets a word from a sync that hold holds up
	syncs []string
	files map[uint64][]byte
	dirs  map[uint64]map[string]uint64
}

func newDisk(root string) *disk {
	return &disk{root: root, held: make(chan struct{}, 100), files: map[uint64][]byte{}, dirs: map[uint64]map[string]uint64{}}
}

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (d *disk) fsync(f *os.File) error {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		d.held <- struct{}{}
		<-hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.syncs = append(d.syncs, f.Name())
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		content, err := io.ReadAll(io.NewSectionReader(f, 0, info.Size()))
		d.files[inode(info)] = content
		return err
	}
	names, err := os.ReadDir(f.Name())
	if err != nil {
		return err
	}
	listing := map[string]uint64{}
	for _, name := range names {
		if info, err := name.Info(); err == nil {
			listing[name.Name()] = inode(info)
		}
	}
	d.dirs[inode(info)] = listing
	return nil
}

// set changes what befalls syncs.
func (d *disk) set(fail error, hold chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.hold = fail, hold
}

func (d *disk) takeSyncs() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.syncs
	d.syncs = nil
	return taken
}

// afterPowerFailure returns a directory that holds what the disk does.
func (d *disk) afterPowerFailure(t *testing.T) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Stat(d.root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var restore func(dir string, ino uint64)
	restore = func(dir string, ino uint64) {
		for name, ino := range d.dirs[ino] {
			path := filepath.Join(dir, name)
			if _, isDir := d.dirs[ino]; isDir {
				err = os.Mkdir(path, 0o700)
				restore(path, ino)
			} else {
				err = os.WriteFile(path, d.files[ino], 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	restore(dir, inode(info))
	return dir
}
