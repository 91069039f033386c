package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// What every sink promises, the fan-out over real NATS and real Kafka promises of both: in each case, whichever broker
// is stopped, the two hold the same.
func TestConformance(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	for _, stopped := range []string{"nats", "kafka"} {
		t.Run("stopping "+stopped, func(t *testing.T) {
			sinkstest.Run(t, sinkstest.Features{Restart: true}, func(t *testing.T) sinkstest.Harness {
				p := newPair(t, cluster)
				h := sinkstest.Harness{
					Sink: p, Stop: p.nats.stop, Start: p.nats.start,
					Stored: func(t *testing.T) []sinkstest.Record { return p.stored(t, stopped) },
				}
				if stopped == "kafka" {
					h.Stop = func(*testing.T) { cluster.Stop(1) }
					h.Start = func(*testing.T) { cluster.Restart(1) }
				}
				return h
			})
		})
	}
}

// pair is a fan-out over both brokers in the shape of a sink, for the suite knows nothing else.
type pair struct {
	*fanout.Fanout
	nats  *natsServer
	kafka kafkaTopic
	parts []*durable.Deliverer

	mu        sync.Mutex
	published uint64
	closed    bool
	underway  sync.WaitGroup
}

func newPair(t *testing.T, cluster *kafkatest.Cluster) *pair {
	t.Helper()
	p := &pair{nats: startNATS(t), kafka: kafkaTopic{cluster, cluster.Topic()}}
	cfg := durable.Config{AckTimeout: patience} // the suite has callers that wait until a broker is back
	nats, kafka := durable.New(p.nats.sink(t), cfg), durable.New(p.kafka.sink(t), cfg)
	p.Fanout, p.parts = two(nats, kafka), []*durable.Deliverer{nats, kafka}
	t.Cleanup(func() {
		if err := p.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Publish is Deliver. A caller who left or waited too long cannot know what became of the event.
func (p *pair) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	if err := p.enter(); err != nil {
		return sinks.Ack{}, err
	}
	defer p.underway.Done()
	result, err := p.Deliver(ctx, e)
	if err != nil {
		return sinks.Ack{}, fmt.Errorf("%w: %w", sinks.ErrUnknown, err)
	}
	if result == schema.Duplicate {
		return sinks.Ack{Duplicate: true}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published++
	return sinks.Ack{Position: sinks.Position{Sequence: p.published}}, nil
}

func (p *pair) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return sinks.ErrClosed
	}
	p.underway.Add(1)
	return nil
}

func (p *pair) Ready(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return sinks.ErrClosed
	}
	var degraded error
	for _, part := range p.parts {
		err := part.Ready(ctx)
		if _, ok := errors.AsType[*sinks.DegradedError](err); ok {
			degraded = err
		} else if err != nil {
			return err
		}
	}
	return degraded
}

// Close does as the bridge does: requests end first, then their sinks.
func (p *pair) Close(ctx context.Context) error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if again {
		return nil
	}
	p.underway.Wait()
	var all error
	for _, part := range p.parts {
		all = errors.Join(all, part.Close(ctx))
	}
	return all
}

// stored sees that both brokers hold the same once nothing is under way, and returns what the one called name has, in
// its order.
func (p *pair) stored(t *testing.T, name string) []sinkstest.Record {
	t.Helper()
	for deadline := time.Now().Add(patience); p.held() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d publishes are still under way", p.held())
		}
	}
	records := map[string][]sinkstest.Record{"nats": p.nats.stored(t), "kafka": p.kafka.stored(t)}
	if nats, kafka := inventory(records["nats"]), inventory(records["kafka"]); !slices.Equal(nats, kafka) {
		t.Errorf("NATS holds %d records, Kafka %d:\n%.300q\n%.300q", len(nats), len(kafka), nats, kafka)
	}
	return records[name]
}

// held counts publishes under way, those whose caller has gone among them.
func (p *pair) held() int {
	n := 0
	for _, part := range p.parts {
		n += len(part.Held())
	}
	return n
}

// inventory is what there is, in no matter what order: the two brokers may order the events of two callers differently.
func inventory(records []sinkstest.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, fmt.Sprint(r.ID, r.Dead, string(r.Event)))
	}
	slices.Sort(all)
	return all
}
