package durable_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// memory is a journal that does as a test says. The zero value takes everything at once.
type memory struct {
	append func() error // before a record is there
	usage  journal.Usage
	limit  int // unsettled records, then journal.ErrFull; 0 for none

	mu       sync.Mutex
	last     uint64
	records  map[uint64][]byte
	damaged  map[uint64]error
	appends  int // calls of Append
	closeErr error
	settled  []uint64
	closed   bool
}

var _ durable.Journal = (*memory)(nil)

func (m *memory) Append(payload []byte) (uint64, error) {
	m.mu.Lock()
	m.appends++
	m.mu.Unlock()
	if m.append != nil {
		if err := m.append(); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit > 0 && len(m.records) >= m.limit {
		return 0, journal.ErrFull
	}
	m.put(payload)
	return m.last, nil
}

func (m *memory) put(payload []byte) {
	if m.records == nil {
		m.records = map[uint64][]byte{}
	}
	m.last++
	m.records[m.last] = bytes.Clone(payload)
}

func (m *memory) Get(seq uint64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	payload, ok := m.records[seq]
	if !ok {
		return nil, journal.ErrGone
	}
	return payload, m.damaged[seq]
}

func (m *memory) Read(from uint64, fn func(seq uint64, payload []byte) error) error {
	m.mu.Lock()
	seqs := slices.Sorted(maps.Keys(m.records))
	m.mu.Unlock()
	for _, seq := range seqs {
		payload, err := m.Get(seq)
		if err == nil {
			err = fn(seq, payload)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Settle(seqs ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, seq := range seqs {
		if _, ok := m.records[seq]; ok {
			delete(m.records, seq)
			m.settled = append(m.settled, seq)
		}
	}
}

func (m *memory) Usage() journal.Usage { return m.usage }

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return m.closeErr
}

// ids are those of the unsettled records, in order, dead letters in brackets.
func (m *memory) ids(t *testing.T) []string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for _, seq := range slices.Sorted(maps.Keys(m.records)) {
		var e schema.Event
		if err := e.UnmarshalBinary(m.records[seq]); err != nil {
			t.Error(err)
		}
		if e.Dead {
			e.ID = "[" + e.ID + "]"
		}
		ids = append(ids, e.ID)
	}
	return ids
}

func (m *memory) count() (appends, records int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.appends, len(m.records)
}

// logged is what was logged.
type logged struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logged) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), words)
}

// rig is a Journaled and what it stands on.
type rig struct {
	*durable.Journaled
	log        logged
	quarantine string
}

func newRig(t *testing.T, sink sinks.Sink, log durable.Journal, cfg durable.JournaledConfig) *rig {
	t.Helper()
	r := &rig{quarantine: filepath.Join(t.TempDir(), "quarantine")}
	cfg.AckTimeout = cmp.Or(cfg.AckTimeout, ackTimeout)
	cfg.Quarantine = cmp.Or(cfg.Quarantine, r.quarantine)
	cfg.Log = zerolog.New(&r.log)
	var err error
	if r.Journaled, err = durable.NewJournaled(sink, log, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n, ids := r.Left(), r.Held(); n != 0 || len(ids) != 0 {
			t.Errorf("at the end: %d left, held %q", n, ids)
		}
	})
	return r
}

func (r *rig) deliver(ctx context.Context, e *schema.Event) <-chan outcome {
	c := make(chan outcome, 1)
	start := time.Now()
	go func() {
		result, err := r.Deliver(ctx, e)
		c <- outcome{result, err, time.Since(start)}
	}()
	return c
}

func (r *rig) close(t *testing.T) {
	t.Helper()
	if err := r.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// holds compares the numbers that wait and that are kept.
func (r *rig) holds(t *testing.T, waiting, kept int) {
	t.Helper()
	if s := r.Stats(); s.Waiting != waiting || s.Kept != kept {
		t.Errorf("%d wait, %d are kept, want %d and %d", s.Waiting, s.Kept, waiting, kept)
	}
}

// keyed is an event with a partition key of its choice.
func keyed(id, key string) *schema.Event {
	whole := fmt.Sprintf(`{"id":%q,"data":{"original":{"n":%q}}}`, id, id)
	data := len(`{"id":"","data":`) + len(id)
	return &schema.Event{
		ID: id, PartitionKey: key, Name: "batch.succeeded", WebhookID: id, Received: time.Unix(1_700_000_000, 0).UTC(),
		Structured: []byte(whole), Data: []byte(whole[data : len(whole)-1]), Original: []byte(whole[data+len(`{"original":`) : len(whole)-2]),
	}
}

// ids are those of events, in order, dead letters in brackets.
func ids(events []*schema.Event) []string {
	var all []string
	for _, e := range events {
		id := e.ID
		if e.Dead {
			id = "[" + id + "]"
		}
		all = append(all, id)
	}
	return all
}

// syncing is a sink whose acknowledgements need a sync.
type syncing struct {
	*fake
	sync func(ctx context.Context) error

	mu    sync.Mutex
	syncs int
}

func (s *syncing) Sync(ctx context.Context) error {
	s.mu.Lock()
	s.syncs++
	s.mu.Unlock()
	if s.sync == nil {
		return nil
	}
	return s.sync(ctx)
}

// forgetful is a sink that may forget.
type forgetful struct {
	*fake
	forget func()
}

func (f *forgetful) OnForgotten(forgotten func()) { f.forget = forgotten }

var errDisk = errors.New("input/output error")

// quiet is a sink that says the same to everything.
type quiet struct{ err error }

func (q quiet) Publish(context.Context, *schema.Event) (sinks.Ack, error) { return sinks.Ack{}, q.err }
func (q quiet) Ready(context.Context) error                               { return q.err }
func (q quiet) Close(context.Context) error                               { return nil }
