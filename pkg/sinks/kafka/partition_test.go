package kafka

import (
	"encoding/json"
	"os"
	"testing"
)

// TestPartitions: every key goes to the partition where Kafka's own Java client puts it.
func TestPartitions(t *testing.T) {
	text, err := os.ReadFile("testdata/partitions.json") // made by scripts/kafka/partitions
	if err != nil {
		t.Fatal(err)
	}
	var java struct {
		Partitions int
		Keys       []struct {
			Key       []byte
			Partition int32
		}
	}
	if err := json.Unmarshal(text, &java); err != nil {
		t.Fatal(err)
	}
	if len(java.Keys) != 1000 || java.Partitions != 12 {
		t.Errorf("%d keys over %d partitions", len(java.Keys), java.Partitions)
	}
	to := &topic{}
	for p := range java.Partitions {
		to.partitions = append(to.partitions, p)
	}
	used := map[int32]bool{}
	for _, k := range java.Keys {
		got := to.lane(string(k.Key)).partition
		if got != k.Partition {
			t.Errorf("key %q: partition %d, want %d", k.Key, got, k.Partition)
		}
		used[got] = true
	}
	if len(used) != java.Partitions {
		t.Errorf("%d partitions are used", len(used))
	}
}
