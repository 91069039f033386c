package ingress_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// The path is what was sent, byte for byte, up to a query.
func TestPaths(t *testing.T) {
	r := newRig(t).serve(t)
	for _, tt := range []struct {
		targets []string
		code    int
		body    string
	}{
		{[]string{
			path, path + "?", path + "?x=1", path + "?a=/b/c?d", path + "?/%2f", "http://bridge.test" + path, "http://bridge.test" + path + "?x",
			"https://elsewhere.test:1" + path,
		}, 202, accepted("published", "msg_1")},
		{[]string{
			path + "/", path + "//", "/" + path, "//bridge.test" + path, "/webhooks//gemini", path + "/token/", path + "/to/ken", path + "//token",
			"http://bridge.test/" + path, "http://bridge.test" + path + "/",
			"/Webhooks/gemini", "/webhooks/GEMINI",
			"/webhooks%2Fgemini", "/webhooks%2fgemini", "/webhooks/%67emini", "/%77ebhooks/gemini", path + "%20", path + "%00", path + "%2F", path + "%2Ftoken",
			path + "%3Fx", path + "%23", path + "#", path + "#x", path + "\xff", path + "é", path + "\"", path + "%25",
			"/webhooks/./gemini", "/webhooks/../webhooks/gemini", "/./webhooks/gemini", path + "/..//gemini", path + "/../gemini",
			path + "X", path + "-2", path + ".json", path + ";v=1", path + ":", path + "\\", path + "\\token", "/webhooks/gemin", "/webhooks", "/webhooks/", "/", "*",
			"http://bridge.test", "http://bridge.test/", "/healthz", "/metrics", "/favicon.ico", "/.well-known/jwks.json",
		}, 404, notFound},
		{[]string{
			path + "/t", path + "/t?x=1", path + "/0123456789abcdef0123456789abcdef", path + "/.", path + "/..", path + "/%2F", path + "/%2e%2e%2fgemini",
			path + "/ü", path + "/" + strings.Repeat("t", 8000), "http://bridge.test" + path + "/t",
		}, 401, unauthenticated},
	} {
		for _, target := range tt.targets {
			t.Run(target[:min(len(target), 60)], func(t *testing.T) {
				before := len(r.delivered())
				r.send(t, draft{target: target, body: known}).want(t, tt.code, tt.body)
				if got, want := len(r.delivered())-before, map[int]int{202: 1}[tt.code]; got != want {
					t.Errorf("%d events reached the Deliverer, want %d", got, want)
				}
			})
		}
	}
}

// A path without an end of its own, so that "/" below it could be a mistake of the prefix.
func TestPathOfOneSegment(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.Path = "/w" }).serve(t)
	for target, code := range map[string]int{"/w": 202, "/w/": 404, "/w/t": 401, "/wt": 404, "/": 404, "//w": 404, "/w//t": 404} {
		if got := r.send(t, draft{target: target, body: known}); got.code != code {
			t.Errorf("%s: got %d, want %d", target, got.code, code)
		}
	}
}

var methods = []string{
	"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "Post", "POSTS", "PROPFIND", "MADE-UP", "!", "PRI",
}

func TestMethods(t *testing.T) {
	r := newRig(t).serve(t)
	for _, method := range methods {
		for _, tt := range []struct {
			target string
			code   int
			body   string
		}{
			{path, 405, notAllowed},
			{path + "?x", 405, notAllowed},
			{path + "/", 404, notFound},
			{"/", 404, notFound},
			{path + "/token", 401, unauthenticated},
		} {
			t.Run(method+" "+tt.target, func(t *testing.T) {
				if method == "HEAD" {
					tt.body = ""
				}
				r.send(t, draft{method: method, target: tt.target, body: known}).want(t, tt.code, tt.body)
			})
		}
	}
	r.wantNothingDelivered(t)
}

// What is addressed to the server as a whole, or to another one, is not for a webhook's endpoint to answer.
func TestTargetsThatAreNoPath(t *testing.T) {
	for _, d := range []draft{
		{method: "OPTIONS", target: "*"},
		{method: "POST", target: "*"},
		{method: "GET", target: "*"},
		{method: "CONNECT", target: "bridge.test:443"},
		{method: "CONNECT", target: "gemini"},
		{method: "PRI", target: "*", proto: "HTTP/2.0"},
		{method: "OPTIONS", target: "http://bridge.test"},
	} {
		t.Run(d.method+" "+d.target, func(t *testing.T) {
			r := newRig(t).serve(t)
			r.send(t, d).want(t, 404, notFound)
			if got := r.line(t)["result"]; got != "not_found" {
				t.Errorf("log: got result %v", got)
			}
		})
	}
}

