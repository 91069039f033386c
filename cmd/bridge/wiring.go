package main

import (
	"context"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

// newJetStream connects to the NATS server of the settings, as the files that watcher looks after say, or to the embedded
// one, if there is one.
func newJetStream(cfg *Config, embedded *jetstream.Embedded, watcher *files.Watcher, log zerolog.Logger) (sinks.Sink, error) {
	nats := cfg.NATS
	conn, err := natsConn(cfg, watcher)
	if err != nil {
		return nil, err
	}
	settings := jetstream.Config{
		Conn: conn, Stream: nats.Stream, Prefix: nats.SubjectPrefix, Replicas: nats.Replicas,
		MaxAge: nats.MaxAge, DeadMaxAge: cfg.DeadMaxAge, DedupWindow: cfg.DedupWindow,
		MaxEvent: maxEvent(cfg), Log: log,
	}
	if cfg.ContentMode == "binary" {
		settings.ContentMode = jetstream.Binary
	}
	switch {
	case embedded == nil:
	case cfg.Journal == "on":
		return jetstream.NewLazy(settings, embedded)
	default:
		settings.ConnOptions, settings.Health = embedded.ConnOptions(), embedded.Healthy
	}
	return jetstream.New(settings)
}

// startEmbedded starts the broker within the process, which has the data directory to itself.
func (d *daemon) startEmbedded() (*jetstream.Embedded, error) {
	cfg, err := embeddedConfig(d.cfg, d.log)
	if err != nil {
		return nil, err
	}
	c := &credentials{watcher: d.watcher}
	if cfg.Renewed = watched(c, embeddedTokenFile, lineThat(anyLine), d.cfg.NATS.EmbeddedTokenFile); c.err != nil {
		return nil, c.err
	}
	if d.cfg.Journal == "on" {
		cfg.Lazy, cfg.Reserve = true, int64(d.cfg.JournalMaxBytes)
	}
	if d.embedded, err = jetstream.StartEmbedded(cfg); err != nil {
		return nil, err
	}
	d.onStop("embedded NATS server", d.embedded.Close)
	return d.embedded, nil
}

// embeddedConfig is the embedded server of the settings, syncing every event.
func embeddedConfig(cfg *Config, log zerolog.Logger) (jetstream.EmbeddedConfig, error) {
	token, err := embeddedToken(cfg)
	return jetstream.EmbeddedConfig{
		Dir: natsDir(cfg), Addr: cfg.NATS.EmbeddedAddr, Token: token,
		Prefix: cfg.NATS.SubjectPrefix, Stream: cfg.NATS.Stream,
		MaxPayload: int32(min(max(1<<20, maxEvent(cfg)+16<<10), 64<<20)), // with room for headers, and at most what a server takes
		Log:        log,
	}, err
}

// maxEvent is the largest event that a body can become, in bytes: its parts stand in it once as data.original and at
// most once more as what was made of them.
func maxEvent(cfg *Config) int { return 2*int(cfg.MaxBody) + 32<<10 }

func buildInfo() prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "bridge_build_info", Help: "Always 1."}, []string{"version", "goversion"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
	return info
}

func publishSeconds(metrics prometheus.Registerer) *prometheus.HistogramVec {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "bridge_publish_seconds", Help: "From handing an event to the sink to its answer.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"sink"})
	metrics.MustRegister(seconds)
	return seconds
}

// sinkUp asks the sink itself: with a journal, deliveries are accepted while it is down.
func sinkUp(broker part) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bridge_sink_up", Help: "1 while the sink accepts events.", ConstLabels: prometheus.Labels{"sink": broker.name},
	}, func() float64 {
		if broker.state(context.Background()).State == stateDown {
			return 0
		}
		return 1
	})
}

func reloadFailures(metrics prometheus.Registerer) func(name string) {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "bridge_file_reload_failures_total", Help: "Changed files whose new content could not be used, by setting.",
	}, []string{"file"})
	for _, setting := range []string{
		secretsFile, tokensFile, jwksFile, tlsCert, tlsClientCA,
		natsCredsFile, natsNKeyFile, natsTokenFile, natsPasswordFile, natsTLSCA, natsTLSCert, embeddedTokenFile,
		kafkaPasswordFile, kafkaTLSCA, kafkaTLSCert,
	} {
		failures.WithLabelValues(setting) // at zero, for alerts need a series that was there before
	}
	metrics.MustRegister(failures)
	return func(name string) { failures.WithLabelValues(name).Inc() }
}
