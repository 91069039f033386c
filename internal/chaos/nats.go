package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/internal/chaos/ledger"
)

const (
	stream     = "GEMINI"
	deadStream = "GEMINI_DEAD"
)

// beNATS is a nats-server as its defaults have it, until it is killed. args are name, store directory, address, and for
// a cluster its own route address and those of all.
func beNATS(args []string) error {
	if len(args) < 3 {
		return errors.New("nats: which one?")
	}
	o := &server.Options{ServerName: args[0], JetStream: true, StoreDir: args[1], NoSigs: false}
	if err := listenAt(args[2], &o.Host, &o.Port); err != nil {
		return err
	}
	if len(args) > 3 {
		o.Cluster.Name = "chaos"
		if err := listenAt(args[3], &o.Cluster.Host, &o.Cluster.Port); err != nil {
			return err
		}
		o.Routes = server.RoutesFromStr("nats://" + strings.Join(args[4:], ",nats://"))
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return nil
}

func listenAt(addr string, host *string, port *int) error {
	before, after, _ := strings.Cut(addr, ":")
	*host = before
	_, err := fmt.Sscan(after, port)
	return err
}

// natsServers is one nats-server, or three that are a cluster, each a process of its own.
type natsServers struct {
	nodes []*natsNode
}

type natsNode struct {
	name, dir, addr string
	args            []string
	log             *os.File
	cmd             *exec.Cmd
	ended           chan struct{}
}

func newNATS(dir string, n int) (*natsServers, error) {
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	var routes []string
	for _, port := range ports[n:] {
		routes = append(routes, addr(port))
	}
	s := &natsServers{}
	for i := range n {
		name := fmt.Sprintf("nats-%d", i)
		node := &natsNode{name: name, dir: filepath.Join(dir, name), addr: addr(ports[i])}
		node.args = []string{name, node.dir, node.addr}
		if n > 1 {
			node.args = append(append(node.args, routes[i]), routes...)
		}
		if node.log, err = os.Create(filepath.Join(dir, name+".log")); err != nil {
			return nil, err
		}
		s.nodes = append(s.nodes, node)
	}
	return s, nil
}

func (s *natsServers) url() string {
	var urls []string
	for _, node := range s.nodes {
		urls = append(urls, "nats://"+node.addr)
	}
	return strings.Join(urls, ",")
}

func (s *natsServers) start(nodes ...int) error {
	for _, i := range nodes {
		if err := s.nodes[i].start(); err != nil {
			return err
		}
	}
	return nil
}

func (n *natsNode) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"-child", "nats"}, n.args...)...)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	n.cmd, n.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return nil
}

// signal sends a signal to a server, and waits for its end if it is one that ends it.
func (s *natsServers) signal(node int, sig syscall.Signal) error {
	n := s.nodes[node]
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: %v: %w", n.name, sig, err)
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		<-n.ended
	}
	return nil
}

func (s *natsServers) close() {
	for _, n := range s.nodes {
		if n.cmd != nil {
			_ = n.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
			<-n.ended
		}
		_ = n.log.Close() // written to by children only
	}
}

// leader is the number of the stream's leader.
func (s *natsServers) leader(ctx context.Context) (int, error) {
	var name string
	err := withStream(ctx, s.url(), stream, func(js jetstream.Stream) error {
		info, err := js.Info(ctx)
		if err == nil && info.Cluster != nil {
			name = info.Cluster.Leader
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for i, node := range s.nodes {
		if node.name == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("stream %s has no leader", stream)
}

// whole waits until every replica has everything, as an operator does between two restarts.
func (s *natsServers) whole(ctx context.Context) error {
	for {
		err := errors.Join(s.current(ctx, stream), s.current(ctx, deadStream))
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func (s *natsServers) current(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return withStream(ctx, s.url(), name, func(js jetstream.Stream) error {
		info, err := js.Info(ctx)
		switch {
		case err != nil:
			return err
		case len(s.nodes) == 1:
			return nil
		case info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) < len(s.nodes)-1:
			return fmt.Errorf("stream %s has no leader or too few replicas", name)
		}
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current || replica.Offline {
				return fmt.Errorf("stream %s: %s is behind", name, replica.Name)
			}
		}
		return nil
	})
}

func withStream(ctx context.Context, url, name string, do func(jetstream.Stream) error) error {
	return withJetStream(url, func(js jetstream.JetStream) error {
		s, err := js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		return do(s)
	})
}

func withJetStream(url string, do func(jetstream.JetStream) error) error {
	nc, err := nats.Connect(url, nats.Timeout(10*time.Second), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return do(js)
}

// readNATS reads both streams to their ends, with pull consumers as anyone would.
func readNATS(ctx context.Context, url string) ([]ledger.Record, error) {
	var records []ledger.Record
	for _, name := range []string{stream, deadStream} {
		err := withStream(ctx, url, name, func(s jetstream.Stream) error {
			last := s.CachedInfo().State.LastSeq
			if s.CachedInfo().State.Msgs == 0 {
				return nil
			}
			consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
			if err != nil {
				return err
			}
			messages, err := consumer.Messages()
			if err != nil {
				return err
			}
			defer messages.Stop()
			for {
				msg, err := messages.Next(jetstream.NextContext(ctx))
				if err != nil {
					return err
				}
				meta, err := msg.Metadata()
				if err != nil {
					return err
				}
				record, err := ledger.Parse(msg.Data(), name, meta.Sequence.Stream)
				if err != nil {
					return err
				}
				records = append(records, record)
				if meta.Sequence.Stream >= last {
					return nil
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return records, nil
}

func deleteStream(ctx context.Context, url, name string) error {
	return withJetStream(url, func(js jetstream.JetStream) error { return js.DeleteStream(ctx, name) })
}

// pause waits; less long when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
