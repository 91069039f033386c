package journal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

// fill appends until the journal is full.
func fill(t *testing.T, l *journal.Log) (seqs []uint64) {
	t.Helper()
	for {
		seq, err := l.Append([]byte(strings.Repeat("x", 500)))
		if errors.Is(err, journal.ErrFull) {
			return seqs
		}
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seq)
	}
}

// A full journal takes marks, and heals as they free segments, also after a start.
func TestFull(t *testing.T) {
	for _, segments := range []int{2, 3, 5} {
		t.Run(fmt.Sprint(segments), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemFS(1)
				cfg := journal.Config{Dir: dir, MaxBytes: int64(segments) * segment, SegmentBytes: segment, FS: m}
				l := open(t, cfg)
				for round := range 5 {
					seqs := fill(t, l)
					if len(seqs) < 10 {
						t.Fatalf("full after %d records", len(seqs))
					}
					u := l.Usage()
					if !errors.Is(u.Err, journal.ErrFull) || u.Bytes > u.MaxBytes || u.Records < len(seqs) {
						t.Errorf("got %+v", u)
					}
					if _, err := l.Append([]byte(strings.Repeat("x", 500))); !errors.Is(err, journal.ErrFull) {
						t.Errorf("got %v, want ErrFull", err)
					}
					// Every second one, the newest first: nothing is freed, no two marks are one, and all are durable.
					waiting := []uint64{}
					for i := len(seqs) - 2; i > 0; i-- {
						if i%2 == 0 {
							l.Settle(seqs[i])
						} else {
							waiting = append(waiting, seqs[i])
						}
					}
					waiting = append(waiting, seqs[0], seqs[len(seqs)-1])
					if err := l.Sync(); err != nil {
						t.Errorf("Sync: %v", err)
					}
					if round%2 == 1 {
						_ = m.crash(nothing)
						_ = l.Close()
						m = m.crash(nothing)
						cfg.FS = m
						l = open(t, cfg)
					}
					if got := read(t, l, seqs[0]); len(got) != len(waiting) {
						t.Errorf("%d records wait, want %d", len(got), len(waiting))
					}
					l.Settle(waiting...)
					synctest.Wait()
					if err := l.Usage().Err; err != nil {
						t.Errorf("after settling: %v", err)
					}
				}
			})
		})
	}
}

// What is broken stays broken for a second at most after it works again, and costs a try a second until then.
func TestFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS(1)
		l := openMem(t, m)
		appends(t, l, "before")
		synctest.Wait()
		m.setFault(func(_ int, call string) error {
			if call == "write" || call == "sync" {
				return syscall.ENOSPC
			}
			return nil
		})
		before, _ := m.counts()
		for range 1000 {
			_, err := l.Append([]byte("x"))
			if !errors.Is(err, journal.ErrFailing) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("got %v, want ErrFailing and the cause", err)
			}
		}
		if after, _ := m.counts(); after-before > 30 {
			t.Errorf("%d operations within no time", after-before)
		}
		if err := l.Usage().Err; !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Usage: %v", err)
		}
		if got, err := l.Get(1); string(got) != "before" || err != nil {
			t.Errorf("Get: %q, %v", got, err)
		}
		l.Settle(1)
		if err := l.Sync(); !errors.Is(err, journal.ErrFailing) {
			t.Errorf("Sync: %v, want ErrFailing", err)
		}
		time.Sleep(5 * time.Second) // the mark is tried again and again
		m.setFault(nil)
		healed := time.Now()
		for {
			if _, err := l.Append([]byte("after")); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(healed); took > 1010*time.Millisecond {
			t.Errorf("healed after %v", took)
		}
		if u := l.Usage(); u.Err != nil || u.Records != 1 {
			t.Errorf("got %+v", u)
		}
	})
}

