package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// amnesia sets a broker back by ten seconds under load.
func amnesia(topology string, s setting) doer {
	return func(ctx context.Context, r *run, dir string, seed uint64) ([]string, error) {
		return r.ordeal(ctx, ordeal{topology: topology, setting: s, manners: usual(), plan: func(*world) []kind {
			return []kind{{name: "broker's store set back by ten seconds", accepts: true, do: func(ctx context.Context, w *world, rng *rand.Rand) error {
				pause(ctx, 2*time.Second)
				return setBackBy(ctx, w.broker(rng), 10*time.Second)
			}}}
		}}, dir, seed)
	}
}

// drain stops a bridge under load, by both signals in turn.
func drain(topology string, s setting, rounds int) doer {
	return func(ctx context.Context, r *run, dir string, seed uint64) ([]string, error) {
		return r.ordeal(ctx, ordeal{topology: topology, setting: s, manners: polite(), judge: unheard, plan: func(*world) []kind {
			var plan []kind
			for i := range rounds {
				signal, name := syscall.SIGTERM, "SIGTERM under load"
				if i%2 == 1 {
					signal, name = syscall.SIGINT, "SIGINT under load"
				}
				plan = append(plan, kind{name: name, do: endBridge(signal)})
			}
			return plan
		}}, dir, seed)
	}
}

// unheard finds requests that the bridge answered, by its log, and whose senders heard nothing.
func unheard(w *world) (wrong []string, err error) {
	file, err := os.Open(filepath.Join(w.dir, "bridge.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	answered := map[string]int{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var line struct{ Message, Delivery string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "delivery" {
			answered[line.Delivery]++
		}
	}
	for _, a := range w.book.Answers(0) {
		if a.Code != 0 {
			answered[a.ID]--
		}
	}
	for _, id := range slices.Sorted(maps.Keys(answered)) {
		if n := answered[id]; n != 0 {
			wrong = append(wrong, fmt.Sprintf("%s: the bridge's log has %d answers more than its sender heard", id, n))
		}
	}
	return wrong, lines.Err()
}

// away keeps the broker away from the start. Every sender is answered 2xx at once; when the broker comes, all of it
// arrives, and the bridge's own numbers agree with the ledger.
func away(s setting) doer {
	return func(ctx context.Context, r *run, dir string, seed uint64) (wrong []string, err error) {
		topology := "one nats-server"
		if s.kafka != nil {
			topology = "one Kafka node"
		}
		w, err := newWorld(r.bridge, dir, s)
		if err != nil {
			return nil, err
		}
		defer func() { wrong = append(wrong, w.close()...) }()
		broker := w.broker(rand.New(rand.NewPCG(seed, 1)))
		h := happened{kind: "broker away from the start", begun: time.Now()}
		if err := broker.kill(); err != nil {
			return nil, err
		}
		if err := w.bridge.start(); err != nil {
			return nil, err
		}
		if err := w.bridge.up(ctx); err != nil {
			return nil, err
		}
		w.load, err = startLoad(seed, w.bridge.url(), polite(), w.book)
		if err != nil {
			return nil, err
		}
		pause(ctx, 8*time.Second)
		err = broker.start()
		h.ended = time.Now()
		if err != nil {
			return nil, err
		}
		if err := w.recover(ctx, 0, &h); err != nil {
			wrong = append(wrong, err.Error())
		}
		more, err := r.settle(ctx, topology, w, []happened{h}, false)
		if wrong = append(wrong, more...); err != nil {
			return wrong, err
		}
		if n, by := w.refusals(0, time.Time{}); n > 0 {
			wrong = append(wrong, fmt.Sprintf("%d requests were not answered 2xx: %v", n, by))
		}
		more, err = w.disagreements()
		return append(wrong, more...), err
	}
}

// disagreements compares what the bridge counted, in one process, with the ledger.
func (w *world) disagreements() (wrong []string, err error) {
	heard := map[string]int{}
	for _, a := range w.book.Answers(0) {
		heard[a.Result]++
	}
	series, err := w.bridge.metrics()
	if err != nil {
		return nil, err
	}
	counted := map[string]int{}
	for name, value := range series {
		if strings.HasPrefix(name, "bridge_deliveries_total{") && value > 0 {
			_, result, _ := strings.Cut(name, `result="`)
			result, _, _ = strings.Cut(result, `"`)
			counted[result] += int(value)
		}
	}
	if !maps.Equal(heard, counted) {
		wrong = append(wrong, fmt.Sprintf("bridge_deliveries_total is %v, the senders heard %v", counted, heard))
	}
	for _, name := range []string{"bridge_journal_waiting", "bridge_journal_quarantined_total", "bridge_journal_keep_cut_total", "bridge_inflight"} {
		if n := sum(series, name); n != 0 {
			wrong = append(wrong, fmt.Sprintf("%s is %v at the end", name, n))
		}
	}
	return wrong, nil
}
