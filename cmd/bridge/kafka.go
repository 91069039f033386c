package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

func newKafka(cfg *Config, log zerolog.Logger) (*kafka.Sink, error) {
	password, err := kafkaPassword(cfg)
	if err != nil {
		return nil, err
	}
	k := cfg.Kafka
	settings := kafka.Config{
		Brokers: k.Brokers, TLS: k.TLS == "on", TLSCA: k.KafkaTLSCA, TLSCert: k.KafkaTLSCert, TLSKey: k.KafkaTLSKey,
		SASLMechanism: saslMechanism(k), SASLUser: k.SASLUser, SASLPassword: password,
		Topic: k.Topic, Compression: k.Compression,
		CreateTopics: k.CreateTopics == "on", Partitions: k.Partitions, Replication: k.Replication,
		MaxAge: k.KafkaMaxAge, DeadMaxAge: cfg.DeadMaxAge, DedupWindow: cfg.DedupWindow,
		MaxEvent: maxEvent(cfg), Log: log,
	}
	if cfg.ContentMode == "binary" {
		settings.ContentMode = kafka.Binary
	}
	return kafka.New(settings)
}

func newKafkaReader(cfg *Config, dead bool) (*kafka.Reader, error) {
	password, err := kafkaPassword(cfg)
	if err != nil {
		return nil, err
	}
	k := cfg.Kafka
	topic := k.Topic
	if dead {
		topic += ".dead"
	}
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: k.Brokers, TLS: k.TLS == "on", TLSCA: k.KafkaTLSCA, TLSCert: k.KafkaTLSCert, TLSKey: k.KafkaTLSKey,
		SASLMechanism: saslMechanism(k), SASLUser: k.SASLUser, SASLPassword: password, Topic: topic,
	})
}

func saslMechanism(k KafkaConfig) string {
	if k.SASLMechanism == "none" {
		return ""
	}
	return k.SASLMechanism
}

func kafkaPassword(cfg *Config) (secret.Text, error) {
	password, err := fromFile(cfg.Kafka.SASLPassword, cfg.Kafka.SASLPasswordFile)
	if err != nil {
		return secret.Text{}, fmt.Errorf("BRIDGE_KAFKA_SASL_PASSWORD_FILE: %w", err)
	}
	return password, nil
}

func dedupEntries(sink *kafka.Sink) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bridge_dedup_entries", Help: "Ids that the sink remembers itself, to recognise duplicates by.",
		ConstLabels: prometheus.Labels{"sink": kafka.Name},
	}, func() float64 { return float64(sink.DedupEntries()) })
}
