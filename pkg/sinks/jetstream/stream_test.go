package jetstream_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

func TestCreatedStreams(t *testing.T) {
	b := startBroker(t, nil)
	s, l := openSink(t, jetstream.Config{
		Conn: jetstream.Conn{URL: b.url()}, Stream: "S", Prefix: "a.b", MaxAge: 48 * time.Hour, DeadMaxAge: 96 * time.Hour, DedupWindow: 30 * time.Hour,
	})
	eventuallyReady(t, s)
	for name, want := range map[string]struct {
		subject string
		age     time.Duration
	}{"S": {"a.b.>", 48 * time.Hour}, "S_DEAD": {"a.b-dead.>", 96 * time.Hour}} {
		c := configOf(t, b, name)
		got := natsjs.StreamConfig{
			Name: c.Name, Subjects: c.Subjects, Storage: c.Storage, Retention: c.Retention, Discard: c.Discard, MaxAge: c.MaxAge,
			Duplicates: c.Duplicates, Replicas: c.Replicas, MaxMsgs: c.MaxMsgs, MaxBytes: c.MaxBytes, MaxMsgsPerSubject: c.MaxMsgsPerSubject,
			MaxMsgSize: c.MaxMsgSize, AllowDirect: c.AllowDirect, NoAck: c.NoAck, PersistMode: c.PersistMode,
		}
		if want := (natsjs.StreamConfig{
			Name: name, Subjects: []string{want.subject}, Storage: natsjs.FileStorage, Retention: natsjs.LimitsPolicy, Discard: natsjs.DiscardNew,
			MaxAge: want.age, Duplicates: 30 * time.Hour, Replicas: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, AllowDirect: true,
		}); !reflect.DeepEqual(got, want) {
			t.Errorf("stream %s:\n got %+v\nwant %+v", name, got, want)
		}
		if n := l.count(`"message":"created stream ` + name + `"`); n != 1 {
			t.Errorf("creation of %s logged %d times", name, n)
		}
	}
}

