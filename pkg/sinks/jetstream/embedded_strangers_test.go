package jetstream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

// strangersEach runs a test against a server with both streams and three messages in each, once open to
// everybody on the machine and once with a token.
func strangersEach(t *testing.T, run func(t *testing.T, s *strangers)) {
	for _, token := range []string{"", embeddedTestToken} {
		t.Run(fmt.Sprintf("token %q", token), func(t *testing.T) { run(t, newStrangers(t, token)) })
	}
}

func newStrangers(t *testing.T, token string) *strangers {
	t.Helper()
	cfg := embeddedConfig(t.TempDir())
	cfg.Token = secret.New(token)
	s := &strangers{t: t, e: startEmbeddedServer(t, cfg), token: token}
	s.bridge, s.bridgeJS = embeddedBridge(t, s.e)
	makeEmbeddedStreams(t, s.bridgeJS)
	for i := range 3 {
		s.publish("gemini.batch.succeeded", fmt.Sprint("e", i))
		s.publish("gemini-dead.batch.succeeded", fmt.Sprint("d", i))
	}
	return s
}

type strangers struct {
	t        *testing.T
	e        *jetstream.Embedded
	token    string
	bridge   *nats.Conn
	bridgeJS natsjs.JetStream
}

func (s *strangers) publish(subject, id string) {
	s.t.Helper()
	embeddedPublish(s.t, s.bridgeJS, subject, id, `{"id":"`+id+`"}`)
}

// connect is a stranger's connection over TCP; the server's complaints come in errs.
func (s *strangers) connect() (nc *nats.Conn, js natsjs.JetStream, errs chan error) {
	s.t.Helper()
	errs = make(chan error, 10_000)
	nc, err := nats.Connect(s.e.ClientURL(), nats.Token(s.token), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case errs <- err:
		default:
		}
	}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	if js, err = natsjs.New(nc, natsjs.WithDefaultTimeout(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	return nc, js, errs
}

// stored is all that the streams hold, byte for byte, and how they are configured.
func (s *strangers) stored() map[string]any {
	s.t.Helper()
	all := map[string]any{}
	for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
		stream, err := s.bridgeJS.Stream(s.t.Context(), name)
		if err != nil {
			s.t.Fatal(err)
		}
		info := stream.CachedInfo()
		all[name+" config"] = info.Config
		all[name+" ends"] = [3]uint64{info.State.FirstSeq, info.State.LastSeq, info.State.Msgs}
		for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
			// The bridge reads both streams through the API: the direct form adds headers.
			answer, err := s.bridge.Request("$JS.API.STREAM.MSG.GET."+name, fmt.Appendf(nil, `{"seq":%d}`, seq), 5*time.Second)
			if err != nil {
				s.t.Fatal(err)
			}
			var stored struct {
				Message struct {
					Subject, Time string
					Hdrs, Data    []byte
				}
			}
			if err := json.Unmarshal(answer.Data, &stored); err != nil {
				s.t.Fatal(err)
			}
			m := stored.Message
			all[fmt.Sprint(name, " ", seq)] = fmt.Sprintf("%s %s\n%s%s", m.Time, m.Subject, m.Hdrs, m.Data)
		}
	}
	return all
}

// unchanged fails when the streams hold anything but what they held before and a last message by the bridge,
// which is published now.
func (s *strangers) unchanged(before map[string]any, id string) {
	s.t.Helper()
	s.publish("gemini.batch.succeeded", "last-"+id)
	s.publish("gemini-dead.batch.succeeded", "last-"+id)
	after := s.stored()
	for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
		ends := before[name+" ends"].([3]uint64)
		ends[1], ends[2] = ends[1]+1, ends[2]+1
		if got := after[name+" ends"]; got != ends {
			s.t.Errorf("%s: first, last and number are %v, want %v", name, got, ends)
		}
		last := fmt.Sprint(name, " ", ends[1])
		if got := fmt.Sprint(after[last]); !strings.HasSuffix(got, `{"id":"last-`+id+`"}`) {
			s.t.Errorf("%s is not the bridge's last message: %s", last, got)
		}
		delete(after, last)
		before[name+" ends"] = after[name+" ends"]
	}
	if !reflect.DeepEqual(before, after) {
		s.t.Errorf("the streams have changed:\n%v\n%v", before, after)
	}
}

