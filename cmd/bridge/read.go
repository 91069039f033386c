package main

import (
	"context"
	"fmt"
	"net"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

// brokerReader is a consumer of one stream or topic.
type brokerReader interface {
	sinks.Reader
	Close()
}

// newReader connects, as a consumer, to the broker that the bridge of the same settings publishes to.
func newReader(cfg *Config, watcher *files.Watcher, sink string, dead bool) (brokerReader, error) {
	if sink == kafka.Name {
		return newKafkaReader(cfg, watcher, dead)
	}
	conn, err := natsConn(cfg, watcher)
	if err != nil {
		return nil, err
	}
	if conn.URL == "" {
		return newEmbeddedReader(cfg, "nats://"+reachable(cfg.NATS.EmbeddedAddr), dead)
	}
	return jetstream.NewReader(jetstream.ReaderConfig{Conn: conn, Stream: streamName(cfg, dead)})
}

// newEmbeddedReader connects to the server at url, which another bridge runs, as any consumer of it does.
func newEmbeddedReader(cfg *Config, url string, dead bool) (brokerReader, error) {
	token, err := embeddedToken(cfg)
	if err != nil {
		return nil, err
	}
	return jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{URL: url, Token: token}, Stream: streamName(cfg, dead)})
}

func streamName(cfg *Config, dead bool) string {
	if dead {
		return cfg.NATS.Stream + "_DEAD"
	}
	return cfg.NATS.Stream
}

// readBroker reads from the sink's broker until fn has had enough.
func readBroker(ctx context.Context, cfg *Config, sink string, dead bool, from sinks.From, fn func(sinks.Record) error) error {
	watcher := files.New(files.Config{}) // a tail may outlive the credentials that it began with
	reader, err := newReader(cfg, watcher, sink, dead)
	if err != nil {
		return err
	}
	defer reader.Close()
	stop := inBackground(watcher.Run)
	defer func() { _ = stop(ctx) }()
	return reader.Read(ctx, from, fn)
}

// place says where a record stands.
func place(sink string, r sinks.Record) string {
	if sink == kafka.Name {
		return fmt.Sprintf("%s, partition %d, offset %d", r.Name, r.Position.Partition, r.Position.Sequence)
	}
	return fmt.Sprintf("%s, record %d", r.Name, r.Position.Sequence)
}

// reachable is an address to listen on as a client on this machine dials it.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
