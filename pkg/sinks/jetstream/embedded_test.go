package jetstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

const embeddedTestToken = "a token for consumers"

func embeddedConfig(dir string) jetstream.EmbeddedConfig {
	return jetstream.EmbeddedConfig{Dir: dir, Addr: "127.0.0.1:0", Prefix: "gemini", Stream: "GEMINI"}
}

// startEmbeddedServer starts a server that the test's end closes.
func startEmbeddedServer(t *testing.T, cfg jetstream.EmbeddedConfig) *jetstream.Embedded {
	t.Helper()
	e, err := jetstream.StartEmbedded(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeEmbedded(t, e) })
	return e
}

func closeEmbedded(t *testing.T, e *jetstream.Embedded) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
}

// embeddedBridge connects as the bridge does.
func embeddedBridge(t *testing.T, e *jetstream.Embedded) (*nats.Conn, natsjs.JetStream) {
	t.Helper()
	nc, err := nats.Connect("", e.ConnOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc, natsjs.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// makeEmbeddedStreams makes both streams; messages of the first can be read directly.
func makeEmbeddedStreams(t *testing.T, js natsjs.JetStream) {
	t.Helper()
	for _, cfg := range []natsjs.StreamConfig{
		{Name: "GEMINI", Subjects: []string{"gemini.>"}, Duplicates: 25 * time.Hour, AllowDirect: true},
		{Name: "GEMINI_DEAD", Subjects: []string{"gemini-dead.>"}, Duplicates: 25 * time.Hour},
	} {
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
}

func embeddedPublish(t *testing.T, js natsjs.JetStream, subject, id, body string) *natsjs.PubAck {
	t.Helper()
	ack, err := js.Publish(t.Context(), subject, []byte(body), natsjs.WithMsgID(id))
	if err != nil {
		t.Fatal(err)
	}
	return ack
}

func TestEmbeddedServesAndCloses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "nats")
	e := startEmbeddedServer(t, embeddedConfig(dir))
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("store directory: %v, %v, want mode 0700", info, err)
	}
	if err := e.Healthy(); err != nil {
		t.Errorf("Healthy: %v", err)
	}
	if url := e.ClientURL(); !strings.HasPrefix(url, "nats://127.0.0.1:") || strings.HasSuffix(url, ":0") {
		t.Errorf("ClientURL %q", url)
	}
	_, js := embeddedBridge(t, e)
	makeEmbeddedStreams(t, js)
	if ack := embeddedPublish(t, js, "gemini.batch.succeeded", "1", "x"); ack.Stream != "GEMINI" || ack.Sequence != 1 {
		t.Errorf("ack %+v", ack)
	}
	if _, err := js.Publish(t.Context(), "gemini.big", make([]byte, 1<<20+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("1 MiB and a byte: %v, want %v", err, nats.ErrMaxPayload)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Close(ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Close with a context that has ended: %v", err)
	}
	closeEmbedded(t, e)
	closeEmbedded(t, e)
	if err := e.Healthy(); err == nil {
		t.Error("healthy after Close")
	}
	if url := e.ClientURL(); url != "" {
		t.Errorf("ClientURL after Close: %q", url)
	}
	if _, err := nats.Connect("", e.ConnOptions()...); err == nil {
		t.Error("connected after Close")
	}
}

func TestEmbeddedMaxPayload(t *testing.T) {
	cfg := embeddedConfig(t.TempDir())
	cfg.MaxPayload = 2 << 20
	_, js := embeddedBridge(t, startEmbeddedServer(t, cfg))
	makeEmbeddedStreams(t, js)
	embeddedPublish(t, js, "gemini.big", "1", strings.Repeat("x", 2<<20-100))
}

func TestEmbeddedClientURL(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:4222": "nats://127.0.0.1:4222",
		"0.0.0.0:4222":   "nats://127.0.0.1:4222",
		"[::]:4222":      "nats://127.0.0.1:4222",
		"[::1]:4222":     "nats://[::1]:4222",
		"192.0.2.7:4333": "nats://192.0.2.7:4333",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := jetstream.ClientURL(tcp); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

func TestEmbeddedStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const tokenSetting = "BRIDGE_NATS_EMBEDDED_TOKEN"
	const addrSetting = "BRIDGE_NATS_EMBEDDED_ADDR"
	for name, test := range map[string]struct {
		change func(*jetstream.EmbeddedConfig)
		want   string
		is     error
	}{
		"all IPv4 addresses":   {func(c *jetstream.EmbeddedConfig) { c.Addr = "0.0.0.0:0" }, tokenSetting, nil},
		"all IPv6 addresses":   {func(c *jetstream.EmbeddedConfig) { c.Addr = "[::]:0" }, tokenSetting, nil},
		"no host":              {func(c *jetstream.EmbeddedConfig) { c.Addr = ":0" }, tokenSetting, nil},
		"a host name":          {func(c *jetstream.EmbeddedConfig) { c.Addr = "localhost.example.com:0" }, tokenSetting, nil},
		"another address":      {func(c *jetstream.EmbeddedConfig) { c.Addr = "192.0.2.1:0" }, tokenSetting, nil},
		"mapped IPv4":          {func(c *jetstream.EmbeddedConfig) { c.Addr = "[::ffff:192.0.2.1]:0" }, tokenSetting, nil},
		"a number for an IP":   {func(c *jetstream.EmbeddedConfig) { c.Addr = "0:0" }, tokenSetting, nil},
		"no port":              {func(c *jetstream.EmbeddedConfig) { c.Addr = "127.0.0.1" }, addrSetting, nil},
		"a port by name":       {func(c *jetstream.EmbeddedConfig) { c.Addr = "127.0.0.1:nats" }, addrSetting, nil},
		"a port too high":      {func(c *jetstream.EmbeddedConfig) { c.Addr = "127.0.0.1:65536" }, addrSetting, nil},
		"no address":           {func(c *jetstream.EmbeddedConfig) { c.Addr = "" }, addrSetting, nil},
		"address in use":       {func(c *jetstream.EmbeddedConfig) { c.Addr = taken.Addr().String() }, addrSetting, syscall.EADDRINUSE},
		"directory is a file":  {func(c *jetstream.EmbeddedConfig) { c.Dir = file }, "BRIDGE_DATA_DIR", syscall.ENOTDIR},
		"directory in a file":  {func(c *jetstream.EmbeddedConfig) { c.Dir = filepath.Join(file, "x") }, "BRIDGE_DATA_DIR", syscall.ENOTDIR},
		"no prefix":            {func(c *jetstream.EmbeddedConfig) { c.Prefix = "" }, "BRIDGE_NATS_SUBJECT_PREFIX", nil},
		"a prefix of all":      {func(c *jetstream.EmbeddedConfig) { c.Prefix = ">" }, "BRIDGE_NATS_SUBJECT_PREFIX", nil},
		"the API for a prefix": {func(c *jetstream.EmbeddedConfig) { c.Prefix = "$JS.API" }, "BRIDGE_NATS_SUBJECT_PREFIX", nil},
		"inboxes for a prefix": {func(c *jetstream.EmbeddedConfig) { c.Prefix = "_INBOX" }, "BRIDGE_NATS_SUBJECT_PREFIX", nil},
		"text in a prefix":     {func(c *jetstream.EmbeddedConfig) { c.Prefix = "a\"}]}" }, "BRIDGE_NATS_SUBJECT_PREFIX", nil},
		"a stream of all":      {func(c *jetstream.EmbeddedConfig) { c.Stream = "*" }, "BRIDGE_NATS_STREAM", nil},
		"no stream":            {func(c *jetstream.EmbeddedConfig) { c.Stream = "" }, "BRIDGE_NATS_STREAM", nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := embeddedConfig(filepath.Join(t.TempDir(), "store"))
			dir := cfg.Dir
			test.change(&cfg)
			e, err := jetstream.StartEmbedded(cfg)
			if err == nil {
				closeEmbedded(t, e)
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to name %s", err, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %v", err, test.is)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the store was touched: %v", err)
			}
		})
	}
}

