package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// seen is what a batch says of a record.
type seen struct {
	id           string
	offset, time int64
}

func idsOf(b storedBatch) ([]seen, error) {
	var all []seen
	_, err := b.ids(nil, func(id []byte, offset, time int64) { all = append(all, seen{string(id), offset, time}) })
	return all, err
}

// storedAt makes of a batch what stands in the log, from an offset on.
func storedAt(offset int64, b rawBatch) []byte {
	set := b.encode()[4:]
	binary.BigEndian.PutUint64(set, uint64(offset))
	return set
}

func stampedBatch(attributes uint16, ids ...string) rawBatch {
	b := rawBatch{attributes: attributes, producer: -1, epoch: -1, sequence: -1, at: time.UnixMilli(1_700_000_000_000)}
	for i, id := range ids {
		b.records = append(b.records, rawRecord(i, id, []byte("{}")))
	}
	return b
}

// packed compresses the records of a batch.
func packed(offset int64, compression kafka.Compression, records []byte, count int) []byte {
	var b bytes.Buffer
	w := compression.Codec().NewWriter(&b)
	if _, err := w.Write(records); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	raw := stampedBatch(uint16(compression))
	raw.records = [][]byte{b.Bytes()}
	set := storedAt(offset, raw)
	binary.BigEndian.PutUint32(set[23:], uint32(count-1))
	binary.BigEndian.PutUint32(set[57:], uint32(count))
	binary.BigEndian.PutUint32(set[17:], crc32.Checksum(set[21:], crc32.MakeTable(crc32.Castagnoli)))
	return set
}

func TestStoredBatch(t *testing.T) {
	const at = 1_700_000_000_000
	ab := []seen{{"a", 7, at}, {"b", 8, at}}
	records := slices.Concat(rawRecord(0, "a", nil), rawRecord(1, "b", nil))
	huge := slices.Concat(rawRecord(0, "a", nil), rawRecord(1, "b", make([]byte, maxUnpacked)), rawRecord(2, "c", nil))
	long := storedAt(7, stampedBatch(0, "a", "b"))
	binary.BigEndian.PutUint32(long[57:], 1000)
	compacted := storedAt(7, stampedBatch(0, "a"))
	binary.BigEndian.PutUint32(compacted[23:], 9)
	ancient := make([]byte, 40)
	binary.BigEndian.PutUint64(ancient, 7)
	binary.BigEndian.PutUint32(ancient[8:], 28)
	ancient[storedMagic] = 1
	for _, test := range []struct {
		name string
		set  []byte
		last int64
		want []seen
		err  string
	}{
		{"plain", storedAt(7, stampedBatch(0, "a", "b")), 8, ab, ""},
		{"transactional", storedAt(7, stampedBatch(1<<4, "a", "b")), 8, ab, ""},
		{"control", storedAt(7, stampedBatch(1<<5, "a", "b")), 8, nil, ""},
		{"append time", storedAt(7, stampedBatch(1<<3, "a", "b")), 8, ab, ""},
		{"compacted", compacted, 16, ab[:1], ""},
		{"emptied", storedAt(7, stampedBatch(0)), 6, nil, ""},
		{"gzip", packed(7, kafka.Gzip, records, 2), 8, ab, ""},
		{"snappy", packed(7, kafka.Snappy, records, 2), 8, ab, ""},
		{"lz4", packed(7, kafka.Lz4, records, 2), 8, ab, ""},
		{"zstd", packed(7, kafka.Zstd, records, 2), 8, ab, ""},
		{"not gzip", storedAt(7, stampedBatch(1, "a", "b")), 8, nil, "gzip"},
		{"not zstd", storedAt(7, stampedBatch(4, "a", "b")), 8, nil, "ends early"},
		{"unknown compression", storedAt(7, stampedBatch(5, "a", "b")), 8, nil, "compression number 5"},
		{"more records said than there are", long, 8, ab, "ends early"},
		{"too much when unpacked", packed(7, kafka.Lz4, huge, 3), 9, ab[:1], "32 MiB"},
		{"format before 2", ancient, 7, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, rest, ok := cutBatch(append(slices.Clone(test.set), "rest"...))
			if !ok || b.first != 7 || b.last != test.last || string(rest) != "rest" {
				t.Fatalf("cutBatch: %v, %d to %d, rest %q; want 7 to %d", ok, b.first, b.last, rest, test.last)
			}
			got, err := idsOf(b)
			if !slices.Equal(got, test.want) {
				t.Errorf("ids: %v; want %v", got, test.want)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v; want %q", err, test.err)
			}
		})
	}
}

