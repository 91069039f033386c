package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

const (
	// stopTimeout bounds how long a command takes to let go of a broker.
	stopTimeout = 30 * time.Second
	// readyPatience is how long a command waits for a sink that it started: the Kafka sink reads what is in its
	// topics before it publishes.
	readyPatience = 5 * time.Minute
)

// deadBroker is the broker whose dead letters a command works with.
type deadBroker struct {
	cfg     *Config
	sink    string
	sh      shell
	read    func() (brokerReader, error) // of the dead letters
	publish func(context.Context) (publisher, error)
	stop    []func() error
}

// publisher makes events durable.
type publisher interface {
	// publish tells whether the id had been there. The error is a *sinks.RefusedError when the broker will never take
	// the event.
	publish(ctx context.Context, event *schema.Event) (duplicate bool, err error)
	close() error
}

// withBroker runs a command on the dead letters of the settings' broker.
func (f deadFlags) withBroker(sinkFlag string, sh shell, do func(context.Context, *deadBroker) error) int {
	cfg, found := readConfig(sh.environ)
	if len(found) > 0 {
		fmt.Fprintln(sh.err, found)
		return exitUsage
	}
	sink, err := chosenSink(cfg, sinkFlag)
	if err != nil {
		return f.mistake(err, sh)
	}
	stop, _, release := follow(sh.signals())
	defer release()
	b := &deadBroker{cfg: cfg, sink: sink, sh: sh}
	if err = b.open(); err == nil {
		err = do(stop, b)
	}
	if err = errors.Join(err, b.close()); err != nil {
		fmt.Fprintf(sh.err, "%s: %v\n", f.Name(), err)
		return exitFailure
	}
	return exitOK
}

// open finds the broker. Of an embedded one there are three cases: the bridge runs, and is asked; it does not, and its
// server is started for as long as the command runs; or there is no data here, and the server is elsewhere.
func (b *deadBroker) open() error {
	b.read = func() (brokerReader, error) { return newReader(b.cfg, readOnce(), b.sink, true) }
	b.publish = func(ctx context.Context) (publisher, error) { return b.newSink(ctx, nil) }
	if b.sink != jetstream.Name || b.cfg.NATS.URL != "" {
		return nil
	}
	if _, missing := os.Stat(natsDir(b.cfg)); missing != nil {
		b.publish = func(context.Context) (publisher, error) {
			return nil, fmt.Errorf("no embedded server has its data in %s: set BRIDGE_DATA_DIR to that of the bridge, and run this where it runs", b.cfg.DataDir)
		}
		return nil //nolint:nilerr // it may be read all the same, where it listens
	}
	unlock, err := tryLockDir(b.cfg.DataDir)
	if errors.Is(err, errHeld) {
		return b.openRunning(err)
	}
	if err != nil {
		return err
	}
	b.stop = append(b.stop, unlock)
	return b.openStopped()
}

// openRunning asks the bridge that has the data directory.
func (b *deadBroker) openRunning(held error) error {
	door, err := readDoor(b.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("%w, which cannot be asked (yet): %w", held, err)
	}
	b.read = func() (brokerReader, error) { return newEmbeddedReader(b.cfg, door.NATS, true) }
	b.publish = func(context.Context) (publisher, error) { return door, nil }
	return nil
}

// openStopped starts the server, for this command alone.
func (b *deadBroker) openStopped() error {
	cfg, err := embeddedConfig(b.cfg, b.log())
	if err != nil {
		return err
	}
	cfg.Addr, cfg.Token = "127.0.0.1:0", secret.New(rand.Text()) // no consumer comes by chance
	embedded, err := jetstream.StartEmbedded(cfg)
	if err != nil {
		return err
	}
	b.stop = append(b.stop, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		return embedded.Close(ctx)
	})
	b.read = func() (brokerReader, error) {
		return jetstream.NewReader(jetstream.ReaderConfig{Conn: jetstream.Conn{ConnOptions: embedded.ConnOptions()}, Stream: streamName(b.cfg, true)})
	}
	b.publish = func(ctx context.Context) (publisher, error) { return b.newSink(ctx, embedded) }
	return nil
}

func (b *deadBroker) log() zerolog.Logger { return zerolog.New(b.sh.err).Level(zerolog.ErrorLevel) }

// close lets go of what was opened, last thing first.
func (b *deadBroker) close() error {
	var all error
	for i := len(b.stop) - 1; i >= 0 && all == nil; i-- { // a store that is still open keeps its lock
		all = b.stop[i]()
	}
	return all
}

// scanDead calls letter and mark with all there is, and names on standard error what is neither.
func (b *deadBroker) scanDead(ctx context.Context, letter func(sinks.Record, *schema.Letter) error, mark func(schema.Mark)) error {
	reader, err := b.read()
	if err != nil {
		return err
	}
	defer reader.Close()
	return scanDead(ctx, reader, letter, mark, func(r sinks.Record, err error) {
		fmt.Fprintf(b.sh.err, "bridge dead: %s: %v\n", place(b.sink, r), err)
	})
}

// newSink connects as the bridge does, and waits until it can publish.
func (b *deadBroker) newSink(ctx context.Context, embedded *jetstream.Embedded) (publisher, error) {
	var sink sinks.Sink
	var err error
	if b.sink == kafka.Name {
		sink, err = newKafka(b.cfg, readOnce(), b.log())
	} else {
		sink, err = newJetStream(b.cfg, embedded, readOnce(), b.log())
	}
	if err != nil {
		return nil, err
	}
	p := &direct{sink, b.cfg.AckTimeout}
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for {
		err := sink.Ready(ctx)
		if _, degraded := errors.AsType[*sinks.DegradedError](err); err == nil || degraded {
			return p, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(err, p.close())
		}
	}
}

// direct publishes through a sink of its own.
type direct struct {
	sink    sinks.Sink
	timeout time.Duration
}

func (p *direct) publish(ctx context.Context, event *schema.Event) (duplicate bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	ack, err := p.sink.Publish(ctx, event)
	return ack.Duplicate, err
}

func (p *direct) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return p.sink.Close(ctx)
}
