package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/gembridge/bridge/pkg/secret"
)

const (
	clientID = "bridge"

	dialTimeout = 2 * time.Second // TLS and SASL included
	// askTimeout is for everything but produce and fetch, and enough for a cluster of three to create a topic.
	askTimeout = 5 * time.Second
	// idleDeadline bounds what kafka-go gives no deadline: the SASL exchange. Everything that is asked of a conn
	// must have one, by its ctx.
	idleDeadline = 10 * time.Second
	// metadataTTL bounds how old the partitions' leaders may be. kafka-go asks anew after that time on average only
	// half as long; NOT_LEADER_OR_FOLLOWER does not make it ask.
	metadataTTL = 500 * time.Millisecond
	// Bounds of the time between two resets.
	minReset, maxReset = 100 * time.Millisecond, time.Second
)

// access says where Kafka is and who connects.
type access struct {
	brokers         []string
	tls             bool
	rootCAs         func() *x509.CertPool  // asked at every connect; nil = the system's
	certificate     func() tls.Certificate // likewise; nil = none
	mechanism, user string
	password        secret.Text
	renewed         func() secret.Text // asked at every connect for what password has become; may be nil
}

// conn is the way to a cluster: one kafka-go Transport, which connects when something is asked.
type conn struct {
	access
	transport *kafka.Transport
	addr      net.Addr
	life      context.Context

	mu    sync.Mutex
	last  time.Time // of the last reset
	pause time.Duration
}

// newConn returns a conn that holds metadata of the given topics only; others do not exist for it. All its
// connections and goroutines end with life, after close. The error names a setting and holds no secret.
func newConn(life context.Context, a access, topics ...string) (*conn, error) {
	mechanism, err := a.check()
	if err != nil {
		return nil, err
	}
	c := &conn{access: a, addr: kafka.TCP(a.brokers...), life: life}
	c.transport = &kafka.Transport{
		Dial: c.dial, DialTimeout: dialTimeout, MetadataTTL: metadataTTL, MetadataTopics: topics, ClientID: clientID, SASL: mechanism, Context: life,
	}
	return c, nil
}

func (a access) check() (sasl.Mechanism, error) {
	var errs []error
	if len(a.brokers) == 0 {
		errs = append(errs, errors.New("BRIDGE_KAFKA_BROKERS: at least one address like host:9092"))
	}
	for i, broker := range a.brokers {
		host, port, err := net.SplitHostPort(broker)
		if n, numErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || numErr != nil || n == 0 {
			errs = append(errs, fmt.Errorf("BRIDGE_KAFKA_BROKERS: number %d is not an address like host:9092", i+1))
		}
	}
	if !a.tls && (a.rootCAs != nil || a.certificate != nil) {
		errs = append(errs, errors.New("BRIDGE_KAFKA_TLS_CA, BRIDGE_KAFKA_TLS_CERT and BRIDGE_KAFKA_TLS_KEY need BRIDGE_KAFKA_TLS=on"))
	}
	mechanism, err := a.saslMechanism()
	if a.renewed != nil && mechanism != nil {
		mechanism = renewing{a}
	}
	return mechanism, errors.Join(append(errs, err)...)
}

// renewing logs in with the password of the moment.
type renewing struct{ access }

func (r renewing) Name() string { return r.mechanism }

// Start begins one login.
func (r renewing) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	r.password = r.renewed()
	mechanism, err := r.saslMechanism()
	if err != nil {
		return nil, nil, &settingsError{err}
	}
	return mechanism.Start(ctx)
}

// CheckLogin returns an error if nobody can log in this way, with whatever brokers: SCRAM does not allow every password.
// It names the settings and does not hold the password.
func CheckLogin(mechanism, user string, password secret.Text) error {
	_, err := access{mechanism: mechanism, user: user, password: password}.saslMechanism()
	return err
}