// net/http refuses these before there is a request to speak of; they must not reach the handler in any form.
func TestNotHTTP(t *testing.T) {
	r := newRig(t).serve(t)
	genuine := draft{body: known}.text()
	for _, tt := range []struct{ name, text, status string }{
		{"no URL", draft{target: path + "/%", body: known}.text(), "400"},
		{"a space in the path", draft{target: path + " x", body: known}.text(), "400"},
		{"a control character in the path", draft{target: path + "\x01", body: known}.text(), "400"},
		{"no path", draft{target: "webhooks/gemini", body: known}.text(), "400"},
		{"a method with a space", draft{method: "PO ST", body: known}.text(), "400"},
		{"a method that is no token", draft{method: "PO@ST", body: known}.text(), "400"},
		{"no method", strings.TrimPrefix(genuine, "POST"), "400"},
		{"no host", strings.Replace(genuine, "Host: bridge.test\r\n", "", 1), "400"},
		{"two hosts", draft{lines: []string{"Host: bridge.test"}, body: known}.text(), "400"},
		{"a later HTTP", draft{proto: "HTTP/3.0", body: known}.text(), "505"},
		{"no HTTP", draft{proto: "SMTP/1.0", body: known}.text(), "400"},
		{"a header without a colon", draft{lines: []string{"x"}, body: known}.text(), "400"},
		{"a header name with a space", draft{lines: []string{"x : y"}, body: known}.text(), "400"},
		{"a header name with a space, of the three", strings.Replace(genuine, "webhook-id:", "webhook-id :", 1), "400"},
		{"a control character in a header", draft{lines: []string{"x: \x01"}, body: known}.text(), "400"},
		{"a NUL in the id", draft{id: "msg\x001", body: known}.text(), "400"},
		{"an expectation nobody has", draft{lines: []string{"Expect: the-unexpected"}, body: known}.text(), "417"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := r.dial(t)
			c.write(t, tt.text)
			c.end()
			text, _ := io.ReadAll(c.in) // the server may reset what it has not read
			if !strings.HasPrefix(string(text), "HTTP/1.1 "+tt.status+" ") {
				t.Errorf("got %.80q, want %s", text, tt.status)
			}
		})
	}
	r.wantNothingDelivered(t)
	if got := r.log.String(); got != "" {
		t.Errorf("the handler saw something: %s", got)
	}
}

func TestEncodings(t *testing.T) {
	r := newRig(t).serve(t)
	const name = "Content-Encoding: "
	for _, tt := range []struct {
		lines []string
		code  int
	}{
		{nil, 202},
		{[]string{name}, 202},
		{[]string{name + "identity"}, 202},
		{[]string{name + "IDENTITY"}, 202},
		{[]string{"CONTENT-ENCODING:identity  "}, 202},
		{[]string{name + "identity", name + "Identity"}, 202},
		{[]string{"Accept-Encoding: gzip"}, 202},
		{[]string{name + "gzip"}, 415},
		{[]string{name + "GZIP"}, 415},
		{[]string{name + "br"}, 415},
		{[]string{name + "deflate"}, 415},
		{[]string{name + "zstd"}, 415},
		{[]string{name + "x"}, 415},
		{[]string{name + "identity, gzip"}, 415},
		{[]string{name + "gzip, identity"}, 415},
		{[]string{name + "identity", name + "gzip"}, 415},
		{[]string{name + "gzip", name + "identity"}, 415},
		{[]string{name, name + "gzip"}, 415},
		{[]string{"content-encoding: gzip"}, 415},
	} {
		t.Run(strings.Join(tt.lines, "; "), func(t *testing.T) {
			before := len(r.delivered())
			body := map[int]string{202: accepted("published", "msg_1"), 415: badEncoding}[tt.code]
			r.send(t, draft{lines: tt.lines, body: known}).want(t, tt.code, body)
			if got, want := len(r.delivered())-before, map[int]int{202: 1}[tt.code]; got != want {
				t.Errorf("%d events reached the Deliverer, want %d", got, want)
			}
		})
	}
}

