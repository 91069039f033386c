package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

// destination is one sink of the settings, with holds of its own around it, and a journal, unless that is off.
type destination struct {
	name      string
	sink      sinks.Sink
	deliverer durableDeliverer
	closing   sync.Once
}

// durableDeliverer is a *durable.Deliverer or a *durable.Journaled.
type durableDeliverer interface {
	ingress.Deliverer
	interface {
		Ready(ctx context.Context) error
		Close(ctx context.Context) error
	}
	interface {
		Left() int
		Held() []string
	}
}

// destinations is all of them. What stands around the sinks, one deliverer each, is asked here as if it were one.
type destinations []*destination

// uses tells whether a sink is among those of BRIDGE_SINK.
func (c *Config) uses(sink string) bool { return slices.Contains(strings.Split(c.Sink, ","), sink) }

// newDestinations builds the sinks of BRIDGE_SINK and registers them with readiness, metrics and teardown.
func (d *daemon) newDestinations(ctx context.Context, metrics prometheus.Registerer, counters *ingress.Metrics) (destinations, error) {
	var all destinations
	seconds := publishSeconds(metrics)
	add := func(name string, sink sinks.Sink) error {
		cfg := durable.Config{AckTimeout: d.cfg.AckTimeout, Seconds: seconds.WithLabelValues(name)}
		deliverer, err := d.newDeliverer(name, sink, cfg, metrics, counters)
		if err != nil {
			return err
		}
		one := &destination{name: name, sink: sink, deliverer: deliverer}
		d.onStop(name+" sink", one.close)
		d.ready.add(part{name, deliverer.Ready})
		metrics.MustRegister(sinkUp(part{name, sink.Ready}))
		all = append(all, one)
		return nil
	}
	if d.cfg.uses(jetstream.Name) {
		if d.cfg.NATS.URL == "" {
			embedded, err := d.startEmbedded()
			if err != nil {
				return nil, err
			}
			d.natsURL = embedded.ClientURL()
		}
		sink, err := newJetStream(d.cfg, d.embedded, d.watcher, d.log)
		if err != nil {
			return nil, err
		}
		if err := add(jetstream.Name, sink); err != nil {
			return nil, err
		}
	}
	if d.cfg.uses(kafka.Name) {
		sink, err := newKafka(d.cfg, d.watcher, d.log)
		if err != nil {
			return nil, err
		}
		if err := add(kafka.Name, sink); err != nil {
			return nil, err
		}
		metrics.MustRegister(dedupEntries(sink))
		// A broker that is away may come; one that refuses the bridge will go on refusing it.
		if err := sink.Check(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// newDeliverer puts holds around the sink, and a journal. It owns the sink, also when it fails.
func (d *daemon) newDeliverer(name string, sink sinks.Sink, cfg durable.Config, metrics prometheus.Registerer, counters *ingress.Metrics) (durableDeliverer, error) {
	if d.cfg.Journal == "off" {
		return durable.New(sink, cfg), nil
	}
	abandon := func(err error) error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("journal of %s (BRIDGE_DATA_DIR; BRIDGE_JOURNAL=off does without): %w", name, err), sink.Close(ctx))
	}
	log, err := journal.Open(journal.Config{Dir: journalDir(d.cfg, name), MaxBytes: int64(d.cfg.JournalMaxBytes), SegmentBytes: segmentBytes(d.cfg)})
	if err != nil {
		return nil, abandon(err)
	}
	journaled, err := durable.NewJournaled(sink, log, durable.JournaledConfig{
		Config: cfg, Keep: d.cfg.JournalKeep, DedupWindow: d.cfg.DedupWindow, Quarantine: quarantineDir(d.cfg, name),
		DeadLetters: counters.DeadLetters(schema.ReasonRefused), Log: d.log.With().Str("sink", name).Logger(),
	})
	if err != nil {
		return nil, abandon(errors.Join(err, log.Close()))
	}
	metrics.MustRegister(newJournalMetrics(name, journaled.Stats))
	return journaled, nil
}

// close is for once: the drain has closed it with all the time there was, before the teardown comes to it.
func (b *destination) close(ctx context.Context) (err error) {
	b.closing.Do(func() { err = b.deliverer.Close(ctx) })
	return err
}

// deliverer is what the road ends in.
func (b destinations) deliverer() ingress.Deliverer {
	if len(b) == 1 {
		return b[0].deliverer
	}
	var parts []fanout.Part
	for _, one := range b {
		parts = append(parts, fanout.Part{Name: one.name, Deliverer: one.deliverer})
	}
	return fanout.New(parts...)
}

// left returns how many publishes are under way whose request has gone.
func (b destinations) left() int {
	n := 0
	for _, one := range b {
		n += one.deliverer.Left()
	}
	return n
}

// held returns the ids whose outcome is not known yet in every broker.
func (b destinations) held() []string {
	var ids []string
	for _, one := range b {
		ids = append(ids, one.deliverer.Held()...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// close closes all of them at once, for each forwards what waits while there is time.
func (b destinations) close(ctx context.Context) error {
	errs := make([]error, len(b))
	var closing sync.WaitGroup
	for i, one := range b {
		closing.Go(func() {
			if err := one.close(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", one.name, err)
			}
		})
	}
	closing.Wait()
	return errors.Join(errs...)
}
