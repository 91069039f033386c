package main

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// kafkaUp waits until Kafka takes events directly.
func (b *bridge) kafkaUp(t *testing.T) *bridge {
	t.Helper()
	eventually(t, func() error {
		if b.metrics(t)[`bridge_sink_up{sink="kafka"}`] != 1 {
			return errNotYet
		}
		return nil
	})
	return b
}

// TestKafkaDead: dead letters of a topic are listed, shown and replayed as those of a stream are, beside the bridge.
func TestKafkaDead(t *testing.T) {
	cluster := kafkatest.Shared(t, kafkatest.Options{})
	for _, mode := range []string{"structured", "binary"} {
		t.Run(mode, func(t *testing.T) {
			environ := withKafka(t, cluster.Bootstrap(), cluster.Topic(), "BRIDGE_CONTENT_MODE="+mode, "BRIDGE_KAFKA_PARTITIONS=3")
			b := launch(t, append(slices.Clone(environ), letterSource, "BRIDGE_ON_UNKNOWN=dead-letter")).up(t).kafkaUp(t)
			for _, l := range [][2]string{{"msg_no_id", noID}, {"msg_no_version", noVersion}, {"msg_strange", strange}, {"msg_nonsense", nonsense}} {
				b.must(t, "dead-lettered", l[0], l[1])
			}
			var ids []string
			for _, s := range listed(t, environ) {
				ids = append(ids, s.ID)
			}
			if want := []string{"msg_no_id", "msg_no_version", "msg_strange", "msg_nonsense"}; !slices.Equal(ids, want) {
				t.Errorf("got %v, want %v", ids, want)
			}
			dead(t, environ, exitOK, "show", "msg_strange")
			replayAll(t, environ, corrected(t))
			want := []string{"msg_no_version", "msg_no_version.replay-1", "msg_no_version.replay-2", "msg_strange"}
			if got := tailed(t, environ, "4"); !slices.Equal(got, want) {
				t.Errorf("events: %v, want %v", got, want)
			}
			if got := tailed(t, environ, "8", "--dead"); len(got) != 8 {
				t.Errorf("dead letters and marks: %v", got)
			}
		})
	}
}

// TestKafkaAwaySpools: senders hear 202 while Kafka is away, and it gets all of it.
func TestKafkaAwaySpools(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	environ := withKafka(t, cluster.Bootstrap(), "gemini.events", "BRIDGE_JOURNAL=on", "BRIDGE_ACK_TIMEOUT=10s")
	b := launch(t, environ).up(t).kafkaUp(t)
	b.must(t, "published", "msg_before", ofJob(0))
	cluster.Stop(1)
	b.becomes(t, http.StatusOK, "events are spooled")
	want := []string{"msg_before"}
	for n := range 20 {
		id := fmt.Sprintf("msg_%02d", n)
		b.must(t, "spooled", id, ofJob(n%3))
		want = append(want, id)
	}
	cluster.Restart(1)
	eventually(t, func() error {
		if n := b.metrics(t)[`bridge_journal_waiting{sink="kafka"}`]; n > 0 {
			return fmt.Errorf("%v events wait", n)
		}
		return nil
	})
	if got := tailed(t, environ, fmt.Sprint(len(want))); !equalSorted(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	b.must(t, "duplicate", "msg_05", ofJob(2))
	if code := b.stop(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, b.log)
	}
}
