package kafka

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// Settings of a topic (https://kafka.apache.org/documentation/#topicconfigs).
const (
	configCleanup        = "cleanup.policy"
	configRetention      = "retention.ms"
	configRetentionBytes = "retention.bytes"
	configMaxMessage     = "max.message.bytes"
	configMinInSync      = "min.insync.replicas"
	configUnclean        = "unclean.leader.election.enable"
)

func configNames() []string {
	return []string{configCleanup, configRetention, configRetentionBytes, configMaxMessage, configMinInSync, configUnclean}
}

// topicConfigs are the settings of a topic, or why they cannot be read.
type topicConfigs struct {
	values map[string]string
	err    error
}

// number returns a setting, or the value that stands for "not known".
func (c topicConfigs) number(name string, unknown int64) int64 {
	n, err := strconv.ParseInt(c.values[name], 10, 64)
	if err != nil {
		return unknown
	}
	return n
}

const (
	// createdLimit is max.message.bytes of a topic that is created: a body of 1 MiB becomes an event of more than
	// Kafka's default.
	createdLimit = 4 << 20
	// overhead is what a record may have beside the event: key, headers, the batch's own.
	overhead = 4 << 10
)

// wantedLimit is the max.message.bytes that no event exceeds.
func (s *Sink) wantedLimit() int { return max(createdLimit, s.cfg.MaxEvent+overhead) }

func (s *Sink) wantedConfigs(t *topic) []createtopics.RequestConfig {
	return []createtopics.RequestConfig{
		{Name: configCleanup, Value: "delete"},
		{Name: configRetention, Value: strconv.FormatInt(t.maxAge.Milliseconds(), 10)},
		{Name: configMaxMessage, Value: strconv.Itoa(s.wantedLimit())},
	}
}

// finding is something about a topic that is not as it should be, with the command that mends it.
type finding struct {
	topic, text string
	barred      error // set when nothing can be published while it is so
}

// findings finds what is wrong with a topic that somebody may have made otherwise.
func (s *Sink) findings(t *topic, seen metadata.ResponseTopic, brokers int, configs topicConfigs) []finding {
	var found []finding
	add := func(format string, args ...any) {
		found = append(found, finding{topic: t.name, text: "topic " + t.name + " " + fmt.Sprintf(format, args...)})
	}
	replicas := len(seen.Partitions[0].ReplicaNodes)
	for _, p := range seen.Partitions {
		replicas = min(replicas, len(p.ReplicaNodes))
	}
	if replicas == 1 && brokers > 1 {
		add("has one replica on a cluster of %d brokers: make more with kafka-reassign-partitions.sh, or delete the topic when it is "+
			"empty and the bridge creates it anew, with BRIDGE_KAFKA_REPLICATION=%d", brokers, min(3, brokers))
	}
	if configs.err != nil {
		add("cannot be looked at: %s: %v", t.grant("DescribeConfigs"), configs.err)
		return append(found, t.denials()...)
	}
	if slices.Contains(strings.Split(configs.values[configCleanup], ","), "compact") {
		add("is compacted, which keeps one event per job: %s", t.configure(configCleanup+"=delete"))
	}
	if ms := configs.number(configRetention, -1); ms >= 0 && ms < s.cfg.DedupWindow.Milliseconds() {
		add("keeps events for %s, less than BRIDGE_DEDUP_WINDOW: %s", time.Duration(ms)*time.Millisecond,
			t.configure(configRetention+"="+strconv.FormatInt(t.maxAge.Milliseconds(), 10)))
	}
	if n := configs.number(configRetentionBytes, -1); n >= 0 {
		add("silently discards old events of a partition with more than %d bytes: %s", n, t.configure(configRetentionBytes+"=-1"))
	}
	limit := configs.number(configMaxMessage, 0)
	if limit > 0 && limit < int64(s.cfg.MaxEvent+overhead) {
		add("takes records of up to %d bytes, an event may have %d: %s, or lower BRIDGE_MAX_BODY", limit, s.cfg.MaxEvent,
			t.configure(fmt.Sprintf("%s=%d", configMaxMessage, s.wantedLimit())))
	}
	if f, short := t.shortOf(int(configs.number(configMinInSync, 0)), seen.Partitions); short {
		found = append(found, f)
	}
	if configs.number(configMinInSync, 0) == 1 && replicas > 1 {
		add("acknowledges events that one broker has: %s", t.configure(configMinInSync+"=2"))
	}
	if configs.values[configUnclean] == "true" {
		add("loses events when a replica leads that was not in sync: %s", t.configure(configUnclean+"=false"))
	}
	t.mu.Lock()
	t.limit = int(limit)
	t.mu.Unlock()
	return append(found, t.denials()...)
}

// shortOf finds that partitions have fewer replicas in sync than they need to take records.
func (t *topic) shortOf(wanted int, partitions []metadata.ResponsePartition) (f finding, short bool) {
	n := 0
	for _, p := range partitions {
		if len(p.IsrNodes) < wanted {
			n++
		}
	}
	if n == 0 {
		return finding{}, false
	}
	f = finding{topic: t.name, text: fmt.Sprintf("topic %s: %d of %d partitions take no records, for fewer replicas are in sync than "+
		"%s=%d asks for: bring the missing brokers back", t.name, n, len(partitions), configMinInSync, wanted)}
	if n == len(partitions) {
		f.barred = errors.New(f.text)
	}
	return f, true
}

// troubles returns why partitions, for whatever reason, take no records, and whether none of them does.
func (t *topic) troubles() (details []string, all bool) {
	t.mu.Lock()
	lanes := slices.Clone(t.lanes)
	t.mu.Unlock()
	for _, l := range lanes {
		if err := l.trouble(); err != nil {
			details = append(details, "not published: "+err.Error())
		}
	}
	return details, len(details) > 0 && len(details) == len(lanes)
}

// denials finds that the user may not write.
func (t *topic) denials() []finding {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.denied {
		return nil
	}
	return []finding{{topic: t.name, text: "topic " + t.name + " may not be written by the user: " + t.grant("Write")}}
}

// configure is how to change a setting of the topic.
func (t *topic) configure(setting string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s", t.sink.conn.brokers[0], t.name, setting)
}

// grant is how to permit the user something on the topic.
func (t *topic) grant(operation string) string {
	user := t.sink.conn.user
	if user == "" {
		user = "ANONYMOUS" // or what the brokers make of the client's certificate
	}
	return fmt.Sprintf("kafka-acls.sh --bootstrap-server %s --add --allow-principal User:%s --operation %s --topic %s", t.sink.conn.brokers[0], user, operation, t.name)
}

// createCommand is how to create the topic by hand.
func (s *Sink) createCommand(t *topic) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d", s.conn.brokers[0], t.name, s.cfg.Partitions)
	if s.cfg.Replication > 0 {
		fmt.Fprintf(&b, " --replication-factor %d", s.cfg.Replication)
	}
	for _, c := range s.wantedConfigs(t) {
		fmt.Fprintf(&b, " --config %s=%s", c.Name, c.Value)
	}
	return b.String()
}
