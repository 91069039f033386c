package kafka

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// BenchmarkFollowerCatchUp measures how fast a follower reads what is there, in records of 1 KiB with 8 headers.
func BenchmarkFollowerCatchUp(b *testing.B) {
	const partitions, records, size = 6, 600_000, 1024
	cluster := kafkatest.Shared(b, kafkatest.Options{})
	topic := cluster.Topic()
	cluster.CreateTopic(topic, partitions, nil)
	load(b, dial(b, cluster), topic, partitions, records, size)
	var took, used time.Duration
	n := 0
	for b.Loop() {
		start, cpu := time.Now(), cpuTime(b)
		f := follow(b, cluster.Bootstrap(), topic, day)
		f.ready()
		took += time.Since(start)
		used += cpuTime(b) - cpu
		n += f.index.len()
		f.away()
	}
	if n != b.N*records {
		b.Errorf("%d ids were read; want %d times %d", n, b.N, records)
	}
	b.ReportMetric(float64(n)/took.Seconds(), "records/s")
	b.ReportMetric(float64(used.Nanoseconds())/float64(n), "cpu-ns/record")
}

// BenchmarkFollowerVisible measures how long after its acknowledgement a record of another producer is known. In that
// time two bridges that are given the same id both store it.
func BenchmarkFollowerVisible(b *testing.B) {
	cluster := kafkatest.Shared(b, kafkatest.Options{})
	topic, to := cluster.Topic(), dial(b, cluster)
	cluster.CreateTopic(topic, 6, nil)
	f := follow(b, cluster.Bootstrap(), topic, day)
	f.ready()
	var late []time.Duration
	for b.Loop() {
		id := fmt.Sprint("msg_", len(late))
		if _, err := to.writeRaw(topic, len(late)%6, rawBatch{producer: -1, epoch: -1, sequence: -1, at: time.Now(), records: [][]byte{rawRecord(0, id, nil)}}); err != nil {
			b.Fatal(err)
		}
		acked := time.Now()
		for {
			if _, found := f.index.find(id); found {
				break
			}
			runtime.Gosched()
		}
		late = append(late, time.Since(acked))
	}
	slices.Sort(late)
	b.ReportMetric(float64(late[len(late)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(late[len(late)*99/100].Microseconds()), "p99-µs")
}

// load fills a topic with records of different ids.
func load(b testing.TB, to broker, topic string, partitions, records, size int) {
	value := make([]byte, size)
	var wg sync.WaitGroup
	for p := range partitions {
		wg.Go(func() {
			const batch = 500
			for i := 0; i < records/partitions; i += batch {
				raw := rawBatch{producer: -1, epoch: -1, sequence: -1, at: time.Now()}
				for j := range min(batch, records/partitions-i) {
					raw.records = append(raw.records, rawRecord(j, fmt.Sprintf("msg_%06d_%029d", p, i+j), value))
				}
				await(b, func() error {
					_, err := to.writeRaw(topic, p, raw)
					return err
				})
			}
		})
	}
	wg.Wait()
}

func cpuTime(b testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
