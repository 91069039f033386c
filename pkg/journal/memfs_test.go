package journal_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gembridge/bridge/pkg/journal"
)

// errCrashed is what everything returns after a crash.
var errCrashed = errors.New("the machine has crashed")

// memFS is a file system in memory that knows what a crash forgets: bytes, sizes and names that were not synced. After a failed
// sync it takes the pages for clean, as Linux does, though they are not on the disk.
type memFS struct {
	mu      sync.Mutex
	rand    *rand.Rand
	names   map[string]*inode // as processes see them
	durable map[string]*inode // as the disk has them
	locked  map[string]bool
	ops     int                             // changes so far
	syncs   int                             // of files
	fault   func(op int, call string) error // before each change; errCrashed stops everything
	crashed bool
	torn    bool // a group may have a hole, which looks like damage
}

type inode struct {
	dir   bool
	bytes []byte
	disk  []byte
	dirty map[int]bool // pages
}

const page = 4096

func newMemFS(seed uint64) *memFS {
	root := &inode{dir: true}
	return &memFS{
		rand:    rand.New(rand.NewPCG(seed, 1)),
		names:   map[string]*inode{"/": root},
		durable: map[string]*inode{"/": root},
		locked:  map[string]bool{},
	}
}

// change counts a change that is about to happen, and returns its fault. With one it may have happened, or not.
func (m *memFS) change(call string) (happens bool, err error) {
	if m.crashed {
		return false, errCrashed
	}
	m.ops++
	if m.fault != nil {
		if err = m.fault(m.ops, call); err != nil {
			m.crashed = errors.Is(err, errCrashed)
			return m.rand.IntN(2) == 0, err
		}
	}
	return true, nil
}

func (m *memFS) setFault(fault func(op int, call string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

func (m *memFS) counts() (ops, syncs int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops, m.syncs
}

// survival says how much of what was not synced a crash leaves: nothing, everything, or each piece by chance.
type survival int

const (
	nothing survival = iota
	everything
	byChance
)

// crash returns the file system after a loss of power.
func (m *memFS) crash(s survival) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashed = true
	survives := func() bool { return s == everything || s == byChance && m.rand.IntN(2) == 0 }
	after := newMemFS(m.rand.Uint64())
	after.torn = m.torn || s == byChance
	inodes := map[*inode]*inode{}
	keep := func(name string, i *inode) {
		if inodes[i] == nil {
			inodes[i] = i.crash(m.rand, survives)
		}
		after.names[name] = inodes[i]
	}
	names := map[string]bool{}
	for name := range m.names {
		names[name] = true
	}
	for name := range m.durable {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) { // parents first
		from := m.durable
		if m.durable[name] != m.names[name] && survives() {
			from = m.names
		}
		if i := from[name]; i != nil && (name == "/" || after.names[filepath.Dir(name)] != nil) {
			keep(name, i)
		}
	}
	after.durable = maps.Clone(after.names)
	return after
}

// restart lets a new process go on where the old one was killed.
func (m *memFS) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashed, m.fault = false, nil
}

func (i *inode) crash(r *rand.Rand, survives func() bool) *inode {
	if i.dir {
		return &inode{dir: true}
	}
	size := len(i.disk)
	if survives() {
		size = len(i.bytes)
	}
	b := make([]byte, size)
	copy(b, i.disk)
	unit := []int{8, 64, 512, page}[r.IntN(4)] // of tearing
	for at := 0; at < min(size, len(i.bytes)); at += unit {
		end := min(at+unit, size, len(i.bytes))
		if string(b[at:end]) != string(i.bytes[at:end]) && survives() {
			copy(b[at:end], i.bytes[at:end])
		}
	}
	return &inode{bytes: b, disk: slices.Clone(b), dirty: map[int]bool{}}
}

func (m *memFS) Open(name string, flag int) (journal.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.names[name]
	switch {
	case m.crashed:
		return nil, errCrashed
	case i != nil && flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case i == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case i == nil:
		if m.names[filepath.Dir(name)] == nil {
			return nil, fs.ErrNotExist
		}
		happens, err := m.change("create")
		i = &inode{dirty: map[int]bool{}}
		if happens {
			m.names[name] = i
		}
		if err != nil {
			return nil, err
		}
	default:
		if _, err := m.change("open"); err != nil {
			return nil, err
		}
	}
	return &memFile{m: m, inode: i}, nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[from] == nil && !m.crashed {
		return fs.ErrNotExist
	}
	happens, err := m.change("rename")
	if happens {
		m.names[to] = m.names[from]
		delete(m.names, from)
	}
	return err
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] == nil && !m.crashed {
		return fs.ErrNotExist
	}
	happens, err := m.change("remove")
	if happens {
		delete(m.names, name)
	}
	return err
}

func (m *memFS) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.crashed:
		return errCrashed
	case m.names[name] != nil:
		return fs.ErrExist
	case m.names[filepath.Dir(name)] == nil:
		return fs.ErrNotExist
	}
	happens, err := m.change("mkdir")
	if happens {
		m.names[name] = &inode{dir: true}
	}
	return err
}

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashed {
		return nil, errCrashed
	}
	var names []string
	for name := range m.names {
		if name != "/" && filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	happens, err := m.change("syncdir")
	if !happens {
		return err
	}
	for _, names := range []map[string]*inode{m.names, m.durable} {
		for name := range names {
			if name != "/" && filepath.Dir(name) == dir {
				if i := m.names[name]; i != nil {
					m.durable[name] = i
				} else {
					delete(m.durable, name)
				}
			}
		}
	}
	return err
}

type memLock struct {
	m    *memFS
	name string
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name] {
		return nil, journal.ErrLocked
	}
	m.locked[name] = true
	return memLock{m, name}, nil
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.locked, l.name)
	return nil
}

// segments returns the segment files' bytes, as processes see them, by name.
func (m *memFS) segments() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	got := map[string][]byte{}
	for name, i := range m.names {
		if strings.HasSuffix(name, ".seg") {
			got[name] = i.bytes
		}
	}
	return got
}
