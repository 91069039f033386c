package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	kafkaPartitions = 6
	// kafkaPortTaken is the exit status of scripts/kafka-local when a port is taken.
	kafkaPortTaken = 3
)

// kafka is Apache Kafka, one node. It ends with this program, however that ends.
type kafka struct {
	addr   string
	keeper *exec.Cmd // deletes the node when owner is closed
	owner  io.Closer
}

func (b *bench) startKafka() (*kafka, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gembridge/bridge").Output()
	if err != nil {
		return nil, fmt.Errorf("find scripts/kafka-local: %w", err)
	}
	script, dir := filepath.Join(strings.TrimSpace(string(root)), "scripts", "kafka-local"), b.store()
	k := &kafka{keeper: exec.Command(script, "hold", "--dir", dir)}
	k.keeper.Stderr = os.Stderr
	k.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if k.owner, err = k.keeper.StdinPipe(); err != nil {
		return nil, err
	}
	if err := k.keeper.Start(); err != nil {
		return nil, err
	}
	for range 10 {
		port := 10_000 + 50*rand.IntN(440) // below those that the system gives to connections
		start := exec.Command(script, "start", "--dir", dir, "--port", strconv.Itoa(port), "--heap", "384m")
		start.Stderr = os.Stderr
		err = start.Run()
		if err == nil {
			k.addr = fmt.Sprint("127.0.0.1:", port)
			return k, nil
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != kafkaPortTaken {
			break
		}
	}
	return nil, errors.Join(fmt.Errorf("start Kafka: %w", err), k.stop())
}

func (k *kafka) stop() error { return errors.Join(k.owner.Close(), k.keeper.Wait()) }

// kafkaPublish compares the sink to two producers of client libraries, at the same broker.
func (b *bench) kafkaPublish() (err error) {
	k, err := b.startKafka()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	children := []string{"kafka-sink", "kafka-franz", "kafka-writer"}
	topics := 0
	measure := func(child string, callers int) (r result, err error) {
		topics++
		return r, b.ask(&r, "-child", child, "-url", k.addr, "-topic", fmt.Sprint("bench-", topics), "-callers", fmt.Sprint(callers))
	}
	for _, child := range children { // the broker warms up
		if _, err := measure(child, 64); err != nil {
			return err
		}
	}
	fmt.Printf("## Kafka: confirmed publishes, acks=all, one node, %d partitions\n\n", kafkaPartitions)
	fmt.Println("| callers | sink publishes/s | p50 / p99 ms | franz-go publishes/s | p50 / p99 ms | kafka-go Writer publishes/s | p50 / p99 ms | sink ÷ franz-go | sink ÷ Writer |\n|---|---|---|---|---|---|---|---|---|")
	for _, callers := range []int{1, 16, 64, 256} {
		var rounds [3]series
		for round := range b.rounds {
			for i := range children {
				i = (round + i) % len(children) // nobody is always the first
				r, err := measure(children[i], callers)
				if err != nil {
					return err
				}
				rounds[i].add(r)
			}
		}
		fmt.Printf("| %d |", callers)
		for i := range rounds {
			s := &rounds[i]
			fmt.Printf(" %.0f | %.2f / %.1f |", s.rate(), s.p50(), s.p99())
		}
		sink, franz, writer := &rounds[0], &rounds[1], &rounds[2]
		fmt.Printf(" %.2f× | %.2f× |\n", sink.rate()/franz.rate(), sink.rate()/writer.rate())
	}
	fmt.Println("\nfranz-go: ProduceSync, idempotent, linger 0. Writer: BatchTimeout 1 ms. Nothing is compressed.")
	fmt.Println()
	return nil
}

// kafkaCatchUp reports how fast a sink learns the ids of a topic: of what is there when it starts, and of what another
// bridge publishes.
func (b *bench) kafkaCatchUp() (err error) {
	k, err := b.startKafka()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	const topic = "bench-catch-up"
	var filled result
	if err := b.ask(&filled, "-child", "kafka-fill", "-url", k.addr, "-topic", topic); err != nil {
		return err
	}
	var caughtUp series
	for range b.rounds {
		var r result
		if err := b.ask(&r, "-child", "kafka-reader", "-url", k.addr, "-topic", topic); err != nil {
			return err
		}
		caughtUp.add(r)
	}
	fmt.Printf("## Catch-up\n\n| records of 1 KiB | records/s until the sink is ready | ms |\n|---|---|---|\n| %d | %.0f | %.0f |\n\n",
		kafkaRecords, caughtUp.rate(), caughtUp.p50())

	var r replicas
	if err := b.ask(&r, "-child", "kafka-replicas", "-url", k.addr, "-topic", "bench-replicas"); err != nil {
		return err
	}
	fmt.Printf("From the ack at one sink until another knows the id: p50 %.2f ms, p99 %.2f ms, of %d.\n\n", r.P50, r.P99, kafkaTries)
	fmt.Printf("| the same id at the other sink, ms after the ack | stored a second time, of %d |\n|---|---|\n", kafkaTries)
	for i, delay := range kafkaDelays() {
		fmt.Printf("| %d | %d |\n", delay.Milliseconds(), r.Twice[i])
	}
	fmt.Println()
	return nil
}