// Whatever byte of a batch is changed, its checksum tells, and whatever is missing, there is no batch.
func TestStoredBatchDamaged(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	set := storedAt(7, stampedBatch(0, "a", "b"))
	for i := range set {
		if _, _, ok := cutBatch(set[:i]); ok {
			t.Errorf("a batch is cut off %d bytes", i)
		}
		b, _, ok := cutBatch(set)
		if !ok || !b.intact(table) {
			t.Fatal("the batch is not intact")
		}
		// The checksum covers neither the offset, the length nor the leader's epoch.
		if i < 17 {
			continue
		}
		set[i] ^= 0x10
		if b, _, ok = cutBatch(set); ok && b.intact(table) {
			t.Errorf("byte %d is another, and the batch is intact", i)
		}
		set[i] ^= 0x10
	}
}

// answer encodes what a broker says to a fetch.
func answer(partitions ...fetched) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, correlation)
	b = be.AppendUint32(b, 1500) // throttle
	b = be.AppendUint16(b, 0)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, 1)
	b = append(be.AppendUint16(b, 1), 't')
	b = be.AppendUint32(b, uint32(len(partitions)))
	for _, p := range partitions {
		b = be.AppendUint32(b, uint32(p.partition))
		b = be.AppendUint16(b, uint16(p.err))
		b = be.AppendUint64(b, uint64(p.highWatermark))
		b = append(b, make([]byte, 16)...)
		b = be.AppendUint32(b, 1) // an aborted transaction
		b = append(b, make([]byte, 16+4)...)
		b = append(be.AppendUint32(b, uint32(len(p.records))), p.records...)
	}
	return b
}

func TestFetchAnswer(t *testing.T) {
	want := []fetched{{0, 0, 9, []byte("records")}, {3, kafka.OffsetOutOfRange, -1, nil}, {1, 0, 1 << 40, []byte("more")}}
	whole := answer(want...)
	r := fetchRequest{answer: whole}
	got, throttle, err := r.partitions()
	if err != nil || throttle != 1500*time.Millisecond || !slices.EqualFunc(got, want, func(a, b fetched) bool {
		return a.partition == b.partition && a.err == b.err && a.highWatermark == b.highWatermark && bytes.Equal(a.records, b.records)
	}) {
		t.Errorf("partitions: %v, %v, %v; want %v", got, throttle, err, want)
	}
	for n := range whole {
		r.answer = whole[:n]
		if got, _, err := r.partitions(); err == nil {
			t.Errorf("the first %d bytes of %d: %v", n, len(whole), got)
		}
	}
	r.answer = slices.Clone(whole)
	r.answer[9] = 71 // of the whole request
	if _, _, err := r.partitions(); !errors.Is(err, kafka.Error(71)) {
		t.Errorf("error %v; want number 71", err)
	}
}

