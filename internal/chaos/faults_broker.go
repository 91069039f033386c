package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// victim is a broker of a world: one node of NATS or Kafka.
type victim struct {
	name                               string
	store                              string
	kill, terminate, stop, cont, start func() error
}

func (w *world) natsNode(i int) victim {
	send := func(s syscall.Signal) func() error { return func() error { return w.nats.signal(i, s) } }
	return victim{
		name: w.nats.nodes[i].name, store: w.nats.nodes[i].dir,
		kill: send(syscall.SIGKILL), terminate: send(syscall.SIGTERM), stop: send(syscall.SIGSTOP), cont: send(syscall.SIGCONT),
		start: func() error { return w.nats.start(i) },
	}
}

func (w *world) kafkaNode(i int) victim {
	run := func(command string) func() error { return func() error { return w.kafka.do(command, i) } }
	return victim{
		name: fmt.Sprint("kafka-", i), store: w.kafka.store(i),
		kill: run("kill9"), terminate: run("stop"), stop: run("pause"), cont: run("resume"), start: run("start"),
	}
}

// broker picks one of those that a world has.
func (w *world) broker(rng *rand.Rand) victim {
	if w.kafka == nil || w.nats != nil && rng.IntN(2) == 0 {
		return w.natsNode(rng.IntN(len(w.nats.nodes)))
	}
	return w.kafkaNode(rng.IntN(len(w.kafka.addrs)))
}

func endBroker(s syscall.Signal) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		b := w.broker(rng)
		end := b.kill
		if s == syscall.SIGTERM {
			end = b.terminate
		}
		if err := end(); err != nil {
			return err
		}
		pause(ctx, soon(rng, 1500*time.Millisecond))
		return b.start()
	}
}

// pauseBroker lets it hang: its connections stay open, and nothing is answered.
func pauseBroker(ctx context.Context, w *world, rng *rand.Rand) error {
	b := w.broker(rng)
	if err := b.stop(); err != nil {
		return err
	}
	pause(ctx, 200*time.Millisecond+soon(rng, 3*time.Second))
	return b.cont()
}

func killBoth(ctx context.Context, w *world, rng *rand.Rand) error {
	b := w.broker(rng)
	bridgeFirst := rng.IntN(2) == 0
	killBridge := func() error { _, err := w.bridge.signal(syscall.SIGKILL); return err }
	order := []func() error{b.kill, killBridge, b.start, w.bridge.start}
	if bridgeFirst {
		order = []func() error{killBridge, b.kill, w.bridge.start, b.start}
	}
	for _, step := range order {
		if err := step(); err != nil {
			return err
		}
		pause(ctx, soon(rng, 400*time.Millisecond))
	}
	return nil
}

func slowNetwork(ctx context.Context, w *world, rng *rand.Rand) error {
	network := w.networks()[rng.IntN(len(w.networks()))]
	network.slow(20*time.Millisecond + soon(rng, 600*time.Millisecond))
	pause(ctx, 300*time.Millisecond+soon(rng, 2*time.Second))
	network.slow(0)
	return nil
}

func cutNetwork(ctx context.Context, w *world, rng *rand.Rand) error {
	network := w.networks()[rng.IntN(len(w.networks()))]
	network.cut()
	pause(ctx, 200*time.Millisecond+soon(rng, 3*time.Second))
	network.heal(rng.IntN(2) == 0)
	return nil
}

// deleteLog deletes a stream or topic and waits until it has been made again. That of dead letters is found missing with
// the next one.
func deleteLog(ctx context.Context, w *world, rng *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dead := rng.IntN(3) == 0
	name := stream
	remove, find := func() error { return deleteStream(ctx, w.url, name) }, func() error { return withStream(ctx, w.url, name, noMore) }
	if w.nats == nil || w.kafka != nil && rng.IntN(2) == 0 {
		name = w.topic
		remove, find = func() error { return w.kafka.deleteTopic(ctx, name) }, func() error { _, err := w.kafka.partitions(ctx, name); return err }
	}
	if dead {
		name = map[string]string{stream: deadStream, w.topic: w.topic + ".dead"}[name]
	}
	if err := remove(); err != nil {
		return err
	}
	pause(ctx, 300*time.Millisecond) // until all brokers have heard of it
	for {
		err := find()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return violation(fmt.Sprintf("%s was deleted, and is not made again: %v", name, err))
		}
		pause(ctx, 20*time.Millisecond)
	}
	pause(ctx, 700*time.Millisecond) // until the bridge has noticed
	return nil
}

func noMore(jetstream.Stream) error { return nil }

// setBack gives a broker the store that it had some seconds ago, as a power failure does to one that acknowledges before
// its fsync, or an operator who restores a backup.
func setBack(ctx context.Context, w *world, rng *rand.Rand) error {
	return setBackBy(ctx, w.broker(rng), time.Second+soon(rng, 3*time.Second))
}

func setBackBy(ctx context.Context, b victim, age time.Duration) error {
	old := b.store + ".old"
	if err := b.stop(); err != nil { // so that the copy is of one moment
		return err
	}
	err := os.CopyFS(old, os.DirFS(b.store))
	if err := errors.Join(err, b.cont()); err != nil {
		return err
	}
	pause(ctx, age)
	if err := b.kill(); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(b.store), os.Rename(old, b.store), b.start())
}

// leaderGone takes the node that leads, once all have everything, and brings it back after a new one was elected.
func leaderGone(how string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		b, err := w.leaderNode(ctx)
		if err != nil {
			return err
		}
		end, back := b.kill, b.start
		if how == "pause" {
			end, back = b.stop, b.cont
		}
		if err := end(); err != nil {
			return err
		}
		pause(ctx, 500*time.Millisecond+soon(rng, 4*time.Second))
		return back()
	}
}

func (w *world) leaderNode(ctx context.Context) (victim, error) {
	if w.kafka != nil {
		if err := w.kafka.whole(ctx, w.topic); err != nil {
			return victim{}, err
		}
		i, err := w.kafka.leader(ctx, w.topic)
		if err != nil {
			return victim{}, err
		}
		return w.kafkaNode(i), nil
	}
	if err := w.nats.whole(ctx); err != nil {
		return victim{}, err
	}
	i, err := w.nats.leader(ctx)
	if err != nil {
		return victim{}, err
	}
	return w.natsNode(i), nil
}
