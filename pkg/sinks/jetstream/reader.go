package jetstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

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

// From says where to begin.
type From struct {
	kind  fromKind
	since time.Time
}

type fromKind int

const (
	fromStart fromKind = iota
	fromNew
	fromSince
)

// FromStart begins with the oldest record.
func FromStart() From { return From{} }

// FromNew begins with the first record stored after Read was called.
func FromNew() From { return From{kind: fromNew} }

// FromSince begins with the first record stored at t or later.
func FromSince(t time.Time) From { return From{kind: fromSince, since: t} }

// Record is one message of the stream.
type Record struct {
	Subject  string
	Header   map[string][]string // names as they were written
	Data     []byte
	Sequence uint64
	Time     time.Time // when it was stored
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

// Read calls fn with one record after the other, in the stream's order, and waits for new ones. It goes on over
// lost connections, until ctx ends or fn returns an error, and returns that error. A stream that does not exist is
// an error too.
func (r *Reader) Read(ctx context.Context, from From, fn func(Record) error) error {
	js, err := jetstream.New(r.nc)
	if err != nil {
		return err
	}
	var stream jetstream.Stream
	err = persist(ctx, func(ctx context.Context) (err error) { stream, err = js.Stream(ctx, r.stream); return err })
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.stream, err)
	}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	switch from.kind {
	case fromNew:
		// By sequence, for "new" would begin later when the consumer is made again after a lost connection.
		cfg.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		cfg.OptStartSeq = stream.CachedInfo().State.LastSeq + 1
	case fromSince:
		cfg.DeliverPolicy = jetstream.DeliverByStartTimePolicy
		cfg.OptStartTime = &from.since
	}
	var consumer jetstream.Consumer
	err = persist(ctx, func(ctx context.Context) (err error) { consumer, err = stream.OrderedConsumer(ctx, cfg); return err })
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.stream, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("stream %s: %w", r.stream, err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("stream %s: %w", r.stream, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("stream %s: %w", r.stream, err)
		}
		if err := fn(Record{
			Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp,
		}); err != nil {
			return err
		}
	}
}

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

// Close ends the connection. Read returns then.
func (r *Reader) Close() { r.nc.Close() }

// ErrNoEvent appears when a record holds no CloudEvent in either content mode.
var ErrNoEvent = errors.New("record holds no CloudEvent")

// Event returns the record's CloudEvent in the JSON format, whichever content mode it has. The error matches
// ErrNoEvent.
func (r Record) Event() ([]byte, error) {
	header := func(name string) string {
		for k, v := range r.Header {
			if textproto.CanonicalMIMEHeaderKey(k) == textproto.CanonicalMIMEHeaderKey(name) && len(v) > 0 {
				return v[0]
			}
		}
		return ""
	}
	if strings.HasPrefix(strings.ToLower(header(headerContentType)), "application/cloudevents") {
		if !jsontext.Value(r.Data).IsValid() {
			return nil, fmt.Errorf("%w: not JSON", ErrNoEvent)
		}
		return r.Data, nil
	}
	if header(headerAttribute+"specversion") == "" {
		return nil, fmt.Errorf("%w: no ce-specversion", ErrNoEvent)
	}
	attributes := make(map[string]string, len(r.Header))
	for k, v := range r.Header {
		name, found := strings.CutPrefix(strings.ToLower(k), headerAttribute)
		if !found || len(v) == 0 {
			continue
		}
		value, err := percentDecode(v[0])
		if err != nil {
			return nil, fmt.Errorf("%w: header %s: %w", ErrNoEvent, k, err)
		}
		if value != "" {
			attributes[name] = value
		}
	}
	return appendEvent(attributes, r.Data)
}

// appendEvent writes the JSON form: the attributes in the order of schema.Event, then extensions by name, then data.
func appendEvent(attributes map[string]string, data []byte) ([]byte, error) {
	names := slices.DeleteFunc(attributeOrder(), func(name string) bool { return attributes[name] == "" })
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	b := []byte{'{'}
	for _, name := range names {
		var err error
		if b, err = jsontext.AppendQuote(b, name); err != nil {
			return nil, fmt.Errorf("%w: attribute %q: %w", ErrNoEvent, name, err)
		}
		b = append(b, ':')
		if b, err = jsontext.AppendQuote(b, attributes[name]); err != nil {
			return nil, fmt.Errorf("%w: attribute %q: %w", ErrNoEvent, name, err)
		}
		b = append(b, ',')
	}
	if jsontext.Value(data).IsValid() {
		b = append(append(b, `"data":`...), data...)
	} else {
		b = append(append(b, `"data_base64":"`...), base64.StdEncoding.EncodeToString(data)...)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

func attributeOrder() []string {
	return []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey"}
}
