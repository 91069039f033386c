package ingress_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// sender is a delivery whose body the test sends as it likes. It is its own ResponseWriter and its own body.
type sender struct {
	*httptest.ResponseRecorder
	text  string        // of the body, as signed
	sent  int           // of it
	asked chan struct{} // the handler wants more
	parts chan string
	cut   chan struct{} // closed by a deadline
	once  sync.Once
	left  string // of a part
	done  chan struct{}
}

// start begins a delivery of a body of so many bytes. It returns when the handler waits for the body.
func (r *rig) start(tb testing.TB, size int) *sender {
	tb.Helper()
	s := &sender{
		ResponseRecorder: httptest.NewRecorder(), text: sized(size),
		asked: make(chan struct{}), parts: make(chan string), cut: make(chan struct{}), done: make(chan struct{}),
	}
	head, _, _ := strings.Cut(draft{body: s.text}.text(), "\r\n\r\n")
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n")))
	if err != nil {
		tb.Fatal(err)
	}
	request.Body = s
	go func() {
		defer close(s.done)
		r.handler.ServeHTTP(s, request)
	}()
	tb.Cleanup(func() {
		_ = s.SetReadDeadline(time.Time{})
		<-s.done
	})
	s.settle(tb)
	return s
}

// settle waits until the handler wants more, or is done.
func (s *sender) settle(tb testing.TB) {
	tb.Helper()
	select {
	case <-s.asked:
	case <-s.done:
	case <-time.After(patience):
		tb.Fatal("the handler does nothing")
	}
}

// send sends the next n bytes of the body, and the end with the last one.
func (s *sender) send(tb testing.TB, n int) {
	tb.Helper()
	part := s.text[s.sent : s.sent+n]
	s.sent += n
	select {
	case s.parts <- part:
	case <-s.done:
		tb.Fatalf("it was answered %d before its end", s.Code)
	}
	s.settle(tb)
}

func (s *sender) rest(tb testing.TB) { tb.Helper(); s.send(tb, len(s.text)-s.sent) }

func (s *sender) Read(p []byte) (int, error) {
	if s.left == "" {
		select {
		case s.asked <- struct{}{}:
		case <-s.cut:
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case s.left = <-s.parts:
		case <-s.cut:
			return 0, os.ErrDeadlineExceeded
		}
	}
	n := copy(p, s.left)
	if s.left = s.left[n:]; s.left == "" && s.sent == len(s.text) {
		return n, io.EOF
	}
	return n, nil
}

func (s *sender) Close() error { return nil }

// SetReadDeadline is what the handler calls to end a Read under way.
func (s *sender) SetReadDeadline(time.Time) error {
	s.once.Do(func() { close(s.cut) })
	return nil
}

// wasCut tells whether the delivery was cut, and checks what its sender hears.
func (s *sender) wasCut(tb testing.TB) bool {
	tb.Helper()
	select {
	case <-s.cut:
	default:
		return false
	}
	await(tb, "the reply", s.done)
	reply{code: s.Code, header: s.Header(), body: s.Body.String()}.want(tb, 503, unavailable)
	if got := s.Header().Get("Connection"); got != "close" {
		tb.Errorf("Connection: got %q, want close", got)
	}
	return true
}