func TestEmbeddedLoopback(t *testing.T) {
	addrs := []string{"127.0.0.1:0", "localhost:0"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // not every machine has IPv6
		l.Close()
		addrs = append(addrs, "[::1]:0")
	}
	for _, addr := range addrs {
		cfg := embeddedConfig(t.TempDir())
		cfg.Addr = addr
		e := startEmbeddedServer(t, cfg)
		nc, err := nats.Connect(e.ClientURL())
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		nc.Close()
	}
}

// Two bridges on one machine: the second learns which setting to change, and does not touch the first's streams.
func TestEmbeddedTwice(t *testing.T) {
	first := startEmbeddedServer(t, embeddedConfig(t.TempDir()))
	cfg := embeddedConfig(t.TempDir())
	cfg.Addr = strings.TrimPrefix(first.ClientURL(), "nats://")
	second, err := jetstream.StartEmbedded(cfg)
	if err == nil {
		closeEmbedded(t, second)
		t.Fatal("both have started")
	}
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "BRIDGE_NATS_EMBEDDED_ADDR") {
		t.Errorf("got %q", err)
	}
	if err := first.Healthy(); err != nil {
		t.Error(err)
	}
	_, js := embeddedBridge(t, first)
	makeEmbeddedStreams(t, js)
	embeddedPublish(t, js, "gemini.a", "1", "x")
}

