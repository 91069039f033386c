package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Name is the sink's name in settings, metrics and logs.
const Name = "kafka"

// Keys of the log's fields.
const (
	LogKeySink      = "sink"
	LogKeyTopic     = "topic"
	LogKeyPartition = "partition"
)

// Defaults of Config.
const (
	DefaultTopic       = "gemini.events"
	DefaultPartitions  = 6
	DefaultMaxAge      = 168 * time.Hour
	DefaultDeadMaxAge  = 720 * time.Hour
	DefaultDedupWindow = 25 * time.Hour
)

// deadSuffix makes the name of the dead letters' topic.
const deadSuffix = ".dead"

const (
	// giveUp is for how long a broker's absence is a hiccup that Publish waits out, so that a restart or a change of
	// leaders refuses nobody. After it the broker is known to be away.
	giveUp = 2 * time.Second
	// poll is how often what is waited for, and cannot tell when it is there, is looked at.
	poll = 20 * time.Millisecond
)

// Config says where to publish and how. Names in errors and warnings are those of the bridge's settings.
type Config struct {
	Brokers []string // host:port of some brokers of one cluster; they name the others

	TLS bool // on every connection
	// RootCAs is asked at every connect for the authorities that may have signed the brokers' certificates; nil = the system's.
	RootCAs func() *x509.CertPool
	// Certificate is asked at every connect for the client's; nil = none.
	Certificate func() tls.Certificate

	SASLMechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty = no SASL
	SASLUser      string
	SASLPassword  secret.Text
	// Renewed is asked at every connect for what SASLPassword has become since. Optional.
	Renewed func() secret.Text

	Topic       string // of events; dead letters go to <Topic>.dead. Default "gemini.events"
	Compression string // none, gzip, snappy, lz4 or zstd. Default "none"

	CreateTopics bool          // whether topics that are missing are created
	Partitions   int           // of topics that are created. Default 6
	Replication  int           // copies of topics that are created; 0 = the brokers' default
	MaxAge       time.Duration // of events in a topic that is created. Default 168 h, at least DedupWindow
	// DeadMaxAge is MaxAge of dead letters. Default 720 h, at least DedupWindow.
	DeadMaxAge  time.Duration
	DedupWindow time.Duration // for how long an id is remembered. Default 25 h

	MaxEvent    int  // bytes of the largest event there can be; 0 = unknown
	ContentMode Mode // default Structured

	Log zerolog.Logger
}

// Sink publishes to Kafka. It is safe for concurrent use.
type Sink struct {
	cfg    Config
	conn   *conn
	encode encoder
	events *topic
	dead   *topic

	life       context.Context // ends when nothing is waited for any more
	end        context.CancelFunc
	tasks      sync.WaitGroup
	publishing sync.WaitGroup
	wake       chan struct{} // holds one when the topics are to be looked at

	mu      sync.Mutex
	closed  bool
	up      bool    // the last look had an answer
	why     trouble // while not up
	said    [troubleKinds]bool
	looking *looking
	found   []logged // by the last look at the topics
}

var (
	_ sinks.Sink      = (*Sink)(nil)
	_ sinks.Forgetful = (*Sink)(nil)
)