func TestReaderTake(t *testing.T) {
	first, second, third := storedAt(5, stampedBatch(0, "a", "b")), storedAt(7, stampedBatch(0, "c")), storedAt(8, stampedBatch(0, "d", "e"))
	markOf := func(set []byte) mark {
		b, _, _ := cutBatch(set)
		return b.mark()
	}
	bad := slices.Clone(second)
	bad[len(bad)-1]++
	badHeader := slices.Clone(second)
	binary.BigEndian.PutUint32(badHeader[23:], 1<<30)
	badBefore := slices.Clone(second)
	binary.BigEndian.PutUint32(badBefore[23:], 1<<32-5)
	for _, test := range []struct {
		name   string
		before part
		sets   [][]byte
		after  part
		ids    string
		err    error
		stuck  bool
	}{
		{"nothing", part{next: 5}, nil, part{next: 5}, "", nil, false},
		{"all", part{next: 5}, [][]byte{first, second, third}, part{next: 10, marked: true, mark: markOf(third)}, "abcde", nil, false},
		{"within a batch", part{next: 9}, [][]byte{third}, part{next: 10, marked: true, mark: markOf(third)}, "de", nil, false},
		{"from before", part{next: 8}, [][]byte{first, second, third}, part{next: 10, marked: true, mark: markOf(third)}, "de", nil, false},
		{"only from before", part{next: 8}, [][]byte{first, second}, part{next: 8}, "", nil, true},
		{"cut off", part{next: 5}, [][]byte{first, second[:70]}, part{next: 7, marked: true, mark: markOf(first)}, "ab", nil, false},
		{"nothing whole", part{next: 5}, [][]byte{first[:70]}, part{next: 5}, "", nil, true},
		{
			"the same as read",
			part{next: 7, marked: true, mark: markOf(first), check: true},
			[][]byte{first, second},
			part{next: 8, marked: true, mark: markOf(second)},
			"c", nil, false,
		},
		{
			"nothing but the same",
			part{next: 7, marked: true, mark: markOf(first), check: true},
			[][]byte{first},
			part{next: 7, marked: true, mark: markOf(first)},
			"", nil, false,
		},
		{
			"another than was read",
			part{next: 7, marked: true, mark: mark{5, 1}, check: true},
			[][]byte{first, second},
			part{next: -1},
			"", errMoved, false,
		},
		{
			"of another length than was read",
			part{next: 8, marked: true, mark: markOf(third), check: true},
			[][]byte{first, second},
			part{next: -1},
			"", errMoved, false,
		},
		{
			"what was read is compacted away",
			part{next: 7, marked: true, mark: markOf(first), check: true},
			[][]byte{second},
			part{next: 8, marked: true, mark: markOf(second)},
			"c", nil, false,
		},
		{"damaged", part{next: 5}, [][]byte{first, bad, third}, part{next: 10, marked: true, mark: markOf(third)}, "abde", nil, false},
		{"damaged, and at the end", part{next: 7}, [][]byte{bad}, part{next: 8, marked: true, mark: markOf(bad)}, "", nil, false},
		{"damaged, and says it is long", part{next: 7}, [][]byte{badHeader, third}, part{next: 10, marked: true, mark: markOf(badHeader)}, "", nil, false},
		{"damaged, and says it is from before", part{next: 7}, [][]byte{badBefore}, part{next: 8}, "", nil, false},
		{"damaged, and says it is from before, more follows", part{next: 7}, [][]byte{badBefore, third}, part{next: 10, marked: true, mark: markOf(third)}, "de", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFollower(followerConfig{Topic: "t", Index: newIndex(30 * 365 * day), Log: zerolog.Nop()})
			f.cfg.Index.add("stale", at(0, 2), time.Now())
			f.parts[0] = test.before
			r := reader{session: &session{follower: f}, table: crc32.MakeTable(crc32.Castagnoli)}
			err := r.take([]fetched{{partition: 0, highWatermark: 10, records: bytes.Join(test.sets, nil)}})
			if test.stuck {
				if err == nil || !strings.Contains(err.Error(), "without a whole batch") {
					t.Errorf("error %v; want that it does not get on", err)
				}
			} else if !errors.Is(err, test.err) {
				t.Errorf("error %v; want %v", err, test.err)
			}
			if got := f.parts[0]; got != test.after {
				t.Errorf("%+v; want %+v", got, test.after)
			}
			got := ""
			for _, id := range []string{"a", "b", "c", "d", "e"} {
				if _, found := f.cfg.Index.find(id); found {
					got += id
				}
			}
			if _, found := f.cfg.Index.find("stale"); got != test.ids || found != (test.err == nil) {
				t.Errorf("ids %q, what was known: %v; want %q", got, found, test.ids)
			}
		})
	}
}