func configOf(t *testing.T, b *broker, name string) natsjs.StreamConfig {
	t.Helper()
	stream, err := b.admin(t).Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

// good is a stream as the sink wants it.
func good() natsjs.StreamConfig {
	return natsjs.StreamConfig{
		Name: "GEMINI", Subjects: []string{"gemini.>"}, Storage: natsjs.FileStorage, Discard: natsjs.DiscardNew,
		MaxAge: 168 * time.Hour, Duplicates: 25 * time.Hour, AllowDirect: true,
	}
}

// TestMismatch: streams that exist are never altered. What is wrong with them is told with the command that mends
// it, and the command does mend it.
func TestMismatch(t *testing.T) {
	const anew = ": this cannot be edited: empty it, remove it (nats stream rm GEMINI) and the bridge creates it anew"
	for _, c := range []struct {
		name       string
		change     func(*natsjs.StreamConfig)
		seal       bool
		want       []string
		impossible bool
	}{
		{name: "as wanted", change: func(c *natsjs.StreamConfig) {}},
		{name: "wider and longer", change: func(c *natsjs.StreamConfig) {
			c.Subjects, c.MaxAge, c.Duplicates, c.MaxMsgs = []string{"gemini.>", "orders.*"}, 0, 200*time.Hour, 10
		}},
		{
			name: "window", change: func(c *natsjs.StreamConfig) { c.Duplicates = 2 * time.Minute },
			want: []string{"stream GEMINI remembers ids for 2m, less than BRIDGE_DEDUP_WINDOW: nats stream edit GEMINI --dupe-window=25h"},
		},
		{
			name: "age", change: func(c *natsjs.StreamConfig) { c.MaxAge, c.Duplicates = 90*time.Minute, time.Minute },
			want: []string{
				"stream GEMINI keeps messages for 1h30m, less than BRIDGE_DEDUP_WINDOW: nats stream edit GEMINI --max-age=168h",
				"stream GEMINI remembers ids for 1m, less than BRIDGE_DEDUP_WINDOW: nats stream edit GEMINI --dupe-window=25h",
			},
		},
		{
			name: "max_msgs", change: func(c *natsjs.StreamConfig) { c.MaxMsgs, c.Discard = 10, natsjs.DiscardOld },
			want: []string{"stream GEMINI silently discards old messages when it is full: nats stream edit GEMINI --discard=new"},
		},
		{
			name: "max_bytes", change: func(c *natsjs.StreamConfig) { c.MaxBytes, c.Discard = 1<<20, natsjs.DiscardOld },
			want: []string{"stream GEMINI silently discards old messages when it is full: nats stream edit GEMINI --discard=new"},
		},
		{name: "discard old without limit", change: func(c *natsjs.StreamConfig) { c.Discard = natsjs.DiscardOld }},
		{
			name: "max_msgs_per_subject", change: func(c *natsjs.StreamConfig) { c.MaxMsgsPerSubject = 5 },
			want: []string{"stream GEMINI silently discards all but the last 5 messages of a subject: nats stream edit GEMINI --max-msgs-per-subject=-1"},
		},
		{name: "max_msgs_per_subject, new ones refused", change: func(c *natsjs.StreamConfig) { c.MaxMsgsPerSubject, c.DiscardNewPerSubject = 5, true }},
		{
			name: "max_msg_size", change: func(c *natsjs.StreamConfig) { c.MaxMsgSize = 1000 },
			want: []string{"stream GEMINI takes messages of up to 1000 bytes, an event may have 819200: nats stream edit GEMINI --max-msg-size=-1, or lower BRIDGE_MAX_BODY"},
		},
		{
			name: "interest", change: func(c *natsjs.StreamConfig) { c.Retention = natsjs.InterestPolicy },
			want: []string{"stream GEMINI forgets ids with the messages that were consumed (interest retention): nats stream edit GEMINI --retention=limits"},
		},
		{
			name: "work queue", change: func(c *natsjs.StreamConfig) { c.Retention = natsjs.WorkQueuePolicy },
			want: []string{"stream GEMINI forgets ids with the messages that were consumed (work queue retention)" + anew},
		},
		{
			name: "memory", change: func(c *natsjs.StreamConfig) { c.Storage = natsjs.MemoryStorage },
			want: []string{"stream GEMINI keeps messages in memory only" + anew},
		},
		{
			name: "async", change: func(c *natsjs.StreamConfig) { c.PersistMode = natsjs.AsyncPersistMode },
			want: []string{"stream GEMINI acknowledges messages before they are written (persist mode async)" + anew},
		},
		{
			name: "part of the subjects", change: func(c *natsjs.StreamConfig) { c.Subjects = []string{"gemini.batch.*", "orders.*"} },
			want: []string{"stream GEMINI does not take all of gemini.>: nats stream edit GEMINI --subjects='orders.*,gemini.>'"},
		},
		{
			name: "other subjects", change: func(c *natsjs.StreamConfig) { c.Subjects = []string{"orders.>"} }, impossible: true,
			want: []string{"stream GEMINI does not take all of gemini.>: nats stream edit GEMINI --subjects='orders.>,gemini.>'"},
		},
		{
			name: "no acks", change: func(c *natsjs.StreamConfig) { c.NoAck = true }, impossible: true,
			want: []string{"stream GEMINI does not acknowledge messages: nats stream edit GEMINI --ack"},
		},
		{
			name: "sealed", change: func(c *natsjs.StreamConfig) {}, seal: true, impossible: true,
			want: []string{"stream GEMINI is sealed and takes no messages" + anew},
		},
		{
			name: "counter", change: func(c *natsjs.StreamConfig) { c.AllowMsgCounter, c.Discard = true, natsjs.DiscardOld }, impossible: true,
			want: []string{"stream GEMINI is a counter and takes no events" + anew},
		},
		{
			name: "mirror", change: func(c *natsjs.StreamConfig) {
				*c = natsjs.StreamConfig{Name: "GEMINI", Mirror: &natsjs.StreamSource{Name: "ELSE"}, MaxAge: 168 * time.Hour, Discard: natsjs.DiscardNew}
			}, impossible: true,
			want: []string{"stream GEMINI mirrors another and takes no messages: nats stream edit GEMINI --no-mirror --subjects='gemini.>'"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := startBroker(t, nil)
			js := b.admin(t)
			cfg := good()
			c.change(&cfg)
			stream, err := js.CreateStream(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if c.seal {
				cfg = stream.CachedInfo().Config
				cfg.Sealed = true
				if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
			}
			before := configOf(t, b, "GEMINI")

			s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, MaxEvent: 800 << 10})
			var got error
			eventually(t, "looked at", func() error {
				if got = ready(t, s); got != nil && strings.Contains(got.Error(), "not connected yet") {
					return got
				}
				return nil
			})
			var want error
			switch {
			case c.impossible:
				want = errors.New(c.want[0])
			case len(c.want) > 0:
				want = &sinks.DegradedError{Details: c.want}
			}
			if text(got) != text(want) {
				t.Errorf("Ready:\n got %v\nwant %v", got, want)
			}
			_, degraded := errors.AsType[*sinks.DegradedError](got)
			if degraded != (len(c.want) > 0 && !c.impossible) {
				t.Errorf("Ready: %T", got)
			}
			_ = ready(t, s)
			for _, w := range c.want {
				if n := l.count(`"message":` + quote(w)); n != 1 {
					t.Errorf("%q logged %d times:\n%s", w, n, l)
				}
			}
			if n := l.count(`"level":"warn"`); n != len(c.want) {
				t.Errorf("%d warnings, want %d:\n%s", n, len(c.want), l)
			}
			if after := configOf(t, b, "GEMINI"); !reflect.DeepEqual(after, before) {
				t.Errorf("the stream was altered:\n got %+v\nwant %+v", after, before)
			}
			if _, err := s.Publish(t.Context(), sinkstest.Event(1)); (err == nil) == c.impossible {
				t.Errorf("Publish: %v", err)
			}
			if len(c.want) == 0 || strings.Contains(c.want[0], "anew") {
				return
			}
			for _, w := range c.want {
				edit(t, js, w)
			}
			if d, ok := errors.AsType[*sinks.DegradedError](ready(t, s)); ok && c.impossible { // what was hidden before
				for _, w := range d.Details {
					edit(t, js, w)
				}
			}
			eventuallyReady(t, s)
			publish(t, s, 2)
			if l.count("the streams are as they should be") == 0 {
				t.Errorf("the mended stream is not in the log:\n%s", l)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	// zerolog does not escape these.
	return strings.NewReplacer(`\u003e`, ">", `\u003c`, "<", `\u0026`, "&").Replace(string(b))
}

var command = regexp.MustCompile(`nats stream edit (\S+)((?: --[a-z-]+(?:='[^']*'|=[^ ,]*)?)+)`)

// edit does to the stream what the nats command in the warning would do.
func edit(t *testing.T, js natsjs.JetStream, warning string) {
	t.Helper()
	m := command.FindStringSubmatch(warning)
	if m == nil {
		t.Fatalf("no command in %q", warning)
	}
	stream, err := js.Stream(t.Context(), m[1])
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.NoAck = false // --ack is the command's default
	for flag := range strings.FieldsSeq(m[2]) {
		name, value, _ := strings.Cut(flag, "=")
		value = strings.Trim(value, "'")
		switch name {
		case "--subjects":
			c.Subjects = strings.Split(value, ",")
		case "--dupe-window":
			c.Duplicates, err = time.ParseDuration(value)
		case "--max-age":
			c.MaxAge, err = time.ParseDuration(value)
		case "--discard":
			c.Discard = map[string]natsjs.DiscardPolicy{"new": natsjs.DiscardNew, "old": natsjs.DiscardOld}[value]
		case "--max-msgs-per-subject":
			c.MaxMsgsPerSubject, err = strconv.ParseInt(value, 10, 64)
		case "--max-msg-size":
			c.MaxMsgSize = -1
		case "--retention":
			if value != "limits" {
				t.Fatalf("retention %s", value)
			}
			c.Retention = natsjs.LimitsPolicy
		case "--replicas":
			c.Replicas, err = strconv.Atoi(value)
		case "--no-mirror":
			c.Mirror = nil
		case "--ack":
		default:
			t.Fatalf("flag %s of %q", name, warning)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatalf("%s: %v", m[0], err)
	}
}

// TestDeadStreamMatters: the dead letters' stream is looked at as well.
func TestDeadStreamMatters(t *testing.T) {
	b := startBroker(t, nil)
	js := b.admin(t)
	cfg := good()
	cfg.Name, cfg.Subjects, cfg.Duplicates = "GEMINI_DEAD", []string{"gemini-dead.>"}, time.Minute
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}})
	want := "stream GEMINI_DEAD remembers ids for 1m, less than BRIDGE_DEDUP_WINDOW: nats stream edit GEMINI_DEAD --dupe-window=25h"
	eventuallyDown(t, s, want)
}

// TestFewerReplicas: more replicas are asked for than a single server can have.
func TestFewerReplicas(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, Replicas: 3})
	eventuallyDown(t, s, "stream GEMINI is missing and the server refuses to create it: replicas > 1 not supported in non-clustered mode", "BRIDGE_NATS_REPLICAS")
	js := b.admin(t)
	for name, subject := range map[string]string{"GEMINI": "gemini.>", "GEMINI_DEAD": "gemini-dead.>"} {
		cfg := good()
		cfg.Name, cfg.Subjects = name, []string{subject}
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyDown(t, s, "stream GEMINI has 1 of the 3 replicas of BRIDGE_NATS_REPLICAS: nats stream edit GEMINI --replicas=3, or lower the setting")
	if d, ok := errors.AsType[*sinks.DegradedError](ready(t, s)); !ok || len(d.Details) != 2 {
		t.Errorf("Ready: %v, want a DegradedError for each stream", d)
	}
}

// TestCreatedAtOnce: replicas of the bridge with other settings create the streams at the same moment; one of them
// does, and the others are content.
func TestCreatedAtOnce(t *testing.T) {
	b := startBroker(t, nil)
	var all []*jetstream.Sink
	var said []*logs
	for i := range 8 {
		s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, MaxAge: time.Duration(100+i) * time.Hour})
		all, said = append(all, s), append(said, l)
	}
	created := 0
	for i, s := range all {
		eventuallyReady(t, s)
		created += said[i].count("created stream GEMINI\"")
		if said[i].count("refuses to create") > 0 {
			t.Errorf("sink %d:\n%s", i, said[i])
		}
	}
	if created != 1 {
		t.Errorf("created %d times, want once", created)
	}
}

