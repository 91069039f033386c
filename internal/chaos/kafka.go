package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/chaos/ledger"
)

// portTaken is the exit status of scripts/kafka-local when a port is taken.
const portTaken = 3

// kafkaNodes is Apache Kafka, one node or three. It ends with this program, however that ends.
type kafkaNodes struct {
	script, dir string
	addrs       []string
	proxy       *proxy    // before the only node, for bridges; nil with more: --set says the same to all of them
	keeper      *exec.Cmd // deletes the nodes when owner is closed
	owner       io.Closer
}

func startKafka(dir string, nodes int) (*kafkaNodes, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	k := &kafkaNodes{script: filepath.Join(root, "scripts", "kafka-local"), dir: dir}
	k.keeper = exec.Command(k.script, "hold", "--dir", dir)
	k.keeper.Stderr = os.Stderr
	k.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if k.owner, err = k.keeper.StdinPipe(); err != nil {
		return nil, err
	}
	if err := k.keeper.Start(); err != nil {
		return nil, err
	}
	for range 10 {
		var ports []int
		if ports, err = freePorts(1); err != nil {
			break
		}
		if err = k.start(ports[0], nodes); err == nil {
			return k, nil
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != portTaken {
			break
		}
	}
	return nil, errors.Join(fmt.Errorf("start Kafka: %w", err), k.close())
}

func (k *kafkaNodes) start(port, nodes int) error {
	args := []string{
		"--port", strconv.Itoa(port), "--nodes", strconv.Itoa(nodes),
		"--set", "broker.session.timeout.ms=2000", "--set", "broker.heartbeat.interval.ms=500",
	}
	var network *proxy
	if nodes == 1 {
		const far = 6 // ports from the first one
		var err error
		if network, err = startProxy(addr(port + far)); err != nil {
			return err
		}
		args = append(args,
			"--set", fmt.Sprintf("listeners=PLAIN://%s,FAR://%s,CONTROLLER://%s", addr(port), addr(port+far), addr(port+1)),
			"--set", fmt.Sprintf("advertised.listeners=PLAIN://%s,FAR://%s", addr(port), network.addr()),
			"--set", "listener.security.protocol.map=PLAIN:PLAINTEXT,FAR:PLAINTEXT,CONTROLLER:PLAINTEXT")
	}
	if err := k.run("start", args...); err != nil {
		if network != nil {
			network.close()
		}
		return err
	}
	k.proxy = network
	for i := range nodes {
		k.addrs = append(k.addrs, addr(port+10*i))
	}
	return nil
}

// bootstrap is where bridges find the nodes.
func (k *kafkaNodes) bootstrap() string {
	if k.proxy != nil {
		return k.proxy.addr()
	}
	return strings.Join(k.addrs, ",")
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gembridge/bridge").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// run is a command of the script: start, stop, kill9, pause or resume.
func (k *kafkaNodes) run(command string, args ...string) error {
	cmd := exec.Command(k.script, append([]string{command, "--dir", k.dir}, args...)...)
	// The brokers live for minutes: the compiler that takes longest is not worth its time.
	cmd.Env = append(os.Environ(), "JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kafka-local %s: %w\n%s", command, err, out)
	}
	return nil
}

// do is run for nodes, counted from 0.
func (k *kafkaNodes) do(command string, nodes ...int) error {
	var args []string
	for _, n := range nodes {
		args = append(args, strconv.Itoa(n+1))
	}
	return k.run(command, args...)
}

func (k *kafkaNodes) close() error {
	if k.proxy != nil {
		k.proxy.close()
	}
	return errors.Join(k.owner.Close(), k.keeper.Wait())
}

func (k *kafkaNodes) store(node int) string { return filepath.Join(k.dir, fmt.Sprint("node-", node+1)) }

// leader is the node that leads the topic's first partition.
func (k *kafkaNodes) leader(ctx context.Context, topic string) (int, error) {
	partitions, err := k.partitions(ctx, topic)
	if err != nil {
		return 0, err
	}
	return partitions[0].Leader.ID - 1, nil
}

// whole waits until every replica of the topic's partitions is in sync.
func (k *kafkaNodes) whole(ctx context.Context, topic string) error {
	for {
		partitions, err := k.partitions(ctx, topic)
		for _, p := range partitions {
			if len(p.Isr) < len(k.addrs) {
				err = fmt.Errorf("%s/%d: %d of %d replicas are in sync", topic, p.ID, len(p.Isr), len(k.addrs))
			}
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// partitions asks one node after the other.
func (k *kafkaNodes) partitions(ctx context.Context, topic string) ([]kafka.Partition, error) {
	var all error
	for _, addr := range k.addrs {
		partitions, err := (&kafka.Dialer{}).LookupPartitions(ctx, "tcp", addr, topic)
		if err == nil && len(partitions) > 0 {
			return partitions, nil
		}
		all = errors.Join(all, err)
	}
	return nil, fmt.Errorf("partitions of %s: %w", topic, all)
}

func (k *kafkaNodes) deleteTopic(ctx context.Context, topic string) error {
	client := &kafka.Client{Addr: kafka.TCP(k.addrs...)}
	response, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return response.Errors[topic]
}

// readKafka reads events and dead letters, every partition to its end, with a library's own reader of single records.
func (k *kafkaNodes) readKafka(ctx context.Context, topic string) ([]ledger.Record, error) {
	var records []ledger.Record
	for _, topic := range []string{topic, topic + ".dead"} {
		partitions, err := k.partitions(ctx, topic)
		if err != nil {
			return nil, err
		}
		for _, partition := range partitions {
			log := fmt.Sprintf("%s/%d", topic, partition.ID)
			if err := readPartition(ctx, partition, log, &records); err != nil {
				return nil, fmt.Errorf("%s: %w", log, err)
			}
		}
	}
	return records, nil
}

func readPartition(ctx context.Context, p kafka.Partition, log string, into *[]ledger.Record) (err error) {
	leader := addr(p.Leader.Port)
	conn, err := kafka.DialPartition(ctx, "tcp", leader, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	first, last, err := conn.ReadOffsets()
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	for next := first; next < last; {
		if _, err := conn.Seek(next, kafka.SeekAbsolute|kafka.SeekDontCheck); err != nil {
			return err
		}
		batch := conn.ReadBatch(1, 4<<20)
		for {
			message, err := batch.ReadMessage()
			if err != nil {
				break // the end of what came at once; the error that matters is that of Close
			}
			next = message.Offset + 1
			record, err := ledger.Parse(message.Value, log, uint64(message.Offset))
			if err != nil {
				return errors.Join(err, batch.Close())
			}
			*into = append(*into, record)
		}
		if err := batch.Close(); err != nil {
			return err
		}
	}
	return nil
}
