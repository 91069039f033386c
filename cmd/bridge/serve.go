package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

const serveUsage = `Usage: bridge serve

Runs the bridge until SIGTERM or SIGINT; a second signal ends it at once. Settings are environment
variables: "bridge config" lists them. One of these is required:

  BRIDGE_SIGNING_SECRETS    the webhook's signing secret, whsec_…, which Gemini shows once when the
                            webhook is created; or BRIDGE_SIGNING_SECRETS_FILE
  BRIDGE_DYNAMIC_TOKENS     for the webhooks of single jobs: the secret end of their path, which you
                            choose; or BRIDGE_DYNAMIC_TOKENS_FILE. Either of the two, or both

Without BRIDGE_NATS_URL it runs a NATS server of its own, for consumers at 127.0.0.1:4222.
Health, readiness and metrics are at http://127.0.0.1:9090/healthz, /readyz and /metrics.

Exit code: 0 when stopped as asked; 2 when a setting is wrong, as "bridge config" tells; 1 when it could not start
for another reason (an address or the data directory is in use, a file's content cannot be used), when it failed, or
had to cut requests.
`

// gcPercent trades some 13 MiB for a quarter of the CPU per webhook: a small heap is collected all the time.
const gcPercent = 400

func serveCommand(args []string, sh shell) int {
	if code, done := newFlags("serve", serveUsage).parse(args, sh); done {
		return code
	}
	cfg, err := loadConfig(sh.environ)
	if err != nil {
		fmt.Fprintln(sh.err, err)
		return exitUsage
	}
	if !set(sh.environ, "GOGC") {
		debug.SetGCPercent(gcPercent)
	}
	limitMemory(sh.environ, os.DirFS("/"))
	log := newLog(cfg, sh.err)
	for _, warning := range cfg.warnings() {
		log.Warn().Msg(warning)
	}
	stop, again, release := follow(sh.signals())
	defer release()
	ended := make(chan int, 1)
	go func() { ended <- serve(stop, cfg, log) }()
	select {
	case code := <-ended:
		return code
	case <-again:
		log.Error().Msg("second signal: ended without waiting")
		return exitFailure
	}
}

// serve runs the bridge until stop ends.
func serve(stop context.Context, cfg *Config, log zerolog.Logger) (code int) {
	d, err := start(stop, cfg, log)
	switch {
	case errors.Is(err, context.Canceled):
		log.Info().Msg("stopped before it had started")
		return exitOK
	case err != nil:
		log.Error().Err(err).Msg("not started")
		return exitFailure
	}
	select {
	case <-stop.Done():
	case err = <-d.failed:
		log.Error().Err(err).Msg("a listener failed")
	}
	if err = errors.Join(err, d.stop()); err != nil {
		return exitFailure
	}
	return exitOK
}

// follow watches signals until release is called: the first one ends stop, the second one closes again.
func follow(signals <-chan os.Signal) (stop context.Context, again <-chan struct{}, release func()) {
	stop, cancel := context.WithCancel(context.Background())
	second, released := make(chan struct{}), make(chan struct{})
	go func() {
		for _, happened := range []func(){cancel, func() { close(second) }} {
			select {
			case <-signals:
				happened()
			case <-released:
				return
			}
		}
	}()
	return stop, second, func() {
		close(released)
		cancel()
	}
}

// newLog writes to w. A person at a terminal gets lines to read, anything else gets JSON.
func newLog(cfg *Config, w io.Writer) zerolog.Logger {
	if logFormat(cfg, w) == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000"}
	}
	level, err := zerolog.ParseLevel(cfg.LogLevel) // the configuration has checked it
	if err != nil {
		level = zerolog.InfoLevel
	}
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).With().Timestamp().Logger()
}

func logFormat(cfg *Config, w io.Writer) string {
	if cfg.LogFormat != "auto" {
		return cfg.LogFormat
	}
	if file, ok := w.(*os.File); ok && isatty.IsTerminal(file.Fd()) { // /dev/null is a character device, too
		return "console"
	}
	return "json"
}
