package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

// secretsFile is the setting whose file is watched.
const secretsFile = "BRIDGE_SIGNING_SECRETS_FILE"

// newVerifier takes the secrets from the environment, or from their file as long as the bridge runs.
func newVerifier(cfg *Config, watcher *files.Watcher) (*verify.Verifier, error) {
	if cfg.SigningSecretsFile == "" {
		verifier, err := verify.New(verify.Config{Secrets: cfg.SigningSecrets})
		if err != nil {
			return nil, fmt.Errorf("BRIDGE_SIGNING_SECRETS: %w", err)
		}
		return verifier, nil
	}
	var verifier *verify.Verifier
	apply := func(contents [][]byte) (err error) {
		secrets := verify.ParseSecrets(contents[0])
		if verifier != nil {
			return verifier.SetSecrets(secrets)
		}
		verifier, err = verify.New(verify.Config{Secrets: secrets})
		return err
	}
	err := watcher.Watch(secretsFile, []string{cfg.SigningSecretsFile}, apply)
	return verifier, err // it begins with the setting's name
}

// natsConn is where the settings say that NATS is; with an empty URL it is the embedded server.
func natsConn(cfg *Config) (jetstream.Conn, error) {
	nats := cfg.NATS
	token, err := fromFile(nats.Token, nats.TokenFile)
	if err != nil {
		return jetstream.Conn{}, fmt.Errorf("BRIDGE_NATS_TOKEN_FILE: %w", err)
	}
	password, err := fromFile(nats.Password, nats.PasswordFile)
	if err != nil {
		return jetstream.Conn{}, fmt.Errorf("BRIDGE_NATS_PASSWORD_FILE: %w", err)
	}
	return jetstream.Conn{
		URL: nats.URL, Creds: nats.Creds, NKey: nats.NKey, Token: token, User: nats.User, Password: password,
		TLSCA: nats.TLSCA, TLSCert: nats.TLSCert, TLSKey: nats.TLSKey,
	}, nil
}

// newJetStream connects to the NATS server of the settings, or to the embedded one, if there is one.
func newJetStream(cfg *Config, embedded *jetstream.Embedded, log zerolog.Logger) (sinks.Sink, error) {
	nats := cfg.NATS
	conn, err := natsConn(cfg)
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

func embeddedToken(cfg *Config) (secret.Text, error) {
	token, err := fromFile(cfg.NATS.EmbeddedToken, cfg.NATS.EmbeddedTokenFile)
	if err != nil {
		return secret.Text{}, fmt.Errorf("BRIDGE_NATS_EMBEDDED_TOKEN_FILE: %w", err)
	}
	return token, nil
}

// fromFile returns the first line of path, if there is a path, or value.
func fromFile(value secret.Text, path string) (secret.Text, error) {
	if path == "" {
		return value, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return secret.Text{}, err
	}
	if lines := files.Lines(content); len(lines) == 1 {
		return secret.New(lines[0]), nil
	}
	return secret.Text{}, errors.New("the file must hold one line")
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
	failures.WithLabelValues(secretsFile) // at zero, for alerts need a series that was there before
	metrics.MustRegister(failures)
	return func(name string) { failures.WithLabelValues(name).Inc() }
}
