package jetstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/sinks"
)

// Name is the sink's name in settings, metrics and logs.
const Name = "nats"

// Keys of the log's fields.
const (
	LogKeySink   = "sink"
	LogKeyServer = "server"
	LogKeyStream = "stream"
)

// Sink publishes to JetStream. It is safe for concurrent use.
type Sink struct {
	cfg    Config
	events *stream
	dead   *stream
	inbox  *inbox

	life       context.Context // ends when nothing is waited for any more
	end        context.CancelFunc
	tasks      sync.WaitGroup
	publishing sync.WaitGroup
	underway   atomic.Int64 // publishes that publishing waits for
	sick       atomic.Bool  // Health failed after a publish had no answer

	mu      sync.Mutex
	closed  bool
	nc      *nats.Conn // nil until the first connect
	up      bool       // nc is connected
	server  string     // the id of the server that it is connected to
	since   time.Time  // of the last change of up
	why     trouble    // while not up
	said    [troubleKinds]bool
	changed chan struct{} // closed, and replaced, whenever up changes
	denied  denied
	looking *looking
	found   []logged // by the last look at the streams
	spoken  string   // the last that sayOnce said

	forgotten func() // set by OnForgotten
	memory    memory
}

// denied is what the server refuses on this connection.
type denied struct {
	inbox   error  // the answers to publishes cannot be received
	subject string // the last subject that may not be published to
}

var (
	_ sinks.Sink      = (*Sink)(nil)
	_ sinks.Forgetful = (*Sink)(nil)
)

// New returns a Sink that connects in the background, and goes on trying until Close: the broker may come later.
// The error is a mistake in cfg, or a file that cannot be read or used.
func New(cfg Config) (*Sink, error) {
	setDefaults(&cfg)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Log = cfg.Log.With().Str(LogKeySink, Name).Logger()
	life, end := context.WithCancel(context.Background())
	s := &Sink{
		cfg: cfg, inbox: newInbox(), life: life, end: end, since: time.Now(), changed: make(chan struct{}),
		memory: memory{wake: make(chan struct{}, 1)},
		events: &stream{name: cfg.Stream, prefix: cfg.Prefix, maxAge: cfg.MaxAge},
		dead:   &stream{name: cfg.Stream + "_DEAD", prefix: cfg.Prefix + "-dead", maxAge: cfg.DeadMaxAge},
		why:    trouble{away, fmt.Errorf("NATS at %s: not connected yet", cfg.servers())},
	}
	s.tasks.Go(s.keep)
	s.tasks.Go(s.remember)
	return s, nil
}

// Ready asks Health, the connection and the streams, with one round trip for each stream. A connection that is
// lost is an error at once. Streams that are missing are created. While it is not known what the broker has
// forgotten, Ready waits a little, as Publish does.
func (s *Sink) Ready(ctx context.Context) error {
	s.mu.Lock()
	closed, up, why, denied, nc := s.closed, s.up, s.why, s.denied, s.nc
	s.mu.Unlock()
	switch {
	case closed:
		return sinks.ErrClosed
	case s.cfg.Health != nil:
		if err := s.cfg.Health(); err != nil {
			return err
		}
	}
	switch {
	case !up:
		return why.err
	case denied.inbox != nil:
		return denied.inbox
	case !nc.HeadersSupported():
		return fmt.Errorf("NATS at %s does not support headers: version 2.2 or later is needed", s.cfg.servers())
	}
	if err := s.pondering(ctx); err != nil {
		return err
	}
	found, err := s.look(ctx)
	switch {
	case err != nil:
		return err
	case found.impossible != nil:
		return found.impossible
	}
	details := slices.Clone(found.details)
	if limit := nc.MaxPayload(); limit < int64(s.cfg.MaxEvent) {
		details = append(details, fmt.Sprintf("the server takes messages of up to %d bytes, an event may have %d: "+
			"raise max_payload there or lower BRIDGE_MAX_BODY", limit, s.cfg.MaxEvent))
	}
	if denied.subject != "" {
		details = append(details, fmt.Sprintf("the user may not publish to %s: allow publishing to %s.> and %s.>",
			denied.subject, s.events.prefix, s.dead.prefix))
	}
	if len(details) > 0 {
		return &sinks.DegradedError{Details: details}
	}
	return nil
}

// Close waits for publishes under way until ctx ends, then cuts those that are left and the connection. It returns
// ctx's error when some were cut.
func (s *Sink) Close(ctx context.Context) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	done := make(chan struct{})
	go func() {
		s.publishing.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		if s.underway.Load() > 0 { // else ctx had ended before there was anything to wait for
			err = fmt.Errorf("publishes to NATS were cut: %w", ctx.Err())
		}
	}
	s.mu.Lock() // no look begins once tasks are waited for
	s.end()
	s.mu.Unlock()
	<-done
	s.tasks.Wait()
	return err
}
