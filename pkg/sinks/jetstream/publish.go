package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// What JetStream's answer to a publish means. Everything that is not named here is a "not now" which no repetition
// within seconds changes: resources or limits exceeded (10002, 10023, 10047, 10077), a sealed stream (10109).
var (
	// never: message or headers too large.
	never = []jetstream.ErrorCode{10054, 10097}
	// soon: a cluster without a leader, or one that has the same id under way.
	soon = []jetstream.ErrorCode{10008, 10009, 10063, 10118, 10158, 10163, 10167}
)

// maxAttempt is for how long an attempt is waited for before the event is sent again under the same id. When a
// leader stops, what it was sent may never be answered, while the next leader answers at once.
const maxAttempt = time.Second

const (
	pause    = 50 * time.Millisecond  // between attempts that failed at once
	lookWait = 250 * time.Millisecond // for a missing stream to be created
)

// Publish sends the event and waits for the stream's acknowledgement, one round trip. The event goes to the subject
// of its type, and its id makes the server recognise a repetition within the stream's duplicate window.
//
// Until ctx ends it is sent again under the same id: after a second (a third of ctx's time, if that is shorter)
// without an answer, when the connection broke and is back, and while a cluster has no leader. An answer to any of
// the attempts counts. A broker that has been away for more than a second is an error at once, and so is one that
// does not say for that long, after it came back, whether it still has what it acknowledged.
func (s *Sink) Publish(ctx context.Context, event *schema.Event) (sinks.Ack, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return sinks.Ack{}, sinks.ErrClosed
	}
	s.publishing.Add(1)
	s.underway.Add(1)
	s.mu.Unlock()
	defer s.publishing.Done()
	defer s.underway.Add(-1)

	if err := ctx.Err(); err != nil {
		return sinks.Ack{}, err
	}
	msg, err := s.message(event)
	if err != nil {
		return sinks.Ack{}, err
	}
	if s.sick.Load() {
		if err := s.health(); err != nil {
			return sinks.Ack{}, err
		}
	}
	p := &publication{sink: s, stream: s.events, msg: msg, exchange: s.inbox.open(msg.Subject)}
	if event.Dead {
		p.stream = s.dead
	}
	defer func() { s.inbox.shut(p.exchange) }()
	msg.Reply = p.exchange.reply
	p.newest = p.stream.newest.Load()
	p.epoch = -1
	return p.run(ctx)
}

// publication is one Publish under way.
type publication struct {
	sink     *Sink
	stream   *stream
	msg      *nats.Msg
	exchange *exchange
	newest   uint64 // in the stream, before the first attempt
	epoch    int    // of the sink's memory, at the last attempt
	acked    uint64 // the stream's newest ack when the epoch began for this publication
	sent     int    // attempts
	open     int    // attempts without an answer
	last     error  // why the last attempt failed, if it did
}

func (p *publication) run(ctx context.Context) (sinks.Ack, error) {
	attempt := maxAttempt
	if end, ok := ctx.Deadline(); ok {
		attempt = min(attempt, time.Until(end)/3)
	}
	timer := time.NewTimer(attempt)
	defer timer.Stop()
	for {
		nc, broken, err := p.connection(ctx)
		if err != nil {
			return p.fail(err)
		}
		wait := attempt
		if err := nc.PublishMsg(p.msg); err == nil {
			p.sent++
			p.open++
		} else if reason := p.unfit(nc, err); reason != "" {
			return p.refuse(reason, err)
		} else {
			if !isUnsent(err) {
				p.sent++
				p.open++
			}
			p.last, wait = err, pause
		}
		timer.Reset(wait)
		select {
		case a := <-p.exchange.answers:
			ack, done, err := p.read(ctx, a)
			if done {
				return ack, err
			}
			p.last = err
			if p.sent == 1 {
				continue // a stream that was missing is there by now
			}
			timer.Reset(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		case <-broken:
			p.last = nil // connection knows
		case <-timer.C:
			if err := p.unanswered(); err != nil {
				return p.fail(err)
			}
		case <-ctx.Done():
		case <-p.sink.life.Done():
		}
	}
}

// fail ends a publication without an ack. The event may be stored if an attempt was never answered.
func (p *publication) fail(err error) (sinks.Ack, error) {
	if p.last != nil && !errors.Is(err, p.last) {
		err = fmt.Errorf("%w: %w", p.last, err)
	}
	if p.open > 0 {
		err = fmt.Errorf("%w: %w", sinks.ErrUnknown, err)
	}
	return sinks.Ack{}, err
}

// refuse ends a publication that the broker will never take, unless it may have taken an earlier attempt.
func (p *publication) refuse(reason string, err error) (sinks.Ack, error) {
	refused := &sinks.RefusedError{Reason: reason, Err: err}
	if p.open > 0 {
		return p.fail(errors.New(refused.Error()))
	}
	return sinks.Ack{}, refused
}

// unfit returns why nats.go will never send the event, or "" if err is another.
func (p *publication) unfit(nc *nats.Conn, err error) string {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Sprintf("the event has %d bytes, the server takes up to %d with headers: raise max_payload there or lower BRIDGE_MAX_BODY",
			len(p.msg.Data), nc.MaxPayload())
	case errors.Is(err, nats.ErrBadSubject):
		return fmt.Sprintf("%q is no subject to publish to", p.msg.Subject)
	}
	return ""
}