// TestStreamDeleted: a stream that somebody removed is created again by the next publish.
func TestStreamDeleted(t *testing.T) {
	b := startBroker(t, nil)
	s, l := openOn(t, b)
	js := b.admin(t)
	publish(t, s, 1)
	for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if ack := publish(t, s, 1); ack.Duplicate || ack.Position.Sequence != 1 {
		t.Errorf("got %+v, want a new record in a new stream", ack)
	}
	if _, err := s.Publish(t.Context(), sinkstest.DeadLetter(1)); err != nil {
		t.Errorf("dead letter: %v", err)
	}
	if n := l.count("created stream GEMINI\""); n != 2 {
		t.Errorf("created %d times, want twice:\n%s", n, l)
	}
	// And by Ready, when nothing is published.
	if err := js.DeleteStream(t.Context(), "GEMINI"); err != nil {
		t.Fatal(err)
	}
	if err := ready(t, s); err != nil {
		t.Error(err)
	}
	configOf(t, b, "GEMINI")
}

// TestStreamDeletedUnderListener: something that listens on the subjects keeps the server from saying that no stream
// does.
func TestStreamDeletedUnderListener(t *testing.T) {
	b := startBroker(t, nil)
	s, _ := openOn(t, b)
	nc, err := nats.Connect(b.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.SubscribeSync("gemini.>"); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.admin(t).DeleteStream(t.Context(), "GEMINI"); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 1)
}

