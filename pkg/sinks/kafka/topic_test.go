package kafka_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// admin returns a client that may do everything.
func admin(t *testing.T, brokers []string) *kafkago.Client {
	t.Helper()
	transport := &kafkago.Transport{MetadataTTL: 250 * time.Millisecond} // which is also the patience with an answer
	t.Cleanup(transport.CloseIdleConnections)
	client := &kafkago.Client{Addr: kafkago.TCP(brokers...), Transport: transport}
	eventually(t, "known", func() error { // else the first request goes nowhere
		_, err := client.Metadata(ctxOf(t, 10*time.Second), &kafkago.MetadataRequest{})
		return err
	})
	return client
}

// controlled repeats what a broker that has not heard of a controller could not do.
func controlled(t *testing.T, do func() error) {
	t.Helper()
	eventually(t, "controlled", func() error {
		err := do()
		if err != nil && !errors.Is(err, kafkago.BrokerNotAvailable) {
			t.Fatal(err)
		}
		return err
	})
}

// configsOf returns the settings of a topic.
func configsOf(t *testing.T, a *kafkago.Client, topic string) map[string]string {
	t.Helper()
	var res *kafkago.DescribeConfigsResponse
	controlled(t, func() (err error) {
		res, err = a.DescribeConfigs(ctxOf(t, 10*time.Second), &kafkago.DescribeConfigsRequest{
			Resources: []kafkago.DescribeConfigRequestResource{{ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic}},
		})
		return err
	})
	if err := res.Resources[0].Error; err != nil {
		t.Fatal(err)
	}
	configs := map[string]string{}
	for _, e := range res.Resources[0].ConfigEntries {
		configs[e.ConfigName] = e.ConfigValue
	}
	return configs
}

// alter changes a topic's settings.
func alter(t *testing.T, a *kafkago.Client, topic string, settings map[string]string) {
	t.Helper()
	resource := kafkago.IncrementalAlterConfigsRequestResource{ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic}
	for name, value := range settings {
		resource.Configs = append(resource.Configs, kafkago.IncrementalAlterConfigsRequestConfig{Name: name, Value: value, ConfigOperation: kafkago.ConfigOperationSet})
	}
	controlled(t, func() error {
		res, err := a.IncrementalAlterConfigs(ctxOf(t, 10*time.Second), &kafkago.IncrementalAlterConfigsRequest{Resources: []kafkago.IncrementalAlterConfigsRequestResource{resource}})
		if err != nil {
			return err
		}
		return res.Resources[0].Error
	})
}

func deleteTopics(t *testing.T, a *kafkago.Client, topics ...string) {
	t.Helper()
	controlled(t, func() error {
		res, err := a.DeleteTopics(ctxOf(t, 10*time.Second), &kafkago.DeleteTopicsRequest{Topics: topics})
		if err != nil {
			return err
		}
		for topic, err := range res.Errors {
			if err != nil {
				return fmt.Errorf("%s: %w", topic, err)
			}
		}
		return nil
	})
}

// details returns what weakens a promise.
func details(t *testing.T, s *kafka.Sink) []string {
	t.Helper()
	var found []string
	eventually(t, "ready", func() error {
		err := ready(t, s)
		found = nil
		if degraded, ok := errors.AsType[*sinks.DegradedError](err); ok {
			found = degraded.Details
			return nil
		}
		return err
	})
	return found
}

func TestCreatesTopics(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	s, log := openSink(t, kafka.Config{
		Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, Partitions: 3, Replication: 1,
		MaxAge: 50 * time.Hour, DeadMaxAge: 60 * time.Hour, MaxEvent: 5 << 20,
	})
	if found := details(t, s); len(found) > 0 {
		t.Errorf("not content with what it has made: %q", found)
	}
	a := admin(t, c.Bootstrap())
	for name, age := range map[string]string{topic: "180000000", topic + ".dead": "216000000"} {
		configs := configsOf(t, a, name)
		want := map[string]string{"retention.ms": age, "cleanup.policy": "delete", "max.message.bytes": fmt.Sprint(5<<20 + 4<<10)}
		for k, v := range want {
			if configs[k] != v {
				t.Errorf("%s: %s is %s, want %s", name, k, configs[k], v)
			}
		}
		meta, err := a.Metadata(ctxOf(t, 10*time.Second), &kafkago.MetadataRequest{Topics: []string{name}})
		if err != nil || len(meta.Topics[0].Partitions) != 3 || len(meta.Topics[0].Partitions[0].Replicas) != 1 {
			t.Errorf("%s: %+v, %v", name, meta, err)
		}
	}
	warnings := strings.Count(log.String(), `"warn"`) - strings.Count(log.String(), "is not read:") // a slow broker may take its time
	if n := strings.Count(log.String(), "created topic"); n != 2 || warnings != 0 {
		t.Errorf("log:\n%s", log)
	}
}

