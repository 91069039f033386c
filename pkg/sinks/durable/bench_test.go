package durable_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
)

// noop is a journal that forgets everything.
type noop struct {
	memory
	seq atomic.Uint64
}

func (n *noop) Append([]byte) (uint64, error) { return n.seq.Add(1), nil }
func (n *noop) Settle(...uint64)              {}

func openJournal(b *testing.B, dir string) *journal.Log {
	b.Helper()
	log, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	return log
}

// What holds and a journal cost over a sink that does nothing: the difference to the first is the journal's machinery,
// the last has a disk in it.
func BenchmarkDeliver(b *testing.B) {
	journaled := func(log durable.Journal, keep time.Duration) *durable.Journaled {
		d, err := durable.NewJournaled(quiet{}, log, durable.JournaledConfig{
			Config: durable.Config{AckTimeout: ackTimeout}, Keep: keep, Log: zerolog.Nop(),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := d.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
		return d
	}
	for _, bench := range []struct {
		name string
		open func() fanout.Deliverer
	}{
		{"without journal", func() fanout.Deliverer { return durable.New(quiet{}, durable.Config{AckTimeout: ackTimeout}) }},
		{"journal that does nothing", func() fanout.Deliverer { return journaled(&noop{}, 0) }},
		{"and keeps", func() fanout.Deliverer { return journaled(&noop{}, time.Second) }},
		{"journal on disk", func() fanout.Deliverer {
			return journaled(openJournal(b, filepath.Join(b.TempDir(), "journal")), time.Second)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			d := bench.open()
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := fmt.Sprint(n.Add(1))
					if result, err := d.Deliver(b.Context(), keyed(id, id)); err != nil || result != schema.Published {
						b.Fatal(result, err)
					}
				}
			})
		})
	}
}

// How much later a bridge starts with that many events waiting, of which the sink takes none now.
func BenchmarkStart(b *testing.B) {
	for _, waiting := range []int{0, 100_000} {
		b.Run(fmt.Sprint(waiting), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "journal")
			log := openJournal(b, dir)
			pad := make([]byte, 900)
			work := make(chan int)
			done := make(chan error)
			for range 256 {
				go func() {
					var err error
					for i := range work {
						e := keyed(fmt.Sprint("msg_", i), fmt.Sprint("batches/", i))
						e.Structured = append(e.Structured, pad...)
						payload, failed := e.MarshalBinary()
						if failed == nil {
							_, failed = log.Append(payload)
						}
						if failed != nil {
							err = failed
						}
					}
					done <- err
				}()
			}
			for i := range waiting {
				work <- i
			}
			close(work)
			for range 256 {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			if err := log.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				log := openJournal(b, dir)
				d, err := durable.NewJournaled(quiet{errBroken}, log, durable.JournaledConfig{
					Config: durable.Config{AckTimeout: ackTimeout}, Log: zerolog.Nop(),
				})
				if err != nil || d.Stats().Waiting != waiting {
					b.Fatal(d, err)
				}
				b.StopTimer()
				if err := d.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
