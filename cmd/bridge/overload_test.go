package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestOverload: 10,000 connections of strangers, idle, slow and with huge bodies, beside 200 good deliveries a second,
// every other one on a connection of its own. No good delivery fails, health answers, and the process stays within the
// memory of its container, as docs/operations.md promises.
func TestOverload(t *testing.T) {
	const (
		connections = 10_000
		perSecond   = 200
		maxBody     = 384 << 10
		mib         = 1 << 20
	)
	program := build(t)
	for _, container := range []int{128 * mib, 512 * mib} {
		t.Run(fmt.Sprintf("a container of %d MiB", container/mib), func(t *testing.T) {
			b := newBridge(t)
			memory := heapWithin(int64(container))
			b.start(t, local(t, fmt.Sprint("GOMEMLIMIT=", memory)), program, "serve")
			b.up(t)
			want := boundsFor(&Config{MaxInflight: 4096, MaxBody: maxBody}, memory, connections)
			b.log.line(t, fmt.Sprintf(`"max_connections":%d,"max_unverified_bytes":%d,`, want.connections, want.unverified))
			body := sample(t, "batch.succeeded")
			b.must(t, "published", "msg_before", body)
			idle := b.resident(t, "VmRSS")

			strangers := gather(t, b, connections, maxBody)
			eventually(t, func() error {
				if n := strangers.opened.Load(); n < connections {
					return fmt.Errorf("%d of %d connections were opened", n, connections)
				}
				return nil
			})
			answered := make(chan struct{})
			var watching sync.WaitGroup
			var most, slowest float64
			watching.Go(func() { most, slowest = b.watch(t, answered) })
			latencies := b.goodDeliveries(t, 6*perSecond, time.Second/perSecond, body)
			close(answered)
			watching.Wait()
			again := 2*connections - int64(want.connections)
			eventually(t, func() error {
				if n := strangers.opened.Load(); n < again {
					return fmt.Errorf("%d connections were opened, want %d: those over the bound did not come again", n, again)
				}
				return nil
			})
			opened := strangers.opened.Load()
			strangers.disperse()

			slices.Sort(latencies)
			peak := b.resident(t, "VmHWM")
			t.Logf("%d connections opened, %d deliveries in a median of %v and at most %v; health in at most %.3f s; unverified at most %.1f MiB; memory %d MiB idle, at most %d MiB",
				opened, len(latencies), latencies[len(latencies)/2], latencies[len(latencies)-1], slowest, most/mib, idle/mib, peak/mib)
			if peak > container {
				t.Errorf("it took %d bytes of memory, more than the container's %d", peak, container)
			}
			if most > float64(want.unverified) || most < float64(want.unverified)/2 {
				t.Errorf("unverified bodies took up to %.0f bytes, want nearly %d: the strangers did not do their worst", most, want.unverified)
			}
			b.log.line(t, "connections at their bound")
			eventually(t, func() error {
				if got := b.metrics(t); got["bridge_unverified_bytes"] != 0 || got["bridge_inflight"] != 0 {
					return fmt.Errorf("with the strangers gone: bridge_unverified_bytes %v, bridge_inflight %v", got["bridge_unverified_bytes"], got["bridge_inflight"])
				}
				return nil
			})
			b.log.line(t, "connections below their bound")
			if code := b.stop(t); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// goodDeliveries sends deliveries, one at each tick, whether the others are answered or not. All must be published.
func (b *bridge) goodDeliveries(t *testing.T, n int, tick time.Duration, body string) (latencies []time.Duration) {
	t.Helper()
	own := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	var mu sync.Mutex
	var senders sync.WaitGroup
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for i := range n {
		<-ticker.C
		senders.Go(func() {
			client, id := b.client, fmt.Sprint("msg_", i)
			if i%2 == 0 {
				client = own
			}
			began := time.Now()
			r, err := send(client, b.url, b.secret, id, body)
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, time.Since(began))
			if err != nil || r.code != http.StatusAccepted || r.Status != "published" {
				t.Errorf("%s: %v, %v", id, r, err)
			}
		})
	}
	senders.Wait()
	return latencies
}

// watch asks for health, readiness and metrics until stop is closed. It returns the largest bridge_unverified_bytes
// and the longest time that an answer took, in seconds.
func (b *bridge) watch(t *testing.T, stop <-chan struct{}) (unverified, slowest float64) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, page := range []string{"/healthz", "/readyz"} {
			began := time.Now()
			if r, err := b.get(b.admin + page); err != nil || r.code != http.StatusOK {
				t.Errorf("%s: %v, %v", page, r, err)
			}
			slowest = max(slowest, time.Since(began).Seconds())
		}
		unverified = max(unverified, b.metrics(t)["bridge_unverified_bytes"])
		select {
		case <-stop:
			return unverified, slowest
		case <-ticker.C:
		}
	}
}

// resident is the process's memory as the system tells it: VmRSS is what it has, VmHWM the most that it ever had.
func (b *bridge) resident(t *testing.T, name string) int {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", b.pid))) {
		if fields := strings.Fields(line); fields[0] == name+":" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("/proc/%d/status has no %s", b.pid, name)
	panic("unreachable")
}

// build makes the program as it is delivered: without the race detector, whose memory is a multiple.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bridge")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return program
}
