package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gembridge/bridge/pkg/journal"
)

// model is a journal on a file system in memory, and what it has promised.
type model struct {
	t    *testing.T
	fs   *memFS
	rand *rand.Rand
	log  *journal.Log
	name string // of the run, for messages

	mu       sync.Mutex
	n        int               // payloads made
	offered  map[string]bool   // payloads given to Append
	acked    map[string]uint64 // payloads that are durable, and their sequences
	settled  map[string]bool   // settled, but the mark may be lost
	forever  map[string]bool   // settled, and the mark is durable
	failures int               // of Append
}

func newModel(t *testing.T, seed uint64, name string) *model {
	return &model{
		t: t, fs: newMemFS(seed), rand: rand.New(rand.NewPCG(seed, 2)), name: name,
		offered: map[string]bool{}, acked: map[string]uint64{}, settled: map[string]bool{}, forever: map[string]bool{},
	}
}

func (m *model) open() error {
	log, err := journal.Open(journal.Config{Dir: "/data/journal/nats", MaxBytes: 5 * segment, SegmentBytes: segment, FS: m.fs})
	m.log = log
	return err
}

// payload makes one that there has not been, with what looks like a record in it.
func (m *model) payload() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	b := bytes.Repeat([]byte{0xff, 'r', 1, 0, 8, 0, 0, 0}, m.rand.IntN(300))
	if m.rand.IntN(10) == 0 {
		b = bytes.Repeat([]byte{0xff, 'r', 1}, 1000)
	}
	b = append(b, fmt.Sprint("payload ", m.n)...)
	m.offered[string(b)] = true
	return b
}

// append appends n records at once and returns how many of them are durable.
func (m *model) append(n int) int {
	var wg sync.WaitGroup
	durable := 0
	for range n {
		wg.Go(func() {
			p := m.payload()
			seq, err := m.log.Append(p)
			m.mu.Lock()
			defer m.mu.Unlock()
			if err != nil {
				m.failures++
				return
			}
			m.acked[string(p)] = seq
			durable++
		})
	}
	wg.Wait()
	return durable
}

// settle settles records by chance, the older the likelier.
func (m *model) settle(share float64) {
	var oldest uint64
	for _, seq := range m.acked {
		if oldest == 0 || seq < oldest {
			oldest = seq
		}
	}
	for p, seq := range m.acked {
		if m.rand.Float64() < share || seq < oldest+3 {
			m.log.Settle(seq)
			delete(m.acked, p)
			m.settled[p] = true
		}
	}
}

func (m *model) sync() {
	if m.log.Sync() == nil {
		for p := range m.settled {
			delete(m.settled, p)
			m.forever[p] = true
		}
	}
}

// check reads the journal and compares. What is there beyond the promises, because an append failed but its bytes are there, is
// promised from now on.
func (m *model) check(reopened bool) {
	m.t.Helper()
	found := map[string]uint64{}
	last := uint64(0)
	err := m.log.Read(0, func(seq uint64, payload []byte) error {
		p := string(payload)
		switch {
		case !m.offered[p]:
			m.t.Errorf("%s: %d is invented: %q", m.name, seq, p)
		case found[p] != 0:
			m.t.Errorf("%s: %q is there twice, as %d and %d", m.name, tail(p), found[p], seq)
		case seq <= last:
			m.t.Errorf("%s: %d after %d", m.name, seq, last)
		case m.forever[p]:
			m.t.Errorf("%s: %q is back, and its mark was durable", m.name, tail(p))
		case m.settled[p] && !reopened:
			m.t.Errorf("%s: %q is read and is settled", m.name, tail(p))
		}
		last = seq
		found[p] = seq
		if got, err := m.log.Get(seq); string(got) != p || err != nil {
			if errors.Is(err, errCrashed) {
				return err
			}
			m.t.Errorf("%s: Get(%d) is not what Read says: %v", m.name, seq, err)
		}
		return nil
	})
	if errors.Is(err, errCrashed) { // meanwhile, in the background
		return
	}
	if err != nil {
		m.t.Errorf("%s: %v", m.name, err)
	}
	for p, seq := range m.acked {
		if found[p] != seq {
			m.t.Errorf("%s: %d (%q) is durable, and found as %d", m.name, seq, tail(p), found[p])
		}
	}
	for p, seq := range found {
		if m.acked[p] != 0 {
			continue
		}
		if !reopened {
			m.t.Errorf("%s: %d (%q) is read, though Append failed", m.name, seq, tail(p))
		}
		delete(m.settled, p)
		m.acked[p] = seq
	}
	if got := m.log.Usage().Records; got != len(found) {
		m.t.Errorf("%s: Usage says %d records, Read found %d", m.name, got, len(found))
	}
}

func tail(p string) string { return p[max(0, len(p)-20):] }

// crash loses power, and opens what is left.
func (m *model) crash(s survival) {
	m.t.Helper()
	after := m.fs.crash(s)
	if m.log != nil {
		_ = m.log.Close()
	}
	m.fs = after
	if err := m.open(); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
	m.check(true)
	m.fs.mu.Lock() // a segment is being prepared
	torn := m.fs.torn
	m.fs.mu.Unlock()
	if damaged := m.log.Usage().Damaged; damaged != 0 && !torn {
		m.t.Errorf("%s: %d records are said to be damaged", m.name, damaged)
	}
}
