package docs_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

func TestKafkaMessages(t *testing.T) {
	const events = "gemini.events" // the default, which this test alone uses
	for i, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			cluster := kafkatest.Shared(t, kafkatest.Options{})
			cfg := kafka.Config{Brokers: cluster.Bootstrap(), CreateTopics: true, ContentMode: kafka.Mode(i), Log: zerolog.Nop()}
			topic := events
			if mode == "binary" { // the examples have the same ids in both modes
				cfg.Topic = cluster.Topic()
				topic = cfg.Topic
			}
			sink, err := kafka.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close(context.WithoutCancel(t.Context()))
			transport := &kafkago.Transport{}
			defer transport.CloseIdleConnections()
			client := &kafkago.Client{Addr: kafkago.TCP(cluster.Bootstrap()...), Transport: transport, Timeout: patience}
			compare(t, "kafka", mode, func(t *testing.T, e *schema.Event) sent {
				ack := publish(t, sink, e)
				suffix := ""
				if e.Dead {
					suffix = ".dead"
				}
				s := fetch(t, client, topic+suffix, ack.Position)
				s.channel = events + suffix
				return s
			})
			if topic == events {
				checkTopics(t, client)
			}
		})
	}
}

// fetch reads the one record at a position.
func fetch(t *testing.T, client *kafkago.Client, topic string, at sinks.Position) sent {
	t.Helper()
	res, err := client.Fetch(t.Context(), &kafkago.FetchRequest{
		Topic: topic, Partition: int(at.Partition), Offset: int64(at.Sequence), MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		record, err := res.Records.ReadRecord()
		if err != nil {
			t.Fatalf("%s has no record at %+v: %v", topic, at, err)
		}
		if record.Offset != int64(at.Sequence) {
			continue
		}
		key, keyErr := kafkago.ReadAll(record.Key)
		body, bodyErr := kafkago.ReadAll(record.Value)
		if err := errors.Join(keyErr, bodyErr); err != nil {
			t.Fatal(err)
		}
		s := sent{key: string(key), headers: map[string]string{}, body: body}
		for _, h := range record.Headers {
			s.headers[h.Key] = string(h.Value)
		}
		return s
	}
}

// checkTopics sees that the topics which the bridge has made are as the bindings of the channels say.
func checkTopics(t *testing.T, client *kafkago.Client) {
	t.Helper()
	doc, _ := readDocument(t)
	for _, name := range []string{"kafkaEvents", "kafkaDeadLetters"} {
		channel := doc.Channels[name]
		metadata, err := client.Metadata(t.Context(), &kafkago.MetadataRequest{Topics: []string{channel.Address}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := float64(len(metadata.Topics[0].Partitions)), channel.Bindings.Kafka["partitions"]; got != want {
			t.Errorf("%s has %v partitions, want %v", channel.Address, got, want)
		}
		configs, err := client.DescribeConfigs(t.Context(), &kafkago.DescribeConfigsRequest{
			Resources: []kafkago.DescribeConfigRequestResource{{ResourceType: kafkago.ResourceTypeTopic, ResourceName: channel.Address}},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, entry := range configs.Resources[0].ConfigEntries {
			got[entry.ConfigName] = entry.ConfigValue
		}
		for config, want := range channel.Bindings.Kafka["topicConfiguration"].(map[string]any) {
			var asKafka string
			switch want := want.(type) {
			case float64:
				asKafka = strconv.FormatFloat(want, 'f', -1, 64)
			case []any:
				asKafka = want[0].(string)
			}
			if got[config] != asKafka {
				t.Errorf("%s has %s %q, want %q", channel.Address, config, got[config], asKafka)
			}
		}
	}
}

// publish waits for the sink to be ready, as it is soon after its start.
func publish(t *testing.T, sink sinks.Sink, e *schema.Event) sinks.Ack {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ack, err := sink.Publish(ctx, e)
		cancel()
		if err == nil {
			return ack
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
