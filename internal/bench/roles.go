package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// beHandler serves the road with a sink that does nothing, or an empty handler, until it is killed. Both have the same
// server and the same garbage collector.
func beHandler(kind string) error {
	debug.SetGCPercent(400)
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector())
	handler := http.Handler(http.HandlerFunc(empty))
	if kind == "road" {
		verifier, err := verify.New(verify.Config{Secrets: []secret.Text{secret.New(benchSecret)}})
		if err != nil {
			return err
		}
		registry, err := schema.NewRegistry("")
		if err != nil {
			return err
		}
		handler = ingress.New(ingress.Config{
			Path: benchPath, Verifier: verifier, Registry: registry, Source: "//generativelanguage.googleapis.com",
			Deliverer: durable.New(nothing{}, durable.Config{AckTimeout: 3 * time.Second}),
			OnInvalid: ingress.DeadLetter, OnUnknown: ingress.Publish, MaxBody: 384 << 10, MaxInflight: 4096,
			Metrics: ingress.NewMetrics(metrics, registry.Types()), Log: zerolog.New(io.Discard).With().Timestamp().Logger(),
		})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + listener.Addr().String())
	gauge := promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})
	return ingress.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			gauge.ServeHTTP(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	}), 3*time.Second, zerolog.Nop()).Serve(listener)
}

func empty(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusAccepted)
}

// nothing is a sink that takes everything and keeps nothing.
type nothing struct{}

func (nothing) Publish(context.Context, *schema.Event) (sinks.Ack, error) { return sinks.Ack{}, nil }
func (nothing) Ready(context.Context) error                               { return nil }
func (nothing) Close(context.Context) error                               { return nil }

// startServer starts a nats-server. Without a listener every message is fsynced, as the embedded one does it.
func startServer(dir string, listen bool) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, DontListen: !listen, JetStream: true, StoreDir: dir, SyncAlways: !listen, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("nats-server is not ready")
	}
	return s, nil
}

func beServer(dir string) error {
	s, err := startServer(dir, true)
	if err != nil {
		return err
	}
	fmt.Println(s.ClientURL())
	select {}
}

// bePublisher publishes what the bridge would, from callers goroutines, and prints its result.
func bePublisher(dir, url string, callers int, period time.Duration) error {
	var opts []nats.Option
	if url == "" {
		s, err := startServer(dir, false)
		if err != nil {
			return err
		}
		opts = append(opts, nats.InProcessServer(s))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// A stream and subjects of its own, so that the bridge finds an empty one.
	_, err = js.CreateOrUpdateStream(context.Background(), jetstream.StreamConfig{
		Name: "BARE", Subjects: []string{"bare.>"}, Duplicates: 25 * time.Hour, MaxAge: 168 * time.Hour, Discard: jetstream.DiscardNew,
	})
	if err != nil {
		return err
	}
	event, err := benchEvent()
	if err != nil {
		return err
	}
	start := strconv.FormatInt(time.Now().UnixNano(), 36)
	publish := func(prefix string) func(caller, n int) error {
		return func(caller, n int) error {
			_, err := js.PublishMsg(context.Background(), &nats.Msg{
				Subject: "bare.batch.succeeded", Data: event.Structured,
				Header: nats.Header{
					"Content-Type": {"application/cloudevents+json"},
					"Nats-Msg-Id":  {fmt.Sprint(start, prefix, caller, ".", n)},
				},
			})
			return err
		}
	}
	closedLoop(callers, period/4, publish("w"))
	r := closedLoop(callers, period, publish("m"))
	if r.Err != "" {
		return errors.New(r.Err)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// benchEvent is the event that the bridge makes of benchBody.
func benchEvent() (*schema.Event, error) {
	registry, err := schema.NewRegistry("")
	if err != nil {
		return nil, err
	}
	doc, err := registry.Validate(benchBody)
	if err != nil {
		return nil, err
	}
	return schema.Normalize(doc, schema.Delivery{ID: "msg_00000000-0000-0000-0000-000000000000", Source: "//generativelanguage.googleapis.com"}), nil
}
