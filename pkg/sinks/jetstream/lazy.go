package jetstream

import (
	"context"

	"github.com/gembridge/bridge/pkg/sinks"
)

// LazySink publishes to an embedded server that acknowledges before the disk has what it stored.
type LazySink struct {
	*Sink
	embedded *Embedded
}

var (
	_ sinks.Syncer    = (*LazySink)(nil)
	_ sinks.Forgetful = (*LazySink)(nil)
)

// NewLazy returns a sink on a server that was started with EmbeddedConfig.Lazy. It takes the place of cfg.Conn and
// cfg.Health. A server has one such sink, which closes before the server does.
func NewLazy(cfg Config, embedded *Embedded) (*LazySink, error) {
	cfg.Conn, cfg.Health = Conn{ConnOptions: embedded.ConnOptions()}, embedded.Healthy
	sink, err := New(cfg)
	if err != nil {
		return nil, err
	}
	embedded.mu.Lock()
	embedded.sink = sink
	embedded.mu.Unlock()
	return &LazySink{sink, embedded}, nil
}

// Sync implements [sinks.Syncer], as [Embedded.Sync] tells.
func (s *LazySink) Sync(ctx context.Context) error { return s.embedded.Sync(ctx) }
