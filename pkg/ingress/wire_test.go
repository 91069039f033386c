package ingress_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

// draft is a request in the making. What is empty becomes what a genuine delivery of body has; "-" leaves a header
// out.
type draft struct {
	method, target, proto    string
	id, timestamp, signature string
	lines                    []string // further header lines
	length                   string
	chunked                  bool // with a body of two chunks
	broken                   bool // with a chunk whose size is no number
	body                     string
}

func (d draft) text() string {
	id, timestamp := or(d.id, "msg_1"), or(d.timestamp, fmt.Sprint(signedAt.Unix()))
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\nHost: bridge.test\r\n", or(d.method, "POST"), or(d.target, path), or(d.proto, "HTTP/1.1"))
	header := func(name, value string) {
		if value != "-" {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	header("webhook-id", id)
	header("webhook-timestamp", timestamp)
	header("webhook-signature", or(d.signature, sign(id, timestamp, d.body)))
	for _, line := range d.lines {
		b.WriteString(line + "\r\n")
	}
	switch {
	case d.broken:
		header("Transfer-Encoding", "chunked")
		fmt.Fprintf(&b, "\r\n%x\r\n%s\r\nzz\r\n", len(d.body), d.body)
	case d.chunked:
		header("Transfer-Encoding", "chunked")
		b.WriteString("\r\n" + chunks(d.body))
	default:
		header("Content-Length", or(d.length, fmt.Sprint(len(d.body))))
		b.WriteString("\r\n" + d.body)
	}
	return b.String()
}

// chunks writes a body as two chunks and the end.
func chunks(body string) string {
	var b strings.Builder
	for _, part := range []string{body[:len(body)/2], body[len(body)/2:]} {
		if part != "" {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
		}
	}
	return b.String() + "0\r\n\r\n"
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// sign returns the signature of a delivery whose timestamp is not necessarily one.
func sign(id, timestamp, body string) string {
	t := signedAt
	if seconds, err := json.Number(timestamp).Int64(); err == nil {
		t = time.Unix(seconds, 0)
	}
	signature, err := verify.Sign(secret.New(signingSecret), id, t, []byte(body))
	if err != nil {
		panic(err)
	}
	return signature
}

// reply is what a client sees.
type reply struct {
	code   int
	header http.Header
	body   string
	close  bool // the server says that it will close the connection
}

// do has the handler answer a request, without a server.
func (r *rig) do(tb testing.TB, d draft) reply {
	tb.Helper()
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.text())))
	if err != nil {
		tb.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	r.handler.ServeHTTP(recorder, request)
	return reply{code: recorder.Code, header: recorder.Header(), body: recorder.Body.String()}
}

// send sends a request to the server, on a connection of its own.
func (r *rig) send(tb testing.TB, d draft) reply {
	tb.Helper()
	return r.dial(tb).send(tb, d.text())
}

// client is a connection to the server.
type client struct {
	*net.TCPConn
	in *bufio.Reader

	// What somebody waited for the server to have read, and answered.
	sent, requests int
}

func (r *rig) dial(tb testing.TB) *client {
	tb.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return &client{TCPConn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
}

func (c *client) send(tb testing.TB, text string) reply {
	tb.Helper()
	c.write(tb, text)
	method, _, _ := strings.Cut(text, " ")
	return c.receive(tb, method)
}

func (c *client) write(tb testing.TB, text string) {
	tb.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		tb.Fatal(err)
	}
}

// trickle sends a text byte by byte, until it is through or the server has hung up.
func (c *client) trickle(text string) (stopped <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := range len(text) {
			<-tick.C
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				return
			}
		}
	}()
	return done
}

// end says that nothing more will be sent, if the server has not hung up by itself.
func (c *client) end() { _ = c.CloseWrite() }

// receive reads the reply to a request of a method.
func (c *client) receive(tb testing.TB, method string) reply {
	tb.Helper()
	response, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		tb.Fatalf("no reply: %v", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body), response.Close}
}

// wantClosed fails the test unless the server closes the connection, having sent nothing more.
func (c *client) wantClosed(tb testing.TB) {
	tb.Helper()
	rest, err := io.ReadAll(c.in)
	if errors.Is(err, syscall.ECONNRESET) { // over what it has not read
		err = nil
	}
	if err != nil || len(rest) > 0 {
		tb.Errorf("got %q, %v, want the end of the connection", rest, err)
	}
}

// refusal is the body of a reply that is no success.
func refusal(token, words string) string {
	return `{"error":"` + token + `","message":"` + words + "\"}\n"
}

var (
	unauthenticated = refusal("unauthenticated", "the delivery could not be authenticated")
	notFound        = refusal("not_found", "no webhook is received at this path")
	notAllowed      = refusal("method_not_allowed", "webhooks are sent with POST")
	badEncoding     = refusal("unsupported_encoding", "the body must not be encoded")
	tooLarge        = refusal("too_large", "the body is larger than this endpoint takes")
	badRequest      = refusal("bad_request", "the body could not be read")
	invalidEvent    = refusal("invalid_event", "the body is not an event that this endpoint takes")
	unavailable     = refusal("unavailable", "the event could not be made durable now")
)

func accepted(status, id string) string { return `{"status":"` + status + `","id":"` + id + "\"}\n" }

// want checks status and body, and what holds for every reply.
func (got reply) want(tb testing.TB, code int, body string) {
	tb.Helper()
	if got.code != code || got.body != body {
		tb.Errorf("got %d %q, want %d %q", got.code, got.body, code, body)
	}
	if got.code >= 300 && got.code < 400 || got.code == http.StatusGone {
		tb.Errorf("status %d: the sender would give up or go elsewhere", got.code)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json",
		"Allow":        map[bool]string{true: "POST"}[code == http.StatusMethodNotAllowed],
		"Location":     "",
	} {
		if got := strings.Join(got.header[name], " and "); got != want {
			tb.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	wait, err := strconv.Atoi(strings.Join(got.header["Retry-After"], " and "))
	if unavailable := code == http.StatusServiceUnavailable; unavailable != (err == nil) || unavailable && (wait < 5 || wait > 10) {
		tb.Errorf("%d with Retry-After: got %q, want 5 to 10 with a 503", code, got.header["Retry-After"])
	}
}
