package journal_test

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

// slowFS takes its time for each sync of a file, but for the one that prepares it.
type slowFS struct {
	*memFS
	takes time.Duration
}

type slowFile struct {
	journal.File
	takes    time.Duration
	prepared bool
}

func (s slowFS) Open(name string, flag int) (journal.File, error) {
	f, err := s.memFS.Open(name, flag)
	return &slowFile{f, s.takes, flag&os.O_CREATE == 0}, err
}

func (f *slowFile) Sync() error {
	if f.prepared {
		time.Sleep(f.takes)
	}
	f.prepared = true
	return f.File.Sync()
}

// slow opens a journal whose syncs take so long, and gives it its first segment.
func slow(t *testing.T, takes time.Duration) (*journal.Log, *memFS) {
	t.Helper()
	m := newMemFS(1)
	l := open(t, journal.Config{Dir: "/j", MaxBytes: many, SegmentBytes: 1 << 20, FS: slowFS{m, takes}})
	appends(t, l, "first")
	time.Sleep(time.Minute) // what goes on in the background ends
	return l, m
}

func TestOneSyncPerAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := slow(t, 0)
		_, before := m.counts()
		for range 100 {
			appends(t, l, "x")
		}
		if _, after := m.counts(); after-before != 100 {
			t.Errorf("%d syncs for 100 appends, one after the other", after-before)
		}
	})
}

// Who comes while a sync is under way shares the next one.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := slow(t, time.Second)
		_, before := m.counts()
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 5 * time.Millisecond)
				appends(t, l, fmt.Sprint(i))
			})
		}
		wg.Wait()
		if _, after := m.counts(); after-before != 2 || time.Since(start) > 2200*time.Millisecond {
			t.Errorf("%d syncs in %v, want 2 in 2 s", after-before, time.Since(start))
		}
		if got := len(read(t, l, 0)); got != 101 {
			t.Errorf("%d records, want 101", got)
		}
	})
}

// Where syncs are slow, callers that come back at once share every sync, instead of each second one.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := slow(t, 8*time.Millisecond)
		_, before := m.counts()
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 50 {
					appends(t, l, "x")
					time.Sleep(500 * time.Microsecond) // to come back
				}
			})
		}
		wg.Wait()
		if _, after := m.counts(); after-before > 60 {
			t.Errorf("%d syncs for 50 rounds of 16", after-before)
		}
	})
}

// Nobody waits for those who do not come back, but for an eighth of a sync, and alone not at all.
func TestLingerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 8 * time.Millisecond
		l, _ := slow(t, takes)
		for range 3 {
			start := time.Now()
			appends(t, l, "x")
			if got := time.Since(start); got != takes {
				t.Errorf("alone: %v, want %v", got, takes)
			}
		}
		var wg sync.WaitGroup
		start := time.Now()
		wg.Go(func() { appends(t, l, "first") })
		time.Sleep(time.Millisecond)
		wg.Go(func() { appends(t, l, "second") })
		wg.Wait()
		if got, want := time.Since(start), 2*takes+takes/8; got != want {
			t.Errorf("behind one that does not come back: %v, want %v", got, want)
		}
		time.Sleep(time.Second)
		start = time.Now()
		appends(t, l, "x")
		if got := time.Since(start); got != takes {
			t.Errorf("alone again: %v, want %v", got, takes)
		}
	})
}

// More than a write should hold is split into groups.
func TestManyBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := slow(t, time.Second)
		big := make([]byte, 300<<10)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := l.Append(big); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := len(read(t, l, 0)); got != 21 {
			t.Errorf("%d records, want 21", got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, journal.Config{Dir: "/j", MaxBytes: many, SegmentBytes: 1 << 20, FS: m})
		if u := l.Usage(); u.Records != 21 || u.Damaged != 0 || u.TornBytes != 0 {
			t.Errorf("got %+v", u)
		}
	})
}

// Close lets appends under way end, and refuses what comes later.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := slow(t, time.Second)
		var wg sync.WaitGroup
		wg.Go(func() { appends(t, l, "led") })
		synctest.Wait()
		for range 5 {
			wg.Go(func() { appends(t, l, "waits") })
		}
		l.Settle(1)
		synctest.Wait()
		wg.Go(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if _, err := l.Append(nil); !errors.Is(err, journal.ErrClosed) {
			t.Errorf("Append: %v, want ErrClosed", err)
		}
		wg.Wait()
		for name, err := range map[string]error{
			"Sync": l.Sync(),
			"Read": l.Read(0, nil),
			"Get":  func() error { _, err := l.Get(2); return err }(),
		} {
			if err != nil && !errors.Is(err, journal.ErrClosed) || name != "Sync" && err == nil {
				t.Errorf("%s: %v, want ErrClosed", name, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		l = open(t, journal.Config{Dir: "/j", MaxBytes: many, SegmentBytes: 1 << 20, FS: m})
		if got := len(read(t, l, 0)); got != 6 {
			t.Errorf("%d records, want 6", got)
		}
	})
}