func TestEmbeddedStoreCannotOpen(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := jetstream.StartEmbedded(embeddedConfig(dir))
	if err == nil {
		closeEmbedded(t, e)
		t.Fatal("started")
	}
	if want := "storage directory is not a directory"; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "BRIDGE_DATA_DIR") {
		t.Errorf("got %q, want it to say %q and name BRIDGE_DATA_DIR", err, want)
	}
}

// A stream that is there but cannot be read must not be taken for missing and made anew.
func TestEmbeddedRefusesDamagedStream(t *testing.T) {
	dir := t.TempDir()
	e := startEmbeddedServer(t, embeddedConfig(dir))
	_, js := embeddedBridge(t, e)
	makeEmbeddedStreams(t, js)
	embeddedPublish(t, js, "gemini.a", "1", "x")
	closeEmbedded(t, e)
	meta, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "GEMINI", "meta.inf"))
	if err != nil || len(meta) != 1 {
		t.Fatal(meta, err)
	}
	if err := os.WriteFile(meta[0], []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := jetstream.StartEmbedded(embeddedConfig(dir))
	if err == nil {
		closeEmbedded(t, again)
		t.Fatal("started")
	}
	if want := "'BRIDGE > GEMINI' could not be recovered"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want it to say %q", err, want)
	}
}

// Credentials, as the CONNECT line of the protocol has them, over TCP.
func TestEmbeddedCredentials(t *testing.T) {
	for _, token := range []string{"", embeddedTestToken} {
		t.Run(fmt.Sprintf("token %q", token), func(t *testing.T) {
			cfg := embeddedConfig(t.TempDir())
			cfg.Token = secret.New(token)
			e := startEmbeddedServer(t, cfg)
			var own nats.Options
			for _, option := range e.ConnOptions() {
				if err := option(&own); err != nil {
					t.Fatal(err)
				}
			}
			open, closed := token == "", token != ""
			for _, test := range []struct {
				connect string
				want    bool
			}{
				{`{}`, open},
				{`{"auth_token":""}`, open},
				{`{"user":"","pass":""}`, open},
				{`{"auth_token":"` + embeddedTestToken + `"}`, closed},
				{`{"auth_token":"` + embeddedTestToken + ` "}`, false},
				{`{"auth_token":"a token for consumer"}`, false},
				{`{"auth_token":"wrong"}`, false},
				{`{"user":"` + embeddedTestToken + `"}`, false},
				{`{"pass":"` + embeddedTestToken + `"}`, false},
				{`{"user":"consumer"}`, false},
				{`{"user":"consumer","pass":""}`, false},
				{`{"user":"consumer","auth_token":"` + embeddedTestToken + `"}`, false},
				{`{"user":"bridge"}`, false},
				{`{"user":"bridge","pass":""}`, false},
				{`{"user":"bridge","pass":"bridge"}`, false},
				{`{"user":"bridge","auth_token":"` + embeddedTestToken + `"}`, false},
				{`{"user":"bridge","pass":"` + embeddedTestToken + `"}`, false},
				{`{"user":"bridge","pass":"` + own.Password + `"}`, false},
				{`{"user":"sys","pass":""}`, false},
				{`{"user":"$SYS"}`, false},
				{`{"nkey":"UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"}`, false},
				{`{"jwt":"eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.AA"}`, open}, // the server itself drops it
			} {
				if got := embeddedAdmits(t, e, test.connect); got != test.want {
					t.Errorf("CONNECT %s: let in %t, want %t", strings.ReplaceAll(test.connect, own.Password, "…"), got, test.want)
				}
			}

			for connect, want := range map[string]bool{
				`{"user":"bridge","pass":"` + own.Password + `"}`: true,
				`{}`:                                                false,
				`{"user":"bridge"}`:                                 false,
				`{"user":"bridge","pass":""}`:                       false,
				`{"user":"bridge","pass":"wrong"}`:                  false,
				`{"pass":"` + own.Password + `"}`:                   false,
				`{"user":"consumer","pass":""}`:                     false,
				`{"auth_token":"` + embeddedTestToken + `"}`:        false,
				`{"user":"consumer","pass":"` + own.Password + `"}`: false,
			} {
				conn, err := own.InProcessServer.InProcessConn()
				if err != nil {
					t.Fatal(err)
				}
				if got := embeddedHandshake(conn, connect); got != want {
					t.Errorf("in process, CONNECT %s: let in %t, want %t", strings.ReplaceAll(connect, own.Password, "…"), got, want)
				}
				conn.Close()
			}
		})
	}
}