// Marks need no append to go to the disk, not even the first segment.
func TestSettleAndClose(t *testing.T) {
	m := newMemFS(1)
	l := openMem(t, m)
	seqs := appends(t, l, "one", "two", "three")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b := m.segments()[onlySegment]
	b[len(b)-1] = 1 // nothing can follow in this segment
	m = with(map[string][]byte{onlySegment: b})
	l = openMem(t, m)
	l.Settle(seqs...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openMem(t, m.crash(nothing))
	if got := read(t, l, 0); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
}

// A file is never written again after a failed write or sync.
func TestFailedFileIsNotUsedAgain(t *testing.T) {
	for _, fails := range []string{"write", "sync"} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemFS(1)
			l := openMem(t, m)
			appends(t, l, "one")
			synctest.Wait()
			failed := false
			m.setFault(func(_ int, call string) error {
				if call == fails && !failed {
					failed = true
					return syscall.EIO
				}
				return nil
			})
			if _, err := l.Append([]byte("two")); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			seq := appends(t, l, "three")[0]
			if got := read(t, l, 0); len(got) != 2 || seq != 3 {
				t.Errorf("got %q, the last one as %d, want 3: sequences are not used again", got, seq)
			}
			for name, b := range m.segments() {
				if s := string(b); strings.Contains(s, "one") && strings.Contains(s, "three") {
					t.Errorf("%s was written again", name)
				}
			}
		})
	}
}

// Within a segment no sequence is left out, for that would look like damage. So a start does not go on behind the last record when
// a failed group has used the sequences that follow, of which only the next segment knows.
func TestSequencesLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS(1)
		cfg := journal.Config{Dir: dir, MaxBytes: 2 * segment, SegmentBytes: segment, FS: m}
		l := open(t, cfg)
		var seqs []uint64
		for len(m.segments()) < 2 || !strings.Contains(string(m.segments()[dir+"/00000000000000000002.seg"]), "xxx") {
			seqs = append(seqs, appends(t, l, strings.Repeat("x", 1000))...)
			synctest.Wait()
		}
		m.setFault(func(_ int, call string) error {
			if call == "sync" {
				return syscall.EIO
			}
			return nil
		})
		if _, err := l.Append([]byte("fails")); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		m.setFault(nil)
		l.Settle(seqs[:len(seqs)-1]...)
		synctest.Wait() // the third segment is prepared
		after := m.crash(nothing)
		_ = l.Close()
		cfg.FS = after
		for range 3 {
			l = open(t, cfg)
			if u := l.Usage(); u.Damaged != 0 {
				t.Errorf("got %+v", u)
			}
			appends(t, l, "one more")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		l = open(t, cfg)
		if got := read(t, l, seqs[len(seqs)-1]+1); len(got) != 3 {
			t.Errorf("got %q, want 3", got)
		}
	})
}

func TestTooLarge(t *testing.T) {
	l := openMem(t, newMemFS(1))
	largest := 0
	for n := segment; n > 0; n-- {
		_, err := l.Append(make([]byte, n))
		if err == nil {
			largest = n
			break
		}
		if !errors.Is(err, journal.ErrTooLarge) {
			t.Fatal(err)
		}
	}
	if largest < segment/2 {
		t.Errorf("the largest record is %d of a segment of %d", largest, segment)
	}
	if got, err := l.Get(1); len(got) != largest || err != nil {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]journal.Config{
		"one segment":       {MaxBytes: segment, SegmentBytes: segment},
		"no bytes":          {},
		"a tiny segment":    {MaxBytes: many, SegmentBytes: 100},
		"a negative one":    {MaxBytes: many, SegmentBytes: -1},
		"a gigantic one":    {MaxBytes: 1 << 50, SegmentBytes: 1 << 40},
		"below two default": {MaxBytes: 12 << 20},
	} {
		cfg.Dir = t.TempDir() + "/j"
		if _, err := journal.Open(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the directory was made", name)
		}
	}
}

func TestLock(t *testing.T) {
	cfg := journal.Config{Dir: t.TempDir(), MaxBytes: many, SegmentBytes: segment}
	l := open(t, cfg)
	_, err := journal.Open(cfg)
	if !errors.Is(err, journal.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("got %v, want ErrLocked and the holder's id", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
}

// Another size of segments, and a smaller journal, over what is there.
func TestOtherSizes(t *testing.T) {
	m := newMemFS(1)
	cfg := journal.Config{Dir: dir, MaxBytes: 10 * segment, SegmentBytes: segment, FS: m}
	l := open(t, cfg)
	n := len(fill(t, l))
	for _, bytes := range []int64{4 * segment, 2 * segment, segment} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.SegmentBytes, cfg.MaxBytes = bytes, 2*bytes
		l = open(t, cfg)
		if got := read(t, l, 0); len(got) != n || l.Usage().Damaged != 0 {
			t.Errorf("%d records, want %d", len(got), n)
		}
		if _, err := l.Append([]byte(strings.Repeat("x", 500))); !errors.Is(err, journal.ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
	}
}
