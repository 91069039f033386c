package jetstream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// startCluster starts three servers that know each other.
func startCluster(t *testing.T) []*broker {
	t.Helper()
	// Routes must be known before the first server starts.
	var ports []int
	var routes []string
	for range 3 {
		ports = append(ports, freePort(t))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[len(ports)-1]))
	}
	var all []*broker
	for i, port := range ports {
		all = append(all, startBroker(t, func(o *server.Options) {
			o.ServerName = fmt.Sprintf("node%d", i)
			o.Cluster = server.ClusterOpts{Name: "C", Host: "127.0.0.1", Port: port}
			o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		}))
	}
	eventually(t, "a cluster", func() error {
		for _, b := range all {
			if !b.server.JetStreamIsCurrent() {
				return errors.New(b.opts.ServerName + " is not current")
			}
		}
		return nil
	})
	return all
}

func TestCluster(t *testing.T) {
	nodes := startCluster(t)
	var urls []string
	for _, b := range nodes {
		urls = append(urls, b.url())
	}
	nc, err := nats.Connect(strings.Join(urls, ","))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}

	// A stream that somebody made with one replica is told of, and the command mends it.
	cfg := good()
	cfg.Replicas = 1
	eventually(t, "created", func() error { _, err := js.CreateStream(t.Context(), cfg); return err })
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: urls[0]}, Replicas: 3}) // learns of the others
	const want = "stream GEMINI has one replica in a cluster: nats stream edit GEMINI --replicas=3"
	eventuallyDown(t, s, want)
	if _, ok := errors.AsType[*sinks.DegradedError](ready(t, s)); !ok {
		t.Errorf("Ready: %v, want a DegradedError", ready(t, s))
	}
	publish(t, s, 0)
	edit(t, js, want)
	eventuallyReady(t, s)

	// The leader goes, which may be the node that the sink talks to.
	published := 1
	for round := range 2 {
		node := nodes[0]
		if round == 1 {
			node = leader(t, js, nodes)
		}
		for range 20 {
			publish(t, s, published)
			published++
		}
		node.stop(t)
		for range 20 {
			// Under load an election takes seconds; each caller may have to come again, as a webhook does.
			eventually(t, "published", func() error {
				_, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(published))
				if isRefused(err) {
					t.Fatal(err)
				}
				return err
			})
			published++
		}
		node.start(t)
		eventually(t, "caught up", func() error { return inSync(t, js, node) })
	}
	seen := map[string]int{}
	for _, r := range readN(t, jetstream.Conn{URL: strings.Join(urls, ",")}, "GEMINI", sinks.FromStart(), published) {
		seen[r.Header["Nats-Msg-Id"][0]]++
	}
	for i := range published {
		if id := sinkstest.Event(i).ID; seen[id] != 1 {
			t.Errorf("%s is there %d times", id, seen[id])
		}
	}
}

// inSync returns nil once a node that came back has all that the others have.
func inSync(t *testing.T, js natsjs.JetStream, node *broker) error {
	t.Helper()
	if !node.server.JetStreamIsCurrent() {
		return errors.New("not current")
	}
	info, err := js.Stream(ctxOf(t, 5*time.Second), "GEMINI")
	if err != nil {
		return err
	}
	for _, r := range info.CachedInfo().Cluster.Replicas {
		if !r.Current {
			return errors.New(r.Name + " is not current")
		}
	}
	return nil
}

// TestQuorumLost: with two of three nodes away nothing is acked and nothing hangs.
func TestQuorumLost(t *testing.T) {
	nodes := startCluster(t)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: nodes[0].url()}, Replicas: 3})
	eventuallyReady(t, s)
	publish(t, s, 0)
	nodes[1].stop(t)
	nodes[2].stop(t)
	for range 2 {
		if _, err := s.Publish(ctxOf(t, time.Second), sinkstest.Event(1)); err == nil || isRefused(err) {
			t.Errorf("Publish: %v, want a not now or unknown", err)
		}
	}
	nodes[1].start(t)
	eventually(t, "published", func() error {
		_, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1))
		return err
	})
}

func leader(t *testing.T, js natsjs.JetStream, nodes []*broker) *broker {
	t.Helper()
	var found *broker
	eventually(t, "led", func() error {
		info, err := js.Stream(ctxOf(t, 5*time.Second), "GEMINI")
		if err != nil {
			return err
		}
		for _, b := range nodes {
			if b.opts.ServerName == info.CachedInfo().Cluster.Leader {
				found = b
				return nil
			}
		}
		return errors.New("no leader")
	})
	return found
}