// Whoever reads a webhook's headers must not be able to see another delivery than whoever verified it.
func TestWebhookHeaders(t *testing.T) {
	r := newRig(t).serve(t)
	signature := sign("msg_1", "1769083200", known)
	genuine := draft{body: known}.text()
	long := strings.Repeat("m", 256)
	for _, tt := range []struct {
		name, text, id string // the id of what is accepted
		reason         verify.Reason
	}{
		{"genuine", genuine, "msg_1", ""},
		{"upper case", strings.NewReplacer("webhook-id:", "WEBHOOK-ID:", "webhook-t", "WEBHOOK-T", "webhook-s", "Webhook-S").Replace(genuine), "msg_1", ""},
		{"mixed case", strings.NewReplacer("webhook-id:", "wEBHOOK-iD:", "content-length", "CONTENT-length").Replace(genuine), "msg_1", ""},
		{"blanks around", strings.NewReplacer("webhook-id: msg_1", "webhook-id:\t  msg_1 \t").Replace(genuine), "msg_1", ""},
		{"line feeds alone", strings.ReplaceAll(genuine, "\r\n", "\n"), "msg_1", ""},
		{"an empty line before", "\r\n" + genuine, "", "-"},
		{"a longest id", draft{id: long, body: known}.text(), long, ""},
		{"an id too long", draft{id: long + "m", body: known}.text(), "", verify.IDMalformed},
		{"an id with a space", draft{id: "msg 1", body: known}.text(), "", verify.IDMalformed},
		{"an id folded", strings.Replace(genuine, "webhook-id: msg_1", "webhook-id: msg\r\n _1", 1), "", verify.IDMalformed},
		{"an id not in ASCII", draft{id: "msg_é", body: known}.text(), "", verify.IDMalformed},
		{"an empty id", strings.Replace(genuine, "webhook-id: msg_1", "webhook-id:", 1), "", verify.IDMalformed},
		{"two ids", draft{lines: []string{"webhook-id: msg_2"}, body: known}.text(), "", verify.HeaderRepeated},
		{"two equal ids", draft{lines: []string{"webhook-id: msg_1"}, body: known}.text(), "", verify.HeaderRepeated},
		{"two ids of different case", draft{lines: []string{"Webhook-ID: msg_1"}, body: known}.text(), "", verify.HeaderRepeated},
		{"two timestamps", draft{lines: []string{"Webhook-Timestamp: 1769083200"}, body: known}.text(), "", verify.HeaderRepeated},
		{"two signatures, the second good", draft{signature: "v1,bad", lines: []string{"webhook-signature: " + signature}, body: known}.text(), "", verify.HeaderRepeated},
		{"two signatures, the first good", draft{lines: []string{"webhook-signature: v1,bad"}, body: known}.text(), "", verify.HeaderRepeated},
		{"an underscore", strings.Replace(genuine, "webhook-id:", "webhook_id:", 1), "", verify.HeaderMissing},
		{"in the query", draft{id: "-", target: path + "?webhook-id=msg_1", body: known}.text(), "", verify.HeaderMissing},
		{
			"in a trailer", strings.Replace(draft{id: "-", signature: signature, lines: []string{"Trailer: webhook-id"}, chunked: true, body: known}.text(),
				"0\r\n\r\n", "0\r\nwebhook-id: msg_1\r\n\r\n", 1), "", verify.HeaderMissing,
		},
		{
			"another one in a trailer", strings.Replace(draft{lines: []string{"Trailer: webhook-id"}, chunked: true, body: known}.text(),
				"0\r\n\r\n", "0\r\nwebhook-id: msg_2\r\n\r\n", 1), "msg_1", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(r.delivered())
			failed := r.series(t)
			got := r.dial(t).send(t, tt.text)
			events := r.delivered()[before:]
			switch tt.reason {
			case "-": // for net/http to refuse
				if got.code != 400 || len(events) != 0 {
					t.Errorf("got %d and %d events", got.code, len(events))
				}
			case "":
				got.want(t, 202, accepted("published", tt.id))
				if len(events) != 1 || events[0].ID != tt.id || events[0].WebhookID != tt.id {
					t.Errorf("got %+v, want one event with id %s", events, tt.id)
				}
			default:
				got.want(t, 401, unauthenticated)
				if len(events) != 0 {
					t.Errorf("%d events reached the Deliverer, want none", len(events))
				}
				name := "bridge_verify_failures_total{reason=" + string(tt.reason) + "}"
				if moved := r.series(t)[name] - failed[name]; moved != 1 {
					t.Errorf("%s moved by %v, want 1", name, moved)
				}
			}
		})
	}
}

// An id is any visible ASCII; the reply is JSON all the same.
func TestReplyQuotesTheID(t *testing.T) {
	const id = `<a/href="x">&\u0041\'` + "`~"
	r := newRig(t).serve(t)
	r.send(t, draft{id: id, body: known}).want(t, 202, `{"status":"published","id":"<a/href=\"x\">&\\u0041\\'`+"`~\"}\n")
	if got := r.one(t).ID; got != id {
		t.Errorf("event: got id %q, want %q", got, id)
	}
}

func TestHeadersTooLarge(t *testing.T) {
	t.Parallel() // it waits
	r := newRig(t).serve(t)
	r.send(t, draft{lines: []string{"X-Large: " + strings.Repeat("x", 15<<10)}, body: known}).want(t, 202, accepted("published", "msg_1"))
	for _, lines := range [][]string{
		{"X-Large: " + strings.Repeat("x", 24<<10)},
		slices.Repeat([]string{"X-Many: " + strings.Repeat("x", 290)}, 100),
	} {
		got := r.send(t, draft{lines: lines, body: known})
		if got.code != 431 || got.header.Get("Content-Type") != "text/plain; charset=utf-8" || len(r.delivered()) != 1 {
			t.Errorf("got %+v and %d events, want 431 and 1", got, len(r.delivered()))
		}
	}
}
