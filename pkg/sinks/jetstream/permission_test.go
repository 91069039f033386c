package jetstream_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// permitted starts a broker with an admin who may do everything, and a sink of a user with the permissions.
func permitted(t *testing.T, p server.Permissions, withStreams bool) (*jetstream.Sink, *logs) {
	t.Helper()
	b := startBroker(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "admin", Password: "admin"}, {Username: "joe", Password: "joe", Permissions: &p}}
	})
	if withStreams {
		js := b.admin(t, nats.UserInfo("admin", "admin"))
		for name, subject := range map[string]string{"GEMINI": "gemini.>", "GEMINI_DEAD": "gemini-dead.>"} {
			cfg := good()
			cfg.Name, cfg.Subjects = name, []string{subject}
			if _, err := js.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
	}
	return openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), User: "joe", Password: secret.New("joe")}})
}

// TestSubjectNotPermitted: the publisher hears of it at once, and others go on.
func TestSubjectNotPermitted(t *testing.T) {
	s, l := permitted(t, server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"gemini.secret.>"}}}, true)
	eventuallyReady(t, s)
	ctx := ctxOf(t, time.Minute)
	for range 2 {
		e := sinkstest.Event(1)
		e.Name = "secret.thing"
		_, err := s.Publish(ctx, e)
		if !isRefused(err) || !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), "gemini.secret.thing") {
			t.Errorf("Publish: %v, want a RefusedError that names the subject", err)
		}
	}
	if ctx.Err() != nil {
		t.Error("told at the deadline only")
	}
	publish(t, s, 2)
	want := []string{"the user may not publish to gemini.secret.thing: allow publishing to gemini.> and gemini-dead.>"}
	if d, ok := errors.AsType[*sinks.DegradedError](ready(t, s)); !ok || !slices.Equal(d.Details, want) {
		t.Errorf("Ready: %v, want %v", d, want)
	}
	if n := l.count("does not permit publishing to gemini.secret.thing"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, l)
	}
}

// TestLeastPrivilege: a user who may only publish works with streams that others made; it cannot look at them.
func TestLeastPrivilege(t *testing.T) {
	s, _ := permitted(t, server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"gemini.>", "gemini-dead.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}, true)
	want := []string{
		"stream GEMINI cannot be looked at: allow the user to publish to $JS.API.STREAM.INFO.GEMINI",
		"stream GEMINI_DEAD cannot be looked at: allow the user to publish to $JS.API.STREAM.INFO.GEMINI_DEAD",
	}
	eventuallyDown(t, s, want...)
	if d, ok := errors.AsType[*sinks.DegradedError](ready(t, s)); !ok || !slices.Equal(d.Details, want) {
		t.Errorf("Ready: %v, want %v", d, want)
	}
	publish(t, s, 1)
}

// TestMayNotCreate: the streams are missing and the user may not make them.
func TestMayNotCreate(t *testing.T) {
	s, _ := permitted(t, server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{"gemini.>", "gemini-dead.>", "$JS.API.STREAM.INFO.*"}},
	}, false)
	eventuallyDown(t, s, "stream GEMINI is missing: allow the user to publish to $JS.API.STREAM.CREATE.GEMINI, or run: nats stream add GEMINI "+
		"--subjects='gemini.>' --storage=file --retention=limits --discard=new --max-age=168h --dupe-window=25h --replicas=1 --defaults")
	if _, err := s.Publish(ctxOf(t, time.Minute), sinkstest.Event(1)); err == nil || isRefused(err) || errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("Publish: %v, want a not now", err)
	}
}

// TestNoInbox: without answers every publish would be unknown, so nothing is sent.
func TestNoInbox(t *testing.T) {
	s, l := permitted(t, server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}, true)
	eventuallyDown(t, s, "allow the user to subscribe to _INBOX.>")
	if _, err := s.Publish(ctxOf(t, time.Minute), sinkstest.Event(1)); err == nil || isRefused(err) || errors.Is(err, sinks.ErrUnknown) {
		t.Errorf("Publish: %v, want a not now", err)
	}
	if n := l.count("does not permit subscribing"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, l)
	}
}

// TestMayNotAsk: a broker that does not let us look at what it has must be taken for one that has lost it.
func TestMayNotAsk(t *testing.T) {
	for _, subject := range []string{"$JS.API.STREAM.INFO.GEMINI", "$JS.API.STREAM.MSG.GET.GEMINI"} {
		b := startBroker(t, func(o *server.Options) {
			o.Users = []*server.User{{Username: "joe", Password: "joe", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{subject}},
			}}, {Username: "admin", Password: "admin"}}
		})
		for name, subject := range map[string]string{"GEMINI": "gemini.>", "GEMINI_DEAD": "gemini-dead.>"} {
			cfg := good()
			cfg.Name, cfg.Subjects = name, []string{subject}
			if _, err := b.admin(t, nats.UserInfo("admin", "admin")).CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		f := &forgetful{}
		f.Sink, f.log = openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), User: "joe", Password: secret.New("joe")}})
		f.OnForgotten(func() { f.calls.Add(1) })
		eventuallyAccepting(t, f.Sink)
		publish(t, f.Sink, 0)
		b.stop(t)
		b.start(t)
		eventuallyAccepting(t, f.Sink)
		publish(t, f.Sink, 1)
		if f.calls.Load() != 1 || f.log.count("allow the user to publish to "+subject) == 0 {
			t.Errorf("told %d times, want once, naming %s:\n%s", f.calls.Load(), subject, f.log)
		}
	}
}
