package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	seed    uint64
	faults  int
	minutes float64
	only    *regexp.Regexp // of the parts
	kinds   *regexp.Regexp // of the faults
	sink    string
	bridge  string // program; built when empty
	write   string
}

// run is one run of the program, over one or more passes.
type run struct {
	options
	out   io.Writer
	dir   string
	table table
	wrong []string    // parts, and how much is wrong in each
	made  *kafkaNodes // the cluster at hand
	size  int         // of it
	count int         // of topics
}

func (r *run) logf(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...)
}

// part is a campaign or a scenario.
type part struct {
	name  string
	sinks string // what it needs
	do    func(ctx context.Context, r *run, dir string, seed uint64) ([]string, error)
}

// parts come in an order in which each Kafka cluster is started once.
func (r *run) parts() []part {
	share := func(percent int) int { return max(1, r.faults*percent/100) }
	return []part{
		{"embedded", "nats", campaign("embedded NATS", setting{embedded: true}, share(40))},
		{"small-disk", "nats", campaign("embedded NATS, small disk", setting{embedded: true, small: "256m", env: []string{"BRIDGE_JOURNAL_MAX_BYTES=64MiB"}}, share(4))},
		{"nats", "nats", campaign("one nats-server", setting{nats: 1}, share(32))},
		{"nats-three", "nats", campaign("three nats-servers", setting{nats: 3}, share(6))},
		{"away-nats", "nats", away(setting{nats: 1})},
		{"amnesia-nats", "nats", amnesia("one nats-server", setting{nats: 1})},
		{"drain-embedded", "nats", drain("embedded NATS", setting{embedded: true}, 25)},
		{"drain-nats", "nats", drain("one nats-server", setting{nats: 1}, 25)},
		{"kafka", "kafka", onKafka(1, func(s setting) doer { return campaign("one Kafka node", s, share(5)) })},
		{"away-kafka", "kafka", onKafka(1, away)},
		{"amnesia-kafka", "kafka", onKafka(1, func(s setting) doer { return amnesia("one Kafka node", s) })},
		{"drain-kafka", "kafka", onKafka(1, func(s setting) doer { return drain("one Kafka node", s, 20) })},
		{"fan-out", "nats,kafka", onKafka(1, func(s setting) doer { s.nats = 1; return campaign("nats-server and Kafka", s, share(5)) })},
		{"kafka-three", "kafka", onKafka(3, func(s setting) doer { return campaign("three Kafka nodes", s, share(5)) })},
	}
}

type doer = func(ctx context.Context, r *run, dir string, seed uint64) ([]string, error)

// onKafka hands a part the cluster and a topic of its own.
func onKafka(nodes int, of func(setting) doer) doer {
	return func(ctx context.Context, r *run, dir string, seed uint64) ([]string, error) {
		if r.made != nil && r.size != nodes {
			if err := r.made.close(); err != nil {
				return nil, err
			}
			r.made = nil
		}
		if r.made == nil {
			k, err := startKafka(filepath.Join(r.dir, fmt.Sprintf("kafka-%d-%d", nodes, r.count)), nodes)
			if err != nil {
				return nil, err
			}
			r.made, r.size = k, nodes
		}
		r.count++
		return of(setting{kafka: r.made, topic: fmt.Sprint("chaos-", r.count)})(ctx, r, dir, seed)
	}
}

// usual is the load of a campaign: some hundred events a second. A key has more of them than a job of Gemini's, and not
// so many that a busy machine could not forward them one after the other.
func usual() manners { return manners{keys: 64, pause: 130 * time.Millisecond} }

// polite is the same, of senders that hear every answer and send nothing twice.
func polite() manners {
	m := usual()
	m.polite = true
	return m
}

// campaign lets n faults of all kinds that fit happen to a bridge under load.
func campaign(topology string, s setting, n int) doer {
	return func(ctx context.Context, r *run, dir string, seed uint64) ([]string, error) {
		return r.ordeal(ctx, ordeal{topology: topology, setting: s, manners: usual(), plan: func(w *world) []kind {
			fit := fitting(w, func(k kind) bool { return r.kinds.MatchString(k.name) })
			return schedule(rand.New(rand.NewPCG(seed, 1)), fit, n)
		}}, dir, seed)
	}
}

// ordeal is a world with load, faults that happen to it, and a judgement beside that of the ledger.
type ordeal struct {
	topology string
	setting  setting
	manners  manners
	plan     func(*world) []kind
	judge    func(*world) ([]string, error) // may be nil
}

func (r *run) ordeal(ctx context.Context, o ordeal, dir string, seed uint64) (wrong []string, err error) {
	w, err := newWorld(r.bridge, dir, o.setting)
	if err != nil {
		return nil, err
	}
	defer func() { wrong = append(wrong, w.close()...) }()
	if err := w.begin(ctx, seed, o.manners); err != nil {
		return nil, err
	}
	past, wrong, err := r.suffer(ctx, w, seed, o.plan(w))
	if err != nil {
		return wrong, err
	}
	more, err := r.settle(ctx, o.topology, w, past, true)
	if wrong = append(wrong, more...); err != nil || o.judge == nil {
		return wrong, err
	}
	more, err = o.judge(w)
	return append(wrong, more...), err
}

// pass runs all parts once.
func (r *run) pass(ctx context.Context, seed uint64) error {
	done := 0
	for i, p := range r.parts() {
		if !r.only.MatchString(p.name) || r.sink != "" && !strings.Contains(p.sinks, r.sink) {
			continue
		}
		done++
		dir := filepath.Join(r.dir, fmt.Sprintf("%d-%s", seed, p.name))
		r.logf("%s %s, seed %d", time.Now().Format(clock), p.name, seed)
		wrong, err := p.do(ctx, r, dir, seed+uint64(i)<<40)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			wrong = append(wrong, "not finished: "+err.Error())
		}
		for _, line := range wrong[:min(len(wrong), 30)] {
			r.logf("  WRONG %s", line)
		}
		if len(wrong) == 0 {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		r.wrong = append(r.wrong, fmt.Sprintf("%s with seed %d: %d", p.name, seed, len(wrong)))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "wrong"), []byte(strings.Join(wrong, "\n")+"\n"), 0o600); err != nil {
			return err
		}
		r.logf("  again: go run ./internal/chaos -seed %d -faults %d -only '^%s$'   all that is wrong, logs, ledger and journal: %s", seed, r.faults, p.name, dir)
	}
	if done == 0 {
		return errors.New("no part is of that name and sink")
	}
	return nil
}
