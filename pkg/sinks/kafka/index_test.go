package kafka

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/sinks"
)

const day = 24 * time.Hour

func at(partition int32, offset uint64) sinks.Position {
	return sinks.Position{Partition: partition, Sequence: offset}
}

func expect(t *testing.T, x *index, id string, want sinks.Position) {
	t.Helper()
	if got, found := x.find(id); !found || got != want {
		t.Errorf("find(%.40q) = %v, %v; want %v", id, got, found, want)
	}
}

func expectNone(t *testing.T, x *index, id string) {
	t.Helper()
	if got, found := x.find(id); found {
		t.Errorf("find(%.40q) = %v; want none", id, got)
	}
}

func expectLen(t *testing.T, x *index, want int) {
	t.Helper()
	if got := x.len(); got != want {
		t.Errorf("len() = %d; want %d", got, want)
	}
}

func TestIndexFind(t *testing.T) {
	long := string(make([]byte, maxID))
	ids := []string{"msg_1", "msg_2", "MSG_1", "msg_1 ", "", "\x00", "\x00\x00", long, long + "\x00", long + "\x01", long + long}
	x := newIndex(day)
	for i, id := range ids {
		expectNone(t, x, id)
		x.add(id, at(int32(i%3), uint64(i)), time.Now())
	}
	for i, id := range ids {
		expect(t, x, id, at(int32(i%3), uint64(i)))
	}
	expectNone(t, x, "msg_3")
	expectLen(t, x, len(ids))
	y := newIndex(day)
	if digestOf(&x.secret, "msg_1") == digestOf(&y.secret, "msg_1") {
		t.Error("two indexes have the same secret")
	}
	if digestOf(&x.secret, "msg_1") != digestOf(&x.secret, []byte("msg_1")) {
		t.Error("the digest of an id depends on its type")
	}
}

func TestIndexTellsOffsetsBeyond32Bits(t *testing.T) {
	x := newIndex(day)
	x.add("msg_1", at(1<<31-1, 1<<63-1), time.Now())
	expect(t, x, "msg_1", at(1<<31-1, 1<<63-1))
}

// An id is known as long as its youngest record is in the window, whatever the order in which records are read.
func TestIndexKeepsTheYoungest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newIndex(day)
		old, young := time.Now(), time.Now().Add(6*time.Hour)
		time.Sleep(6 * time.Hour)
		x.add("first", at(0, 1), old)
		x.add("first", at(0, 2), young)
		x.add("second", at(0, 4), young)
		x.add("second", at(0, 3), old)
		expect(t, x, "first", at(0, 2))
		expect(t, x, "second", at(0, 4))
		time.Sleep(day - time.Second)
		expect(t, x, "first", at(0, 2))
		expect(t, x, "second", at(0, 4))
		time.Sleep(2 * time.Second)
		expectNone(t, x, "first")
		expectNone(t, x, "second")
	})
}

func TestIndexWindow(t *testing.T) {
	for _, test := range []struct {
		name  string
		at    time.Duration // seen from now
		lives time.Duration // from now on
	}{
		{"now", 0, day},
		{"half a second ago", -500 * time.Millisecond, day - 500*time.Millisecond},
		{"an hour ago", -time.Hour, 23 * time.Hour},
		{"tomorrow", day, day},
		{"in 200 years", 200 * 365 * day, day},
		{"at the end", 2*time.Second - day, 2 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newIndex(day)
				x.add("msg_1", at(0, 7), time.Now().Add(test.at))
				time.Sleep(test.lives)
				expect(t, x, "msg_1", at(0, 7))
				time.Sleep(2 * time.Second)
				expectNone(t, x, "msg_1")
				expectNone(t, x, "msg_2")
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		x := newIndex(day)
		x.add("older", at(0, 1), time.Now().Add(-day-2*time.Second))
		x.add("before 1970", at(0, 2), time.Unix(-1, 0))
		expectNone(t, x, "older")
		expectNone(t, x, "before 1970")
		expectLen(t, x, 0)
	})
}

// What has left the window leaves the memory too, with or without further ids.
func TestIndexExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, step = 5000, time.Minute
		x := newIndex(day)
		most := 0
		for i := range n {
			x.add(fmt.Sprint("msg_", i), at(0, uint64(i)), time.Now())
			time.Sleep(step)
			stored := 0
			for i := range x.shards {
				stored += len(x.shards[i].places)
			}
			most = max(most, stored)
		}
		// A shard removes something only when it gets something, here about once an hour.
		inWindow := int(day / step)
		if most > inWindow*115/100 {
			t.Errorf("%d ids were held, of %d in the window", most, inWindow)
		}
		if got := x.len(); got < inWindow || got > inWindow*103/100 {
			t.Errorf("len() = %d; want %d, or a 64th more", got, inWindow)
		}
		time.Sleep(day + day/generations + time.Second)
		expectLen(t, x, 0)
	})
}

func TestIndexGivesMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, few = 100_000, 1000
		x := newIndex(day)
		before := heap()
		for i := range many {
			x.add(fmt.Sprint("many_", i), at(0, uint64(i)), time.Now())
		}
		full := heap() - before
		time.Sleep(12 * time.Hour)
		for i := range few {
			x.add(fmt.Sprint("few_", i), at(0, uint64(i)), time.Now())
		}
		time.Sleep(13 * time.Hour)
		expectLen(t, x, few)
		if left := heap() - before; left > full/10 {
			t.Errorf("%d bytes are left of %d for %d ids of %d", left, full, few, many)
		}
		for i := range few {
			expect(t, x, fmt.Sprint("few_", i), at(0, uint64(i)))
		}
	})
}

