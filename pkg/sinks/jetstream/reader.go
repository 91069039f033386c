package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks"
)

// quietTime is how long a reader that has an end to reach waits for a record before it asks whether one is to come.
const quietTime = time.Second

// ReaderConfig says where to read.
type ReaderConfig struct {
	Conn
	Stream string // default "GEMINI"
}

// Reader reads a stream in order, as any consumer may. It needs no more than stream info and pull consumers.
type Reader struct {
	nc     *nats.Conn
	stream string
}

// NewReader connects. The error is a mistake in cfg, or that NATS cannot be reached now; no secret is in it.
func NewReader(cfg ReaderConfig) (*Reader, error) {
	orDefault(&cfg.Stream, DefaultStream)
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	opts = append(opts, nats.Name("bridge reader"), nats.Timeout(dialTimeout), nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), nats.CustomReconnectDelay(func(n int) time.Duration { return delay(n - 1) }),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the default prints to standard error
	nc, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		return nil, cfg.explain(err, false).err
	}
	return &Reader{nc: nc, stream: cfg.Stream}, nil
}

// Read reads as sinks.Reader says, in the stream's order.
func (r *Reader) Read(ctx context.Context, from sinks.From, fn func(sinks.Record) error) error {
	js, err := jetstream.New(r.nc)
	if err != nil {
		return err
	}
	var stream jetstream.Stream
	err = persist(ctx, func(ctx context.Context) (err error) { stream, err = js.Stream(ctx, r.stream); return err })
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = fmt.Errorf("%w (%w)", sinks.ErrMissing, err)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.stream, err)
	}
	last := stream.CachedInfo().State.LastSeq
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case from.New:
		// By sequence, for "new" would begin later when the consumer is made again after a lost connection.
		cfg.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		cfg.OptStartSeq = last + 1
	case !from.Since.IsZero():
		cfg.DeliverPolicy = jetstream.DeliverByStartTimePolicy
		cfg.OptStartTime = &from.Since
	}
	var consumer jetstream.Consumer
	err = persist(ctx, func(ctx context.Context) (err error) { consumer, err = stream.OrderedConsumer(ctx, cfg); return err })
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.stream, err)
	}
	if from.ToEnd && consumer.CachedInfo().NumPending == 0 {
		return nil
	}
	// A pull that nobody answers is made anew soon.
	messages, err := consumer.Messages(jetstream.PullExpiry(4*time.Second), jetstream.PullHeartbeat(time.Second))
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.stream, err)
	}
	defer messages.Stop()
	for {
		msg, err := r.next(ctx, messages, from.ToEnd)
		if errors.Is(err, errQuiet) {
			// What was to come may have been deleted meanwhile.
			if info, err := consumer.Info(ctx); err == nil && info.NumPending == 0 {
				return nil
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", r.stream, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("stream %s: %w", r.stream, err)
		}
		if from.ToEnd && meta.Sequence.Stream > last {
			return nil
		}
		record := sinks.Record{
			Name: msg.Subject(), Position: sinks.Position{Sequence: meta.Sequence.Stream}, Time: meta.Timestamp,
			Header: msg.Headers(), Data: msg.Data(),
		}
		record.Event, record.Err = eventOf(record.Header, record.Data)
		if err := fn(record); err != nil {
			return err
		}
		if from.ToEnd && (meta.NumPending == 0 || meta.Sequence.Stream == last) {
			return nil
		}
	}
}

// errQuiet appears when no record came for a while.
var errQuiet = errors.New("no record came")

// askTimeout is for how long an answer is waited for before the question is put again.
const askTimeout = 2 * time.Second

// persist asks again when nobody answers, as in a cluster while a leader is elected.
func persist(ctx context.Context, ask func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, askTimeout)
		err := ask(once)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// next waits for the next record; when there is an end to reach, not for long without looking.
func (r *Reader) next(ctx context.Context, messages jetstream.MessagesContext, toEnd bool) (jetstream.Msg, error) {
	if !toEnd {
		return messages.Next(jetstream.NextContext(ctx))
	}
	waiting, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	msg, err := messages.Next(jetstream.NextContext(waiting))
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return nil, errQuiet
	}
	return msg, err
}

// Close ends the connection. Read returns then.
func (r *Reader) Close() { r.nc.Close() }

// eventOf returns a record's CloudEvent in the JSON format, whichever content mode it has. The error matches
// sinks.ErrNoEvent.
func eventOf(headers map[string][]string, data []byte) ([]byte, error) {
	header := func(name string) string {
		for k, v := range headers {
			if textproto.CanonicalMIMEHeaderKey(k) == textproto.CanonicalMIMEHeaderKey(name) && len(v) > 0 {
				return v[0]
			}
		}
		return ""
	}
	if strings.HasPrefix(strings.ToLower(header(headerContentType)), "application/cloudevents") {
		if !jsontext.Value(data).IsValid() {
			return nil, fmt.Errorf("%w: not JSON", sinks.ErrNoEvent)
		}
		return data, nil
	}
	if header(headerAttribute+"specversion") == "" {
		return nil, fmt.Errorf("%w: no ce-specversion", sinks.ErrNoEvent)
	}
	attributes := make(map[string]string, len(headers))
	for k, v := range headers {
		name, found := strings.CutPrefix(strings.ToLower(k), headerAttribute)
		if !found || len(v) == 0 {
			continue
		}
		value, err := percentDecode(v[0])
		if err != nil {
			return nil, fmt.Errorf("%w: header %s: %w", sinks.ErrNoEvent, k, err)
		}
		if value != "" {
			attributes[name] = value
		}
	}
	return sinks.JoinEvent(attributes, data)
}
