package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

// destination is one sink of the settings, with holds of its own around it.
type destination struct {
	name      string
	deliverer *durable.Deliverer
}

// destinations is all of them. What stands around the sinks, one deliverer each, is asked here as if it were one.
type destinations []destination

// uses tells whether a sink is among those of BRIDGE_SINK.
func (c *Config) uses(sink string) bool { return slices.Contains(strings.Split(c.Sink, ","), sink) }

// newDestinations builds the sinks of BRIDGE_SINK and registers them with readiness, metrics and teardown.
func (d *daemon) newDestinations(ctx context.Context, metrics prometheus.Registerer) (destinations, error) {
	var all destinations
	seconds := publishSeconds(metrics)
	add := func(name string, sink sinks.Sink) {
		b := destination{name, durable.New(sink, durable.Config{AckTimeout: d.cfg.AckTimeout, Seconds: seconds.WithLabelValues(name)})}
		d.onStop(name+" sink", b.deliverer.Close)
		p := part{name, b.deliverer.Ready}
		d.ready.add(p)
		metrics.MustRegister(sinkUp(p))
		all = append(all, b)
	}
	if d.cfg.uses(jetstream.Name) {
		sink, err := d.newJetStream(ctx)
		if err != nil {
			return nil, err
		}
		add(jetstream.Name, sink)
	}
	if d.cfg.uses(kafka.Name) {
		sink, err := newKafka(d.cfg, d.log)
		if err != nil {
			return nil, err
		}
		add(kafka.Name, sink)
		metrics.MustRegister(dedupEntries(sink))
		// A broker that is away may come; one that refuses the bridge will go on refusing it.
		if err := sink.Check(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
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

func (b destinations) close(ctx context.Context) error {
	var all error
	for _, one := range b {
		if err := one.deliverer.Close(ctx); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", one.name, err))
		}
	}
	return all
}
