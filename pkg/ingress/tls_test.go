package ingress_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress"
)

// serveTLS is serve with a certificate for anybody, and returns the config of a client.
func (r *rig) serveTLS(tb testing.TB, limit int) *tls.Config {
	tb.Helper()
	model := httptest.NewUnstartedServer(nil) // for its certificate
	model.StartTLS()
	config := &tls.Config{Certificates: model.TLS.Certificates}
	client := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the server is this test's
	model.Close()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r.addr = listener.Addr().String()
	r.server = ingress.NewServer(r.handler, 3*time.Second, zerolog.New(&r.log))
	var serving sync.WaitGroup
	serving.Go(func() { _ = r.server.Serve(ingress.NewTLSListener(listener, config, limit, zerolog.New(&r.log))) })
	tb.Cleanup(func() {
		_ = r.server.Close()
		serving.Wait()
	})
	return client
}

// Connections count from before their handshake, so strangers that never make one close each other, and those that
// brought something authentic stay.
func TestBoundCountsHandshakes(t *testing.T) {
	r := newRig(t)
	config := r.serveTLS(t, 4)
	sender, err := tls.Dial("tcp", r.addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	deliver := func(id string) {
		t.Helper()
		if _, err := io.WriteString(sender, draft{id: id, body: known}.text()); err != nil {
			t.Fatal(err)
		}
		want := "HTTP/1.1 202 Accepted\r\n"
		got := make([]byte, 4096)
		n, err := sender.Read(got)
		if err != nil || string(got[:min(n, len(want))]) != want {
			t.Fatalf("got %q, %v", got[:n], err)
		}
	}
	deliver("msg_1")
	var strangers []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		strangers = append(strangers, c)
	}
	for _, c := range strangers[:5] { // four places, one of which is taken
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second)) // less than a handshake may take
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a stranger without a handshake is not closed: %v", err)
		}
	}
	deliver("msg_2")
}

// A handshake message that does not end is not kept: crypto/tls alone would take a quarter of a megabyte of it.
func TestEndlessHandshakeMessage(t *testing.T) {
	hello := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, make([]byte, 16<<10-4)...) // of 64 KiB, in records of 16
	more := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 16<<10)...)
	r := newRig(t)
	r.serveTLS(t, 4)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, record := range [][]byte{hello, more, more} {
		if _, err := c.Write(record); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second)) // less than a handshake may take
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("three quarters of a message are taken: %v", err)
	}
	if n := strings.Count(r.log.String(), "TLS handshakes failed"); n != 1 {
		t.Errorf("said %d times, want once: %s", n, r.log.String())
	}
}
