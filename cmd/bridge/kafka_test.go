package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/schemas"
)

// withKafka is the environment of a bridge without a journal that publishes to Kafka alone, on a topic of the test's own.
func withKafka(t *testing.T, brokers []string, topic string, more ...string) []string {
	t.Helper()
	return append([]string{
		"BRIDGE_ADDR=127.0.0.1:0", "BRIDGE_ADMIN_ADDR=127.0.0.1:0", "BRIDGE_SIGNING_SECRETS=" + signingSecret, ample,
		"BRIDGE_DATA_DIR=" + t.TempDir(), "BRIDGE_JOURNAL=off",
		"BRIDGE_SINK=kafka", "BRIDGE_KAFKA_BROKERS=" + strings.Join(brokers, ","), "BRIDGE_KAFKA_TOPIC=" + topic,
	}, more...)
}

// tailed is what "bridge tail" prints, sorted: a topic has no order but within a key.
func tailed(t *testing.T, environ []string, count string, more ...string) []string {
	t.Helper()
	code, stdout, stderr := invoke(t, environ, "", append([]string{"tail", "--from", "start", "-n", count}, more...)...)
	if code != exitOK {
		t.Fatalf("bridge tail: exit code %d, %s", code, stderr)
	}
	ids := idsOf(t, stdout)
	slices.Sort(ids)
	return ids
}

func TestKafkaRoad(t *testing.T) {
	cluster := kafkatest.Shared(t, kafkatest.Options{})
	for _, mode := range []string{"structured", "binary"} {
		t.Run(mode, func(t *testing.T) {
			environ := withKafka(t, cluster.Bootstrap(), cluster.Topic(), "BRIDGE_CONTENT_MODE="+mode, "BRIDGE_KAFKA_PARTITIONS=3")
			b := launch(t, environ).up(t)
			b.becomes(t, 200)
			var ids []string
			for _, typ := range schemas.Types() {
				ids = append(ids, "msg_"+typ)
				b.must(t, "published", "msg_"+typ, rich(t, typ))
			}
			b.must(t, "dead-lettered", "msg_dead", "[")
			slices.Sort(ids)
			if code := b.stop(t); code != exitOK {
				t.Fatalf("exit code %d\n%s", code, b.log)
			}

			// Another process knows from the log itself what the first one has published.
			b = launch(t, environ).up(t)
			b.becomes(t, 200)
			for _, typ := range schemas.Types() {
				b.must(t, "duplicate", "msg_"+typ, rich(t, typ))
			}
			b.must(t, "duplicate", "msg_dead", "[")
			b.must(t, "published", "msg_last", sample(t, "batch.failed"))
			if got := b.metrics(t)[`bridge_dedup_entries{sink="kafka"}`]; got != 11 {
				t.Errorf("%v ids are remembered, want 11", got)
			}
			if got, want := tailed(t, environ, "10"), append([]string{"msg_last"}, ids...); !equalSorted(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := tailed(t, environ, "1", "--dead"); !slices.Equal(got, []string{"msg_dead"}) {
				t.Errorf("dead letters: %v", got)
			}
		})
	}
}

func equalSorted(got, want []string) bool {
	slices.Sort(want)
	return slices.Equal(got, want)
}

// TestBothSinks: 202 only when both brokers have the event; what one of them has it does not get twice.
func TestBothSinks(t *testing.T) {
	cluster := kafkatest.Shared(t, kafkatest.Options{})
	nats := newBroker(t)
	nats.start(t)
	environ := withKafka(t, cluster.Bootstrap(), cluster.Topic(), "BRIDGE_SINK=nats,kafka", "BRIDGE_NATS_URL="+nats.url(), "BRIDGE_ACK_TIMEOUT=10s")
	environ = slices.DeleteFunc(environ, func(line string) bool { return line == ample || line == "BRIDGE_SINK=kafka" })
	b := launch(t, environ).up(t)
	b.becomes(t, 200, "nats", "kafka")
	body := sample(t, "batch.succeeded")
	b.must(t, "published", "msg_1", body)

	url := nats.url()
	nats.stop()
	if got := b.post(t, "msg_2", body); got.code != 503 {
		t.Fatalf("one broker away: %v", got)
	}
	b.becomes(t, 503, "{Name:kafka State:ok")
	nats.start(t)
	b.becomes(t, 200)
	b.must(t, "published", "msg_2", body)
	b.must(t, "duplicate", "msg_2", body)
	b.must(t, "published", "msg_3", body)

	ofKafka := slices.Concat(environ, []string{"BRIDGE_SINK=kafka"})
	ofKafka = slices.DeleteFunc(ofKafka, func(line string) bool {
		return line == "BRIDGE_SINK=nats,kafka" || strings.HasPrefix(line, "BRIDGE_NATS")
	})
	if got := tailed(t, ofKafka, "3"); !slices.Equal(got, []string{"msg_1", "msg_2", "msg_3"}) {
		t.Errorf("Kafka has %v", got)
	}
	if got := stored(t, connect(t, url), "GEMINI"); len(got) != 3 || got["msg_1"] != 1 || got["msg_2"] != 1 || got["msg_3"] != 1 {
		t.Errorf("NATS has %v", got)
	}
}

// TestKafkaRefusesLogin: a wrong password is told within seconds, at the start.
func TestKafkaRefusesLogin(t *testing.T) {
	cluster := kafkatest.Shared(t, kafkatest.Options{})
	start := time.Now()
	b := launch(t, withKafka(t, cluster.BootstrapSASL(), cluster.Topic(),
		"BRIDGE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "BRIDGE_KAFKA_SASL_USER="+cluster.User(), "BRIDGE_KAFKA_SASL_PASSWORD="+natsPassword))
	if code := b.exit(t); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if log := b.log.String(); !strings.Contains(log, "BRIDGE_KAFKA_SASL_PASSWORD") || strings.Contains(log, natsPassword) {
		t.Errorf("the log does not name the setting, or tells the password:\n%s", log)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("told only after %v", took)
	}
}

func TestKafkaAway(t *testing.T) {
	b := launch(t, withKafka(t, []string{freeAddr(t)}, "gemini.events")).up(t)
	b.becomes(t, 503, "BRIDGE_KAFKA_BROKERS")
	if got := b.post(t, "msg_1", sample(t, "batch.succeeded")); got.code != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("%v", got)
	}
}
