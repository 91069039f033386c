package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	floodConns = 64 // of the genuine, and as many of the flood
	floodAim   = 0.8
)

// flood measures what forged requests cost the bridge and what they leave to the genuine ones. The bridge has a core of
// its own; whoever sends, good or bad, shares the others, so that the flood takes from the bridge only what the bridge
// spends on it.
func (b *bench) flood() error {
	core, back, err := apart()
	if err != nil {
		return err
	}
	defer back()
	google, err := newSigner()
	if err != nil {
		return err
	}
	stranger, err := newSigner()
	if err != nil {
		return err
	}
	keys := filepath.Join(b.dir, "jwks.json")
	if err := google.publish(keys); err != nil {
		return err
	}
	f := &flooded{bench: b, google: google, stranger: stranger, start: func() (*process, error) {
		return b.serveUnder([]string{"taskset", "-c", core}, "BRIDGE_JWKS_FILE="+keys, "BRIDGE_DYNAMIC_TOKENS="+benchToken, "BRIDGE_JWT_AUDIENCE="+benchAudience)
	}}
	if err := f.prices(); err != nil {
		return err
	}
	return f.shares()
}

// apart moves this process, with all that it will start, off one core, and returns that core, and the way back.
func apart() (core string, back func(), err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", nil, err
	}
	_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:")
	before := strings.Fields(rest)[0]
	var cores []string
	for part := range strings.SplitSeq(before, ",") {
		first, last, more := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && more {
			to, err = strconv.Atoi(last)
		}
		if err != nil {
			return "", nil, fmt.Errorf("cores %s: %w", before, err)
		}
		for ; from <= to; from++ {
			cores = append(cores, strconv.Itoa(from))
		}
	}
	if len(cores) < 2 {
		return "", nil, errors.New("two cores are needed")
	}
	move := func(to string) error {
		said, err := exec.Command("taskset", "-a", "-p", "-c", to, strconv.Itoa(os.Getpid())).CombinedOutput()
		if err != nil {
			return fmt.Errorf("taskset is needed to give the bridge a core: %w %s", err, said)
		}
		return nil
	}
	return cores[0], func() { _ = move(before) }, move(strings.Join(cores[1:], ","))
}

// flooded is a bridge that gets genuine deliveries and forged ones.
type flooded struct {
	*bench
	google, stranger signer
	start            func() (*process, error)
}

// attack returns what sends forgeries in turn from so many connections, and wants 401.
func attack(clients []*client, of []forgery) func(caller, n int) error {
	return func(caller, n int) error {
		f := of[(caller+n)%len(of)]
		code, err := clients[caller].send(f.request)
		if err == nil && code != http.StatusUnauthorized {
			err = fmt.Errorf("%s: answered %d", f.name, code)
		}
		return err
	}
}

// dialAll opens connections, and returns how to close them.
func dialAll(url string, n int) (clients []*client, hangUp func(), err error) {
	hangUp = func() {
		for _, c := range clients {
			c.close()
		}
	}
	for range n {
		c, err := dial(url)
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		clients = append(clients, c)
	}
	return clients, hangUp, nil
}

// signedV1A sends genuine v1a deliveries.
func (f *flooded) signedV1A(clients []*client) func(caller, n int) error {
	return func(caller, n int) error {
		id, now := clients[caller].id+strconv.Itoa(n), strconv.FormatInt(time.Now().Unix(), 10)
		code, err := clients[caller].send(raw(benchPath+"/"+benchToken, id, now, f.google.v1a(id, now), benchBody))
		if err == nil && code != http.StatusAccepted {
			err = fmt.Errorf("answered %d", code)
		}
		return err
	}
}

// prices prints what each kind of request costs the bridge when it gets nothing else.
func (f *flooded) prices() error {
	fmt.Printf("## What a request costs the bridge, on a core of its own, embedded server, %d connections\n\n", floodConns)
	fmt.Println("| | requests/s | CPU µs/request | ÷ accepted v1 |\n|---|---|---|---|")
	kinds, err := forgeries(f.google, f.stranger)
	if err != nil {
		return err
	}
	costs := make([]series, 2+len(kinds))
	for range f.rounds {
		for i := range costs {
			r, err := f.price(i)
			if err != nil {
				return err
			}
			costs[i].add(r)
		}
	}
	for i := range costs {
		name := []string{"v1, accepted", "v1a, accepted"}[min(i, 1)]
		if i >= 2 {
			name = "refused: " + kinds[i-2].name
		}
		fmt.Printf("| %s | %.0f | %.1f | %.2f |\n", name, costs[i].rate(), costs[i].cpu(), costs[i].cpu()/costs[0].cpu())
	}
	fmt.Println()
	return nil
}

