// Command bench measures the bridge against what bounds it, in one run, and prints the ratios: the road against an
// empty net/http handler, the bridge on JetStream against bare publishing from as many goroutines and against itself
// without its journal, the journal against the disk, the bridge beside a flood of forged requests against itself
// without, and the Kafka sink against the producers of two client libraries.
// Absolute figures are those of this machine at this moment; the ratios carry over.
//
//	go run ./internal/bench [-rounds 3] [-seconds 2] [-only kafka]
//
// The part journal needs strace, the part flood taskset and two cores, and the Kafka parts what scripts/kafka-local needs.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// bench is one run.
type bench struct {
	rounds  int
	period  time.Duration
	dir     string // for stores; removed at the end
	bridge  string // the program under test, built as users get it
	started int    // stores handed out
}

func main() {
	child := flag.String("child", "", "what to be instead, such as empty, road or nats (the program starts itself so)")
	dir := flag.String("dir", "", "of a child's store")
	url := flag.String("url", "", "of a child's broker; empty is one in the process")
	callers := flag.Int("callers", 1, "of a child that publishes")
	topic := flag.String("topic", "", "of a child that speaks Kafka")
	only := flag.String("only", "", "regular expression of the parts to run: handlers, embedded, separate, journal, append, start, flood, kafka-publish, kafka-catch-up and idle")
	rounds := flag.Int("rounds", 3, "per figure; the median counts")
	seconds := flag.Float64("seconds", 2, "per round")
	flag.Parse()
	period := time.Duration(*seconds * float64(time.Second))

	var err error
	switch *child {
	case "":
		err = run(&bench{rounds: *rounds, period: period}, *only)
	case "empty", "road":
		err = beHandler(*child)
	case "nats":
		err = beServer(*dir)
	case "publish":
		err = bePublisher(*dir, *url, *callers, period)
	case "kafka-sink", "kafka-franz", "kafka-writer":
		err = beKafkaPublisher(*child, *url, *topic, *callers, period)
	case "kafka-fill":
		err = beKafkaFiller(*url, *topic)
	case "kafka-reader":
		err = beKafkaReader(*url, *topic)
	case "kafka-replicas":
		err = beKafkaReplicas(*url, *topic)
	default:
		err = fmt.Errorf("no child %q", *child)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type part struct {
	name string
	do   func() error
}

func run(b *bench, only string) (err error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	parts := slices.DeleteFunc([]part{
		{"handlers", b.handlers},
		{"embedded", b.embedded},
		{"separate", b.separate},
		{"journal", b.journal},
		{"append", b.appends},
		{"start", b.start},
		{"flood", b.flood},
		{"kafka-publish", b.kafkaPublish},
		{"kafka-catch-up", b.kafkaCatchUp},
		{"idle", b.idle},
	}, func(p part) bool { return !wanted.MatchString(p.name) })
	if len(parts) == 0 {
		return fmt.Errorf("-only: %s is none of the parts", only)
	}
	if b.dir, err = os.MkdirTemp("", "bridge-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.bridge = filepath.Join(b.dir, "bridge")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.bridge, "github.com/gembridge/bridge/cmd/bridge")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the bridge: %w", err)
	}
	for _, part := range parts {
		if err := part.do(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// store returns a new empty directory.
func (b *bench) store() string {
	b.started++
	return filepath.Join(b.dir, fmt.Sprint("store-", b.started))
}

// handlers compares the road, with a sink that does nothing, to an empty handler.
func (b *bench) handlers() error {
	const conns = 64
	var empty, road series
	for range b.rounds {
		for _, v := range []struct {
			child string
			into  *series
		}{{"empty", &empty}, {"road", &road}} {
			s, err := b.child("-child", v.child)
			if err != nil {
				return err
			}
			r, err := b.load(s, s.line, conns)
			if err != nil {
				return err
			}
			v.into.add(r)
			s.stop()
		}
	}
	fmt.Printf("## The road with a sink that does nothing, %d connections\n\n", conns)
	fmt.Println("| | requests/s | p50 ms | p99 ms | CPU µs/request | allocations/request |\n|---|---|---|---|---|---|")
	empty.print("empty handler: reads the body, answers 202")
	road.print("the road: verify, validate, normalize, deliver, log")
	fmt.Printf("\nCPU %.2f×, rate %.2f×, allocations %+.0f\n\n", road.cpu()/empty.cpu(), road.rate()/empty.rate(), road.allocs()-empty.allocs())
	return nil
}

// embedded compares the bridge with its own broker to publishing to such a broker within the process. Both answer for
// what is on the disk: the bridge by its journal, the other by an fsync of every message.
func (b *bench) embedded() error {
	return b.compare("Embedded server: bare publishes with an fsync of every message, the bridge with its journal",
		func() (env, args []string, stop func(), err error) {
			return nil, []string{"-dir", b.store()}, func() {}, nil
		})
}

// separate compares them on a server of its own, with its default sync: bare publishes are not on the disk when they
// are acknowledged, what the bridge answers for is.
func (b *bench) separate() error {
	return b.compare("Separate server, default sync (every two minutes): bare publishes, the bridge with its journal",
		func() (env, args []string, stop func(), err error) {
			nats, err := b.child("-child", "nats", "-dir", b.store())
			if err != nil {
				return nil, nil, nil, err
			}
			return []string{"BRIDGE_NATS_URL=" + nats.line}, []string{"-url", nats.line}, nats.stop, nil
		})
}

func (b *bench) compare(title string, broker func() (env, args []string, stop func(), err error)) error {
	fmt.Printf("## %s\n\n", title)
	fmt.Println("| callers | bare publishes/s | p50 / p99 ms | bridge requests/s | p50 / p99 ms | CPU µs/request | ratio |\n|---|---|---|---|---|---|---|")
	for _, callers := range []int{1, 64, 256} {
		var bare, whole series
		for range b.rounds {
			if err := b.round(callers, broker, &bare, &whole); err != nil {
				return err
			}
		}
		fmt.Printf("| %d | %.0f | %.2f / %.1f | %.0f | %.2f / %.1f | %.0f | %.2f× |\n", callers, bare.rate(), bare.p50(), bare.p99(),
			whole.rate(), whole.p50(), whole.p99(), whole.cpu(), whole.rate()/bare.rate())
	}
	fmt.Println()
	return nil
}

func (b *bench) round(callers int, broker func() (env, args []string, stop func(), err error), bare, whole *series) error {
	env, args, stop, err := broker()
	if err != nil {
		return err
	}
	defer stop()
	var r result
	if err := b.ask(&r, append(args, "-child", "publish", "-callers", fmt.Sprint(callers))...); err != nil {
		return err
	}
	bare.add(r)
	s, err := b.serve(env...)
	if err != nil {
		return err
	}
	defer s.stop()
	if r, err = b.load(s, s.line, callers); err != nil {
		return err
	}
	whole.add(r)
	return nil
}
