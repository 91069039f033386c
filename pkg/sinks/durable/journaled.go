package durable

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Journal is what a Journaled needs of a *journal.Log.
type Journal interface {
	interface {
		Append(payload []byte) (seq uint64, err error)
		Usage() journal.Usage
	}
	interface {
		Get(seq uint64) ([]byte, error)
		Read(from uint64, fn func(seq uint64, payload []byte) error) error
	}
	interface {
		Settle(seqs ...uint64)
		Close() error
	}
}

var _ Journal = (*journal.Log)(nil)

// JournaledConfig says how a Journaled works.
type JournaledConfig struct {
	Config
	// Keep is how long an acknowledged event stays in the journal, counted in time in which the sink was seen alive: a
	// broker may lose what it acknowledged and had not yet written to its disk. 0 means not at all. A sinks.Syncer is
	// not trusted by time: there, a Sync ends the doubt.
	Keep time.Duration
	// DedupWindow is for how long the sink knows ids. An event acknowledged longer ago is not kept any more, for
	// offering it again would store it twice. Default 25 h.
	DedupWindow time.Duration
	// Quarantine is the directory for events that the sink refuses even as dead letters, and for records that are no
	// events. It is made when it is first needed. Required.
	Quarantine string
	// AttemptTimeout bounds one attempt at forwarding an event; it is repeated under the same id. Default 1 s.
	AttemptTimeout time.Duration
	// CheckpointEvery is the time between two calls of a sinks.Syncer's Sync, if something was acknowledged in between.
	// Default 1 s.
	CheckpointEvery time.Duration
	// DeadLetters counts events that became dead letters after their caller had been told schema.Spooled. Optional.
	DeadLetters prometheus.Counter
	// Log gets one line per change of state: spooling, all forwarded, what was set aside or forgotten.
	Log zerolog.Logger
}

// Keys of the log's fields.
const (
	LogKeyDelivery = "delivery" // the webhook-id
	LogKeyEvents   = "events"   // a number of events
	LogKeySeq      = "seq"      // a record's place in the journal
	LogKeyFile     = "file"     // in quarantine
)

// Journaled makes events durable through one sink and a journal, both at once. What the sink does not take now waits in
// the journal and is forwarded later, under its id, in order per partition key. It is safe for concurrent use.
type Journaled struct {
	sink    sinks.Sink
	syncer  sinks.Syncer // the sink, if it is one
	journal Journal
	cfg     JournaledConfig
	seed    maphash.Seed
	start   time.Time
	syncs   rounds
	room    chan struct{} // held by who makes room in a full journal

	forwarding, life       context.Context // until nothing more is forwarded; until the end
	endForwarding, endLife context.CancelFunc
	loops                  sync.WaitGroup

	mu        sync.Mutex
	closed    bool // nothing new comes in
	epoch     uint64
	flights   map[digest]*flight
	entries   map[digest]*entry
	lanes     map[uint64]*lane
	routes    [2]route // of events, of dead letters
	waiting   list
	kept      list
	left      int           // flights whose first caller has gone
	acks      uint64        // acknowledged so far
	alive     time.Duration // for how long the sink was seen alive, in whole ticks
	sign      bool          // the sink has acknowledged something since the last tick
	episode   bool          // something waits, and the log knows why
	forwarded int           // in this episode
	cutting   bool          // kept events make room, and the log knows
	unsynced  bool          // the last checkpoint failed, and the log knows
	keepCut   uint64
	watch     func() // called after every change, while Close waits

	quarantined atomic.Uint64
}