// TestSubjectsTaken: another stream has the subjects, so ours cannot be created, and its acks do not count.
func TestSubjectsTaken(t *testing.T) {
	b := startBroker(t, nil)
	js := b.admin(t)
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "THIEF", Subjects: []string{"gemini.>"}}); err != nil {
		t.Fatal(err)
	}
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}})
	eventuallyDown(t, s, "stream GEMINI is missing and the server refuses to create it: subjects overlap with an existing stream")
	if _, err := s.Publish(t.Context(), sinkstest.Event(1)); err == nil || isRefused(err) {
		t.Errorf("Publish: %v, want a not now", err)
	}
	if err := js.DeleteStream(t.Context(), "THIEF"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "published", func() error { _, err := s.Publish(t.Context(), sinkstest.Event(1)); return err })

	// The same while the sink runs: somebody replaces the stream, and a publish comes before anybody looked.
	if err := js.DeleteStream(t.Context(), "GEMINI"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "THIEF", Subjects: []string{"gemini.>"}}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Publish(t.Context(), sinkstest.Event(1))
	if err == nil || isRefused(err) || !strings.Contains(err.Error(), "stream THIEF takes gemini.batch.succeeded, which belongs to GEMINI") {
		t.Errorf("Publish: %v, want a not now", err)
	}
	eventuallyDown(t, s, "refuses to create it") // without a publish, which might say again what the look has just said
	if _, err := s.Publish(t.Context(), sinkstest.Event(1)); err == nil || !strings.Contains(err.Error(), "refuses to create it") {
		t.Errorf("Publish: %v, want that the stream cannot be created", err)
	}
	if n := l.count("stream THIEF takes"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, l)
	}
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*sinks.RefusedError](err)
	return ok
}

