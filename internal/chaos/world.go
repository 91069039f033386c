package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gembridge/bridge/internal/chaos/ledger"
)

// world is one bridge with its brokers, its senders and the ledger of what they were answered.
type world struct {
	dir    string
	bridge *bridge
	load   *load
	book   *ledger.Ledger
	file   *os.File // of the ledger

	url   string       // at which the streams are read; empty without NATS
	nats  *natsServers // nil when the broker is embedded, or none is NATS
	proxy *proxy       // between the bridge and the one external nats-server, or nil
	kafka *kafkaNodes  // nil without Kafka
	topic string
	small bool // the data directory is a small file system
	ended []func()
}

// setting is what a world is made of.
type setting struct {
	embedded bool
	nats     int // external servers
	kafka    *kafkaNodes
	topic    string
	small    string // size of the file system of the data directory; empty for that of the rest
	env      []string
}

func newWorld(program, dir string, s setting) (_ *world, err error) {
	w := &world{dir: dir, kafka: s.kafka, topic: s.topic, small: s.small != ""}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var sinks []string
	env := append([]string{"BRIDGE_ACK_TIMEOUT=2s"}, s.env...)
	if s.embedded {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		w.url = "nats://" + addr(ports[0])
		sinks, env = append(sinks, "nats"), append(env, "BRIDGE_NATS_EMBEDDED_ADDR="+addr(ports[0]))
	}
	if s.nats > 0 {
		url, err := w.startNATS(s.nats)
		if err != nil {
			return nil, err
		}
		sinks, env = append(sinks, "nats"), append(env, "BRIDGE_NATS_URL="+url, fmt.Sprint("BRIDGE_NATS_REPLICAS=", s.nats))
	}
	if s.kafka != nil {
		sinks = append(sinks, "kafka")
		env = append(env, "BRIDGE_KAFKA_BROKERS="+s.kafka.bootstrap(), "BRIDGE_KAFKA_TOPIC="+s.topic)
	}
	if w.bridge, err = newBridge(program, dir, append(env, "BRIDGE_SINK="+strings.Join(sinks, ","))...); err != nil {
		return nil, err
	}
	if w.small {
		if err := mountSmall(w.bridge.dir, s.small); err != nil {
			return nil, err
		}
		w.ended = append(w.ended, func() { _ = unmount(w.bridge.dir) }) // it ends with this process in any case
	}
	if w.file, err = os.Create(filepath.Join(dir, "ledger.jsonl")); err != nil {
		return nil, err
	}
	w.book = ledger.New(w.file)
	return w, nil
}

// startNATS starts servers and returns the URL for the bridge.
func (w *world) startNATS(n int) (url string, err error) {
	if w.nats, err = newNATS(w.dir, n); err != nil {
		return "", err
	}
	for i := range n {
		if err := w.nats.start(i); err != nil {
			return "", err
		}
	}
	w.url = w.nats.url()
	if n > 1 {
		return w.url, nil // its members tell clients their own addresses, which lead past a proxy
	}
	if w.proxy, err = startProxy(w.nats.nodes[0].addr); err != nil {
		return "", err
	}
	return "nats://" + w.proxy.addr(), nil
}

// networks are those between the bridge and single brokers, which can be slow or cut.
func (w *world) networks() (all []*proxy) {
	if w.proxy != nil {
		all = append(all, w.proxy)
	}
	if w.kafka != nil && w.kafka.proxy != nil {
		all = append(all, w.kafka.proxy)
	}
	return all
}

// begin starts the bridge and the senders, and waits until a delivery is published.
func (w *world) begin(ctx context.Context, seed uint64, m manners) (err error) {
	if err := w.bridge.start(); err != nil {
		return err
	}
	if w.load, err = startLoad(seed, w.bridge.url(), m, w.book); err != nil {
		return err
	}
	ctx, cancel := w.bridge.within(ctx)
	defer cancel()
	if _, err := w.published(ctx, 0, time.Time{}); err != nil {
		return fmt.Errorf("at the start: %w", err)
	}
	if _, err := w.forwarded(ctx); err != nil {
		return fmt.Errorf("at the start: %w", err)
	}
	if w.nats != nil {
		return w.nats.whole(ctx)
	}
	return nil
}

// published waits for the first answer, from number n on, that says published to a request begun after t.
func (w *world) published(ctx context.Context, n int, t time.Time) (time.Time, error) {
	a, _, ok := w.book.Await(ctx.Done(), n, func(a ledger.Answer) bool {
		return a.Begun.After(t) && a.OK() && (a.Result == "published" || a.Result == "dead-lettered")
	})
	if !ok {
		return time.Time{}, errors.New("no delivery was published in time")
	}
	return a.Ended, nil
}

// forwarded waits until nothing waits in the journals.
func (w *world) forwarded(ctx context.Context) (time.Time, error) {
	for {
		n, err := w.bridge.waiting()
		if err == nil && n == 0 {
			return time.Now(), nil
		}
		if ctx.Err() != nil {
			return time.Time{}, errors.Join(fmt.Errorf("%d events still wait in the journal", n), err)
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// finish ends the senders, waits until everything is forwarded and reads the brokers: a report each, and what else is wrong.
func (w *world) finish(ctx context.Context) (reports map[string]ledger.Report, wrong []string, err error) {
	w.load.stop(patience)
	waiting, cancel := w.bridge.within(ctx)
	defer cancel()
	if _, err := w.forwarded(waiting); err != nil {
		wrong = append(wrong, err.Error())
	}
	events, err := w.book.Events()
	if err != nil {
		return nil, wrong, fmt.Errorf("the ledger's file: %w", err)
	}
	reading, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reports = map[string]ledger.Report{}
	if w.url != "" {
		records, err := readNATS(reading, w.url)
		if err != nil {
			return nil, wrong, err
		}
		reports["nats"] = ledger.Check(events, records)
	}
	if w.kafka != nil {
		records, err := w.kafka.readKafka(reading, w.topic)
		if err != nil {
			return nil, wrong, err
		}
		reports["kafka"] = ledger.Check(events, records)
	}
	return reports, wrong, nil
}

// close ends everything, and returns how the bridge ended when nobody asked it to.
func (w *world) close() (crashes []string) {
	if w.load != nil {
		w.load.cancel()
		w.load.senders.Wait()
	}
	if w.bridge != nil {
		crashes = w.bridge.close()
	}
	if w.proxy != nil {
		w.proxy.close()
	}
	if w.nats != nil {
		w.nats.close()
	}
	if w.file != nil {
		_ = w.file.Close() // its writes were checked
	}
	for _, end := range w.ended {
		end()
	}
	return crashes
}
