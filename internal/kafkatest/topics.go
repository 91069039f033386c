package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Topic returns a name for a topic that no other in the process has, made of the test's own name.
func (c *Cluster) Topic() string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, c.t.Name())
	return fmt.Sprintf("%.100s-%d", name, used.topics.Add(1))
}

// CreateTopic makes a topic with a replica on every node, and waits until every node knows it and its leaders serve it.
// Configs are the topic's settings, such as retention.ms.
func (c *Cluster) CreateTopic(topic string, partitions int, configs map[string]string) {
	c.t.Helper()
	ctx, client, done := c.client()
	defer done()
	config := kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: -1}
	for name, value := range configs {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	create := &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}}
	c.until(ctx, "create topic "+topic, func(again bool) error {
		res, err := client.CreateTopics(ctx, create)
		if err != nil {
			return err // the client has no metadata yet
		}
		switch err := res.Errors[topic]; {
		case again && errors.Is(err, kafka.TopicAlreadyExists):
		case err != nil:
			c.t.Fatalf("kafkatest: create topic %s: %v", topic, err)
		}
		return nil
	})
	c.until(ctx, "topic "+topic, func(bool) error { return c.served(ctx, client, topic, partitions) })
}

func (c *Cluster) served(ctx context.Context, client *kafka.Client, topic string, partitions int) error {
	for _, addr := range c.Bootstrap() {
		led, err := c.partitions(ctx, client, addr, topic)
		if err != nil {
			return err
		}
		if len(led) != partitions {
			return fmt.Errorf("%s knows %d partitions with a leader", addr, len(led))
		}
	}
	// A node that is known to lead may still have to begin.
	var last []kafka.OffsetRequest
	for partition := range partitions {
		last = append(last, kafka.LastOffsetOf(partition))
	}
	res, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: last}})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[topic] {
		err = errors.Join(err, p.Error)
	}
	return err
}

// Leader returns the node that leads a partition, by the first node that answers. After a crash that may be the crashed
// one, until its session has ended.
func (c *Cluster) Leader(topic string, partition int) (node int) {
	c.t.Helper()
	ctx, client, done := c.client()
	defer done()
	c.until(ctx, fmt.Sprintf("leader of partition %d of %s", partition, topic), func(bool) error {
		var errs []error
		for _, addr := range c.Bootstrap() {
			p, err := c.partition(ctx, client, addr, topic, partition)
			if err == nil {
				node = p.Leader.ID
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return node
}

// AwaitInSync waits until all replicas of a partition are in sync, so that any one of them can be taken away. All nodes must
// say so: one that was away may tell of what was before.
func (c *Cluster) AwaitInSync(topic string, partition int) {
	c.t.Helper()
	ctx, client, done := c.client()
	defer done()
	c.until(ctx, fmt.Sprintf("partition %d of %s in sync", partition, topic), func(bool) error {
		for _, addr := range c.Bootstrap() {
			p, err := c.partition(ctx, client, addr, topic, partition)
			if err != nil {
				return err
			}
			if len(p.Isr) < len(p.Replicas) {
				return fmt.Errorf("%s knows %v", addr, p)
			}
		}
		return nil
	})
}

// partition returns what one node knows of a partition that has a leader.
func (c *Cluster) partition(ctx context.Context, client *kafka.Client, addr, topic string, partition int) (kafka.Partition, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	led, err := c.partitions(ctx, client, addr, topic)
	if err != nil {
		return kafka.Partition{}, fmt.Errorf("%s: %w", addr, err)
	}
	for _, p := range led {
		if p.ID == partition {
			return p, nil
		}
	}
	return kafka.Partition{}, fmt.Errorf("%s knows %v", addr, led)
}

// partitions returns those partitions of a topic that have a leader, as one node knows them.
func (c *Cluster) partitions(ctx context.Context, client *kafka.Client, addr, topic string) ([]kafka.Partition, error) {
	res, err := client.Metadata(ctx, &kafka.MetadataRequest{Addr: kafka.TCP(addr), Topics: []string{topic}})
	if err != nil {
		return nil, err
	}
	var led []kafka.Partition
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if p.Error == nil && p.Leader.Host != "" {
				led = append(led, p)
			}
		}
	}
	return led, nil
}

// client returns a client and a minute for it. Done leaves no connection and no goroutine.
func (c *Cluster) client() (ctx context.Context, client *kafka.Client, done func()) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	transport := &kafka.Transport{MetadataTTL: 250 * time.Millisecond}
	client = &kafka.Client{Addr: kafka.TCP(c.Bootstrap()...), Transport: transport}
	return ctx, client, func() {
		cancel()
		transport.CloseIdleConnections()
	}
}

// until tries something until it works or ctx ends, which ends the test. The first try is not again.
func (c *Cluster) until(ctx context.Context, what string, try func(again bool) error) {
	c.t.Helper()
	for again := false; ; again = true {
		err := try(again)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("kafkatest: %s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
