package ingress_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
)

// once is a ResponseWriter that wants exactly one reply.
type once struct {
	testing.TB
	code   int
	header http.Header
	body   bytes.Buffer
}

func (o *once) Header() http.Header { return o.header }

func (o *once) WriteHeader(code int) {
	if o.code != 0 {
		o.Errorf("a second reply %d after %d", code, o.code)
	}
	o.code = code
}

func (o *once) Write(b []byte) (int, error) {
	if o.code == 0 {
		o.Error("a body before its status")
	}
	return o.body.Write(b)
}

// answer has the handler answer a request, and checks what holds for every reply.
func (r *rig) answer(t *testing.T, request *http.Request) (code int, events []*schema.Event) {
	t.Helper()
	r.forget()
	o := &once{TB: t, header: http.Header{}}
	r.handler.ServeHTTP(o, request)
	events = r.delivered()
	if got, want := len(events), map[int]int{202: 1}[o.code]; got != want {
		t.Errorf("%d events reached the Deliverer, want %d with status %d", got, want, o.code)
	}
	var text struct{ Status, ID, Error, Message string }
	if err := json.Unmarshal(o.body.Bytes(), &text); err != nil {
		t.Errorf("reply %q: %v", &o.body, err)
	}
	if success := o.code == 202; success != (text.Status != "" && text.ID != "") || success == (text.Error != "" && text.Message != "") {
		t.Errorf("got %d with %q", o.code, &o.body)
	}
	if len(events) == 1 && events[0].ID != text.ID {
		t.Errorf("reply %q to the event %q", &o.body, events[0].ID)
	}
	if got := r.line(t)["status"]; got != float64(o.code) {
		t.Errorf("log: got status %v of a reply %d", got, o.code)
	}
	return o.code, events
}

// authority is what comes before the path of an absolute URI: a scheme, and a host if there is one (RFC 3986, 3).
var authority = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:(?://[^/?]*)?`)

// expected says by plain means how a request is to be answered. body is what can be read of its body, and broken
// the error behind it.
func (r *rig) expected(request *http.Request, body []byte, broken error) int {
	target, _, _ := strings.Cut(authority.ReplaceAllString(request.RequestURI, ""), "?")
	token, below := strings.CutPrefix(target, path+"/")
	switch {
	case below && token != "" && !strings.Contains(token, "/"):
		return 401
	case target != path:
		return 404
	case request.Method != "POST":
		return 405
	}
	for _, line := range request.Header.Values("Content-Encoding") {
		if line != "" && strings.ToLower(line) != "identity" {
			return 415
		}
	}
	if request.ContentLength > maxBody {
		return 413
	}
	if _, err := r.Verifier.Head(request.Header); err != nil {
		return 401
	}
	if len(body) > maxBody {
		return 413
	}
	if broken != nil {
		return 400
	}
	if _, err := r.Verifier.Verify(request.Header, body); err != nil {
		return 401
	}
	return 202
}

func fuzzRig(f *testing.F) *rig {
	f.Helper()
	r := newRig(f, func(c *ingress.Config) {
		c.Now = func() time.Time { return signedAt }
		c.RefusalLines = math.MaxInt // one for each
	})
	r.deliverer.clock = nil
	return r
}

// FuzzHandler reads bytes as an HTTP request and has it answered. Most of what the fuzzer makes of a genuine delivery
// is still genuine, or would be but for one thing.
func FuzzHandler(f *testing.F) {
	for _, body := range examples(f) {
		f.Add([]byte(draft{body: body}.text()))
		f.Add([]byte(draft{body: body, chunked: true}.text()))
	}
	for _, d := range refusals() {
		f.Add([]byte(d.text()))
	}
	for _, method := range methods {
		f.Add([]byte(draft{method: method, body: known}.text()))
	}
	for _, target := range []string{path + "/", "/" + path, path + "?x", path + "/t", path + "%2f", "http://x" + path, "http://x?" + path, "*"} {
		f.Add([]byte(draft{target: target, body: known}.text()))
	}
	for _, d := range []draft{
		{},
		{body: known, broken: true},
		{body: known, length: "7"},
		{body: known, length: "700"},
		{body: known, length: "393217"},
		{body: known, lines: []string{"Content-Encoding: identity", "Expect: 100-continue", "traceparent: x"}},
		{body: known, lines: []string{"Content-Encoding: gzip"}},
		{id: `"<\>"`, proto: "HTTP/1.0", body: "\x00"},
	} {
		f.Add([]byte(d.text()))
	}
	r := fuzzRig(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		body, broken := io.ReadAll(io.LimitReader(request.Body, maxBody+1))
		rest := io.Reader(bytes.NewReader(nil))
		if broken != nil {
			rest = iotest.ErrReader(broken)
		}
		request.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), rest))
		want := r.expected(request, body, broken)
		if got, _ := r.answer(t, request); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	})
}

var (
	idForm    = regexp.MustCompile(`^[!-~]{1,256}$`)
	traceForm = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)
)

// FuzzDelivery signs any body: authentic, it reaches the Deliverer whole, whatever it is.
func FuzzDelivery(f *testing.F) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for i, body := range examples(f) {
		f.Add(fmt.Sprint("msg_", i), trace, []byte(body))
	}
	for _, tt := range oddBodies {
		if len(tt.body) < 4096 { // the fuzzer is quicker with short seeds
			f.Add("msg_1", trace[:len(trace)-1]+"x", []byte(tt.body))
		}
	}
	f.Add(`"\`, "", []byte(known))
	f.Add("", "", []byte(known))
	f.Add(strings.Repeat("m", 257), "", []byte(known))
	r := fuzzRig(f)
	f.Fuzz(func(t *testing.T, id, trace string, body []byte) {
		request, err := http.NewRequestWithContext(t.Context(), "POST", path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		timestamp := fmt.Sprint(signedAt.Unix())
		request.Header = http.Header{
			"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {sign(id, timestamp, string(body))}, "Traceparent": {trace},
		}
		want := 202
		switch {
		case len(body) > maxBody:
			want = 413
		case !idForm.MatchString(id):
			want = 401
		}
		code, events := r.answer(t, request)
		if code != want {
			t.Fatalf("got %d, want %d", code, want)
		}
		if code != 202 {
			return
		}
		e := events[0]
		wantTrace := ""
		if m := traceForm.FindStringSubmatch(trace); m != nil && m[1] != strings.Repeat("0", 32) && m[2] != strings.Repeat("0", 16) {
			wantTrace = trace
		}
		if e.ID != id || e.TraceParent != wantTrace || !json.Valid(e.Structured) || len(e.Structured) > 2*len(body)+32<<10 {
			t.Errorf("got %+v", e)
		}
		_, err = r.Registry.Validate(body)
		if _, bad := errors.AsType[*schema.InvalidError](err); bad != e.Dead {
			t.Fatalf("got dead %v of a body that is %v", e.Dead, err)
		}
		if e.Dead {
			if _, got := openLetter(t, e); !bytes.Equal(got, body) {
				t.Errorf("dead letter: got body %q, want %q", got, body)
			}
			return
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, body); err != nil || !bytes.Equal(e.Original, compact.Bytes()) {
			t.Errorf("got original %q, want %q, %v", e.Original, &compact, err)
		}
	})
}