// TestCreatesTopicsThreeNodes: with the brokers' default of three replicas, one of them is not enough.
func TestCreatesTopicsThreeNodes(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{Nodes: 3, Set: map[string]string{"min.insync.replicas": "1"}})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true})
	if found := details(t, s); len(found) > 0 {
		t.Errorf("not content with what it has made: %q", found)
	}
	if configs := configsOf(t, admin(t, c.Bootstrap()), topic); configs["min.insync.replicas"] != "2" || configs["max.message.bytes"] != "4194304" {
		t.Errorf("made %v", configs)
	}
	c.CreateTopic(topic+"x", 1, nil)
	c.CreateTopic(topic+"x.dead", 1, map[string]string{"min.insync.replicas": "2"})
	s, _ = openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic + "x"})
	want := []string{"topic " + topic + "x acknowledges events that one broker has: " + configure(c, topic+"x", "min.insync.replicas=2")}
	if found := details(t, s); !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
	a := admin(t, c.Bootstrap())
	single := topic + "y"
	for _, name := range []string{single, single + ".dead"} {
		res, err := a.CreateTopics(ctxOf(t, 10*time.Second), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{{Topic: name, NumPartitions: 1, ReplicationFactor: 1}}})
		if err != nil || res.Errors[name] != nil {
			t.Fatal(err, res)
		}
	}
	s, _ = openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: single})
	if found := details(t, s); len(found) != 2 || !strings.Contains(found[0], "has one replica on a cluster of 3 brokers") || !strings.Contains(found[0], "BRIDGE_KAFKA_REPLICATION=3") {
		t.Errorf("found %q", found)
	}
}

func configure(c *kafkatest.Cluster, topic, setting string) string {
	return "kafka-configs.sh --bootstrap-server " + c.Bootstrap()[0] + " --alter --entity-type topics --entity-name " + topic + " --add-config " + setting
}

func TestMayNotCreateTopics(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, MaxEvent: 1 << 20})
	want := "topic " + topic + " is missing: set BRIDGE_KAFKA_CREATE_TOPICS=on, or run: kafka-topics.sh --bootstrap-server " + c.Bootstrap()[0] +
		" --create --topic " + topic + " --partitions 6 --config cleanup.policy=delete --config retention.ms=604800000 --config max.message.bytes=4194304"
	eventually(t, "told", func() error {
		if err := ready(t, s); err == nil || err.Error() != want {
			return fmt.Errorf("Ready: %w", err)
		}
		return nil
	})
	mustBePrompt(t, "Publish", func() error { _, err := s.Publish(ctxOf(t, 5*time.Second), sinkstest.Event(1)); return err }, want)
	for _, name := range []string{topic, topic + ".dead"} {
		c.CreateTopic(name, 2, map[string]string{"max.message.bytes": "4194304"})
	}
	if found := details(t, s); len(found) > 0 {
		t.Errorf("found %q", found)
	}
	publish(t, s, 1)
}

// TestCannotCreateTopics: the brokers refuse, and say why.
func TestCannotCreateTopics(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topicOf(t), CreateTopics: true, Replication: 9})
	mustBeDown(t, s, "BRIDGE_KAFKA_REPLICATION")
}

