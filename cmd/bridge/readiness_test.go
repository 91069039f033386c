package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// refused posts a delivery that is answered 503.
func (b *bridge) refused(t *testing.T, id string) {
	t.Helper()
	r := b.post(t, id, sample(t, "batch.succeeded"))
	if r.code != http.StatusServiceUnavailable || r.Error != "unavailable" || r.header.Get("Retry-After") == "" {
		t.Errorf("delivery %s: %v, Retry-After %q, want 503", id, r, r.header.Get("Retry-After"))
	}
}

// TestBrokerAway: the bridge starts without its broker, and survives it; without a journal it takes nothing meanwhile.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	url := broker.url()
	broker.stop()

	b := launch(t, remote(t, url, "BRIDGE_JOURNAL=off")).up(t)
	down := b.becomes(t, http.StatusServiceUnavailable, "BRIDGE_NATS_URL", strings.TrimPrefix(url, "nats://"))
	if down.Status != stateDown || len(down.Parts) != 2 || down.Parts[0].State != stateOK || down.Parts[1].State != stateDown {
		t.Errorf("%+v, want the bridge ok and nats down", down)
	}
	b.refused(t, "msg_1")
	b.sinkUp(t, 0)

	for _, id := range []string{"msg_1", "msg_2"} {
		broker.start(t)
		b.becomes(t, http.StatusOK)
		b.sinkUp(t, 1)
		b.must(t, "published", id, sample(t, "batch.succeeded"))
		b.must(t, "duplicate", id, sample(t, "batch.succeeded"))
		broker.stop()
		b.becomes(t, http.StatusServiceUnavailable, "nats", "down")
		b.sinkUp(t, 0)
		b.refused(t, "msg_2")
	}
	broker.start(t)
	b.becomes(t, http.StatusOK)
	consume(t, connect(t, url), "GEMINI", 2)
	if code := b.stop(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}

	// One line for each change, not for each attempt.
	if n := len(b.log.lines(`"level":"error"`)); n != 3 {
		t.Errorf("%d errors in the log, want one for each time that the broker was away:\n%s", n, strings.Join(b.log.lines(`"level":"error"`), "\n"))
	}
}

func (b *bridge) sinkUp(t *testing.T, want float64) {
	t.Helper()
	if got := b.metrics(t)[`bridge_sink_up{sink="nats"}`]; got != want {
		t.Errorf("bridge_sink_up %v, want %v", got, want)
	}
}

// TestWrongCredentials: what is wrong is named, what is secret is not.
func TestWrongCredentials(t *testing.T) {
	for _, c := range []struct {
		name           string
		change         func(*server.Options)
		environ, names []string
	}{
		{
			"password", func(o *server.Options) { o.Username, o.Password = "bridge", "another" },
			[]string{"BRIDGE_NATS_USER=bridge", "BRIDGE_NATS_PASSWORD=" + natsPassword},
			[]string{"BRIDGE_NATS_PASSWORD"},
		},
		{
			"token", func(o *server.Options) { o.Authorization = "another" },
			[]string{"BRIDGE_NATS_TOKEN=" + natsToken},
			[]string{"BRIDGE_NATS_TOKEN"},
		},
		{"none", func(o *server.Options) { o.Authorization = "another" }, nil, []string{"BRIDGE_NATS_TOKEN", "BRIDGE_NATS_CREDS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := launch(t, remote(t, startBroker(t, c.change).url(), append(c.environ, "BRIDGE_JOURNAL=off")...)).up(t)
			b.becomes(t, http.StatusServiceUnavailable, c.names...)
			b.refused(t, "msg_1")
			b.log.line(t, append(c.names, `"level":"error"`)...)
			r, err := b.get(b.admin + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			assertNoSecret(t, r.text+b.log.String())
		})
	}
}

// TestDegraded: a stream that somebody made otherwise is used as it is, and the command that mends it works.
func TestDegraded(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	js := connect(t, broker.url())
	cfg := jetstream.StreamConfig{Name: "GEMINI", Subjects: []string{"gemini.>"}, Duplicates: time.Minute, MaxAge: 168 * time.Hour}
	if _, err := js.CreateStream(soon(t), cfg); err != nil {
		t.Fatal(err)
	}
	b := launch(t, remote(t, broker.url())).up(t)
	const mend = "nats stream edit GEMINI --dupe-window=25h"
	got := b.becomes(t, http.StatusOK, mend)
	if got.Status != stateDegraded || got.Parts[1].Name != "nats" || got.Parts[1].State != stateDegraded || len(got.Parts[1].Detail) != 1 {
		t.Errorf("%+v, want nats degraded for one reason", got)
	}
	b.log.line(t, `"level":"warn"`, mend)
	b.sinkUp(t, 1)
	b.must(t, "published", "msg_1", sample(t, "batch.succeeded"))

	stream, err := js.Stream(soon(t), "GEMINI")
	if err != nil {
		t.Fatal(err)
	}
	if window := stream.CachedInfo().Config.Duplicates; window != time.Minute {
		t.Errorf("the bridge altered the stream: window %v", window)
	}
	cfg.Duplicates = 25 * time.Hour
	if _, err := js.UpdateStream(soon(t), cfg); err != nil {
		t.Fatal(err)
	}
	if got := b.becomes(t, http.StatusOK); got.Status != stateOK {
		t.Errorf("mended, and still %+v", got)
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	b := launch(t, local(t)).up(t)
	b.becomes(t, http.StatusOK)
	public := strings.TrimSuffix(b.url, "/webhooks/gemini")
	for _, c := range []struct {
		method, url, contentType string
		code                     int
		text                     string // exactly, unless empty
	}{
		{"GET", b.admin + "/healthz", "text/plain; charset=utf-8", 200, "ok\n"},
		{"HEAD", b.admin + "/healthz", "text/plain; charset=utf-8", 200, ""},
		{"GET", b.admin + "/readyz", "application/json", 200, `{"status":"ok","parts":[{"name":"bridge","state":"ok"},{"name":"nats","state":"ok"}]}` + "\n"},
		{"GET", b.admin + "/metrics", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", 200, ""},
		{"POST", b.admin + "/readyz", "text/plain; charset=utf-8", 405, ""},
		{"GET", b.admin + "/", "text/plain; charset=utf-8", 404, ""},
		{"POST", b.admin + "/webhooks/gemini", "text/plain; charset=utf-8", 404, ""},
		{"GET", public + "/healthz", "application/json", 404, ""},
		{"GET", public + "/readyz", "application/json", 404, ""},
		{"GET", public + "/metrics", "application/json", 404, ""},
		{"GET", public + "/debug/pprof/", "application/json", 404, ""},
		{"GET", b.admin + "/debug/pprof/", "text/plain; charset=utf-8", 404, ""},
		{"GET", public + "/", "application/json", 404, ""},
		{"GET", b.url, "application/json", 405, ""},
	} {
		request, err := http.NewRequest(c.method, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := b.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text := readBody(t, response)
		if response.StatusCode != c.code || response.Header.Get("Content-Type") != c.contentType || c.text != "" && text != c.text {
			t.Errorf("%s %s: %d %s %q, want %d %s %q", c.method, c.url, response.StatusCode, response.Header.Get("Content-Type"), text, c.code, c.contentType, c.text)
		}
	}
}