// price measures kind 0, accepted v1, 1, accepted v1a, or one of the forgeries, on a bridge of its own.
func (f *flooded) price(kind int) (result, error) {
	s, err := f.start()
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	clients, hangUp, err := dialAll(s.line, floodConns)
	if err != nil {
		return result{}, err
	}
	defer hangUp()
	kinds, err := forgeries(f.google, f.stranger)
	if err != nil {
		return result{}, err
	}
	do := func(from int) func(caller, n int) error {
		switch kind {
		case 0:
			return post(clients, from)
		case 1:
			send := f.signedV1A(clients)
			return func(caller, n int) error { return send(caller, from+n) }
		}
		return attack(clients, kinds[kind-2:kind-1])
	}
	warm := closedLoop(floodConns, f.period/4, do(1))
	cpu := s.cpu()
	r := closedLoop(floodConns, f.period, do(1_000_000))
	r.CPU = float64((s.cpu() - cpu).Microseconds()) / float64(r.Count)
	if failed := warm.Err + r.Err; failed != "" {
		return r, errors.New(failed)
	}
	return r, nil
}

// offer is what is sent: so many requests per second, or with 0 the next one of a connection when the last has been
// answered.
type offer struct {
	name string
	rate float64
	of   int // the first forgeries, so many
}

// shares prints what is left to genuine deliveries beside floods of forgeries, of those without a token and of all.
func (f *flooded) shares() error {
	all, err := forgeries(f.google, f.stranger)
	if err != nil {
		return err
	}
	kinds := len(all)
	var alone series
	for range f.rounds {
		good, _, err := f.beside(offer{}, offer{})
		if err != nil {
			return err
		}
		alone.add(good)
	}
	capacity := alone.rate()
	genuine := []offer{{name: "as many as it can"}, {name: "half of that", rate: capacity / 2}}
	floods := []offer{
		{name: "none"},
		{name: "as many, without a token", rate: capacity, of: withoutToken},
		{name: "as many, of all kinds", rate: capacity, of: kinds},
		{name: "at full speed, without a token", of: withoutToken},
		{name: "at full speed, of all kinds", of: kinds},
	}
	rows := make([]struct{ good, bad series }, len(genuine)*len(floods))
	for range f.rounds {
		for i := range rows {
			good, bad, err := f.beside(genuine[i/len(floods)], floods[i%len(floods)])
			if err != nil {
				return err
			}
			rows[i].good.add(good)
			rows[i].bad.add(bad)
		}
	}
	fmt.Printf("## Genuine deliveries that the bridge accepts beside a flood of forged requests, from %d connections each\n\n", floodConns)
	fmt.Println("| genuine | flood | genuine/s | p50 / p99 ms | refused/s | genuine with ÷ without |\n|---|---|---|---|---|---|")
	for i := range rows {
		g, flood, without := genuine[i/len(floods)], floods[i%len(floods)], &rows[i-i%len(floods)].good
		aim := 0.0
		if flood.of > 0 && g.rate > 0 {
			aim = floodAim
		}
		good := &rows[i].good
		fmt.Printf("| %s | %s | %.0f | %.2f / %.1f | %.0f | %s |\n", g.name, flood.name,
			good.rate(), good.p50(), good.p99(), rows[i].bad.rate(), withAim(good.rate()/without.rate(), aim))
	}
	fmt.Println()
	return nil
}

// beside measures genuine deliveries beside forged ones.
func (f *flooded) beside(genuine, flood offer) (good, bad result, err error) {
	s, err := f.start()
	if err != nil {
		return good, bad, err
	}
	defer s.stop()
	clients, hangUp, err := dialAll(s.line, floodConns)
	if err != nil {
		return good, bad, err
	}
	defer hangUp()
	warm := f.period / 4
	var flooding sync.WaitGroup
	if flood.of > 0 {
		strangers, hangUp, err := dialAll(s.line, floodConns)
		if err != nil {
			return good, bad, err
		}
		defer hangUp()
		all, err := forgeries(f.google, f.stranger)
		if err != nil {
			return good, bad, err
		}
		flooding.Go(func() { bad = loop(floodConns, flood.rate, warm+f.period, attack(strangers, all[:flood.of])) })
	}
	first := loop(floodConns, genuine.rate, warm, post(clients, 1))
	good = loop(floodConns, genuine.rate, f.period, post(clients, 1_000_000))
	flooding.Wait()
	if failed := first.Err + good.Err + bad.Err; failed != "" {
		return good, bad, errors.New(failed)
	}
	return good, bad, nil
}
