package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/schemas"
)

// metrics are the series of /metrics with their values, as "name{label="value"}".
func (b *bridge) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	r, err := b.get(b.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(r.text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all[line[:end]] = value
	}
	return all
}

// TestMetrics: a scripted run, and what every series says of it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	js := connect(t, broker.url())
	if _, err := js.CreateStream(soon(t), jetstream.StreamConfig{
		Name: "GEMINI", Subjects: []string{"gemini.>"}, Duplicates: 25 * time.Hour, MaxAge: 168 * time.Hour, MaxMsgSize: 8 << 10,
	}); err != nil {
		t.Fatal(err)
	}
	secrets := writeFile(t, signingSecret+"\n"+oldSecret+"\n")
	b := launch(t, byFile(secrets, remote(t, broker.url(),
		"BRIDGE_ON_UNKNOWN=dead-letter", "BRIDGE_MAX_BODY=16KiB"))).up(t)
	b.connected(t)
	documented(t, b.metrics(t), "before the first delivery")

	began := time.Now()
	body := sample(t, "batch.succeeded")
	for _, d := range []struct{ status, id, body string }{
		{"published", "msg_1", body},
		{"published", "msg_2", body},
		{"published", "msg_3", sample(t, "interaction.failed")},
		{"duplicate", "msg_1", body},
		{"duplicate", "msg_3", sample(t, "interaction.failed")},
		{"dead-lettered", "msg_4", `{"type":"batch.failed"}`},
		{"dead-lettered", "msg_5", `[`},
		{"duplicate", "msg_5", `[`},
		{"dead-lettered", "msg_6", `{"type":"no.such","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"1"}}`},
		{"dead-lettered", "msg_7", strings.Replace(body, "{", `{"large":"`+strings.Repeat("l", 9<<10)+`",`, 1)},
	} {
		b.must(t, d.status, d.id, d.body)
	}
	b.secret = oldSecret
	b.must(t, "published", "msg_8", sample(t, "video.generated"))
	b.secret = signingSecret
	for _, wrong := range []struct {
		code   int
		error  string
		change func(*http.Request)
	}{
		{401, "unauthenticated", func(r *http.Request) { r.Header.Del("Webhook-Signature") }},
		{401, "unauthenticated", func(r *http.Request) { r.Header.Set("Webhook-Id", "msg_another") }},
		{401, "unauthenticated", func(r *http.Request) { r.Header.Set("Webhook-Id", "msg_one_more") }},
		{401, "unauthenticated", func(r *http.Request) { r.Header.Add("Webhook-Id", "msg_second") }},
		{401, "unauthenticated", func(r *http.Request) { r.Header.Set("Webhook-Timestamp", "1700000000") }},
		{401, "unauthenticated", func(r *http.Request) { r.URL.Path += "/token" }},
		{404, "not_found", func(r *http.Request) { r.URL.Path = "/" }},
		{405, "method_not_allowed", func(r *http.Request) { r.Method = http.MethodPut }},
		{413, "too_large", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat(" ", 16<<10+1))), 16<<10+1
		}},
		{415, "unsupported_encoding", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }},
	} {
		request, err := signed(b.url, b.secret, "msg_wrong", body)
		if err != nil {
			t.Fatal(err)
		}
		wrong.change(request)
		if r, err := ask(b.client, request); err != nil || r.code != wrong.code || r.Error != wrong.error {
			t.Errorf("%v, %v, want %d %s", r, err, wrong.code, wrong.error)
		}
	}
	b.hangUp(t, body)
	broker.stop()
	b.becomes(t, http.StatusOK, "events are spooled")
	b.must(t, "spooled", "msg_9", body)
	ended := time.Now()
	b.failReloads(t, secrets, 1)

	want := map[string]float64{
		`bridge_deliveries_total{result="published",type="batch.succeeded"}`:                 2,
		`bridge_deliveries_total{result="published",type="interaction.failed"}`:              1,
		`bridge_deliveries_total{result="published",type="video.generated"}`:                 1,
		`bridge_deliveries_total{result="duplicate",type="batch.succeeded"}`:                 1,
		`bridge_deliveries_total{result="duplicate",type="interaction.failed"}`:              1,
		`bridge_deliveries_total{result="duplicate",type="other"}`:                           1,
		`bridge_deliveries_total{result="dead-lettered",type="batch.failed"}`:                1,
		`bridge_deliveries_total{result="dead-lettered",type="batch.succeeded"}`:             1,
		`bridge_deliveries_total{result="dead-lettered",type="other"}`:                       2,
		`bridge_deliveries_total{result="unauthenticated",type="other"}`:                     6,
		`bridge_deliveries_total{result="not_found",type="other"}`:                           1,
		`bridge_deliveries_total{result="method_not_allowed",type="other"}`:                  1,
		`bridge_deliveries_total{result="too_large",type="other"}`:                           1,
		`bridge_deliveries_total{result="unsupported_encoding",type="other"}`:                1,
		`bridge_deliveries_total{result="bad_request",type="other"}`:                         1,
		`bridge_deliveries_total{result="spooled",type="batch.succeeded"}`:                   1,
		`bridge_verified_total{key="LaSw",scheme="v1"}`:                                      11,
		`bridge_verified_total{key="b2xk",scheme="v1"}`:                                      1,
		`bridge_verify_failures_total{reason="header_missing"}`:                              1,
		`bridge_verify_failures_total{reason="header_repeated"}`:                             1,
		`bridge_verify_failures_total{reason="signature_mismatch"}`:                          2,
		`bridge_verify_failures_total{reason="timestamp_too_old"}`:                           1,
		`bridge_verify_failures_total{reason="token_unknown"}`:                               1,
		`bridge_dead_letters_total{reason="invalid_event"}`:                                  2,
		`bridge_dead_letters_total{reason="unknown_type"}`:                                   1,
		`bridge_dead_letters_total{reason="refused_by_sink"}`:                                1,
		`bridge_request_seconds_count`:                                                       23,
		`bridge_inflight`:                                                                    0,
		`bridge_unverified_bytes`:                                                            0,
		`bridge_journal_waiting{sink="nats"}`:                                                1,
		`bridge_journal_kept{sink="nats"}`:                                                   8,
		`bridge_journal_quarantined_total{sink="nats"}`:                                      0,
		`bridge_journal_keep_cut_total{sink="nats"}`:                                         0,
		`bridge_sink_up{sink="nats"}`:                                                        0,
		`bridge_file_reload_failures_total{file="BRIDGE_SIGNING_SECRETS_FILE"}`:              1,
		`bridge_build_info{goversion="` + runtime.Version() + `",version="` + version + `"}`: 1,
	}
	delivered := []string{"batch.succeeded", "interaction.failed", "video.generated", "batch.failed", "other"}
	got := b.metrics(t)
	for series, value := range got {
		switch {
		case !strings.HasPrefix(series, "bridge_"), strings.Contains(series, "_bucket"), strings.Contains(series, "_sum"):
		case strings.HasPrefix(series, "bridge_last_delivery_timestamp_seconds"):
			_, typ, _ := strings.Cut(series, `"`)
			inTime := value >= float64(began.Unix()) && value <= float64(ended.Unix()+1)
			if slices.Contains(delivered, strings.TrimSuffix(typ, `"}`)) != inTime || !inTime && value != 0 {
				t.Errorf("%s %v", series, value)
			}
		case strings.HasPrefix(series, "bridge_journal_bytes"), strings.HasPrefix(series, "bridge_journal_oldest_waiting_seconds"):
			if value <= 0 {
				t.Errorf("%s %v", series, value)
			}
		case series == `bridge_publish_seconds_count{sink="nats"}`:
			if value < 13 { // msg_7 takes two, and msg_9 is tried again and again
				t.Errorf("%s %v", series, value)
			}
		case value != want[series]:
			t.Errorf("%s %v, want %v", series, value, want[series])
		}
	}
	for series := range want {
		if _, there := got[series]; !there {
			t.Errorf("no %s", series)
		}
	}
	if n := strings.Count(fmt.Sprint(got), "bridge_last_delivery_timestamp_seconds"); n != len(schemas.Types())+1 {
		t.Errorf("%d types have a last delivery", n)
	}
	documented(t, got, "in the end")
	logged(t, b.log)
}