func (a access) saslMechanism() (sasl.Mechanism, error) {
	if a.mechanism == "" {
		if a.user != "" || !a.password.IsZero() {
			return nil, errors.New("BRIDGE_KAFKA_SASL_USER and BRIDGE_KAFKA_SASL_PASSWORD need BRIDGE_KAFKA_SASL_MECHANISM")
		}
		return nil, nil
	}
	if a.user == "" || a.password.IsZero() {
		return nil, errors.New("BRIDGE_KAFKA_SASL_MECHANISM needs BRIDGE_KAFKA_SASL_USER and BRIDGE_KAFKA_SASL_PASSWORD")
	}
	var algorithm scram.Algorithm
	switch a.mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: a.user, Password: a.password.Reveal()}, nil
	case "SCRAM-SHA-256":
		algorithm = scram.SHA256
	case "SCRAM-SHA-512":
		algorithm = scram.SHA512
	default:
		return nil, fmt.Errorf("BRIDGE_KAFKA_SASL_MECHANISM: %q is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512", a.mechanism)
	}
	mechanism, err := scram.Mechanism(algorithm, a.user, a.password.Reveal())
	if err != nil { // it quotes the password
		return nil, errors.New("BRIDGE_KAFKA_SASL_USER or BRIDGE_KAFKA_SASL_PASSWORD holds characters that SCRAM does not allow")
	}
	return mechanism, nil
}

// tlsConfig is for one new connection. It returns nil without TLS.
func (a access) tlsConfig(host string) *tls.Config {
	if !a.tls {
		return nil
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if a.rootCAs != nil {
		cfg.RootCAs = a.rootCAs()
	}
	if a.certificate != nil {
		cfg.Certificates = []tls.Certificate{a.certificate()}
	}
	return cfg
}

// dial is the transport's. It does TLS itself, because a failed handshake then is known to be one, and authorities and
// certificate may be others by now.
func (c *conn) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	config := c.tlsConfig(host)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, &dialError{address: address, err: err}
	}
	// Nothing else ends a connection while it waits for an answer.
	stop := context.AfterFunc(c.life, func() { _ = raw.Close() })
	if config == nil {
		return &lifeConn{raw, stop}, nil
	}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		stop()
		_ = raw.Close()
		return nil, &dialError{address: address, tls: true, err: err}
	}
	return &lifeConn{secure, stop}, nil
}

// lifeConn ends with the conn's life, and always has a deadline.
type lifeConn struct {
	net.Conn
	stop func() bool
}

func (c *lifeConn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		t = time.Now().Add(idleDeadline)
	}
	return c.Conn.SetDeadline(t)
}

func (c *lifeConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// ask makes one request, which ends by itself after timeout.
func (c *conn) ask(ctx context.Context, timeout time.Duration, req kafka.Request) (kafka.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return c.transport.RoundTrip(ctx, c.addr, req)
}

// reset forgets connections and metadata, so that the next request finds out anew who leads what, which otherwise takes
// up to metadataTTL. It is for when a broker has said that metadata is old: with one that hangs, a reset makes it worse,
// for kafka-go may ask just that one first. Requests under way are not disturbed. It does nothing if the last one was
// just now, or while resets do not help.
func (c *conn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	since := time.Since(c.last)
	if since < c.pause {
		return
	}
	if c.pause = min(2*c.pause, maxReset); since > 2*maxReset || c.pause == 0 {
		c.pause = minReset
	}
	c.last = time.Now()
	c.transport.CloseIdleConnections()
}

// name is what the cluster is called in messages.
func (c *conn) name() string { return "Kafka at " + strings.Join(c.brokers, ",") }

func (c *conn) close() { c.transport.CloseIdleConnections() }

func (c *conn) isBootstrap(address string) bool { return slices.Contains(c.brokers, address) }

// initProducer is InitProducerID as an idempotent producer without transactions sends it: to any broker. kafka-go would
// ask for a transaction coordinator first, which creates a topic for transactions and needs rights on it.
type initProducer struct{ version int16 }

func (*initProducer) ApiKey() protocol.ApiKey { return protocol.InitProducerId }

func (p *initProducer) Required(versions map[protocol.ApiKey]int16) bool {
	p.version = versions[protocol.InitProducerId]
	return true
}

func (p *initProducer) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	const correlation = 1
	return protocol.RoundTrip(rw, p.version, correlation, clientID, &initproducerid.Request{TransactionTimeoutMs: 60_000, ProducerID: -1, ProducerEpoch: -1})
}

var _ protocol.RawExchanger = (*initProducer)(nil)

// producer is what a broker tells batches apart by, with their sequence numbers.
type producer struct {
	id    int64
	epoch int16
}

// noProducer is the zero of producers.
func noProducer() producer { return producer{-1, -1} }

func (c *conn) newProducer(ctx context.Context) (producer, error) {
	res, err := c.ask(ctx, askTimeout, &initProducer{})
	if err != nil {
		return noProducer(), err
	}
	r := res.(*initproducerid.Response)
	if r.ErrorCode != 0 {
		return noProducer(), kafka.Error(r.ErrorCode)
	}
	return producer{r.ProducerID, r.ProducerEpoch}, nil
}
