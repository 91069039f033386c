package ingress_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
)

// sized is a valid event of so many bytes.
func sized(n int) string {
	const start, end = `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/1","pad":"`, `"}}`
	return start + strings.Repeat("x", n-len(start)-len(end)) + end
}

func TestBodyLimit(t *testing.T) {
	t.Parallel() // it waits
	for _, chunked := range []bool{false, true} {
		for _, size := range []int{len(sized(200)), 2 << 10, 2<<10 + 1, 64 << 10, 64<<10 + 1, maxBody - 1, maxBody} {
			t.Run(fmt.Sprintf("%d bytes, chunked %v", size, chunked), func(t *testing.T) {
				r := newRig(t).serve(t)
				body := sized(size)
				r.send(t, draft{body: body, chunked: chunked}).want(t, 202, accepted("published", "msg_1"))
				if got := r.one(t).Original; string(got) != body {
					t.Errorf("original has %d bytes, want the body's %d", len(got), len(body))
				}
			})
		}
		for _, size := range []int{maxBody + 1, maxBody + 2, 2 * maxBody} {
			t.Run(fmt.Sprintf("%d bytes, chunked %v", size, chunked), func(t *testing.T) {
				r := newRig(t).serve(t)
				r.send(t, draft{body: sized(size), chunked: chunked}).want(t, 413, tooLarge)
				r.wantNothingDelivered(t)
			})
		}
	}
}

func TestBodyLimitIsConfigured(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.MaxBody = 1 << 10 }).serve(t)
	for _, chunked := range []bool{false, true} {
		r.send(t, draft{body: sized(1 << 10), chunked: chunked}).want(t, 202, accepted("published", "msg_1"))
		r.send(t, draft{body: sized(1<<10 + 1), chunked: chunked}).want(t, 413, tooLarge)
	}
}

// What the sender says of the length, and what follows. A half-closed connection ends what has no end of its own.
func TestLengths(t *testing.T) {
	t.Parallel() // it waits
	const (
		asSent = ""
		none   = "-"
	)
	huge := draft{body: known, length: "9223372036854775807"}
	chunkedToo := draft{body: known, chunked: true, lines: []string{"Content-Length: 7"}}
	for _, tt := range []struct {
		name  string
		draft draft
		code  int
		body  string // of the reply; empty when net/http refuses it by itself
	}{
		{"as sent", draft{body: known, length: asSent}, 202, accepted("published", "msg_1")},
		{"twice the same", draft{body: known, lines: []string{fmt.Sprintf("Content-Length: %d", len(known))}}, 202, accepted("published", "msg_1")},
		{"with zeros before", draft{body: known, length: fmt.Sprintf("000%d", len(known))}, 202, accepted("published", "msg_1")},
		{"shorter", draft{body: known, length: fmt.Sprint(len(known) - 1)}, 401, unauthenticated},
		{"zero", draft{body: known, length: "0"}, 401, unauthenticated},
		{"none", draft{body: known, length: none}, 401, unauthenticated},
		{"longer", draft{body: known, length: fmt.Sprint(len(known) + 1)}, 400, badRequest},
		{"much longer", draft{body: known, length: fmt.Sprint(maxBody)}, 400, badRequest},
		{"over the limit", draft{body: known, length: fmt.Sprint(maxBody + 1)}, 413, tooLarge},
		{"huge", huge, 413, tooLarge},
		{"more than huge", draft{body: known, length: "9223372036854775808"}, 400, ""},
		{"much more than huge", draft{body: known, length: strings.Repeat("9", 40)}, 400, ""},
		{"negative", draft{body: known, length: "-1"}, 400, ""},
		{"signed", draft{body: known, length: fmt.Sprintf("+%d", len(known))}, 400, ""},
		{"hexadecimal", draft{body: known, length: fmt.Sprintf("0x%x", len(known))}, 400, ""},
		{"with a fraction", draft{body: known, length: fmt.Sprintf("%d.0", len(known))}, 400, ""},
		{"no number", draft{body: known, length: "long"}, 400, ""},
		{"a list", draft{body: known, length: fmt.Sprintf("%d, %d", len(known), len(known))}, 400, ""},
		{"two of them", draft{body: known, lines: []string{"Content-Length: 7"}}, 400, ""},
		{"beside chunks", chunkedToo, 202, accepted("published", "msg_1")}, // RFC 9112, section 6.3: chunks win
		{"HTTP/1.0", draft{body: known, proto: "HTTP/1.0"}, 202, accepted("published", "msg_1")},
		{"HTTP/1.0, none", draft{body: known, proto: "HTTP/1.0", length: none}, 401, unauthenticated},
		{"HTTP/1.0, chunks", draft{body: known, proto: "HTTP/1.0", chunked: true}, 401, unauthenticated}, // which has none
		{"empty", draft{body: ""}, 202, accepted("dead-lettered", "msg_1")},
		{"empty, none", draft{body: "", length: none}, 202, accepted("dead-lettered", "msg_1")},
		{"empty, chunked", draft{body: "", chunked: true}, 202, accepted("dead-lettered", "msg_1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).serve(t)
			c := r.dial(t)
			c.write(t, tt.draft.text())
			c.end()
			got := c.receive(t, "POST")
			if tt.body == "" {
				if got.code != tt.code || !strings.HasPrefix(got.body, "400 Bad Request") || r.log.String() != "" {
					t.Errorf("got %d %q, want %d by net/http alone", got.code, got.body, tt.code)
				}
			} else {
				got.want(t, tt.code, tt.body)
			}
			if got, want := len(r.delivered()), map[int]int{202: 1}[tt.code]; got != want {
				t.Errorf("%d events reached the Deliverer, want %d", got, want)
			}
		})
	}
}