// TestMaxPayload: the server's own limit is compared at every connect.
func TestMaxPayload(t *testing.T) {
	b := startBroker(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}, MaxEvent: 800 << 10})
	const want = "the server takes messages of up to 65536 bytes, an event may have 819200: raise max_payload there or lower BRIDGE_MAX_BODY"
	eventuallyDown(t, s, want)
	if d, ok := errors.AsType[*sinks.DegradedError](ready(t, s)); !ok || !slices.Equal(d.Details, []string{want}) {
		t.Errorf("Ready: %v", d)
	}
	_, err := s.Publish(t.Context(), sinkstest.LargeEvent(1, 100<<10))
	if !isRefused(err) || !strings.Contains(err.Error(), "BRIDGE_MAX_BODY") {
		t.Errorf("Publish: %v, want a RefusedError that names BRIDGE_MAX_BODY", err)
	}
	publish(t, s, 2)
	b.stop(t)
	b.opts.MaxPayload = 1 << 20
	b.start(t)
	eventuallyReady(t, s)
}

func TestNoJetStream(t *testing.T) {
	b := startBroker(t, func(o *server.Options) { o.JetStream = false })
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url()}})
	eventuallyDown(t, s, "there is no JetStream on this server: enable it there")
	eventually(t, "told before the deadline", func() error {
		_, err := s.Publish(ctxOf(t, 300*time.Millisecond), sinkstest.Event(1))
		if errors.Is(err, sinks.ErrUnknown) { // an attempt was under way then
			return err
		}
		if err == nil || isRefused(err) {
			t.Errorf("Publish: %v, want a not now", err)
		}
		return nil
	})
	_ = ready(t, s)
	if n := l.count("there is no JetStream"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, l)
	}
	b.stop(t)
	b.opts.JetStream = true
	b.start(t)
	eventuallyReady(t, s)
}
