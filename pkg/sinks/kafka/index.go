package kafka

import (
	"crypto/rand"
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/gembridge/bridge/pkg/sinks"
)

const (
	indexShards = 64
	// generations is how often within a window what has left it is removed, so that many times in its life is an
	// entry looked at.
	generations = 64
	// maxID is the length of the longest id: 256 bytes of the sender's (or of "jwt_" and a hash), and what is put
	// behind it when a dead letter is replayed.
	maxID = 288
)

// index knows which ids a topic holds, and where. An id is known for as long as the youngest record with it is in the
// window, and up to two seconds longer, for it counts in seconds.
//
// An id takes 50 to 85 bytes, whatever its length: the maps that hold them are between half full and full. What has
// left the window is never found; its memory is free for others when ids go on coming, a 64th of the window later. All
// methods are safe for concurrent use.
type index struct {
	window int64    // seconds
	secret [16]byte // who does not know it cannot find ids that collide
	shards [indexShards]shard
}

type shard struct {
	mu     sync.RWMutex
	places map[digest]place
	peak   int   // the most places since the map was made, for a map never shrinks
	due    int64 // seconds, Unix: when to remove what has left the window
}

// digest stands for an id: 128 bits of SHA-256.
type digest [16]byte

type place struct {
	offset    uint64
	partition int32
	born      uint32 // seconds, Unix
}

// newIndex returns an empty index.
func newIndex(window time.Duration) *index {
	x := &index{window: int64((window + time.Second - 1) / time.Second)}
	_, _ = rand.Read(x.secret[:]) // never fails
	for i := range x.shards {
		x.shards[i].places = map[digest]place{}
	}
	return x
}

// find returns where the youngest record with an id is, if it is in the window.
func (x *index) find(id string) (pos sinks.Position, found bool) {
	d := digestOf(&x.secret, id)
	s := x.shard(d)
	s.mu.RLock()
	p, found := s.places[d]
	s.mu.RUnlock()
	if !found || p.leftBy(x.horizon()) {
		return sinks.Position{}, false
	}
	return sinks.Position{Partition: p.partition, Sequence: p.offset}, true
}

// add notes that the record at pos, written at a time, has an id. Of several records with the same id the youngest
// counts; a time in the future is now.
func (x *index) add(id string, pos sinks.Position, at time.Time) {
	x.put(digestOf(&x.secret, id), pos, at.UnixMilli())
}

// addBytes is add for an id in a buffer that the caller goes on using, and a time in milliseconds as records have it.
func (x *index) addBytes(id []byte, pos sinks.Position, at int64) {
	x.put(digestOf(&x.secret, id), pos, at)
}

func (x *index) put(d digest, pos sinks.Position, at int64) {
	now := time.Now()
	horizon := now.Unix() - x.window
	born := (max(0, min(at, now.UnixMilli())) + 999) / 1000
	p := place{offset: pos.Sequence, partition: pos.Partition, born: uint32(born)}
	s := x.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(horizon, x.window)
	if old, known := s.places[d]; !p.leftBy(horizon) && (!known || old.born <= p.born) {
		s.places[d] = p
	}
}

// forget drops what it knows of a partition, whose log is no longer the one that was read, and returns how many ids
// those were.
func (x *index) forget(partition int32) int {
	n := 0
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		before := len(s.places)
		maps.DeleteFunc(s.places, func(_ digest, p place) bool { return p.partition == partition })
		n += before - len(s.places)
		s.mu.Unlock()
	}
	return n
}

// len returns the number of ids. Those that left the window within its last 64th may be among them.
func (x *index) len() int {
	n, horizon := 0, x.horizon()
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		s.expire(horizon, x.window)
		n += len(s.places)
		s.mu.Unlock()
	}
	return n
}

// digestOf is a function, for id must not be copied to the heap to become the other type.
func digestOf[T string | []byte](secret *[16]byte, id T) digest {
	var b [len(secret) + maxID]byte
	n := copy(b[:], secret[:])
	if len(id) > maxID { // none of the bridge's, but it is not to be taken for one that begins like it
		long := sha256.Sum256([]byte(id))
		n += copy(b[n:], long[:])
	} else {
		n += copy(b[n:], id)
	}
	sum := sha256.Sum256(b[:n])
	return digest(sum[:len(digest{})])
}

func (x *index) shard(d digest) *shard { return &x.shards[d[0]%indexShards] }

// horizon is the time, in seconds, before which nothing is in the window.
func (x *index) horizon() int64 { return time.Now().Unix() - x.window }

func (p place) leftBy(horizon int64) bool { return int64(p.born) < horizon }

// expire removes what has left the window, when that is due. The caller holds mu.
func (s *shard) expire(horizon, window int64) {
	now := horizon + window
	if now < s.due {
		return
	}
	s.due = now + max(1, window/generations)
	s.peak = max(s.peak, len(s.places))
	maps.DeleteFunc(s.places, func(_ digest, p place) bool { return p.leftBy(horizon) })
	if n := len(s.places); n < s.peak/4 {
		smaller := make(map[digest]place, n)
		maps.Copy(smaller, s.places)
		s.places, s.peak = smaller, n
	}
}
