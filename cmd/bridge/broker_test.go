package main

import (
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// broker is a nats-server of somebody else, with its defaults but for the port and the store. It can be stopped and
// started again on both.
type broker struct {
	opts   *server.Options
	server *server.Server
}

func newBroker(t *testing.T, change ...func(*server.Options)) *broker {
	t.Helper()
	b := &broker{opts: &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}}
	for _, c := range change {
		c(b.opts)
	}
	t.Cleanup(b.stop)
	return b
}

func startBroker(t *testing.T, change ...func(*server.Options)) *broker {
	t.Helper()
	b := newBroker(t, change...)
	b.start(t)
	return b
}

func (b *broker) start(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(b.opts.Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("nats-server did not start")
	}
	b.server, b.opts.Port = s, s.Addr().(*net.TCPAddr).Port
}

func (b *broker) stop() {
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
		b.server = nil
	}
}

func (b *broker) url() string { return b.server.ClientURL() }

// connect is a NATS client that is closed with the test.
func connect(t *testing.T, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// consume reads all that is in a stream, as any consumer would: durable, pulling, acknowledging. It fails when the
// stream holds another number of records than want.
func consume(t *testing.T, js jetstream.JetStream, stream string, want int) []jetstream.Msg {
	t.Helper()
	s, err := js.Stream(soon(t), stream)
	if want == 0 && errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		t.Fatalf("stream %s: %v", stream, err)
	}
	if got := int(s.CachedInfo().State.Msgs); got != want {
		t.Errorf("stream %s holds %d records, want %d", stream, got, want)
	}
	return readAll(t, s)
}

func readAll(t *testing.T, s jetstream.Stream) []jetstream.Msg {
	t.Helper()
	consumer, err := s.CreateOrUpdateConsumer(soon(t), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	var all []jetstream.Msg
	for left := int(s.CachedInfo().State.Msgs); left > 0; {
		batch, err := consumer.Fetch(left, jetstream.FetchMaxWait(patience))
		if err != nil {
			t.Fatal(err)
		}
		for msg := range batch.Messages() {
			if err := msg.Ack(); err != nil {
				t.Fatal(err)
			}
			all = append(all, msg)
			left--
		}
		if err := batch.Error(); err != nil {
			t.Fatalf("%d records were not delivered: %v", left, err)
		}
	}
	return all
}

// stored counts the records of each event id in a stream.
func stored(t *testing.T, js jetstream.JetStream, stream string) map[string]int {
	t.Helper()
	s, err := js.Stream(soon(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, msg := range readAll(t, s) {
		var event struct{ ID string }
		if err := json.Unmarshal(msg.Data(), &event); err != nil {
			t.Fatal(err)
		}
		ids[event.ID]++
	}
	return ids
}

// mute is a broker that accepts everything and never answers a publish.
func startMute(t *testing.T) *broker {
	t.Helper()
	b := startBroker(t, func(o *server.Options) { o.JetStream = false })
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	// Somebody who listens: else the server answers that nobody does.
	if _, err := nc.Subscribe(">", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	return b
}
