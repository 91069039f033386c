package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

const benchPayload = 1 << 10

// rawDisk is a file of zeros.
type rawDisk struct {
	file *os.File
	at   int64
}

const rawBytes = 64 << 20

func newRawDisk(b *testing.B) *rawDisk {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if _, err := f.Write(make([]byte, rawBytes)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return &rawDisk{file: f}
}

// syncs writes groups of n records and syncs each.
func (r *rawDisk) syncs(b *testing.B, n, syncs int) time.Duration {
	b.Helper()
	group := make([]byte, n*benchPayload)
	start := time.Now()
	for i := range syncs {
		if r.at+int64(len(group)) > rawBytes {
			r.at = 0
		}
		group[0] = byte(i)
		if _, err := r.file.WriteAt(group, r.at); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(r.file.Fd())); err != nil {
			b.Fatal(err)
		}
		r.at += int64(len(group))
	}
	return time.Since(start)
}

// BenchmarkAppend compares so many appenders with the disk itself, in turns: /raw is appends a second by what as many
// records in one write with one sync give.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			raw := newRawDisk(b)
			l, err := journal.Open(journal.Config{Dir: b.TempDir(), MaxBytes: 16 << 30})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			payload := make([]byte, benchPayload)
			var rawTook, took time.Duration
			syncs, appends := 0, 0
			b.ResetTimer()
			for appends < b.N {
				round := min(256*n, (b.N-appends+n-1)/n*n)
				start := time.Now()
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						for range round / n {
							if _, err := l.Append(payload); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				took += time.Since(start)
				appends += round
				b.StopTimer()
				rawTook += raw.syncs(b, n, round/n)
				syncs += round / n
				b.StartTimer()
			}
			rate := float64(appends) / took.Seconds()
			rawRate := float64(syncs) / rawTook.Seconds()
			b.ReportMetric(rate/(rawRate*float64(n)), "/raw")
			b.ReportMetric(rate, "appends/s")
			b.ReportMetric(rawRate, "rawsyncs/s")
		})
	}
}

// BenchmarkOpen opens a journal with 100,000 records that wait and reads them.
func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			cfg := journal.Config{Dir: b.TempDir(), MaxBytes: 16 << 30}
			l, err := journal.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			var wg sync.WaitGroup
			for w := range 256 {
				wg.Go(func() {
					payload := make([]byte, benchPayload)
					for i := w; i < n; i += 256 {
						if _, err := l.Append(payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			var open, read time.Duration
			for b.Loop() {
				start := time.Now()
				l, err := journal.Open(cfg)
				if err != nil {
					b.Fatal(err)
				}
				open += time.Since(start)
				start = time.Now()
				records := 0
				if err := l.Read(0, func(uint64, []byte) error { records++; return nil }); err != nil || records != n {
					b.Fatal(records, err)
				}
				read += time.Since(start)
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(open.Milliseconds())/float64(b.N), "open-ms")
			b.ReportMetric(float64(read.Milliseconds())/float64(b.N), "read-ms")
		})
	}
}
