package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/gembridge/bridge/schemas"
)

const (
	// patience is how long a test waits for what should come at once, on a machine that is busy.
	patience = 30 * time.Second

	// ample is time for a disk that is busy with other tests.
	ample = "BRIDGE_ACK_TIMEOUT=30s"

	receiving = "receiving webhooks" // the log line of a bridge that is up

	traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

	oldSecret = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xk"
)

// output collects what is written to it, and lets a test wait for a line.
type output struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{}   // closed, and replaced, by every Write
	gone    <-chan struct{} // closed when nobody writes any more
}

func newOutput(gone <-chan struct{}) *output {
	return &output{changed: make(chan struct{}), gone: gone}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// lines are the complete lines that hold all of texts.
func (o *output) lines(texts ...string) []string {
	var found []string
	for line := range strings.Lines(o.String()) {
		if strings.HasSuffix(line, "\n") && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}

// line waits for the first line that holds all of texts.
func (o *output) line(t *testing.T, texts ...string) string {
	t.Helper()
	late := time.After(patience)
	for ended := false; ; {
		o.mu.Lock()
		changed := o.changed
		o.mu.Unlock()
		found := o.lines(texts...)
		if len(found) > 0 {
			return found[0]
		}
		if ended {
			t.Fatalf("no line with %q in:\n%s", texts, o)
		}
		select {
		case <-changed:
		case <-o.gone:
			ended = true
		case <-late:
			ended = true
		}
	}
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// local is the environment of a bridge with free ports and a broker of its own in a new directory.
func local(t *testing.T, more ...string) []string {
	t.Helper()
	return append([]string{
		"BRIDGE_ADDR=127.0.0.1:0", "BRIDGE_ADMIN_ADDR=127.0.0.1:0", "BRIDGE_NATS_EMBEDDED_ADDR=127.0.0.1:0",
		"BRIDGE_DATA_DIR=" + t.TempDir(), "BRIDGE_SIGNING_SECRETS=" + signingSecret, ample,
	}, more...)
}

// remote is the environment of a bridge with free ports and a broker elsewhere.
func remote(t *testing.T, url string, more ...string) []string {
	t.Helper()
	return append([]string{
		"BRIDGE_ADDR=127.0.0.1:0", "BRIDGE_ADMIN_ADDR=127.0.0.1:0", "BRIDGE_NATS_URL=" + url, "BRIDGE_SIGNING_SECRETS=" + signingSecret, ample,
		"BRIDGE_DATA_DIR=" + t.TempDir(),
	}, more...)
}

// byFile is environ with the signing secrets in a file.
func byFile(path string, environ []string) []string {
	environ = slices.DeleteFunc(environ, func(line string) bool { return strings.HasPrefix(line, "BRIDGE_SIGNING_SECRETS=") })
	return append(environ, "BRIDGE_SIGNING_SECRETS_FILE="+path)
}

// bridge is one that runs, in this process or in its own.
type bridge struct {
	url, admin, nats string // of what it serves, once up has returned
	out, log         *output
	signal           func(os.Signal)
	pid              int           // of a process of its own
	gone             chan struct{} // closed when it has ended
	code             int           // its exit code, once gone is closed
	client           *http.Client
	secret           string
}

func newBridge(t *testing.T) *bridge {
	gone := make(chan struct{})
	b := &bridge{out: newOutput(gone), log: newOutput(gone), gone: gone, secret: signingSecret}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	b.client = &http.Client{Transport: transport, Timeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	return b
}

// launch runs "bridge serve" in this process. It is stopped with the test.
func launch(t *testing.T, environ []string) *bridge {
	t.Helper()
	return command(t, environ, "serve")
}

// command runs a command in this process.
func command(t *testing.T, environ []string, args ...string) *bridge {
	t.Helper()
	b := newBridge(t)
	signals := make(chan os.Signal, 2)
	b.signal = func(s os.Signal) { signals <- s }
	go func() {
		defer close(b.gone)
		b.code = run(args, shell{environ: environ, stdin: strings.NewReader(""), out: b.out, err: b.log, signals: func() <-chan os.Signal { return signals }})
	}()
	t.Cleanup(func() {
		select {
		case <-b.gone:
		case signals <- syscall.SIGTERM:
			b.exit(t)
		}
	})
	return b
}

// spawn runs a command in a process of its own, which is killed with the test.
func spawn(t *testing.T, environ []string, args ...string) *bridge {
	t.Helper()
	b := newBridge(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.start(t, append(slices.Clone(environ), asBridge+"=1"), program, args...)
	return b
}

// start starts the bridge as a process, where there is nothing to write to.
func (b *bridge) start(t *testing.T, environ []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	// A binary built for coverage complains on standard error when it has nowhere to leave its counts.
	cmd.Dir, cmd.Env = "/proc", append(slices.Clone(environ), "GOCOVERDIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = b.out, b.log
	b.signal = func(s os.Signal) { _ = cmd.Process.Signal(s) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.pid = cmd.Process.Pid
	go func() {
		defer close(b.gone)
		_ = cmd.Wait()
		b.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		b.signal(syscall.SIGKILL)
		b.exit(t)
	})
}

// up waits until the bridge receives webhooks.
func (b *bridge) up(t *testing.T) *bridge {
	t.Helper()
	var line struct{ Addr, Path, Admin, NATS string }
	if err := json.Unmarshal([]byte(b.log.line(t, receiving)), &line); err != nil {
		t.Fatal(err)
	}
	b.url, b.admin, b.nats = "http://"+line.Addr+line.Path, "http://"+line.Admin, line.NATS
	if b.nats != "" { // its own server, to which it connects in a moment
		b.connected(t)
	}
	return b
}

// connected waits until the broker takes events directly, not by way of the journal.
func (b *bridge) connected(t *testing.T) *bridge {
	t.Helper()
	eventually(t, func() error {
		if b.metrics(t)[`bridge_sink_up{sink="nats"}`] != 1 {
			return errNotYet
		}
		return nil
	})
	return b
}

// exit waits until the bridge has ended and returns its exit code.
func (b *bridge) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-b.gone:
	case <-time.After(patience):
		t.Fatalf("it did not end:\n%s", b.log)
	}
	return b.code
}

// stop ends the bridge as an operator does.
func (b *bridge) stop(t *testing.T) int {
	t.Helper()
	b.signal(syscall.SIGTERM)
	return b.exit(t)
}

// reply is what a sender hears.
type reply struct {
	code   int
	header http.Header
	text   string

	Status, ID, Error, Message string
}

func (r reply) String() string { return fmt.Sprint(r.code, " ", r.text) }

// try posts a delivery, signed by a library that is not the bridge's own.
func (b *bridge) try(id, body string) (reply, error) {
	return send(b.client, b.url, b.secret, id, body)
}

func send(client *http.Client, url, secret, id, body string) (reply, error) {
	request, err := signed(url, secret, id, body)
	if err != nil {
		return reply{}, err
	}
	return ask(client, request)
}

func signed(url, secret, id, body string) (*http.Request, error) {
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	signature, err := hook.Sign(id, now, []byte(body))
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", traceParent)
	request.Header.Set("Webhook-Id", id)
	request.Header.Set("Webhook-Timestamp", fmt.Sprint(now.Unix()))
	request.Header.Set("Webhook-Signature", signature)
	return request, nil
}

func ask(client *http.Client, request *http.Request) (reply, error) {
	response, err := client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{code: response.StatusCode, header: response.Header, text: string(text)}
	if response.Header.Get("Content-Type") == "application/json" {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// post is try where an answer must come.
func (b *bridge) post(t *testing.T, id, body string) reply {
	t.Helper()
	r, err := b.try(id, body)
	if err != nil {
		t.Fatalf("delivery %s: %v\n%s", id, err, b.log)
	}
	return r
}

// must posts a delivery that is answered with the status.
func (b *bridge) must(t *testing.T, status, id, body string) {
	t.Helper()
	if r := b.post(t, id, body); r.code != http.StatusAccepted || r.Status != status || r.ID != id {
		t.Fatalf("delivery %s: %v, want 202 %s\n%s", id, r, status, b.log)
	}
}

// get asks the bridge for another page than the webhooks.
func (b *bridge) get(url string) (reply, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return reply{}, err
	}
	return ask(b.client, request)
}

// ready is what /readyz says.
type ready struct {
	code   int
	Status string
	Parts  []struct {
		Name, State string
		Detail      []string
	}
}

func (b *bridge) ready() (ready, error) {
	r, err := b.get(b.admin + "/readyz")
	if err != nil {
		return ready{}, err
	}
	got := ready{code: r.code}
	decoder := json.NewDecoder(strings.NewReader(r.text))
	decoder.DisallowUnknownFields()
	return got, decoder.Decode(&got)
}

// becomes waits until /readyz answers with the code, and all of texts are in its details.
func (b *bridge) becomes(t *testing.T, code int, texts ...string) ready {
	t.Helper()
	var got ready
	eventually(t, func() (err error) {
		got, err = b.ready()
		if err != nil {
			return err
		}
		all := fmt.Sprintf("%+v", got)
		if got.code != code || slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(all, text) }) {
			return fmt.Errorf("readyz: %s, want %d with %q", all, code, texts)
		}
		return nil
	})
	return got
}

// sample is a body of the type as Gemini would send it.
func sample(t *testing.T, typ string) string {
	t.Helper()
	body, err := schemas.Example(typ)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// compact is the JSON without insignificant white space.
func compact(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(body)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// freeAddr is an address that nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// soon is a context for what should take no time.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

var errNotYet = errors.New("not yet")

func readBody(t *testing.T, response *http.Response) string {
	t.Helper()
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
