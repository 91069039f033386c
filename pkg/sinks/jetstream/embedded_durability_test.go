package jetstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

// The tests below run this test binary again as a process that they can kill, trace or starve.
const (
	helperDir     = "EMBEDDED_HELPER_DIR"
	helperCount   = "EMBEDDED_HELPER_COUNT" // messages to publish, 0 for ever
	helperWorkers = "EMBEDDED_HELPER_WORKERS"
	helperRound   = "EMBEDDED_HELPER_ROUND" // makes ids that no other process uses
)

func helperCommand(helper, dir string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^"+helper+"$")
	cmd.Env = append(append(os.Environ(), helperDir+"="+dir), env...)
	return cmd
}

// TestEmbeddedPublishProcess is such a process: it prints "acked <id>", in one write, after each acknowledgement.
// Run as a test it does nothing.
func TestEmbeddedPublishProcess(t *testing.T) {
	if os.Getenv(helperDir) == "" {
		return
	}
	cfg := embeddedConfig(os.Getenv(helperDir))
	cfg.Lazy = os.Getenv(helperLazy) != ""
	e := startEmbeddedServer(t, cfg)
	_, js := embeddedBridge(t, e)
	if _, err := js.Stream(t.Context(), "GEMINI"); err != nil {
		makeEmbeddedStreams(t, js)
	}
	count, _ := strconv.Atoi(os.Getenv(helperCount))
	workers, _ := strconv.Atoi(os.Getenv(helperWorkers))
	ctx, cancel := context.WithCancel(t.Context())
	var publishing, syncing sync.WaitGroup
	syncing.Go(func() {
		for ctx.Err() == nil {
			if err := e.Sync(t.Context()); err != nil {
				t.Error(err)
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	defer syncing.Wait()
	defer cancel()
	for worker := range workers {
		publishing.Go(func() {
			for i := 0; i < count || count == 0; i++ {
				id := fmt.Sprintf("%s-%d-%d", os.Getenv(helperRound), worker, i)
				if _, err := js.Publish(t.Context(), "gemini.batch.succeeded", helperBody(id), natsjs.WithMsgID(id)); err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stdout.WriteString("acked " + id + "\n"); err != nil {
					return
				}
			}
		})
	}
	publishing.Wait()
}

func helperBody(id string) []byte { return []byte(strings.Repeat(id+" ", 100)) }

func TestEmbeddedSyncAlways(t *testing.T) {
	if !startEmbeddedServer(t, embeddedConfig(t.TempDir())).SyncAlways() {
		t.Error("the server acknowledges before it has synced")
	}
}

// What the store already holds counts towards its limit, so a full store that starts again may still be used.
func TestEmbeddedStoreLimit(t *testing.T) {
	dir := t.TempDir()
	empty, err := jetstream.StoreLimit(dir, 0)
	if err != nil || empty <= 0 {
		t.Fatal(empty, err)
	}
	const held = 1 << 40
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "1.blk"), nil, 0o600), os.Truncate(filepath.Join(dir, "1.blk"), held)); err != nil {
		t.Fatal(err)
	}
	full, err := jetstream.StoreLimit(dir, 0)
	const reserve = 100 << 20
	if left, err := jetstream.StoreLimit(dir, reserve); err != nil || left > full-reserve*9/10 || left < full-reserve*11/10 {
		t.Errorf("with a reserve of 100 MiB the limit is %d, without it %d, %v", left, full, err)
	}
	if left, err := jetstream.StoreLimit(dir, 1<<60); err != nil || left <= held || left > full {
		t.Errorf("with a reserve of more than there is the limit is %d, %v", left, err)
	}
	if got := full - empty; err != nil || got < held*9/10 || got > held*11/10 {
		t.Errorf("with a block of 1 TiB the limit is %d more, %v", got, err)
	}
	if _, err := jetstream.StoreLimit(filepath.Join(dir, "none"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no directory: %v", err)
	}
}

// After a restart the server knows every id again when StartEmbedded returns, and consumers go on where they were.
func TestEmbeddedRestart(t *testing.T) {
	cfg := embeddedConfig(t.TempDir())
	e := startEmbeddedServer(t, cfg)
	_, js := embeddedBridge(t, e)
	makeEmbeddedStreams(t, js)
	const n = 300
	for i := range n {
		embeddedPublish(t, js, "gemini.batch.succeeded", fmt.Sprint("id-", i), "first")
	}
	consumer, err := js.CreateConsumer(t.Context(), "GEMINI", natsjs.ConsumerConfig{Durable: "worker", AckPolicy: natsjs.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next(natsjs.FetchMaxWait(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeEmbedded(t, e)

	again := startEmbeddedServer(t, cfg)
	_, js = embeddedBridge(t, again)
	for i := range n {
		ack := embeddedPublish(t, js, "gemini.batch.succeeded", fmt.Sprint("id-", n-1-i), "second")
		if !ack.Duplicate || ack.Sequence != uint64(n-i) {
			t.Fatalf("id-%d again: %+v, want a duplicate of %d", n-1-i, ack, n-i)
		}
	}
	if ack := embeddedPublish(t, js, "gemini.batch.succeeded", "new", "third"); ack.Duplicate || ack.Sequence != n+1 {
		t.Errorf("a new id: %+v, want %d", ack, n+1)
	}
	if consumer, err = js.Consumer(t.Context(), "GEMINI", "worker"); err != nil {
		t.Fatal(err)
	}
	if m, err = consumer.Next(natsjs.FetchMaxWait(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != 2 {
		t.Errorf("the consumer got %+v, %v, want message 2", meta, err)
	}
}

// Killed again and again in the middle of publishing, on one store: what was acknowledged is there, and its ids
// are known. That is so without any sync: what a kill leaves is in the page cache.
func TestEmbeddedKill(t *testing.T) {
	for _, lazy := range []string{"", "lazy"} {
		t.Run(lazy, func(t *testing.T) { embeddedKill(t, lazy) })
	}
}

func embeddedKill(t *testing.T, lazy string) {
	dir := t.TempDir()
	var acked []string
	for round := range 5 {
		cmd := helperCommand("TestEmbeddedPublishProcess", dir, helperWorkers+"=8", helperRound+"="+strconv.Itoa(round), helperLazy+"="+lazy)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		left := 1 + rand.IntN(300)
		for lines := bufio.NewReader(out); ; left-- {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // a last line without its end was not printed whole
			}
			id, ok := strings.CutPrefix(line, "acked ")
			if !ok {
				t.Errorf("round %d: the process says %q", round, line)
			}
			acked = append(acked, strings.TrimSpace(id))
			if left == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || left > 0 {
			t.Fatalf("round %d: the process ended by itself, %v", round, err)
		}
	}

	_, js := embeddedBridge(t, startEmbeddedServer(t, embeddedConfig(dir)))
	stored := embeddedStored(t, js)
	for _, id := range acked {
		if got, ok := stored[id]; !ok || got != string(helperBody(id)) {
			t.Errorf("%s was acknowledged and is stored as %.40q", id, got)
		}
	}
	for _, id := range acked[len(acked)-min(len(acked), 100):] {
		if ack := embeddedPublish(t, js, "gemini.batch.succeeded", id, "again"); !ack.Duplicate {
			t.Errorf("%s is not known any more: %+v", id, ack)
		}
	}
	t.Logf("%d acknowledged, %d stored", len(acked), len(stored))
}

// embeddedStored reads the whole stream of events, by id.
func embeddedStored(t *testing.T, js natsjs.JetStream) map[string]string {
	t.Helper()
	stored := map[string]string{}
	stream, err := js.Stream(t.Context(), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.OrderedConsumer(t.Context(), "GEMINI", natsjs.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for range stream.CachedInfo().State.Msgs {
		m, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		id := m.Headers().Get("Nats-Msg-Id")
		if _, twice := stored[id]; twice {
			t.Errorf("%s is stored twice", id)
		}
		stored[id] = string(m.Data())
	}
	return stored
}
