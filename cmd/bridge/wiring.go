package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
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

// newJetStream connects to the NATS server of the settings; without one, it starts its own.
func (d *daemon) newJetStream(ctx context.Context) (*jetstream.Sink, error) {
	nats := d.cfg.NATS
	conn, err := natsConn(d.cfg)
	if err != nil {
		return nil, err
	}
	cfg := jetstream.Config{
		Conn: conn, Stream: nats.Stream, Prefix: nats.SubjectPrefix, Replicas: nats.Replicas,
		MaxAge: nats.MaxAge, DeadMaxAge: d.cfg.DeadMaxAge, DedupWindow: d.cfg.DedupWindow,
		MaxEvent: maxEvent(d.cfg), Log: d.log,
	}
	if d.cfg.ContentMode == "binary" {
		cfg.ContentMode = jetstream.Binary
	}
	if nats.URL == "" {
		embedded, err := d.startEmbedded(ctx)
		if err != nil {
			return nil, err
		}
		d.natsURL = embedded.ClientURL()
		cfg.ConnOptions, cfg.Health = embedded.ConnOptions(), embedded.Healthy
	}
	return jetstream.New(cfg)
}

// startEmbedded starts the broker within the process, once the data directory is this process's own.
func (d *daemon) startEmbedded(ctx context.Context) (*jetstream.Embedded, error) {
	waiting, cancel := context.WithTimeout(ctx, d.cfg.ShutdownTimeout)
	defer cancel()
	said := false
	unlock, err := lockDir(waiting, d.cfg.DataDir, func(held error) {
		d.phase.set(fmt.Errorf("%w: %w", errStarting, held))
		if !said {
			d.log.Warn().Err(held).Msg("waiting for the data directory")
		}
		said = true
	})
	if err != nil {
		return nil, err
	}
	d.phase.set(errStarting)
	var embedded *jetstream.Embedded
	d.onStop("data directory", func(ctx context.Context) error {
		if embedded != nil && embedded.Close(ctx) != nil {
			return nil //nolint:nilerr // its store is open still: the lock ends with the process
		}
		return unlock()
	})
	token, err := fromFile(d.cfg.NATS.EmbeddedToken, d.cfg.NATS.EmbeddedTokenFile)
	if err != nil {
		return nil, fmt.Errorf("BRIDGE_NATS_EMBEDDED_TOKEN_FILE: %w", err)
	}
	embedded, err = jetstream.StartEmbedded(jetstream.EmbeddedConfig{
		Dir: filepath.Join(d.cfg.DataDir, "nats"), Addr: d.cfg.NATS.EmbeddedAddr, Token: token,
		Prefix: d.cfg.NATS.SubjectPrefix, Stream: d.cfg.NATS.Stream,
		MaxPayload: int32(min(max(1<<20, maxEvent(d.cfg)+16<<10), 64<<20)), // with room for headers, and at most what a server takes
		Log:        d.log,
	})
	if err != nil {
		return nil, err
	}
	d.onStop("embedded NATS server", embedded.Close)
	return embedded, nil
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
