package ingress_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
)

// wireRules are about the request around a delivery: what is compressed, and what two readers could read in two ways.
func wireRules() []rule {
	good := asV1A(draft{body: known})
	text := good.text()
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	head = strings.Replace(head, fmt.Sprintf("Content-Length: %d", len(known)), "", 1)
	head = strings.TrimSuffix(strings.ReplaceAll(head, "\r\n\r\n", "\r\n"), "\r\n")
	raw := func(name string, code int, lines, body string) attack {
		return attack{name: name, raw: head + "\r\n" + lines + "\r\n\r\n" + body, code: code}
	}
	length := fmt.Sprintf("Content-Length: %d", len(known))
	compressed := func(name, coding, body string) attack {
		d := asV1A(draft{body: body, lines: []string{"Content-Encoding: " + coding}})
		return attack{name: name, draft: d, code: 415}
	}
	line := func(name, old, new string) attack {
		changed := strings.Replace(text, old, new, 1)
		if changed == text {
			panic(name + " changes nothing")
		}
		return attack{name: name, raw: changed, code: 400}
	}
	return []rule{
		{"compressed bodies", of(asV1A(draft{body: known, lines: []string{"Content-Encoding: identity"}})), []attack{
			compressed("gzip", "gzip", zipped(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })),
			compressed("deflate", "deflate", zipped(deflate)),
			compressed("br", "br", known),
			compressed("zstd", "zstd", known),
			compressed("gzip twice", "gzip, gzip", known),
			compressed("identity and gzip", "identity, gzip", known),
			compressed("GZIP", "GZIP", known),
			compressed("nonsense", "x", known),
			{name: "in two lines", draft: asV1A(draft{body: known, lines: []string{"Content-Encoding: identity", "Content-Encoding: gzip"}}), code: 415},
			{name: "gzip without saying so", draft: asV1A(draft{body: zipped(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }), signature: good.signature})},
		}},
		{"lengths", raw("one", 0, length, known), []attack{
			raw("length and chunks", 400, length+"\r\nTransfer-Encoding: chunked", "zz\r\n"),
			raw("two lengths", 400, length+"\r\nContent-Length: 1", known),
			raw("lengths in one line", 400, length+", 1", known),
			raw("plus", 400, fmt.Sprintf("Content-Length: +%d", len(known)), known),
			raw("negative", 400, "Content-Length: -1", known),
			raw("hexadecimal", 400, fmt.Sprintf("Content-Length: 0x%x", len(known)), known),
			raw("a word", 400, "Content-Length: all", known),
			raw("fullwidth digits", 400, "Content-Length: １０２", known),
			raw("two codings", 501, "Transfer-Encoding: chunked, identity", chunks(known)),
			raw("gzip, chunked", 501, "Transfer-Encoding: gzip, chunked", chunks(known)),
			raw("chunked twice", 501, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunks(known)),
			raw("xchunked", 501, "Transfer-Encoding: xchunked", chunks(known)),
			raw("a chunk of no size", 400, "Transfer-Encoding: chunked", "\r\n"+known),
			raw("a chunk of a huge size", 400, "Transfer-Encoding: chunked", "fffffffffffffffff\r\n"+known),
			raw("a body over the limit, in chunks", 413, "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s", maxBody+1, strings.Repeat("x", maxBody+1))),
			raw("a length over the limit", 413, fmt.Sprintf("Content-Length: %d", maxBody+1), known),
		}},
		{"smuggled headers", of(good), []attack{
			line("a blank before the colon", "webhook-id:", "webhook-id :"),
			line("NUL in a value", "webhook-id: msg_1", "webhook-id: msg\x001"),
			line("a name with a blank", "webhook-id:", "webhook id:"),
			line("a line without colon", "webhook-id: msg_1\r\n", "webhook-id msg_1\r\n"),
			line("two hosts", "Host: bridge.test\r\n", "Host: bridge.test\r\nHost: evil.example\r\n"),
			line("no host", "Host: bridge.test\r\n", ""),
			{name: "underscores", raw: strings.NewReplacer("webhook-id", "webhook_id").Replace(text)},
			{name: "the signature in a trailer", raw: trailer(good)},
			{name: "X- before the names", raw: strings.NewReplacer("webhook-", "X-webhook-").Replace(text)},
			{name: "svix- for webhook-", raw: strings.NewReplacer("webhook-", "svix-").Replace(text)},
			{name: "another method", draft: asV1A(draft{method: "PUT", body: known}), code: 405},
			{name: "a method overridden", draft: asV1A(draft{method: "GET", body: known, lines: []string{"X-HTTP-Method-Override: POST"}}), code: 405},
			{name: "the path overridden", draft: asV1A(draft{target: "/", body: known, lines: []string{"X-Original-URL: " + dynamic}}), code: 404},
		}},
	}
}

func deflate(w io.Writer) io.WriteCloser {
	z, err := flate.NewWriter(w, flate.BestSpeed)
	if err != nil {
		panic(err)
	}
	return z
}

func zipped(by func(io.Writer) io.WriteCloser) string {
	var b bytes.Buffer
	w := by(&b)
	if _, err := io.WriteString(w, known); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// trailer sends the signature behind the body.
func trailer(d draft) string {
	signature := d.signature
	d.signature, d.chunked, d.lines = "-", true, []string{"Trailer: webhook-signature"}
	return strings.TrimSuffix(d.text(), "\r\n") + "webhook-signature: " + signature + "\r\n\r\n"
}