func TestChunks(t *testing.T) {
	signature := sign("msg_1", "1769083200", known)
	n := len(known)
	for _, tt := range []struct {
		name, coding, wire string
		code               int
		body               string // of the reply; empty when net/http refuses it by itself
	}{
		{"one", "chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n, known), 202, accepted("published", "msg_1")},
		{"upper case", "CHUNKED", fmt.Sprintf("%X\r\n%s\r\n0\r\n\r\n", n, known), 202, accepted("published", "msg_1")},
		{"an extension", "chunked", fmt.Sprintf("%x;a=b\r\n%s\r\n0;c\r\n\r\n", n, known), 202, accepted("published", "msg_1")},
		{"each byte its own", "chunked", func() string {
			var b strings.Builder
			for i := range known {
				b.WriteString("1\r\n" + known[i:i+1] + "\r\n")
			}
			return b.String() + "0\r\n\r\n"
		}(), 202, accepted("published", "msg_1")},
		{"a size that is none", "chunked", "zz\r\n" + known + "\r\n0\r\n\r\n", 400, badRequest},
		{"no size", "chunked", "\r\n" + known + "\r\n0\r\n\r\n", 400, badRequest},
		{"a negative size", "chunked", "-1\r\n" + known + "\r\n0\r\n\r\n", 400, badRequest},
		{"a hexadecimal prefix", "chunked", fmt.Sprintf("0x%x\r\n%s\r\n0\r\n\r\n", n, known), 400, badRequest},
		{"a size too large for any machine", "chunked", "fffffffffffffffff\r\n" + known + "\r\n0\r\n\r\n", 400, badRequest},
		{"a size larger than what comes", "chunked", fmt.Sprintf("%x\r\n%s", n+1, known), 400, badRequest},
		{"a size smaller than what comes", "chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n-1, known), 400, badRequest},
		{"a largest size", "chunked", "7fffffffffffffff\r\n" + known, 400, badRequest},
		{"no end", "chunked", fmt.Sprintf("%x\r\n%s\r\n", n, known), 400, badRequest},
		{"no end of the end", "chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n", n, known), 400, badRequest},
		{"no line break", "chunked", fmt.Sprintf("%x\r\n%s0\r\n\r\n", n, known), 400, badRequest},
		{"a size of a whole line", "chunked", strings.Repeat("0", 5000) + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n, known), 400, badRequest},
		{"not chunked at all", "chunked", known, 400, badRequest},
		{"nothing", "chunked", "", 400, badRequest},
		{"compressed as well", "gzip, chunked", known, 501, ""},
		{"compressed", "gzip", known, 501, ""},
		{"identity", "identity", known, 501, ""},
		{"twice", "chunked, chunked", known, 501, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).serve(t)
			c := r.dial(t)
			text := draft{signature: signature, length: "-", lines: []string{"Transfer-Encoding: " + tt.coding}}.text()
			c.write(t, text+tt.wire)
			c.end()
			got := c.receive(t, "POST")
			if tt.body == "" {
				if got.code != tt.code || r.log.String() != "" {
					t.Errorf("got %d %q, want %d by net/http alone", got.code, got.body, tt.code)
				}
			} else {
				got.want(t, tt.code, tt.body)
			}
			if got, want := len(r.delivered()), map[int]int{202: 1}[tt.code]; got != want {
				t.Errorf("%d events reached the Deliverer, want %d", got, want)
			}
		})
	}
}

