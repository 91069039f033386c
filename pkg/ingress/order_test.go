package ingress_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
)

// fault is one thing wrong with a request, with the bridge, or with the event.
type fault struct {
	name   string
	check  int // faults of the same check cannot both be told
	head   bool
	draft  func(*draft)
	config func(*ingress.Config)
	code   int
	error  string // in the log, begins so
}

// asking keeps a body from being sent, and so from being read to explain more.
const asking = "Expect: 100-continue"

// faults stand in the order of the checks.
func faults() []fault {
	stale := fmt.Sprint(signedAt.Unix() - 301)
	return []fault{
		{name: "path", check: 1, head: true, draft: func(d *draft) { d.target = "/" }, code: 404, error: "not the webhook path"},
		{name: "token", check: 1, head: true, draft: func(d *draft) { d.target = path + "/t" }, code: 401, error: "unauthenticated: no token"},
		{name: "method", check: 2, head: true, draft: func(d *draft) { d.method = "GET" }, code: 405, error: "not a POST"},
		{name: "encoding", check: 3, head: true, draft: func(d *draft) { d.lines = append(d.lines, "Content-Encoding: gzip") }, code: 415, error: "content encoding"},
		{name: "declared length", check: 4, head: true, draft: func(d *draft) { d.body = strings.Repeat("x", maxBody+1) }, code: 413, error: "body over the limit"},
		{name: "no id", check: 5, head: true, draft: func(d *draft) { d.id = "-" }, code: 401, error: "unauthenticated: no webhook-id"},
		{name: "two signatures", check: 5, head: true, draft: func(d *draft) { d.lines = append(d.lines, "webhook-signature: v1,x") }, code: 401, error: "unauthenticated: 2 webhook-signature"},
		{name: "a malformed signature", check: 6, head: true, draft: func(d *draft) { d.signature = "v1,x" }, code: 401, error: "unauthenticated: no v1 entry of webhook-signature is"},
		{name: "an old timestamp", check: 7, head: true, draft: func(d *draft) { d.timestamp, d.lines = stale, append(d.lines, asking) }, code: 401, error: "unauthenticated: timestamp is 301 s old"},
		{name: "a broken body", check: 8, draft: func(d *draft) { d.broken = true }, code: 400, error: "body could not be read"},
		{name: "a body too large", check: 8, draft: func(d *draft) { d.body, d.chunked = strings.Repeat("x", maxBody+1), true }, code: 413, error: "body over the limit"},
		{name: "signature", check: 6, draft: func(d *draft) { d.signature = sign("msg_1", "1769083200", "another") }, code: 401, error: "unauthenticated: none of 1"},
		{name: "overload", check: 9, config: func(c *ingress.Config) { c.MaxInflight = 0 }, code: 503, error: "too many deliveries"},
		{name: "no event", check: 10, draft: func(d *draft) { d.body = "?" }, code: 422, error: "invalid event"},
		{name: "unknown event", check: 10, draft: func(d *draft) { d.body = unknown }, code: 422, error: `invalid event: "/type"`},
		{name: "broker away", check: 11, config: func(c *ingress.Config) { c.Deliverer.(*deliverer).answer = answering(0, errors.New("away")) }, code: 503, error: "not delivered: away"},
	}
}

// incompatible faults are those that would undo each other: all three make the body what they need.
func incompatible(first, second fault) bool {
	if first.check == second.check {
		return true
	}
	return first.name == "declared length" && second.check == 8
}

func (f fault) apply(d *draft, c *ingress.Config) {
	if f.draft != nil {
		f.draft(d)
	}
	if f.config != nil {
		f.config(c)
	}
}

// Of two faults the one that is checked first is told. That is also what keeps strangers from learning anything of
// what comes behind the signature, and a bad signature from reaching the JSON parser.
func TestOrderOfChecks(t *testing.T) {
	all := faults()
	for i, first := range all {
		for _, second := range append([]fault{{name: "none"}}, all[i+1:]...) {
			if incompatible(first, second) {
				continue
			}
			t.Run(first.name+" before "+second.name, func(t *testing.T) {
				d := draft{body: known}
				r := newRig(t, func(c *ingress.Config) {
					c.OnInvalid, c.OnUnknown = ingress.Reject, ingress.Reject
					second.apply(&d, c)
					first.apply(&d, c)
				})
				if got := r.do(t, d); got.code != first.code {
					t.Errorf("got %d, want %d", got.code, first.code)
				}
				if got, _ := r.line(t)["error"].(string); !strings.HasPrefix(got, first.error) {
					t.Errorf("log: got error %q, want %q", got, first.error)
				}
				if first.check < 11 {
					r.wantNothingDelivered(t)
				}
			})
		}
	}
}

// unread is a body that must stay unread.
type unread struct{ testing.TB }

func (u unread) Read([]byte) (int, error) {
	u.Error("the body was read")
	return 0, io.EOF
}

func (unread) Close() error { return nil }

func TestRefusedByTheHeadIsNotRead(t *testing.T) {
	for _, f := range faults() {
		if !f.head {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			d := draft{body: known}
			r := newRig(t, func(c *ingress.Config) { f.apply(&d, c) })
			request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.text())))
			if err != nil {
				t.Fatal(err)
			}
			request.Body = unread{t}
			recorder := httptest.NewRecorder()
			r.handler.ServeHTTP(recorder, request)
			if recorder.Code != f.code {
				t.Errorf("got %d, want %d", recorder.Code, f.code)
			}
		})
	}
}

// A client that asks before it sends its body is told to go on only if the head is good.
func TestExpectContinue(t *testing.T) {
	for _, f := range faults() {
		if !f.head {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			d := draft{body: known, lines: []string{"Expect: 100-continue"}}
			r := newRig(t, func(c *ingress.Config) { f.apply(&d, c) }).serve(t, longer)
			c := r.dial(t)
			head, _, _ := strings.Cut(d.text(), "\r\n\r\n")
			c.write(t, head+"\r\n\r\n")
			line, err := c.in.ReadString('\n')
			if want := fmt.Sprintf("HTTP/1.1 %d ", f.code); err != nil || !strings.HasPrefix(line, want) {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		r := newRig(t).serve(t, longer)
		c := r.dial(t)
		head, body, _ := strings.Cut(draft{body: known, lines: []string{"Expect: 100-continue"}}.text(), "\r\n\r\n")
		c.write(t, head+"\r\n\r\n")
		for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
			if line, err := c.in.ReadString('\n'); err != nil || line != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
		}
		r.wantNothingDelivered(t)
		c.write(t, body)
		c.receive(t, "POST").want(t, 202, accepted("published", "msg_1"))
	})
}

// What no secret signed reaches nothing, whatever the policies would make of it.
func TestBadSignatureIsNotParsed(t *testing.T) {
	for _, tt := range oddBodies {
		r := newRig(t, func(c *ingress.Config) { c.OnInvalid, c.OnUnknown = ingress.Reject, ingress.Reject })
		r.deliverer.answer = answering(schema.Published, nil)
		r.do(t, draft{body: tt.body, signature: sign("msg_1", "1769083200", tt.body+" ")}).want(t, 401, unauthenticated)
		r.wantNothingDelivered(t)
		if typ := r.line(t)["type"]; typ != nil {
			t.Errorf("%s: log: got type %v of a body that nobody signed", tt.name, typ)
		}
	}
}