func TestIndexMemoryPerID(t *testing.T) {
	const n = 400_000
	x := newIndex(day)
	before := heap()
	var b [16]byte
	least, most := 1e9, 0.0
	for i := range n {
		binary.BigEndian.PutUint64(b[:], uint64(i))
		x.addBytes(b[:], at(int32(i%6), uint64(i)), time.Now().UnixMilli())
		if i >= n/8 && i%(n/64) == 0 { // over the rise and fall of a map's load
			each := float64(heap()-before) / float64(i)
			least, most = min(least, each), max(most, each)
		}
	}
	t.Logf("an id takes %.0f to %.0f bytes, %.0f at %d", least, most, float64(heap()-before)/n, n)
	if most > 100 {
		t.Errorf("an id takes up to %.0f bytes; want at most 100", most)
	}
	runtime.KeepAlive(x)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestIndexDoesNotAllocate(t *testing.T) {
	x := newIndex(day)
	id, buf, now := "msg_a83a5f61-ed10-44f7-b724-8efa6a42b0f0", []byte("msg_a83a5f61-ed10-44f7-b724-8efa6a42b0f0"), time.Now()
	x.add(id, at(0, 1), now)
	got := testing.AllocsPerRun(100, func() {
		x.find(id)
		x.add(id, at(0, 1), now)
		x.addBytes(buf, at(0, 1), now.UnixMilli())
	})
	if got != 0 {
		t.Errorf("%v allocations; want 0", got)
	}
}

func TestIndexForget(t *testing.T) {
	x := newIndex(day)
	for i := range 3000 {
		x.add(fmt.Sprint("msg_", i), at(int32(i%3), uint64(i)), time.Now())
	}
	if got := x.forget(1); got != 1000 {
		t.Errorf("forget = %d; want 1000", got)
	}
	for i := range 3000 {
		if id := fmt.Sprint("msg_", i); i%3 == 1 {
			expectNone(t, x, id)
		} else {
			expect(t, x, id, at(int32(i%3), uint64(i)))
		}
	}
	expectLen(t, x, 2000)
	if got := x.forget(7); got != 0 {
		t.Errorf("forget = %d; want 0", got)
	}
}

// The index is what a plain map of everything that was ever added says it is.
func TestIndexAgainstModel(t *testing.T) {
	type record struct {
		pos sinks.Position
		at  int64 // seconds
	}
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				window := time.Duration(1+r.IntN(200)) * time.Second
				x, model := newIndex(window), map[string]record{}
				inWindow := func(m record) bool { return time.Now().Unix()-m.at <= int64(window/time.Second) }
				for step := range 4000 {
					id := fmt.Sprint(r.IntN(300))
					switch r.IntN(10) {
					case 0, 1, 2:
						when := time.Now().Add(time.Duration(r.IntN(300)-250) * time.Second).Truncate(time.Second)
						pos := at(int32(r.IntN(4)), uint64(step))
						x.add(id, pos, when)
						m := record{pos, min(when.Unix(), time.Now().Unix())}
						if old, known := model[id]; inWindow(m) && (!known || old.at <= m.at) {
							model[id] = m
						}
					case 3:
						time.Sleep(time.Duration(r.IntN(20)) * time.Second)
					case 4:
						if r.IntN(20) == 0 {
							p := int32(r.IntN(4))
							x.forget(p)
							maps.DeleteFunc(model, func(_ string, m record) bool { return m.pos.Partition == p })
						}
					case 5:
						n := 0
						for _, m := range model {
							if inWindow(m) {
								n++
							}
						}
						if got := x.len(); got < n || got > len(model) {
							t.Fatalf("step %d: len() = %d; want at least %d, at most %d", step, got, n, len(model))
						}
					default:
						m, known := model[id]
						got, found := x.find(id)
						if found != (known && inWindow(m)) || found && got != m.pos {
							t.Fatalf("step %d: find(%s) = %v, %v; model %v, %v", step, id, got, found, m, known)
						}
					}
				}
			})
		})
	}
}

func TestIndexConcurrently(t *testing.T) {
	const ids = 2000
	x := newIndex(day)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range ids {
				id := fmt.Sprint("msg_", (i+w*ids/8)%ids)
				x.add(id, at(0, uint64((i+w*ids/8)%ids)), time.Now())
				if _, found := x.find(id); !found {
					t.Errorf("%s is missing", id)
				}
				if i%500 == 0 {
					x.len()
					x.forget(9)
				}
			}
		})
	}
	wg.Wait()
	expectLen(t, x, ids)
}

func BenchmarkIndexFind(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x := newIndex(day)
			ids := make([]string, 0, n)
			for i := range n {
				ids = append(ids, fmt.Sprintf("msg_%036d", i))
				x.add(ids[i], at(0, uint64(i)), time.Now())
			}
			rand.Shuffle(n, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			i := 0
			for b.Loop() {
				x.find(ids[i%n])
				i++
			}
		})
	}
}

func BenchmarkIndexAdd(b *testing.B) {
	x := newIndex(day)
	id, now := slices.Repeat([]byte{'x'}, 40), time.Now().UnixMilli()
	before := heap()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		binary.BigEndian.PutUint64(id, uint64(i))
		x.addBytes(id, at(0, uint64(i)), now)
		i++
	}
	b.ReportMetric(float64(heap()-before)/float64(i), "B/id")
	runtime.KeepAlive(x)
}