// Bytes after a body are another request, and no part of this one.
func TestPipelined(t *testing.T) {
	r := newRig(t).serve(t)
	c := r.dial(t)
	c.write(t, draft{id: "msg_1", body: known}.text()+draft{id: "msg_2", body: unknown, chunked: true}.text()+
		draft{id: "msg_3", method: "GET"}.text()+draft{id: "msg_4", body: known}.text())
	c.receive(t, "POST").want(t, 202, accepted("published", "msg_1"))
	c.receive(t, "POST").want(t, 202, accepted("published", "msg_2"))
	c.receive(t, "GET").want(t, 405, notAllowed)
	c.receive(t, "POST").want(t, 202, accepted("published", "msg_4"))
	var ids []string
	for _, e := range r.delivered() {
		ids = append(ids, e.ID+" "+e.Name)
	}
	if got, want := strings.Join(ids, ", "), "msg_1 batch.succeeded, msg_2 tuning.done, msg_4 batch.succeeded"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// longer keeps a time-out of the server out of a test that must not need it.
func longer(s *http.Server) { s.ReadTimeout, s.WriteTimeout = 2*patience, 3*patience }

// Too much is said as soon as it is there, whether more comes without end, or nothing comes any more.
func TestBodyWithoutEnd(t *testing.T) {
	t.Parallel() // it waits
	head := draft{signature: sign("msg_1", "1769083200", known), length: "-", lines: []string{"Transfer-Encoding: chunked"}}.text()
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<10, strings.Repeat(" ", 1<<10))
	t.Run("chunks for ever", func(t *testing.T) {
		r := newRig(t).serve(t, longer)
		c := r.dial(t)
		c.write(t, head)
		written := make(chan int)
		go func() {
			n := 0
			for err := error(nil); err == nil; n++ {
				_, err = io.WriteString(c, chunk)
			}
			written <- n
		}()
		c.receive(t, "POST").want(t, 413, tooLarge)
		_ = c.Close() // the server has hung up, or will
		<-written
		r.wantNothingDelivered(t)
	})
	t.Run("chunks up to the limit, and then nothing", func(t *testing.T) {
		r := newRig(t).serve(t, longer)
		c := r.dial(t)
		c.write(t, head+strings.Repeat(chunk, maxBody>>10)+"1\r\n ")
		got := c.receive(t, "POST")
		got.want(t, 413, tooLarge)
		if !got.close {
			t.Error("the connection is said to stay open, with a body in it that nobody reads")
		}
		r.wantNothingDelivered(t)
	})
	t.Run("declared, and then nothing", func(t *testing.T) {
		r := newRig(t, func(c *ingress.Config) { c.MaxBody = 1 << 10 }).serve(t, longer)
		c := r.dial(t)
		c.write(t, draft{body: sized(2 << 10)}.text()[:500])
		c.receive(t, "POST").want(t, 413, tooLarge)
		r.wantNothingDelivered(t)
	})
	t.Run("a byte now and then", func(t *testing.T) {
		r := newRig(t).serve(t, func(s *http.Server) { s.ReadTimeout = 300 * time.Millisecond })
		c := r.dial(t)
		text := draft{body: known}.text()
		from := strings.Index(text, "\r\n\r\n") + 4
		c.write(t, text[:from])
		stopped := c.trickle(text[from:])
		c.receive(t, "POST").want(t, 400, badRequest)
		c.wantClosed(t)
		_ = c.Close()
		<-stopped
		r.wantNothingDelivered(t)
	})
	t.Run("nothing", func(t *testing.T) {
		r := newRig(t).serve(t, func(s *http.Server) { s.ReadTimeout = 100 * time.Millisecond })
		c := r.dial(t)
		text := draft{body: known}.text()
		c.write(t, text[:len(text)-1])
		c.receive(t, "POST").want(t, 400, badRequest)
		c.wantClosed(t)
		r.wantNothingDelivered(t)
	})
}
