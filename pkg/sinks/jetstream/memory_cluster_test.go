package jetstream_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// TestClusterRemembers: neither a leader's death nor that of the node which the sink talks to is taken for a loss. What
// each of four publishers published stays in order, each event is there once.
func TestClusterRemembers(t *testing.T) {
	nodes := startCluster(t)
	var urls []string
	for _, b := range nodes {
		urls = append(urls, b.url())
	}
	url := strings.Join(urls, ",")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	f := &forgetful{}
	f.Sink, f.log = openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: urls[0]}, Replicas: 3})
	f.OnForgotten(func() { f.calls.Add(1) })
	eventuallyReady(t, f.Sink)

	const publishers = 4
	var publishing sync.WaitGroup
	var enough sync.Once
	stop := make(chan struct{})
	end := func() { enough.Do(func() { close(stop) }) }
	defer publishing.Wait()
	defer end()
	published := make([][]string, publishers)
	for p := range publishers {
		publishing.Go(func() {
			for i := p; ; i += publishers {
				select {
				case <-stop:
					return
				default:
				}
				e := keyed(i, p)
				for t.Context().Err() == nil {
					if _, err := f.Publish(ctxOf(t, 3*time.Second), e); err == nil {
						published[p] = append(published[p], e.ID)
						break
					}
				}
			}
		})
	}
	for round := range 2 {
		node := nodes[0]
		if round > 0 {
			node = leader(t, js, nodes)
		}
		seen := f.log.count("connected to NATS at")
		node.stop(t)
		if round == 0 {
			eventually(t, "connected elsewhere", func() error {
				if f.log.count("connected to NATS at") == seen {
					return errEnough
				}
				return nil
			})
		}
		eventuallyAccepting(t, f.Sink)
		node.start(t)
		eventually(t, "in sync", func() error { return inSync(t, js, node) })
	}
	end()
	publishing.Wait()
	if f.calls.Load() != 0 {
		t.Errorf("told %d times that something is forgotten:\n%s", f.calls.Load(), f.log)
	}
	got := make([][]string, publishers)
	for _, r := range readAll(t, js, jetstream.Conn{URL: url}, "GEMINI") {
		got[publisher(r)] = append(got[publisher(r)], r.Header["Nats-Msg-Id"][0])
	}
	for p := range publishers {
		if len(got[p]) == 0 || !slices.Equal(got[p], published[p]) {
			t.Errorf("publisher %d: %d stored, %d acked, or in another order", p, len(got[p]), len(published[p]))
		}
	}

	// All three set back by some seconds is a loss, of course.
	for _, b := range nodes {
		b.stop(t)
	}
	half := make([]string, len(nodes))
	for i, b := range nodes {
		half[i] = t.TempDir()
		copyDir(t, half[i], b.opts.StoreDir)
	}
	for _, b := range nodes {
		b.start(t)
	}
	eventuallyAccepting(t, f.Sink)
	eventually(t, "published", func() error {
		_, err := f.Publish(ctxOf(t, 3*time.Second), keyed(1_000_000, 0))
		return err
	})
	for i, b := range nodes {
		setBack(t, b, half[i])
	}
	for _, b := range nodes {
		b.start(t)
	}
	eventually(t, "told", func() error {
		if f.calls.Load() == 0 {
			return errEnough
		}
		return nil
	})
	eventuallyAccepting(t, f.Sink)
	if f.calls.Load() != 1 {
		t.Errorf("told %d times, want once:\n%s", f.calls.Load(), f.log)
	}
}

// keyed is the i-th event with the publisher's number as its key.
func keyed(i, p int) *schema.Event {
	e := sinkstest.Event(i)
	e.PartitionKey, e.Name = string(rune('a'+p)), "batch."+string(rune('a'+p))
	return e
}

func publisher(r sinks.Record) int { return int(r.Name[len(r.Name)-1] - 'a') }