// isUnsent tells of an error of nats.go that it comes before anything is written.
func isUnsent(err error) bool {
	for _, e := range []error{nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrHeadersNotSupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// read tells what an answer means. Unless done, the event is to be sent again.
func (p *publication) read(ctx context.Context, a answer) (ack sinks.Ack, done bool, err error) {
	p.open--
	if errors.Is(a.err, nats.ErrPermissionViolation) {
		ack, err = p.refuse("the user may not publish to "+p.msg.Subject, a.err)
		return ack, true, err
	}
	if a.err != nil {
		return ack, false, p.homeless(ctx)
	}
	var reply struct {
		Stream    string              `json:"stream"`
		Seq       uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
		Error     *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(a.data, &reply); err != nil || reply.Error == nil && reply.Stream == "" {
		p.open++ // somebody else listens there; a stream may have taken the event all the same
		return ack, false, fmt.Errorf("something other than JetStream answers on %s", p.msg.Subject)
	}
	switch {
	case reply.Error == nil && reply.Stream != p.stream.name:
		ack, err = p.fail(fmt.Errorf("stream %s takes %s, which belongs to %s: take it out of that stream's subjects",
			reply.Stream, p.msg.Subject, p.stream.name))
		p.sink.mu.Lock()
		p.sink.sayOnce(err)
		p.sink.mu.Unlock()
		p.sink.startLook() // so that the next ones are not sent into it
		return ack, true, err
	case reply.Error == nil:
		// A repetition that finds its own first attempt is no duplicate: that one is newer than all there was before.
		own := p.sent > 1 && reply.Seq > p.newest
		if !p.sink.remembers(p, reply.Seq, reply.Duplicate) {
			p.open++
			return ack, false, errors.New("the connection broke before the answer was read")
		}
		return sinks.Ack{Position: sinks.Position{Sequence: reply.Seq}, Duplicate: reply.Duplicate && !own}, true, nil
	case slices.Contains(never, reply.Error.ErrorCode):
		ack, err = p.refuse(fmt.Sprintf("the event has %d bytes, too large for stream %s: nats stream edit %s --max-msg-size=-1",
			len(p.msg.Data), p.stream.name, p.stream.name), reply.Error)
		return ack, true, err
	case slices.Contains(soon, reply.Error.ErrorCode):
		return ack, false, fmt.Errorf("stream %s: %w", p.stream.name, reply.Error)
	}
	ack, err = p.fail(fmt.Errorf("stream %s: %w", p.stream.name, reply.Error))
	return ack, true, err
}

// homeless is what to do when no stream takes the subject: it is created if it is missing. A cluster's stream that
// has no leader says the same for a while, and may have one before the look at it has ended.
func (p *publication) homeless(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	if _, err := p.sink.look(short); err != nil && short.Err() == nil {
		return err
	}
	return fmt.Errorf("no stream takes %s", p.msg.Subject)
}

// unanswered is what to do when an attempt had no answer in time. The stream may be missing while something else
// listens on its subjects, so it is looked at, which is not waited for.
func (p *publication) unanswered() error {
	if p.last == nil {
		p.last = fmt.Errorf("stream %s did not answer", p.stream.name)
	}
	p.sink.startLook()
	return p.sink.health()
}

// health asks whether the broker is well, and remembers for the next ones that it is not.
func (s *Sink) health() error {
	if s.cfg.Health == nil {
		return nil
	}
	err := s.cfg.Health()
	s.sick.Store(err != nil)
	return err
}
