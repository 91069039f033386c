package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

// newKafka connects to the brokers of the settings, as the files that watcher looks after say.
func newKafka(cfg *Config, watcher *files.Watcher, log zerolog.Logger) (*kafka.Sink, error) {
	settings, err := kafkaAccess(cfg, watcher)
	if err != nil {
		return nil, err
	}
	k := cfg.Kafka
	settings.Topic, settings.Compression = k.Topic, k.Compression
	settings.CreateTopics, settings.Partitions, settings.Replication = k.CreateTopics == "on", k.Partitions, k.Replication
	settings.MaxAge, settings.DeadMaxAge, settings.DedupWindow = k.KafkaMaxAge, cfg.DeadMaxAge, cfg.DedupWindow
	settings.MaxEvent, settings.Log = maxEvent(cfg), log
	if cfg.ContentMode == "binary" {
		settings.ContentMode = kafka.Binary
	}
	return kafka.New(settings)
}

func newKafkaReader(cfg *Config, watcher *files.Watcher, dead bool) (*kafka.Reader, error) {
	a, err := kafkaAccess(cfg, watcher)
	if err != nil {
		return nil, err
	}
	topic := cfg.Kafka.Topic
	if dead {
		topic += ".dead"
	}
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: a.Brokers, TLS: a.TLS, RootCAs: a.RootCAs, Certificate: a.Certificate,
		SASLMechanism: a.SASLMechanism, SASLUser: a.SASLUser, SASLPassword: a.SASLPassword, Topic: topic,
	})
}

func saslMechanism(k KafkaConfig) string {
	if k.SASLMechanism == "none" {
		return ""
	}
	return k.SASLMechanism
}

func dedupEntries(sink *kafka.Sink) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bridge_dedup_entries", Help: "Ids that the sink remembers itself, to recognise duplicates by.",
		ConstLabels: prometheus.Labels{"sink": kafka.Name},
	}, func() float64 { return float64(sink.DedupEntries()) })
}
