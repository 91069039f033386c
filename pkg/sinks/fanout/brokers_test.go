package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

const patience = 30 * time.Second

// errEnough ends a reader that has read all there is.
var errEnough = errors.New("enough")

// natsServer is a server in this process that can be stopped, and started at its place with its store.
type natsServer struct {
	options *server.Options
	server  *server.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	n := &natsServer{options: &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	}}
	n.start(t)
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	var err error
	if n.server, err = server.NewServer(n.options.Clone()); err != nil {
		t.Fatal(err)
	}
	n.server.Start()
	if !n.server.ReadyForConnections(patience) {
		t.Fatal("the NATS server did not start")
	}
	n.options.Port = n.server.Addr().(*net.TCPAddr).Port
}

func (n *natsServer) stop(*testing.T) {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

func (n *natsServer) conn() jetstream.Conn {
	return jetstream.Conn{URL: fmt.Sprintf("nats://127.0.0.1:%d", n.options.Port)}
}

func (n *natsServer) sink(t *testing.T) *jetstream.Sink {
	t.Helper()
	sink, err := jetstream.New(jetstream.Config{Conn: n.conn(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

func (n *natsServer) stored(t *testing.T) []sinkstest.Record {
	t.Helper()
	conn, err := nats.Connect(n.conn().URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := natsjs.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	var all []sinkstest.Record
	for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		left := int(stream.CachedInfo().State.Msgs)
		if left == 0 {
			continue
		}
		reader, err := jetstream.NewReader(jetstream.ReaderConfig{Conn: n.conn(), Stream: name})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		all = append(all, readAll(t, name == "GEMINI_DEAD", left, reader)...)
	}
	return all
}

// kafkaTopic is a topic of the test's own, and the one of its dead letters.
type kafkaTopic struct {
	cluster *kafkatest.Cluster
	name    string
}

func (k kafkaTopic) sink(t *testing.T) *kafka.Sink {
	t.Helper()
	sink, err := kafka.New(kafka.Config{Brokers: k.cluster.Bootstrap(), Topic: k.name, CreateTopics: true, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

func (k kafkaTopic) stored(t *testing.T) []sinkstest.Record {
	t.Helper()
	var all []sinkstest.Record
	for _, name := range []string{k.name, k.name + ".dead"} {
		left := k.count(t, name)
		if left == 0 {
			continue
		}
		reader, err := kafka.NewReader(kafka.ReaderConfig{Brokers: k.cluster.Bootstrap(), Topic: name})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		all = append(all, readAll(t, name != k.name, left, reader)...)
	}
	return all
}

// count returns how many records a topic holds.
func (k kafkaTopic) count(t *testing.T, name string) int {
	t.Helper()
	transport := &kafkago.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafkago.Client{Addr: kafkago.TCP(k.cluster.Bootstrap()...), Transport: transport, Timeout: patience}
	metadata, err := client.Metadata(t.Context(), &kafkago.MetadataRequest{Topics: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	var requests []kafkago.OffsetRequest
	for _, p := range metadata.Topics[0].Partitions {
		requests = append(requests, kafkago.FirstOffsetOf(p.ID), kafkago.LastOffsetOf(p.ID))
	}
	offsets, err := client.ListOffsets(t.Context(), &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{name: requests}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range offsets.Topics[name] {
		n += int(p.LastOffset - p.FirstOffset)
	}
	return n
}

// readAll reads as many records as there are.
func readAll(t *testing.T, dead bool, left int, reader sinks.Reader) []sinkstest.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []sinkstest.Record
	err := reader.Read(ctx, sinks.FromStart(), func(r sinks.Record) error {
		if r.Err != nil {
			return r.Err
		}
		all = append(all, sinkstest.Record{Dead: dead, ID: r.Header["webhook-id"][0], Event: r.Event})
		if len(all) == left {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("read %d of %d records: %v", len(all), left, err)
	}
	return all
}
