package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

var (
	errStarting = errors.New("starting")
	errDraining = errors.New("shutting down")
	// errCut appears when requests had to be cut at the end of the shutdown.
	errCut = errors.New("requests unfinished after BRIDGE_SHUTDOWN_TIMEOUT were cut")
)

// closeTimeout is what each thing has to close once no request is under way.
const closeTimeout = 5 * time.Second

// daemon is a running bridge.
type daemon struct {
	cfg      *Config
	log      zerolog.Logger
	phase    phase
	ready    readiness
	watcher  *files.Watcher
	failed   chan error // a server that ended by itself
	teardown []teardown // in order of construction

	publicAddr, adminAddr net.Addr
	natsURL               string // of the embedded server; empty with an external one
	embedded              *jetstream.Embedded
}

type teardown struct {
	name string
	stop func(context.Context) error
}

// start builds the bridge in one straight line and returns when it receives deliveries; it does not wait for a broker
// elsewhere. With an error, what had been built is torn down again. It gives up when ctx ends.
func start(ctx context.Context, cfg *Config, log zerolog.Logger) (_ *daemon, err error) {
	d := &daemon{cfg: cfg, log: log, failed: make(chan error, 2)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.tearDown())
		}
	}()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())

	d.phase.set(errStarting)
	d.ready.add(part{"bridge", d.phase.ready})
	pages := newAdmin(metrics, &d.ready)
	admin := &http.Server{
		Handler: pages, ErrorLog: stdlog.New(log, "", 0),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	if d.adminAddr, err = d.serve("BRIDGE_ADMIN_ADDR", cfg.AdminAddr, admin, nil); err != nil {
		return nil, err
	}
	d.onStop("admin listener", func(context.Context) error { return admin.Close() })

	d.watcher = files.New(files.Config{Log: log, OnFailure: reloadFailures(metrics)})
	verifier, err := d.startVerifier(d.watcher, metrics)
	if err != nil {
		return nil, err
	}
	secure, err := startTLS(cfg.TLS, d.watcher, metrics)
	if err != nil {
		return nil, err
	}
	d.onStop("file watcher", inBackground(d.watcher.Run))

	registry, err := schema.NewRegistry(cfg.SchemaDir)
	if err != nil {
		return nil, fmt.Errorf("BRIDGE_SCHEMA_DIR: %w", err)
	}
	if err := d.takeData(ctx); err != nil {
		return nil, err
	}
	counters := ingress.NewMetrics(metrics, registry.Types())
	destinations, err := d.newDestinations(ctx, metrics, counters)
	if err != nil {
		return nil, err
	}
	if err := d.openDoor(pages, destinations); err != nil {
		return nil, err
	}

	memory, descriptors := resources()
	bounds := boundsFor(cfg, memory, descriptors)
	var requests atomic.Int64
	handler := ingress.New(ingress.Config{
		Path: cfg.Path, Verifier: verifier, Registry: registry, Deliverer: destinations.deliverer(), Source: cfg.Source,
		OnInvalid: ingress.Policy(cfg.OnInvalid), OnUnknown: ingress.Policy(cfg.OnUnknown),
		MaxBody: int(cfg.MaxBody), MaxInflight: cfg.MaxInflight, MaxUnverified: bounds.unverified, Left: destinations.left,
		Metrics: counters, Log: log,
	})
	d.onStop("log of refusals", func(context.Context) error { handler.Close(); return nil })
	public := ingress.NewServer(counted(&requests, handler), cfg.AckTimeout, log)
	bounded := func(l net.Listener) net.Listener {
		if secure != nil {
			return ingress.NewTLSListener(l, secure, bounds.connections, log)
		}
		return ingress.NewListener(l, bounds.connections, log)
	}
	if d.publicAddr, err = d.serve("BRIDGE_ADDR", cfg.Addr, public, bounded); err != nil {
		return nil, err
	}
	d.onStop("webhooks", func(context.Context) error { return d.drain(public, &requests, destinations) })

	d.phase.set(nil)
	log.Info().Stringer("addr", d.publicAddr).Str("path", cfg.Path).Bool("tls", secure != nil).Stringer("admin", d.adminAddr).Str("nats", d.natsURL).
		Int("max_connections", bounds.connections).Int("max_unverified_bytes", bounds.unverified).
		Str("version", version).Msg("receiving webhooks")
	return d, nil
}

// serve listens and serves until the server is shut down. setting names the address in an error; wrap, if not nil,
// wraps the listener.
func (d *daemon) serve(setting, addr string, server *http.Server, wrap func(net.Listener) net.Listener) (net.Addr, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if wrap != nil {
		listener = wrap(listener)
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.failed <- fmt.Errorf("%s: %w", setting, err)
		}
	}()
	return listener.Addr(), nil
}

func (d *daemon) onStop(name string, stop func(context.Context) error) {
	d.teardown = append(d.teardown, teardown{name, stop})
}

// stop ends the bridge in the order that loses nothing: not ready, no more requests, requests under way, sinks.
func (d *daemon) stop() error {
	d.phase.set(errDraining)
	d.log.Info().Dur("drain_delay", d.cfg.DrainDelay).Msg("shutting down")
	time.Sleep(d.cfg.DrainDelay)
	err := d.tearDown()
	d.log.Err(err).Msg("stopped")
	return err
}

// tearDown takes down what was built, last thing first, and goes on past errors.
func (d *daemon) tearDown() error {
	var all error
	for _, t := range slices.Backward(d.teardown) {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		if err := t.stop(ctx); err != nil {
			all = errors.Join(all, fmt.Errorf("close %s: %w", t.name, err))
		}
		cancel()
	}
	return all
}

// drain stops accepting and lets requests finish, at most for BRIDGE_SHUTDOWN_TIMEOUT. Those that do not are cut, with
// their publishes, and named in one line: all but those whose body has not arrived, which have no name yet.
func (d *daemon) drain(public *http.Server, requests *atomic.Int64, destinations destinations) error {
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.ShutdownTimeout)
	defer cancel()
	if public.Shutdown(ctx) == nil {
		return destinations.close(ctx) // which waits for publishes whose sender has left
	}
	left := requests.Load()
	if left == 0 { // connections on which nothing has been sent
		return public.Close()
	}
	d.log.Error().Int64("requests", left).Strs("deliveries", destinations.held()).Msg(errCut.Error())
	return errors.Join(errCut, public.Close(), destinations.close(ctx))
}

// counted keeps in n how many requests next is handling.
func counted(n *atomic.Int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		defer n.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// inBackground runs task until the returned function is called.
func inBackground(task func(context.Context)) (stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		task(ctx)
	}()
	return func(closing context.Context) error {
		cancel()
		select {
		case <-ended:
			return nil
		case <-closing.Done(): // a file on a file system that hangs
			return closing.Err()
		}
	}
}