// New returns a Sink that connects in the background, and goes on trying until Close: the brokers may come later.
// The error is a mistake in cfg, or a login that cannot be used.
func New(cfg Config) (*Sink, error) {
	setDefaults(&cfg)
	compression, checked := cfg.check()
	life, end := context.WithCancel(context.Background())
	conn, err := newConn(life, cfg.access(), cfg.Topic, cfg.Topic+deadSuffix)
	if err = errors.Join(checked, err); err != nil {
		end()
		return nil, err
	}
	cfg.Log = cfg.Log.With().Str(LogKeySink, Name).Logger()
	s := &Sink{
		cfg: cfg, conn: conn, encode: newEncoder(compression), life: life, end: end, wake: make(chan struct{}, 1),
		why: trouble{away, errors.New(conn.name() + " does not answer, check BRIDGE_KAFKA_BROKERS: not connected yet")},
	}
	s.events = s.newTopic(cfg.Topic, cfg.MaxAge)
	s.dead = s.newTopic(cfg.Topic+deadSuffix, cfg.DeadMaxAge)
	if cfg.SASLMechanism == "PLAIN" && !cfg.TLS {
		cfg.Log.Warn().Msg("the password goes over the network as it is: set BRIDGE_KAFKA_TLS=on, or BRIDGE_KAFKA_SASL_MECHANISM to SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	s.tasks.Go(s.keep)
	for _, t := range s.topics() {
		s.tasks.Go(func() { t.follower.run(life) })
	}
	return s, nil
}

// OnForgotten names what is called when a log ends before a record that had been read or acknowledged, or holds another
// in its place: by an unclean election, a broker that lost its page cache, a store that was set back, or a topic that
// was deleted. To be called before the first Publish.
func (s *Sink) OnForgotten(forgotten func()) {
	for _, t := range s.topics() {
		t.mu.Lock()
		t.forgotten = forgotten
		t.mu.Unlock()
	}
}

func (s *Sink) topics() [2]*topic { return [2]*topic{s.events, s.dead} }

func setDefaults(cfg *Config) {
	orDefault(&cfg.Topic, DefaultTopic)
	orDefault(&cfg.Partitions, DefaultPartitions)
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

func (cfg Config) access() access {
	return access{
		brokers: cfg.Brokers, tls: cfg.TLS, rootCAs: cfg.RootCAs, certificate: cfg.Certificate,
		mechanism: cfg.SASLMechanism, user: cfg.SASLUser, password: cfg.SASLPassword, renewed: cfg.Renewed,
	}
}

func (cfg Config) check() (kafka.Compression, error) {
	var errs []error
	if err := checkTopic(cfg.Topic); err != nil {
		errs = append(errs, err)
	}
	code, known := compression(cfg.Compression)
	if !known {
		errs = append(errs, fmt.Errorf("BRIDGE_KAFKA_COMPRESSION: %q is none of none, gzip, snappy, lz4 and zstd", cfg.Compression))
	}
	if cfg.Partitions < 1 {
		errs = append(errs, errors.New("BRIDGE_KAFKA_PARTITIONS: at least 1"))
	}
	if cfg.Replication < 0 || cfg.Replication > 1<<15-1 {
		errs = append(errs, errors.New("BRIDGE_KAFKA_REPLICATION: at least 1, or 0 for the brokers' default"))
	}
	// A record that is gone is an id that is forgotten.
	if cfg.MaxAge < cfg.DedupWindow {
		errs = append(errs, fmt.Errorf("BRIDGE_KAFKA_MAX_AGE: %s is less than BRIDGE_DEDUP_WINDOW, %s", cfg.MaxAge, cfg.DedupWindow))
	}
	if cfg.DeadMaxAge < cfg.DedupWindow {
		errs = append(errs, fmt.Errorf("BRIDGE_DEAD_MAX_AGE: %s is less than BRIDGE_DEDUP_WINDOW, %s", cfg.DeadMaxAge, cfg.DedupWindow))
	}
	return code, errors.Join(errs...)
}

var topicForm = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// maxTopic is how long a topic's name may be in Kafka.
const maxTopic = 249

func checkTopic(name string) error {
	if !topicForm.MatchString(name) || name == "." || name == ".." || len(name) > maxTopic-len(deadSuffix) {
		return fmt.Errorf("BRIDGE_KAFKA_TOPIC: up to %d letters, digits, \".\", \"_\" and \"-\"", maxTopic-len(deadSuffix))
	}
	return nil
}

// Check tries to connect, for at most five seconds. The error says that the brokers answer and that this will not
// change by itself: they refuse the credentials, or a certificate is not trusted. Brokers that are away are no error.
func (s *Sink) Check(ctx context.Context) error {
	_, err := s.conn.metadata(ctx)
	if err == nil {
		return nil
	}
	if t := s.conn.explain(err, false); t.kind.fatal() {
		return t.err
	}
	return nil
}

// Ready asks the brokers for the topics, with two round trips, and whether the sink knows all ids that they hold and
// every partition takes records.
// Topics that are missing are created if that is allowed.
func (s *Sink) Ready(ctx context.Context) error {
	if s.isClosed() {
		return sinks.ErrClosed
	}
	details, err := s.look(ctx)
	if err != nil {
		return err
	}
	for _, t := range s.topics() {
		if err := t.gate(); err != nil {
			return err
		}
		troubles, all := t.troubles()
		if all {
			return errors.New(troubles[0])
		}
		details = append(slices.Clip(details), troubles...)
	}
	if len(details) > 0 {
		return &sinks.DegradedError{Details: details}
	}
	return nil
}

// DedupEntries returns how many ids are known, of events and of dead letters.
func (s *Sink) DedupEntries() int { return s.events.index.len() + s.dead.index.len() }

func (s *Sink) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close waits for publishes under way until ctx ends, then cuts those that are left, and the connections. It returns
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
		err = fmt.Errorf("publishes to Kafka were cut: %w", ctx.Err())
	}
	s.mu.Lock() // no look begins once tasks are waited for
	s.end()
	s.mu.Unlock()
	<-done
	s.tasks.Wait()
	s.conn.close()
	return err
}

// sleep waits, until the sink's life ends at the latest.
func (s *Sink) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.life.Done():
	}
}