func TestReaderTakeErrors(t *testing.T) {
	f := newFollower(followerConfig{Topic: "t", Index: newIndex(day), Log: zerolog.Nop()})
	r := reader{session: &session{follower: f}}
	if err := r.take([]fetched{{partition: 3, err: kafka.NotLeaderForPartition}}); !errors.Is(err, kafka.NotLeaderForPartition) || !strings.Contains(err.Error(), "partition 3") {
		t.Errorf("take: %v", err)
	}
	if err := r.take([]fetched{{partition: 3}}); err == nil || len(f.parts) != 0 {
		t.Errorf("take: %v for a partition that was not asked for", err)
	}
}

func TestSessionMoved(t *testing.T) {
	led := func(epochs ...int32) []metadata.ResponsePartition {
		var all []metadata.ResponsePartition
		for i, epoch := range epochs {
			all = append(all, metadata.ResponsePartition{PartitionIndex: int32(i), LeaderEpoch: epoch})
		}
		return all
	}
	s := session{layout: led(3, 5)}
	for _, test := range []struct {
		name string
		now  []metadata.ResponsePartition
		want bool
	}{
		{"the same", led(3, 5), false},
		{"another leader", led(3, 6), true},
		{"an old state", led(2, 5), false},
		{"added", led(3, 5, 0), true},
		{"an old state without a partition", led(3), false},
	} {
		if got := s.moved(test.now); got != test.want {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}

// A broker fills an answer in the order of the partitions, so that each must be the first in turn.
func TestFetchTurns(t *testing.T) {
	f := newFollower(followerConfig{Topic: "t"})
	f.parts = map[int32]part{0: {next: 10}, 1: {next: 20, check: true}, 2: {next: 30}}
	r := reader{session: &session{follower: f}, led: []metadata.ResponsePartition{{PartitionIndex: 0}, {PartitionIndex: 1}, {PartitionIndex: 2, LeaderEpoch: 5}}}
	for turn := range 4 {
		for i, p := range r.fetch(turn).Topics[0].Partitions {
			id := int32(turn+i) % 3
			want := []int64{10, 19, 30}[id]
			if p.Partition != id || p.FetchOffset != want || (p.CurrentLeaderEpoch == 5) != (id == 2) {
				t.Errorf("turn %d: partition %d from %d, epoch %d; want partition %d from %d", turn, p.Partition, p.FetchOffset, p.CurrentLeaderEpoch, id, want)
			}
		}
	}
}

func FuzzFetchAnswer(f *testing.F) {
	records := slices.Concat(rawRecord(0, "a", nil), rawRecord(1, "b", nil))
	set := slices.Concat(storedAt(7, stampedBatch(0, "a", "b")), storedAt(9, stampedBatch(1<<5, "c")))
	f.Add(answer(fetched{records: set}, fetched{partition: 1, err: 1}))
	for _, compression := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		f.Add(answer(fetched{records: packed(3, compression, records, 2)}))
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := fetchRequest{answer: b}
		all, _, err := r.partitions()
		if err != nil {
			return
		}
		for _, p := range all {
			for set := p.records; ; {
				b, rest, ok := cutBatch(set)
				if !ok {
					break
				}
				if len(rest) >= len(set) {
					t.Fatal("no progress")
				}
				set = rest
				b.intact(table)
				_, _ = idsOf(b)
			}
		}
	})
}

func BenchmarkStoredBatch(b *testing.B) {
	raw := stampedBatch(0)
	const n = 500
	for i := range n {
		raw.records = append(raw.records, rawRecord(i, fmt.Sprintf("msg_%036d", i), make([]byte, 1024)))
	}
	set := storedAt(0, raw)
	table, x := crc32.MakeTable(crc32.Castagnoli), newIndex(day)
	b.ReportAllocs()
	for b.Loop() {
		batch, _, _ := cutBatch(set)
		batch.intact(table)
		if _, err := batch.ids(nil, func(id []byte, offset, _ int64) { x.addBytes(id, at(0, uint64(offset)), time.Now().UnixMilli()) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}