func TestStrangersConsume(t *testing.T) {
	strangersEach(t, func(t *testing.T, s *strangers) {
		nc, js, errs := s.connect()
		ctx := t.Context()

		t.Run("durable", func(t *testing.T) {
			for _, name := range []string{"GEMINI", "GEMINI_DEAD"} {
				consumer, err := js.CreateOrUpdateConsumer(ctx, name, natsjs.ConsumerConfig{Durable: "worker", AckPolicy: natsjs.AckExplicitPolicy})
				if err != nil {
					t.Fatal(err)
				}
				batch, err := consumer.Fetch(3, natsjs.FetchMaxWait(5*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				acks := []func(natsjs.Msg) error{natsjs.Msg.Ack, natsjs.Msg.Term, func(m natsjs.Msg) error { return m.DoubleAck(ctx) }}
				for m := range batch.Messages() {
					meta, err := m.Metadata()
					if err != nil {
						t.Fatal(err)
					}
					if err := errors.Join(m.InProgress(), acks[meta.Sequence.Stream-1](m)); err != nil {
						t.Fatal(err)
					}
				}
				if err := nc.Flush(); err != nil {
					t.Fatal(err)
				}
				info, err := consumer.Info(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if info.AckFloor.Stream != 3 || info.NumAckPending != 0 {
					t.Errorf("%s: acknowledged up to %d, pending %d, want 3, 0", name, info.AckFloor.Stream, info.NumAckPending)
				}
				if _, err := js.UpdateConsumer(ctx, name, natsjs.ConsumerConfig{Durable: "worker", AckPolicy: natsjs.AckExplicitPolicy, Description: "changed"}); err != nil {
					t.Error(err)
				}
				if err := js.DeleteConsumer(ctx, name, "worker"); err != nil {
					t.Error(err)
				}
			}
		})
		t.Run("negative ack", func(t *testing.T) {
			consumer, err := js.CreateConsumer(ctx, "GEMINI", natsjs.ConsumerConfig{FilterSubject: "gemini.batch.*", AckPolicy: natsjs.AckExplicitPolicy})
			if err != nil {
				t.Fatal(err)
			}
			for delivery := range uint64(2) {
				m, err := consumer.Next(natsjs.FetchMaxWait(5 * time.Second))
				if err != nil {
					t.Fatal(err)
				}
				meta, err := m.Metadata()
				if err != nil || meta.Sequence.Stream != 1 || meta.NumDelivered != delivery+1 {
					t.Fatalf("%+v, %v, want message 1, delivery %d", meta, err, delivery+1)
				}
				if err := errors.Join(m.Nak(), nc.Flush()); err != nil {
					t.Fatal(err)
				}
			}
		})
		t.Run("ordered", func(t *testing.T) {
			consumer, err := js.OrderedConsumer(ctx, "GEMINI", natsjs.OrderedConsumerConfig{FilterSubjects: []string{"gemini.batch.succeeded", "gemini.video.>"}})
			if err != nil {
				t.Fatal(err)
			}
			received := make(chan natsjs.Msg, 10)
			consuming, err := consumer.Consume(func(m natsjs.Msg) { received <- m })
			if err != nil {
				t.Fatal(err)
			}
			defer consuming.Stop()
			for i := range 3 {
				if got, want := string(awaitMessage(t, received).Data()), fmt.Sprintf(`{"id":"e%d"}`, i); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			s.publish("gemini.video.generated", "live-ordered")
			if got := awaitMessage(t, received); got.Subject() != "gemini.video.generated" || got.Headers().Get("Nats-Msg-Id") != "live-ordered" {
				t.Errorf("got %s %v", got.Subject(), got.Headers())
			}
		})
		t.Run("read", func(t *testing.T) {
			names := map[string]bool{}
			for name := range js.StreamNames(ctx).Name() {
				names[name] = true
			}
			if want := map[string]bool{"GEMINI": true, "GEMINI_DEAD": true}; !reflect.DeepEqual(names, want) {
				t.Errorf("streams %v, want %v", names, want)
			}
			if name, err := js.StreamNameBySubject(ctx, "gemini.batch.*"); name != "GEMINI" {
				t.Errorf("stream of gemini.batch.*: %q, %v", name, err)
			}
			if _, err := js.AccountInfo(ctx); err != nil {
				t.Error(err)
			}
			for name, id := range map[string]string{"GEMINI": "e1", "GEMINI_DEAD": "d1"} { // directly, and through the API
				stream, err := js.Stream(ctx, name)
				if err != nil {
					t.Fatal(err)
				}
				if m, err := stream.GetMsg(ctx, 2); err != nil || m.Header.Get("Nats-Msg-Id") != id {
					t.Errorf("%s 2: %v, %v, want %s", name, m, err, id)
				}
				if m, err := stream.GetLastMsgForSubject(ctx, "*.batch.>"); err != nil || m.Header.Get("Nats-Msg-Id") != id[:1]+"2" {
					t.Errorf("%s, last of batch: %v, %v", name, m, err)
				}
				for range stream.ListConsumers(ctx).Info() {
				}
				for range stream.ConsumerNames(ctx).Name() {
				}
			}
			m, err := nc.Request("$JS.API.DIRECT.GET.GEMINI.gemini.batch.succeeded", nil, 5*time.Second)
			if err != nil || m.Header.Get("Nats-Msg-Id") != "" && m.Header.Get("Nats-Sequence") == "" || string(m.Data) != `{"id":"e2"}` {
				t.Errorf("last of a subject, directly: %v, %v", m, err)
			}
			inbox, err := nc.SubscribeSync(nats.NewInbox())
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.PublishRequest("$JS.API.DIRECT.GET.GEMINI", inbox.Subject, []byte(`{"batch":3,"seq":1}`)); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if m, err := inbox.NextMsg(5 * time.Second); err != nil || string(m.Data) != fmt.Sprintf(`{"id":"e%d"}`, i) {
					t.Errorf("batch, message %d: %v, %v", i, m, err)
				}
			}
		})
		t.Run("live", func(t *testing.T) {
			events, err := nc.SubscribeSync("gemini.>")
			if err != nil {
				t.Fatal(err)
			}
			dead, err := nc.SubscribeSync("gemini-dead.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			s.publish("gemini.interaction.completed", "live-1")
			s.publish("gemini-dead.unreadable", "live-2")
			for sub, want := range map[*nats.Subscription]string{events: "gemini.interaction.completed live-1", dead: "gemini-dead.unreadable live-2"} {
				m, err := sub.NextMsg(5 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if got := m.Subject + " " + m.Header.Get("Nats-Msg-Id"); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
		t.Run("large", func(t *testing.T) { // requests are limited to 64 KiB, what is delivered is not
			body := strings.Repeat("x", 900<<10)
			embeddedPublish(t, s.bridgeJS, "gemini.large", "large", body)
			consumer, err := js.CreateConsumer(ctx, "GEMINI", natsjs.ConsumerConfig{FilterSubject: "gemini.large", AckPolicy: natsjs.AckExplicitPolicy})
			if err != nil {
				t.Fatal(err)
			}
			if m, err := consumer.Next(natsjs.FetchMaxWait(5 * time.Second)); err != nil || string(m.Data()) != body {
				t.Errorf("%v", err)
			}
		})
		// The older interface of the client library, and by it other languages' libraries.
		t.Run("legacy", func(t *testing.T) {
			old, err := nc.JetStream()
			if err != nil {
				t.Fatal(err)
			}
			sub, err := old.PullSubscribe("gemini.>", "legacy")
			if err != nil {
				t.Fatal(err)
			}
			ms, err := sub.Fetch(3, nats.MaxWait(5*time.Second))
			if err != nil || len(ms) != 3 {
				t.Fatal(len(ms), err)
			}
			for _, m := range ms {
				if err := m.AckSync(); err != nil {
					t.Error(err)
				}
			}
			if err := sub.Unsubscribe(); err != nil {
				t.Error(err)
			}
			for _, subject := range []string{"$JS.API.CONSUMER.CREATE.GEMINI", "$JS.API.CONSUMER.DURABLE.CREATE.GEMINI.old"} {
				request := `{"stream_name":"GEMINI","config":{"ack_policy":"explicit","deliver_policy":"all","replay_policy":"instant"}}`
				if strings.Contains(subject, "DURABLE") {
					request = strings.Replace(request, `"config":{`, `"config":{"durable_name":"old",`, 1)
				}
				m, err := nc.Request(subject, []byte(request), 5*time.Second)
				if err != nil || strings.Contains(string(m.Data), `"error"`) {
					t.Errorf("%s: %v %v", subject, m, err)
				}
			}
		})
		for range len(errs) {
			t.Errorf("the server complained: %v", <-errs)
		}
	})
}

// What a consumer library may send: options that the guard must hand on as they are.
func TestStrangersConsumerOptions(t *testing.T) {
	strangersEach(t, func(t *testing.T, s *strangers) {
		_, js, _ := s.connect()
		start := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
		for _, want := range []natsjs.ConsumerConfig{
			{
				Name: "a", Durable: "a", AckPolicy: natsjs.AckExplicitPolicy, AckWait: 7 * time.Second, MaxDeliver: 4, MaxAckPending: 11,
				BackOff: []time.Duration{7 * time.Second, 8 * time.Second}, FilterSubjects: []string{"gemini.batch.*", "gemini.video.>"},
				DeliverPolicy: natsjs.DeliverLastPerSubjectPolicy, Metadata: map[string]string{"owner": "tests"}, Description: "all of it",
			},
			{
				Name: "b", AckPolicy: natsjs.AckNonePolicy, DeliverPolicy: natsjs.DeliverByStartTimePolicy, OptStartTime: &start, HeadersOnly: true,
				ReplayPolicy: natsjs.ReplayOriginalPolicy, MaxWaiting: 5, MaxRequestBatch: 6, MaxRequestExpires: time.Minute, MaxRequestMaxBytes: 1 << 20,
				InactiveThreshold: time.Minute, MemoryStorage: true, FilterSubject: "gemini.batch.succeeded",
			},
			{
				Name: "c", Durable: "c", AckPolicy: natsjs.AckAllPolicy, DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: 2,
				PriorityPolicy: natsjs.PriorityPolicyPinned, PriorityGroups: []string{"g"}, PinnedTTL: time.Minute, SampleFrequency: "50%",
			},
		} {
			consumer, err := js.CreateConsumer(t.Context(), "GEMINI", want)
			if err != nil {
				t.Errorf("%s: %v", want.Name, err)
				continue
			}
			byBridge, err := s.bridgeJS.CreateConsumer(t.Context(), "GEMINI_DEAD", deadFilters(want))
			if err != nil {
				t.Errorf("%s, by the bridge: %v", want.Name, err)
				continue
			}
			got, direct := consumer.CachedInfo().Config, byBridge.CachedInfo().Config
			if direct = liveFilters(direct); !reflect.DeepEqual(got, direct) {
				t.Errorf("got\n%+v, past the guard it is\n%+v", got, direct)
			}
			if _, err := js.CreateConsumer(t.Context(), "GEMINI", natsjs.ConsumerConfig{Name: want.Name, AckPolicy: natsjs.AckExplicitPolicy, AckWait: time.Hour}); !errors.Is(err, natsjs.ErrConsumerExists) {
				t.Errorf("%s again, but different: %v, want %v", want.Name, err, natsjs.ErrConsumerExists)
			}
		}
		if _, err := js.UpdateConsumer(t.Context(), "GEMINI", natsjs.ConsumerConfig{Name: "none"}); !errors.Is(err, natsjs.ErrConsumerDoesNotExist) {
			t.Errorf("update of none: %v", err)
		}
	})
}

func deadFilters(c natsjs.ConsumerConfig) natsjs.ConsumerConfig {
	return swapFilters(c, "gemini.", "gemini-dead.")
}

func liveFilters(c natsjs.ConsumerConfig) natsjs.ConsumerConfig {
	return swapFilters(c, "gemini-dead.", "gemini.")
}

func swapFilters(c natsjs.ConsumerConfig, from, to string) natsjs.ConsumerConfig {
	c.FilterSubject = strings.Replace(c.FilterSubject, from, to, 1)
	filters := []string(nil)
	for _, f := range c.FilterSubjects {
		filters = append(filters, strings.Replace(f, from, to, 1))
	}
	c.FilterSubjects = filters
	return c
}

func awaitMessage(t *testing.T, from <-chan natsjs.Msg) natsjs.Msg {
	t.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no message")
		return nil
	}
}

// Requests that would change what is stored find nobody, and publishes are refused.
func TestStrangersCannotWrite(t *testing.T) {
	strangersEach(t, func(t *testing.T, s *strangers) {
		nc, js, errs := s.connect()
		before := s.stored()

		for _, subject := range []string{
			"gemini.x", "gemini.batch.succeeded", "gemini-dead.x", "refused.gemini.x", "other", "_INBOX.x", "$SYS.x", "$BRIDGE.API.CONSUMER.CREATE.GEMINI",
			"$JS.EVENT.ADVISORY.X", "$JS.FC.GEMINI.c.1", "$KV.b.k", "$NRG.x", "_R_.x", "_GR_.x",
		} {
			if err := errors.Join(nc.Publish(subject, []byte("forged")), nc.Flush()); err != nil {
				t.Fatal(err)
			}
			awaitRefusal(t, errs, "publish to "+subject)
		}
		for _, subject := range []string{
			">", "*.>", "$SYS.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>", "$BRIDGE.>", "refused.>", "_R_.>", "*", "gemini", "gemini-dead", "$SYS.ACCOUNT.*.CONNECT",
		} {
			sub, err := nc.SubscribeSync(subject)
			if err == nil {
				err = nc.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			awaitRefusal(t, errs, "subscribe to "+subject)
			if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrBadSubscription) {
				t.Fatal(err)
			}
		}
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if ack, err := js.Publish(short, "gemini.x", []byte("forged"), natsjs.WithRetryAttempts(0)); err == nil {
			t.Errorf("js.Publish: %+v", ack)
		}
		awaitRefusal(t, errs, "js.Publish")

		config := `{"name":"GEMINI","subjects":["gemini.>"],"max_msgs":1,"discard":"old","republish":{"src":">","dest":"gemini-dead.x"}}`
		for subject, body := range map[string]string{
			"STREAM.CREATE.GEMINI":                         config,
			"STREAM.CREATE.MINE":                           `{"name":"MINE","subjects":["mine.>"]}`,
			"STREAM.CREATE.COPY":                           `{"name":"COPY","sources":[{"name":"GEMINI"}],"republish":{"src":">","dest":"gemini.x"}}`,
			"STREAM.UPDATE.GEMINI":                         config,
			"STREAM.DELETE.GEMINI":                         "",
			"STREAM.DELETE.GEMINI_DEAD":                    "",
			"STREAM.PURGE.GEMINI":                          "",
			"STREAM.PURGE.GEMINI_DEAD":                     `{"filter":"gemini-dead.>"}`,
			"STREAM.MSG.DELETE.GEMINI":                     `{"seq":1}`,
			"STREAM.MSG.DELETE.GEMINI_DEAD":                `{"seq":1,"no_erase":true}`,
			"STREAM.SNAPSHOT.GEMINI":                       `{"deliver_subject":"gemini.x"}`,
			"STREAM.RESTORE.GEMINI":                        `{"config":{"name":"GEMINI"},"state":{}}`,
			"STREAM.LEADER.STEPDOWN.GEMINI":                "",
			"STREAM.PEER.REMOVE.GEMINI":                    `{"peer":"bridge"}`,
			"STREAM.PEER.EVACUATE.GEMINI":                  `{"peer":"bridge"}`,
			"STREAM.CANCEL_MOVE.GEMINI":                    "",
			"STREAM.INFO.OTHER":                            "",
			"STREAM.TEMPLATE.CREATE.x":                     "{}",
			"META.LEADER.STEPDOWN":                         "",
			"META.RESCUE":                                  "",
			"SERVER.REMOVE":                                `{"peer":"bridge"}`,
			"SERVER.EVACUATE":                              `{"peer":"bridge"}`,
			"ACCOUNT.PURGE.BRIDGE":                         "",
			"ACCOUNT.STREAM.MOVE.BRIDGE.GEMINI":            "",
			"ACCOUNT.STREAM.CANCEL_MOVE.BRIDGE.GEMINI":     "",
			"CONSUMER.PAUSE.GEMINI.c":                      `{"pause_until":"2030-01-01T00:00:00Z"}`,
			"CONSUMER.RESET.GEMINI.c":                      `{"seq":1}`,
			"CONSUMER.UNPIN.GEMINI.c":                      `{"group":"g"}`,
			"CONSUMER.LEADER.STEPDOWN.GEMINI.c":            "",
			"CONSUMER.PEER.REMOVE.GEMINI.c":                `{"peer":"bridge"}`,
			"CONSUMER.CREATE.OTHER.c":                      `{"stream_name":"OTHER","config":{"name":"c"}}`,
			"CONSUMER.CREATE.GEMINI_DEAD2":                 `{"stream_name":"GEMINI","config":{}}`,
			"DIRECT.GET.OTHER":                             `{"seq":1}`,
			"$JS.domain.API.STREAM.PURGE.GEMINI":           "",
			"$JS.SNAPSHOT.RESTORE.GEMINI.x":                "",
			"$JS.SNAPSHOT.ACK.GEMINI.x":                    "",
			"$SYS.REQ.SERVER.PING":                         "",
			"$SYS.REQ.SERVER.PING.VARZ":                    "",
			"$SYS.REQ.USER.INFO":                           "",
			"$SYS.REQ.ACCOUNT.BRIDGE.INFO":                 "",
			"$SYS.REQ.ACCOUNT.PING.JSZ":                    "",
			"$SYS.REQ.SERVER.x.RELOAD":                     "",
			"$SYS.REQ.SERVER.x.KICK":                       `{"cid":1}`,
			"$SYS.REQ.CLAIMS.LIST":                         "",
			"$JS.API.CONSUMER.MSG.NEXT.GEMINI.none.deeper": "",
		} {
			if !strings.HasPrefix(subject, "$") {
				subject = "$JS.API." + subject
			}
			answer, err := request(nc, subject, []byte(body), errs)
			if err == nil {
				t.Errorf("%s was answered: %s", subject, answer)
			}
		}
		s.unchanged(before, "write")
	})
}

// request tells an answer from a refusal: nobody listens, or the server complains.
func request(nc *nats.Conn, subject string, body []byte, errs <-chan error) ([]byte, error) {
	reply := nats.NewInbox()
	answers, err := nc.SubscribeSync(reply)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := errors.Join(nc.PublishRequest(subject, reply, body), nc.Flush()); err != nil {
		return nil, err
	}
	for range 50 {
		select {
		case err := <-errs:
			return nil, err
		default:
		}
		m, err := answers.NextMsg(100 * time.Millisecond)
		switch {
		case errors.Is(err, nats.ErrTimeout):
			continue
		case err != nil:
			return nil, err
		case m.Header.Get("Status") == "503":
			return nil, nats.ErrNoResponders
		}
		return m.Data, nil
	}
	return nil, errors.New("neither answer nor refusal")
}

func awaitRefusal(t *testing.T, errs <-chan error, what string) {
	t.Helper()
	select {
	case err := <-errs:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("%s: not refused", what)
	}
}

// The answer to a request, or the message that a consumer delivers, must not become an event: neither in the
// streams nor before the eyes of live subscribers.
func TestStrangersCannotInjectByReply(t *testing.T) {
	strangersEach(t, func(t *testing.T, s *strangers) {
		nc, js, _ := s.connect()
		victim, _, _ := s.connect()
		live, err := victim.SubscribeSync("gemini.>")
		if err != nil {
			t.Fatal(err)
		}
		liveDead, err := victim.SubscribeSync("gemini-dead.>")
		if err == nil {
			err = victim.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
			if _, err := js.CreateConsumer(t.Context(), stream, natsjs.ConsumerConfig{Durable: "c", AckPolicy: natsjs.AckExplicitPolicy, AckWait: time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		before := s.stored()
		replies := []string{
			"gemini.x", "gemini.batch.succeeded", "gemini-dead.x", "gemini.>", "gemini.*",
			"$JS.API.STREAM.PURGE.GEMINI", "$JS.API.STREAM.DELETE.GEMINI_DEAD", "$JS.API.STREAM.MSG.DELETE.GEMINI",
			"$JS.ACK.GEMINI.c.1.1.1.1.0", "$BRIDGE.API.CONSUMER.CREATE.GEMINI.f", "$SYS.REQ.SERVER.PING", "_R_.x.y", "_GR_.x", "refused.gemini.x",
			"$JS.API.CONSUMER.MSG.NEXT.GEMINI_DEAD.c", "$JS.API.DIRECT.GET.GEMINI", "$JS.API.INFO",
		}
		requests := map[string][]string{"$JS.API.INFO": {""}, "$JS.API.STREAM.NAMES": {""}, "$JS.API.STREAM.LIST": {""}}
		for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
			for subject, bodies := range map[string][]string{
				"$JS.API.STREAM.INFO.":             {""},
				"$JS.API.STREAM.MSG.GET.":          {`{"seq":1}`, `{"seq":99}`, "not JSON"},
				"$JS.API.CONSUMER.NAMES.":          {""},
				"$JS.API.CONSUMER.LIST.":           {""},
				"$JS.API.DIRECT.GET.":              {`{"seq":1}`, `{"seq":1,"batch":3}`, `{"multi_last":[">"]}`},
				"$JS.API.CONSUMER.CREATE.":         {`{"stream_name":"` + stream + `","config":{"ack_policy":"none"}}`},
				"$JS.API.CONSUMER.CREATE.!.n":      {`{"stream_name":"` + stream + `","config":{"name":"n","ack_policy":"none"}}`, "not JSON"},
				"$JS.API.CONSUMER.DURABLE.CREATE.": nil,
			} {
				full := strings.Replace(subject, "!", stream, 1)
				if full == subject {
					full += stream
				}
				requests[full] = bodies
			}
			requests["$JS.API.CONSUMER.DURABLE.CREATE."+stream+".d"] = []string{`{"stream_name":"` + stream + `","config":{"durable_name":"d","ack_policy":"none"}}`}
			requests["$JS.API.CONSUMER.INFO."+stream+".c"] = []string{""}
			requests["$JS.API.CONSUMER.DELETE."+stream+".n"] = []string{""}
			requests["$JS.API.CONSUMER.MSG.NEXT."+stream+".c"] = []string{"1", `{"batch":2,"no_wait":true}`, `{"batch":1,"expires":1000000000,"idle_heartbeat":200000000}`}
			requests["$JS.API.DIRECT.GET."+stream+".gemini.batch.succeeded"] = []string{""}
			requests["$JS.ACK."+stream+".c.1.1.1.1.0"] = []string{"+NXT", "+ACK", "+TERM gemini.x", `+NXT {"batch":3,"no_wait":true}`}
		}
		headers := []nats.Header{
			nil,
			{"Nats-Trace-Dest": {"gemini.x"}},
			{"Nats-Trace-Dest": {"gemini.x"}, "Nats-Trace-Only": {"1"}},
			{"Nats-Msg-Id": {"forged"}, "Nats-Expected-Stream": {"GEMINI"}},
		}
		for subject, bodies := range requests {
			for _, body := range bodies {
				for _, reply := range replies {
					for _, header := range headers {
						m := &nats.Msg{Subject: subject, Reply: reply, Header: header, Data: []byte(body)}
						if err := nc.PublishMsg(m); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		s.settle(nc, js)
		s.unchanged(before, "reply")
		for sub, want := range map[*nats.Subscription]string{live: "gemini.batch.succeeded last-reply", liveDead: "gemini-dead.batch.succeeded last-reply"} {
			m, err := sub.NextMsg(5 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Subject + " " + m.Header.Get("Nats-Msg-Id"); got != want {
				t.Errorf("a live subscriber got %s %.200s, want %s", got, m.Data, want)
			}
			if n, _, err := sub.Pending(); n != 0 || err != nil {
				t.Errorf("a live subscriber got %d more messages, %v", n, err)
			}
		}
	})
}

// settle returns when the server has worked off what the stranger sent before: its API's queue, the guard's,
// and what the consumers "c" had to deliver.
func (s *strangers) settle(nc *nats.Conn, js natsjs.JetStream) {
	s.t.Helper()
	ctx := ctxOf(s.t, 2*time.Minute)
	for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
		consumer, err := js.CreateConsumer(ctx, stream, natsjs.ConsumerConfig{AckPolicy: natsjs.AckExplicitPolicy})
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := consumer.Next(natsjs.FetchMaxWait(5 * time.Second)); err != nil {
			s.t.Fatal(err)
		}
		if _, err := js.Consumer(ctx, stream, "c"); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// A push consumer delivers within the bridge's account. With a live subscription to its deliver subject it
// would store what it delivers, so strangers get none in whatever way they ask.
func TestStrangersGetNoPushConsumers(t *testing.T) {
	strangersEach(t, func(t *testing.T, s *strangers) {
		nc, js, _ := s.connect()
		subjects := []string{"gemini.forged", "gemini-dead.forged", "_INBOX.forged"}
		subs := map[string]*nats.Subscription{}
		for _, subject := range subjects {
			sub, err := nc.SubscribeSync(subject)
			if err != nil {
				t.Fatal(err)
			}
			subs[subject] = sub
		}
		for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
			if _, err := js.CreateConsumer(t.Context(), stream, natsjs.ConsumerConfig{Durable: "c", AckPolicy: natsjs.AckExplicitPolicy}); err != nil {
				t.Fatal(err)
			}
		}
		before := s.stored()
		targets := append([]string{"$JS.API.STREAM.PURGE.GEMINI", "$JS.API.CONSUMER.MSG.NEXT.GEMINI.c", "$JS.API.DIRECT.GET.GEMINI"}, subjects...)
		for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
			for _, target := range targets {
				for name, body := range map[string]string{
					"plain":         `{"stream_name":"S","config":{"name":"p","ack_policy":"none","deliver_subject":"D"}}`,
					"in capitals":   `{"stream_name":"S","config":{"name":"p","ack_policy":"none","DELIVER_SUBJECT":"D"}}`,
					"escaped":       `{"stream_name":"S","config":{"name":"p","ack_policy":"none","deliver\u005fsubject":"D"}}`,
					"twice":         `{"stream_name":"S","config":{"name":"p","ack_policy":"none","deliver_subject":"","deliver_subject":"D"}}`,
					"config twice":  `{"stream_name":"S","config":{"name":"p","ack_policy":"none"},"config":{"deliver_subject":"D"}}`,
					"second value":  `{"stream_name":"S","config":{"name":"p","ack_policy":"none"}} {"config":{"deliver_subject":"D"}}`,
					"second value,": `{"stream_name":"S","config":{"name":"p","ack_policy":"none"}}{"config":{"deliver_subject":"D"}}x`,
					"direct":        `{"stream_name":"S","config":{"name":"p","ack_policy":"none","deliver_subject":"D","direct":true}}`,
					"sourcing":      `{"stream_name":"S","config":{"name":"p","ack_policy":"none","sourcing":true}}`,
					"flow control":  `{"stream_name":"S","config":{"name":"p","ack_policy":"flow_control","deliver_subject":"D","flow_control":true,"idle_heartbeat":1000000000,"max_ack_pending":10}}`,
					"group":         `{"stream_name":"S","config":{"name":"p","ack_policy":"none","deliver_subject":"D","deliver_group":"g"}}`,
					"unknown field": `{"stream_name":"S","config":{"name":"p","ack_policy":"none"},"x":1}`,
					"nothing":       ``,
				} {
					body = strings.ReplaceAll(strings.ReplaceAll(body, `"S"`, `"`+stream+`"`), `"D"`, `"`+target+`"`)
					for _, subject := range []string{"CONSUMER.CREATE." + stream + ".p", "CONSUMER.CREATE." + stream, "CONSUMER.DURABLE.CREATE." + stream + ".p"} {
						expectError(t, nc, name, "$JS.API."+subject, strings.ReplaceAll(body, `"name":"p"`, nameFor(subject)))
					}
				}
				expectError(t, nc, "update", "$JS.API.CONSUMER.CREATE."+stream+".c",
					`{"stream_name":"`+stream+`","action":"update","config":{"name":"c","durable_name":"c","ack_policy":"explicit","deliver_subject":"`+target+`"}}`)
			}
		}
		// The libraries' own ways.
		old, err := nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.SubscribeSync("gemini.>", nats.BindStream("GEMINI")); err == nil || !strings.Contains(err.Error(), "pull consumers only") {
			t.Errorf("push subscription: %v, want it to say that there are pull consumers only", err)
		}
		if _, err := js.CreatePushConsumer(t.Context(), "GEMINI_DEAD", natsjs.ConsumerConfig{DeliverSubject: "gemini.forged"}); err == nil {
			t.Error("a push consumer was made")
		}
		s.settle(nc, js)
		s.unchanged(before, "push")
		for subject, sub := range subs {
			if n, _, err := sub.Pending(); n != 0 || err != nil {
				t.Errorf("%d messages on %s, %v", n, subject, err)
			}
		}
	})
}

// nameFor fits the consumer's name to the form of the request, so that nothing else is wrong with it.
func nameFor(subject string) string {
	switch {
	case strings.Contains(subject, "DURABLE"):
		return `"durable_name":"p"`
	case strings.HasSuffix(subject, ".p"):
		return `"name":"p"`
	}
	return `"description":"none"`
}

func expectError(t *testing.T, nc *nats.Conn, name, subject, body string) {
	t.Helper()
	m, err := nc.Request(subject, []byte(body), 5*time.Second)
	if err != nil {
		t.Errorf("%s, %s: %v", name, subject, err)
		return
	}
	var answer struct {
		Error *struct{ Code, Err_code int }
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error == nil || answer.Error.Code != 400 {
		t.Errorf("%s, %s, was answered %s", name, subject, m.Data)
	}
}

// Strangers at their limits leave the bridge and its streams their place.
func TestStrangersLimits(t *testing.T) {
	s := newStrangers(t, "")
	nc, js, errs := s.connect()
	before := s.stored()
	var refused int
	for i := range 1001 {
		_, err := js.CreateConsumer(t.Context(), "GEMINI", natsjs.ConsumerConfig{Name: fmt.Sprint("c", i), AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, InactiveThreshold: time.Hour})
		if api := (&natsjs.APIError{}); errors.As(err, &api) && api.ErrorCode == 10026 {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused != 1 {
		t.Errorf("of 1001 consumers %d were refused, want 1", refused)
	}
	if _, err := js.CreateConsumer(t.Context(), "GEMINI_DEAD", natsjs.ConsumerConfig{}); err != nil {
		t.Errorf("the other stream has no place either: %v", err)
	}
	if size := nc.MaxPayload(); size != 64<<10 {
		t.Errorf("requests of %d bytes are allowed, want 64 KiB", size)
	}

	admitted := 1 // nc
	for range 512 {
		conn := rawEmbeddedConn(t, s.e)
		defer conn.Close()
		if !embeddedHandshake(conn, `{}`) {
			break
		}
		admitted++
	}
	if admitted != 512 {
		t.Errorf("%d connections of strangers were let in, want 512", admitted)
	}
	another, err := nats.Connect("", s.e.ConnOptions()...)
	if err != nil {
		t.Errorf("the bridge cannot connect: %v", err)
	} else {
		another.Close()
	}
	if len(errs) != 0 {
		t.Error(<-errs)
	}
	s.unchanged(before, "limits")
}
