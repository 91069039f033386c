// Package sinks is the contract between the bridge and a broker. It deliberately stays narrow: routing,
// headers and the way a broker recognises a duplicate are each sink's own affair.
//
// A sink of one's own implements [Sink] and runs sinkstest.Run in its tests.
package sinks

import (
	"context"
	"errors"
	"fmt"

	"github.com/gembridge/bridge/pkg/schema"
)

// Sink publishes events to one broker. All methods are safe for concurrent use.
type Sink interface {
	// Publish returns when the event is durable by the broker's own word, or when it is known that it is not.
	// An id that is already there stores nothing and answers Ack.Duplicate.
	//
	// The error is one of three: a *RefusedError (this event never, whatever is tried again); one that
	// matches ErrUnknown (the event may have been stored: repeating it under the same id is harmless);
	// anything else means not now, and that nothing was stored.
	//
	// When ctx ends, an event that was not sent is withdrawn, and the error matches ctx's. With one that was sent,
	// Publish returns ErrUnknown promptly if the broker itself knows ids again, as JetStream does. A sink that sees
	// to that, as for Kafka, goes on until it knows the outcome, for as long as that takes, and returns it; only
	// Close ends that, with ErrUnknown. So the caller of Publish may wait for longer than its ctx lives, and must
	// not publish the same id again before Publish has returned.
	Publish(ctx context.Context, event *schema.Event) (Ack, error)

	// Ready returns nil when a Publish would be accepted now, a *DegradedError when it would but a promise
	// is weakened, or any other error when it would not be. It may ask the broker, and returns when ctx ends.
	Ready(ctx context.Context) error

	// Close releases everything and waits, at most until ctx ends, for publishes under way; those that are left
	// then return at once. A Publish after Close returns ErrClosed. A second Close does nothing and returns nil.
	Close(ctx context.Context) error
}

// Syncer is implemented by a sink whose acks are not on disk yet: the embedded broker, when the bridge's journal makes
// its events durable.
type Syncer interface {
	// Sync returns nil when every event that was acknowledged before the call is on disk. After an error nothing is
	// known, and the sink's Ready says that it is down until a later Sync went well.
	Sync(ctx context.Context) error
}

// Forgetful is implemented by a sink whose broker may lose what it had acknowledged: after a power failure, by a store
// that was set back, or because its stream or topic was deleted.
type Forgetful interface {
	// OnForgotten names what the sink calls when it finds that its broker has lost events that it acknowledged, or
	// that a stream or topic is missing and has to be made. It is called again for each such finding, and nothing is
	// published between the finding and its return. It must not call the sink. To be called before the first Publish.
	//
	// An ack that Publish returns around a finding may be of what is lost: only those of a Publish that began after
	// forgotten had returned count for certain.
	OnForgotten(forgotten func())
}

// Ack is the broker's word that an event is stored.
type Ack struct {
	Position  Position
	Duplicate bool // the id had been there; Position is then where the broker says, or zero
}

// Position is where a record stands in the broker's log: a JetStream stream's sequence, or a Kafka
// partition and offset.
type Position struct {
	Partition int32
	Sequence  uint64
}

var (
	// ErrUnknown appears when an event was sent and no answer came in time, or the connection broke, or the sink
	// was closed meanwhile. It may be stored. Callers answer "not now" and let the same id come again.
	ErrUnknown = errors.New("outcome unknown")

	// ErrClosed appears when Publish or Ready is called after Close.
	ErrClosed = errors.New("sink closed")
)

// RefusedError says that the broker will never take this event: it is too large, malformed, or the bridge
// may not publish it. Callers make a dead letter of it.
type RefusedError struct {
	Reason string // for the operator; no secrets, at most some hundred bytes
	Err    error  // the broker's own error, may be nil
}

func (e *RefusedError) Error() string {
	if e.Err == nil {
		return "refused by sink: " + e.Reason
	}
	return fmt.Sprintf("refused by sink: %s: %v", e.Reason, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// DegradedError is what Ready returns of a sink that accepts events while something weakens a promise.
type DegradedError struct {
	Details []string // one sentence each, naming the setting or the command that mends it
}

func (e *DegradedError) Error() string { return fmt.Sprintf("degraded: %v", e.Details) }
