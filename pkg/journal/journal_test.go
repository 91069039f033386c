package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/gembridge/bridge/pkg/journal"
)

const (
	segment = 16 << 10
	many    = 1 << 30
)

// open opens a journal, which the test closes at the end if it did not itself.
func open(t *testing.T, cfg journal.Config) *journal.Log {
	t.Helper()
	l, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func appends(t *testing.T, l *journal.Log, payloads ...string) []uint64 {
	t.Helper()
	var seqs []uint64
	for _, p := range payloads {
		seq, err := l.Append([]byte(p))
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
	return seqs
}

// read returns what Read gives, "seq payload" each.
func read(t *testing.T, l *journal.Log, from uint64) []string {
	t.Helper()
	var got []string
	if err := l.Read(from, func(seq uint64, payload []byte) error {
		got = append(got, fmt.Sprintf("%d %s", seq, payload))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAppendReadSettle(t *testing.T) {
	cfg := journal.Config{Dir: t.TempDir() + "/a/b", MaxBytes: many, SegmentBytes: segment}
	l := open(t, cfg)
	appends(t, l, "one", "", "three", "four")
	l.Settle(2, 4, 4, 99)
	check := func(l *journal.Log) {
		t.Helper()
		if got, want := read(t, l, 0), []string{"1 one", "3 three"}; !slices.Equal(got, want) {
			t.Errorf("read %q, want %q", got, want)
		}
		if got, want := read(t, l, 2), []string{"3 three"}; !slices.Equal(got, want) {
			t.Errorf("read from 2 %q, want %q", got, want)
		}
		if got, err := l.Get(3); string(got) != "three" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		for _, seq := range []uint64{0, 2, 4, 5} {
			if _, err := l.Get(seq); !errors.Is(err, journal.ErrGone) {
				t.Errorf("Get(%d): %v, want ErrGone", seq, err)
			}
		}
		if u := l.Usage(); u.Records != 2 || u.Damaged != 0 || u.TornBytes != 0 || u.Err != nil {
			t.Errorf("got %+v", u)
		}
	}
	check(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(nil); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	l = open(t, cfg)
	check(l)
	if seqs := appends(t, l, "five"); seqs[0] != 5 {
		t.Errorf("got %d, want 5", seqs[0])
	}
}

func TestManyAppenders(t *testing.T) {
	cfg := journal.Config{Dir: t.TempDir(), MaxBytes: many, SegmentBytes: segment}
	l := open(t, cfg)
	var mu sync.Mutex
	want := map[uint64]string{}
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			last := uint64(0)
			for i := range 50 {
				p := fmt.Sprintf("%d-%d", w, i)
				seq, err := l.Append([]byte(p))
				if err != nil || seq <= last {
					t.Errorf("%d after %d, %v", seq, last, err)
					return
				}
				last = seq
				mu.Lock()
				want[seq] = p
				mu.Unlock()
				if i%3 == 0 {
					l.Settle(seq)
					mu.Lock()
					delete(want, seq)
					mu.Unlock()
				} else if got, err := l.Get(seq); string(got) != p || err != nil {
					t.Errorf("Get(%d): %q, %v, want %q", seq, got, err, p)
				}
			}
		})
	}
	wg.Wait()
	var wanted []string
	for _, seq := range slices.Sorted(func(yield func(uint64) bool) {
		for seq := range want {
			if !yield(seq) {
				return
			}
		}
	}) {
		wanted = append(wanted, fmt.Sprintf("%d %s", seq, want[seq]))
	}
	for range 2 {
		if got := read(t, l, 0); !slices.Equal(got, wanted) {
			t.Errorf("read %d records, want %d", len(got), len(wanted))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, cfg)
	}
}