// TestExistingTopics: what is wrong with a topic is told once, with a command that mends it, and is never changed.
func TestExistingTopics(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	a := admin(t, c.Bootstrap())
	topic := topicOf(t)
	c.CreateTopic(topic, 1, map[string]string{
		"cleanup.policy": "compact,delete", "retention.ms": "3600000", "retention.bytes": "1000000", "max.message.bytes": "1000000",
		"min.insync.replicas": "1", "unclean.leader.election.enable": "true",
	})
	c.CreateTopic(topic+".dead", 1, map[string]string{"max.message.bytes": "4194304"})
	before := configsOf(t, a, topic)
	s, log := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, MaxEvent: 1 << 20})
	wanted := map[string]string{
		"is compacted, which keeps one event per job":                              "cleanup.policy=delete",
		"keeps events for 1h0m0s, less than BRIDGE_DEDUP_WINDOW":                   "retention.ms=604800000",
		"silently discards old events of a partition with more than 1000000 bytes": "retention.bytes=-1",
		"takes records of up to 1000000 bytes, an event may have 1048576":          "max.message.bytes=4194304",
		"loses events when a replica leads that was not in sync":                   "unclean.leader.election.enable=false",
	}
	found := details(t, s)
	if len(found) != len(wanted) {
		t.Errorf("found %q", found)
	}
	command := regexp.MustCompile(`kafka-configs\.sh .* --entity-name (\S+) --add-config ([a-z.]+)=([^ ,]+)`)
	for what, setting := range wanted {
		text := "topic " + topic + " " + what + ": " + configure(c, topic, setting)
		i := slices.IndexFunc(found, func(s string) bool { return strings.HasPrefix(s, text) })
		if i < 0 {
			t.Errorf("%q is not among %q", text, found)
			continue
		}
		if n := strings.Count(log.String(), what); n != 1 {
			t.Errorf("%q was logged %d times", what, n)
		}
		if m := command.FindStringSubmatch(found[i]); m == nil {
			t.Errorf("no command in %q", found[i])
		}
	}
	if after := configsOf(t, a, topic); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the topic was changed: %v, before %v", after, before)
	}
	publish(t, s, 1)
	for _, text := range found {
		m := command.FindStringSubmatch(text)
		alter(t, a, m[1], map[string]string{m[2]: m[3]})
	}
	eventually(t, "content", func() error { return ready(t, s) })
	if !strings.Contains(log.String(), "the topics are as they should be") {
		t.Errorf("log:\n%s", log)
	}
}

// TestTopicDeleted: a topic that disappears is created anew; what it held is forgotten.
func TestTopicDeleted(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true})
	eventuallyReady(t, s)
	for i := range 20 {
		publish(t, s, i)
	}
	deleteTopics(t, admin(t, c.Bootstrap()), topic)
	for i := range 20 {
		eventually(t, "published", func() error {
			ack, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(i))
			if err == nil && ack.Duplicate {
				return errors.New("duplicate of what is gone")
			}
			if isRefused(err) || errors.Is(err, sinks.ErrUnknown) {
				t.Fatal(err)
			}
			return err
		})
	}
	eventually(t, "there once", func() error {
		if n := count(t, c.Bootstrap(), topic); n != 20 {
			return fmt.Errorf("%d records", n)
		}
		return nil
	})
	if ack := publish(t, s, 1); !ack.Duplicate {
		t.Error("published twice")
	}
}

// TestTopicDeletedForGood: without leave to create it, it is missed at once and used as soon as it is there.
func TestTopicDeletedForGood(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	for _, name := range []string{topic, topic + ".dead"} {
		c.CreateTopic(name, 6, nil)
	}
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic})
	eventuallyReady(t, s)
	publish(t, s, 1)
	deleteTopics(t, admin(t, c.Bootstrap()), topic)
	eventually(t, "missed", func() error {
		_, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(2))
		if err == nil || !strings.Contains(err.Error(), "BRIDGE_KAFKA_CREATE_TOPICS") {
			return fmt.Errorf("Publish: %w", err)
		}
		return nil
	})
	c.CreateTopic(topic, 2, nil) // with fewer partitions
	eventuallyReady(t, s)
	for i := range 10 {
		if ack := publish(t, s, i); ack.Duplicate || ack.Position.Partition > 1 {
			t.Errorf("event %d: %+v", i, ack)
		}
	}
}

// TestPartitionsAdded: keys move to where the Java client would put them, too.
func TestPartitionsAdded(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	s, _ := openSink(t, kafka.Config{Brokers: c.Bootstrap(), Topic: topic, CreateTopics: true, Partitions: 1})
	eventuallyReady(t, s)
	publish(t, s, 0)
	a := admin(t, c.Bootstrap())
	res, err := a.CreatePartitions(ctxOf(t, 10*time.Second), &kafkago.CreatePartitionsRequest{
		Topics: []kafkago.TopicPartitionsConfig{{Name: topic, Count: 8}},
	})
	if err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
	i := 1
	eventually(t, "in a new partition", func() error {
		i++
		if ack := publish(t, s, i); ack.Position.Partition == 0 {
			return errors.New("in the first")
		}
		return nil
	})
	for j := range i { // ids of before are known still
		if j > 1 || j == 0 {
			if ack := publish(t, s, j); !ack.Duplicate {
				t.Errorf("event %d was published twice", j)
			}
		}
	}
}