// hangUp sends half of a delivery and no more.
func (b *bridge) hangUp(t *testing.T, body string) {
	t.Helper()
	s := b.begin(t, "msg_half", body)
	if err := s.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(s.conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := readBody(t, response); response.StatusCode != http.StatusBadRequest {
		t.Errorf("half a delivery: %d %s", response.StatusCode, text)
	}
}

var (
	documentedSeries = regexp.MustCompile("(?m)^\\| `(bridge_[a-z_]+)(?:\\{([a-z,]+)\\})?` \\|")
	label            = regexp.MustCompile(`([a-z]+)="`)
)

// documented compares the series with docs/operations.md: their names, and the names of their labels.
func documented(t *testing.T, metrics map[string]float64, when string) {
	t.Helper()
	want := map[string]string{}
	for _, m := range documentedSeries.FindAllStringSubmatch(readFile(t, operations), -1) {
		labels := strings.Split(m[2], ",")
		slices.Sort(labels)
		want[m[1]] = strings.Join(labels, ",")
	}
	if len(want) == 0 {
		t.Fatal(operations + " documents no series")
	}
	delete(want, "bridge_dedup_entries") // Kafka's
	got := map[string]string{}
	for series := range metrics {
		name, rest, _ := strings.Cut(series, "{")
		if !strings.HasPrefix(name, "bridge_") || strings.HasSuffix(name, "_bucket") {
			continue
		}
		var labels []string
		for _, m := range label.FindAllStringSubmatch(rest, -1) {
			labels = append(labels, m[1])
		}
		slices.Sort(labels)
		got[strings.TrimSuffix(strings.TrimSuffix(name, "_count"), "_sum")] = strings.Join(labels, ",")
	}
	for name, labels := range got {
		if documented, ok := want[name]; !ok || documented != labels {
			t.Errorf("%s: %s{%s} is not in docs/operations.md, which has {%s}", when, name, labels, documented)
		}
	}
	for name := range want {
		// Keys come with the secrets, so there is none before the first delivery.
		if _, ok := got[name]; !ok && name != "bridge_verified_total" {
			t.Errorf("%s: %s is in docs/operations.md and not in /metrics", when, name)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