// NewJournaled returns a Journaled over sink and log, which it owns from then on. What waits in the journal is
// forwarded in the background, while new events of other partition keys are published directly. The error is the
// journal's, or that of setting aside what is no event; both are then still the caller's.
func NewJournaled(sink sinks.Sink, log Journal, cfg JournaledConfig) (*Journaled, error) {
	cfg.DedupWindow = cmp.Or(cfg.DedupWindow, 25*time.Hour)
	cfg.AttemptTimeout = cmp.Or(cfg.AttemptTimeout, time.Second)
	cfg.CheckpointEvery = cmp.Or(cfg.CheckpointEvery, time.Second)
	d := &Journaled{
		sink: sink, journal: log, cfg: cfg, seed: maphash.MakeSeed(), start: time.Now(), room: make(chan struct{}, 1),
		flights: map[digest]*flight{},
	}
	d.syncer, _ = sink.(sinks.Syncer)
	d.forwarding, d.endForwarding = context.WithCancel(context.Background())
	d.life, d.endLife = context.WithCancel(context.Background())
	if f, ok := sink.(sinks.Forgetful); ok {
		f.OnForgotten(d.forgotten)
	}
	if err := d.load(); err != nil {
		d.endForwarding()
		d.endLife()
		return nil, err
	}
	switch {
	case d.syncer != nil:
		d.syncs.sync = func() error { return d.syncer.Sync(d.life) }
		d.loops.Go(d.checkpoints)
	case cfg.Keep > 0:
		d.loops.Go(d.clock)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pump()
	return d, nil
}

// load makes every record of the journal a waiting one. It keeps no more of an event than what it takes to know it.
func (d *Journaled) load() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	records := d.journal.Usage().Records
	d.entries, d.lanes = make(map[digest]*entry, records), make(map[uint64]*lane, records)
	var again, broken []uint64
	var err error
	batches := make(chan []entry, 1) // there may be very many, and a start has to be quick
	go func() {
		defer close(batches)
		broken, err = d.readAll(batches)
	}()
	for batch := range batches {
		for i := range batch {
			e := &batch[i]
			// An append that failed may be there all the same, before the one that was answered.
			if older := d.entries[e.id]; older != nil {
				again = append(again, older.seq)
				d.dequeue(older)
			}
			d.entries[e.id] = e
			at := e.at
			d.enqueue(e)
			e.at = at
		}
	}
	if err != nil {
		return err
	}
	d.journal.Settle(again...)
	for _, seq := range broken {
		if err := d.setAsideRecord(seq); err != nil {
			return fmt.Errorf("record %d of the journal is no event, and could not be set aside: %w", seq, err)
		}
		d.journal.Settle(seq)
	}
	if d.waiting.len > 0 {
		d.episode = true
		d.cfg.Log.Info().Int(LogKeyEvents, d.waiting.len).Msg("events wait in the journal and are forwarded now")
	}
	return nil
}

// readAll makes an entry of every record of the journal. broken are those that are no events.
func (d *Journaled) readAll(batches chan<- []entry) (broken []uint64, err error) {
	var batch []entry
	err = d.journal.Read(0, func(seq uint64, payload []byte) error {
		label, unreadable := schema.ReadLabel(payload)
		if unreadable != nil {
			broken = append(broken, seq)
			return nil //nolint:nilerr // it is set aside, and the others are read
		}
		if len(batch) == cap(batch) {
			if batch != nil {
				batches <- batch
			}
			batch = make([]entry, 0, 1024)
		}
		batch = append(batch, entry{
			seq: seq, id: digestOf(label.Key), lane: d.laneOf(label.Key, label.PartitionKey), dead: label.Key.Dead,
			at: label.Received.Sub(d.start),
		})
		return nil
	})
	if len(batch) > 0 {
		batches <- batch
	}
	return broken, err
}

// Deliver returns once the event is durable, at most after the ack timeout: in the sink (schema.Published,
// schema.DeadLettered, or schema.Duplicate if its id had been accepted), or in the journal (schema.Spooled). An event whose
// id is under way already is not published again: its caller waits for the first one's result.
//
// A nil error means durable. Any other means not now: ErrTimeout, sinks.ErrUnknown, sinks.ErrClosed, ctx's error
// when the caller left, or those of the sink and the journal.
//
// An event that the sink refuses, and whose dead letter it refuses too, is set aside in quarantine, which is answered
// schema.DeadLettered.
func (d *Journaled) Deliver(ctx context.Context, event *schema.Event) (schema.Result, error) {
	return d.deliver(ctx, event, false)
}

// deliver is Deliver. A dead letter that is made on the way is let in after the close.
func (d *Journaled) deliver(ctx context.Context, event *schema.Event, late bool) (schema.Result, error) {
	d.mu.Lock()
	if d.closed && !late {
		d.mu.Unlock()
		return 0, sinks.ErrClosed
	}
	id := digestOf(event.Key())
	f, held := d.flights[id]
	if e := d.entries[id]; e != nil && !held {
		defer d.mu.Unlock()
		if e.state == kept {
			return schema.Duplicate, nil // and if the sink forgets it, it is offered again
		}
		return schema.Spooled, nil
	}
	if !held {
		f = d.launch(id, event)
	}
	d.mu.Unlock()

	timeout := time.NewTimer(d.cfg.AckTimeout)
	defer timeout.Stop()
	select {
	case <-f.done:
	case <-timeout.C:
		d.timeout(f)
	case <-ctx.Done():
	}
	result, err := d.hear(f, !held, ctx.Err())
	if held {
		result = forWaiter(result)
	}
	return result, err
}

// hear returns what is known of a flight. gone is why its caller does not wait any longer, if that is not the time.
func (d *Journaled) hear(f *flight, first bool, gone error) (schema.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if first && !f.over() && f.entry == nil {
		f.left = true
		d.left++
	}
	switch {
	case f.told:
		return f.result, f.err
	case gone != nil:
		return 0, gone
	case f.publishErr != nil:
		return 0, fmt.Errorf("%w: %w", ErrTimeout, f.publishErr)
	}
	return 0, ErrTimeout
}

func (d *Journaled) laneOf(key schema.Key, partition string) uint64 {
	return maphash.Comparable(d.seed, schema.Key{Dead: key.Dead, ID: partition})
}

func (d *Journaled) now() time.Duration { return time.Since(d.start) }
