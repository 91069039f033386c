package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/segmentio/kafka-go"
)

// errLost is why a publish that was under way when the log lost events ends: not now.
var errLost = errors.New("the topic has lost events, which come again first")

// verdict is what the outcome of a produce request says about the batch that was sent.
type verdict int

const (
	// stored: the broker has acknowledged the batch.
	stored verdict = iota
	// unknown: the batch may be stored, so nothing else may be sent in its place.
	unknown
	// unstored: this request stored nothing, and another may.
	unstored
	// refused: nothing is stored, because of what is in one of the records.
	refused
	// forbidden: nothing is stored, for the user may not write to the topic.
	forbidden
	// forgotten: the broker does not know what this producer sent before, so it cannot tell whether it has this.
	forgotten
)

// judge sorts the outcome of a produce request that was sent. "Unstored" are only those errors that a broker gives before it
// appends; one that a broker may also give while it waits for its followers is unknown: NOT_LEADER_OR_FOLLOWER and
// UNKNOWN_TOPIC_OR_PARTITION when the partition moved meanwhile, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND.
func judge(err error) verdict {
	if err == nil {
		return stored
	}
	if code, ok := errors.AsType[kafka.Error](err); ok {
		switch code {
		case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidRecord:
			return refused
		case kafka.TopicAuthorizationFailed:
			return forbidden
		case kafka.OutOfOrderSequenceNumber, kafka.DuplicateSequenceNumber, kafka.InvalidProducerEpoch, kafka.InvalidProducerIDMapping,
			kafka.UnknownProducerId, kafka.ProducerFenced:
			return forgotten
		case kafka.InvalidMessage, kafka.InvalidTopic, kafka.NotEnoughReplicas, kafka.InvalidRequiredAcks, kafka.ClusterAuthorizationFailed,
			kafka.InvalidTimestamp, kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState, kafka.UnsupportedVersion, kafka.InvalidRequest,
			kafka.UnsupportedForMessageFormat, kafka.PolicyViolation, kafka.SASLAuthenticationFailed, kafka.UnsupportedCompressionType:
			return unstored
		}
		return unknown
	}
	return unknown
}

// isMoved tells of an error that other metadata may be all it takes.
func isMoved(err error) bool {
	code, _ := errors.AsType[kafka.Error](err)
	switch code {
	case kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.KafkaStorageError,
		kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch:
		return true
	}
	return false
}

// dialError is a connection that did not come about, TLS included.
type dialError struct {
	address string
	tls     bool // it was the handshake that failed
	err     error
}

func (e *dialError) Error() string {
	if e.tls {
		return fmt.Sprintf("TLS with %s: %v", e.address, e.err)
	}
	return fmt.Sprintf("dial %s: %v", e.address, e.err)
}

func (e *dialError) Unwrap() error { return e.err }

// settingsError is a password that could be used at the start and cannot any more.
type settingsError struct{ error }

func (e *settingsError) Unwrap() error { return e.error }

// trouble is a reason for having no broker, of a kind that is logged once per outage.
type trouble struct {
	kind troubleKind
	err  error
}

type troubleKind int

const (
	away troubleKind = iota
	unauthorized
	untrusted
	misconfigured
	unadvertised
	troubleKinds
)

// fatal tells whether trouble of this kind ends by a change of the settings only.
func (k troubleKind) fatal() bool { return k == unauthorized || k == untrusted || k == misconfigured }

// explain says what it means that a broker cannot be asked, and which setting mends it.
func (c *conn) explain(err error, wasConnected bool) trouble {
	at := c.name()
	if e, ok := errors.AsType[*settingsError](err); ok {
		return trouble{misconfigured, e}
	}
	code, _ := errors.AsType[kafka.Error](err)
	switch {
	case code == kafka.SASLAuthenticationFailed:
		return trouble{unauthorized, fmt.Errorf("%s refuses the credentials, check BRIDGE_KAFKA_SASL_USER, BRIDGE_KAFKA_SASL_PASSWORD and BRIDGE_KAFKA_SASL_MECHANISM: %w", at, err)}
	case code == kafka.UnsupportedSASLMechanism:
		return trouble{unauthorized, fmt.Errorf("%s does not offer this mechanism, check BRIDGE_KAFKA_SASL_MECHANISM: %w", at, err)}
	case code == kafka.IllegalSASLState:
		return trouble{unauthorized, fmt.Errorf("%s wants no SASL on this port, check BRIDGE_KAFKA_BROKERS and BRIDGE_KAFKA_SASL_MECHANISM: %w", at, err)}
	case isSCRAM(err):
		return trouble{unauthorized, fmt.Errorf("%s does not know this password, check BRIDGE_KAFKA_SASL_PASSWORD and BRIDGE_KAFKA_SASL_MECHANISM: %w", at, err)}
	case isTLS(err):
		return trouble{untrusted, fmt.Errorf("no trust between the bridge and %s, check BRIDGE_KAFKA_TLS, BRIDGE_KAFKA_TLS_CA, BRIDGE_KAFKA_TLS_CERT and BRIDGE_KAFKA_TLS_KEY: %w", at, err)}
	}
	if dial, ok := errors.AsType[*dialError](err); ok && !c.isBootstrap(dial.address) {
		return trouble{unadvertised, fmt.Errorf("%s answers, but names a broker that cannot be reached: it is down, or check advertised.listeners of the brokers and BRIDGE_KAFKA_BROKERS: %w", at, err)}
	}
	switch {
	case isHangUp(err):
		return trouble{away, fmt.Errorf("%s hangs up: it is going down, or check BRIDGE_KAFKA_TLS and BRIDGE_KAFKA_SASL_MECHANISM: %w", at, err)}
	case isTimeout(err):
		return trouble{away, fmt.Errorf("%s does not answer, check BRIDGE_KAFKA_BROKERS: %w", at, err)}
	case wasConnected:
		return trouble{away, fmt.Errorf("connection to %s lost: %w", at, err)}
	}
	return trouble{away, fmt.Errorf("%s cannot be reached, check BRIDGE_KAFKA_BROKERS: %w", at, err)}
}

// isTLS goes by the text as well: a server that misses the client's certificate says so only after the handshake, by
// an alert that crypto/tls gives no type of its own; kafka-go says so when it reads such an alert without TLS.
func isTLS(err error) bool {
	dial, ok := errors.AsType[*dialError](err)
	if ok && dial.tls && !isTimeout(err) && !isHangUp(err) {
		return true
	}
	return strings.Contains(err.Error(), "remote error: tls: ") || strings.Contains(err.Error(), "expecting TLS")
}

// isSCRAM tells whether the SCRAM exchange failed on this side: the server could not prove that it knows the password.
func isSCRAM(err error) bool { return strings.Contains(err.Error(), "server validation failed") }

func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

func isTimeout(err error) bool {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}
