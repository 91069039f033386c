package jetstream

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Defaults of Config.
const (
	DefaultStream      = "GEMINI"
	DefaultPrefix      = "gemini"
	DefaultMaxAge      = 168 * time.Hour
	DefaultDeadMaxAge  = 720 * time.Hour
	DefaultDedupWindow = 25 * time.Hour
)

// Config says where to publish and how. Names in errors and warnings are those of the bridge's settings.
type Config struct {
	Conn

	Stream   string        // of events; dead letters go to <Stream>_DEAD. Default "GEMINI"
	Prefix   string        // of subjects; dead letters have <Prefix>-dead. Default "gemini"
	Replicas int           // of streams that are created, 1 to 5. Default 1
	MaxAge   time.Duration // of events in a stream that is created. Default 168 h, at least DedupWindow
	// DeadMaxAge is MaxAge of dead letters. Default 720 h, at least DedupWindow.
	DeadMaxAge  time.Duration
	DedupWindow time.Duration // for how long an id is remembered. Default 25 h

	MaxEvent    int  // bytes of the largest event there can be; 0 = unknown
	ContentMode Mode // default Structured

	// Health is asked before anything else by Ready, and by Publish when no answer comes: an embedded server
	// whose disk is full says nothing to publishers. Optional.
	Health func() error

	Log zerolog.Logger
}

func setDefaults(cfg *Config) {
	orDefault(&cfg.Stream, DefaultStream)
	orDefault(&cfg.Prefix, DefaultPrefix)
	orDefault(&cfg.Replicas, 1)
	orDefault(&cfg.MaxAge, DefaultMaxAge)
	orDefault(&cfg.DeadMaxAge, DefaultDeadMaxAge)
	orDefault(&cfg.DedupWindow, DefaultDedupWindow)
}

func orDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func (cfg Config) check() error {
	var errs []error
	if _, err := cfg.options(); err != nil {
		errs = append(errs, err)
	}
	if !isPlainName(cfg.Stream) || len(cfg.Stream) > 128 {
		errs = append(errs, errors.New("BRIDGE_NATS_STREAM: up to 128 letters, digits, \"_\" and \"-\""))
	}
	for token := range strings.SplitSeq(cfg.Prefix, ".") {
		if !isPlainName(token) || len(cfg.Prefix) > 128 {
			errs = append(errs, errors.New("BRIDGE_NATS_SUBJECT_PREFIX: up to 128 letters, digits, \"_\" and \"-\", in tokens parted by dots"))
			break
		}
	}
	if cfg.Replicas < 1 || cfg.Replicas > 5 {
		errs = append(errs, errors.New("BRIDGE_NATS_REPLICAS: 1 to 5"))
	}
	// The server refuses such a stream (10052): an id cannot be remembered for longer than its message.
	if cfg.MaxAge < cfg.DedupWindow {
		errs = append(errs, fmt.Errorf("BRIDGE_NATS_MAX_AGE: %s is less than BRIDGE_DEDUP_WINDOW, %s", hours(cfg.MaxAge), hours(cfg.DedupWindow)))
	}
	if cfg.DeadMaxAge < cfg.DedupWindow {
		errs = append(errs, fmt.Errorf("BRIDGE_DEAD_MAX_AGE: %s is less than BRIDGE_DEDUP_WINDOW, %s", hours(cfg.DeadMaxAge), hours(cfg.DedupWindow)))
	}
	return errors.Join(errs...)
}