// embeddedAdmits speaks the protocol itself: client libraries correct what they are given.
func embeddedAdmits(t *testing.T, e *jetstream.Embedded, connect string) bool {
	t.Helper()
	conn := rawEmbeddedConn(t, e)
	defer conn.Close()
	return embeddedHandshake(conn, connect)
}

func rawEmbeddedConn(t *testing.T, e *jetstream.Embedded) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func embeddedHandshake(conn net.Conn, connect string) bool {
	lines := bufio.NewReader(conn)
	if _, err := lines.ReadString('\n'); err != nil { // INFO
		return false
	}
	var sent sync.WaitGroup
	defer sent.Wait()
	// A pipe has no buffer: one side must read while the other writes.
	sent.Go(func() { fmt.Fprintf(conn, "CONNECT %s\r\nPING\r\n", connect) })
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil, strings.HasPrefix(line, "-ERR"):
			conn.Close()
			return false
		case strings.HasPrefix(line, "PONG"):
			return true
		}
	}
}

// Clients that ask the server whether it wants credentials must not be told so without need.
func TestEmbeddedAuthRequired(t *testing.T) {
	for _, token := range []string{"", embeddedTestToken} {
		cfg := embeddedConfig(t.TempDir())
		cfg.Token = secret.New(token)
		conn := rawEmbeddedConn(t, startEmbeddedServer(t, cfg))
		info, err := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Contains(info, `"auth_required":true`), token != ""; got != want {
			t.Errorf("token %q: auth_required %t, want %t", token, got, want)
		}
	}
}

func TestEmbeddedLog(t *testing.T) {
	var out lockedBuffer
	cfg := embeddedConfig(t.TempDir())
	cfg.Token = secret.New(embeddedTestToken)
	cfg.Log = zerolog.New(&out).Level(zerolog.DebugLevel)
	e := startEmbeddedServer(t, cfg)
	for range 50 {
		embeddedAdmits(t, e, `{"auth_token":"wrong-token"}`)
	}
	closeEmbedded(t, e)
	text := out.String()
	if !strings.Contains(text, `{"level":"debug","message":"Server is ready"}`) {
		t.Errorf("no notices at debug level:\n%s", text)
	}
	// One consumer's trouble is no error of the bridge, and it cannot fill the log with it.
	if n := strings.Count(text, `"level":"warn"`); n == 0 || n > 20 {
		t.Errorf("%d warnings of 50 refused connections, want 1 to 20", n)
	}
	if strings.Contains(text, `"level":"error"`) {
		t.Errorf("an error:\n%s", text)
	}
	for _, word := range []string{embeddedTestToken, "wrong-token"} {
		if strings.Contains(text, word) {
			t.Errorf("the log holds the token %q", word)
		}
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
