package verify_test

import (
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

func TestURLs(t *testing.T) {
	for url, good := range map[string]bool{
		verify.GoogleJWKS: true, "https://[2001:db8::1]:8443/keys": true, "http://127.0.0.1:80/keys": true, "http://127.9.9.9/": true,
		"http://[::1]/keys": true, "http://localhost:8080/keys": true, "HTTPS://example.com": true,

		"http://example.com/keys": false, "http://10.0.0.1/": false, "http://localhost.example.com/": false, "http://127.0.0.1.example.com/": false,
		"http://0.0.0.0/": false, "https://": false, "https:///keys": false, "file:///etc/passwd": false, "ftp://127.0.0.1/": false, "/keys": false,
		"https://user:password@example.com/": false, "http://127.0.0.1@example.com/": false, "https://exa mple.com/": false, "keys": false, "://": false,
	} {
		j, err := verify.NewJWKS(verify.JWKSConfig{URL: url})
		if (err == nil) != good || (j != nil) != good || !good && !errors.Is(err, verify.ErrJWKSURL) {
			t.Errorf("%s: got %v, want accepted %v", url, err, good)
		}
		if err != nil && strings.Contains(err.Error(), "password") {
			t.Errorf("error %q quotes a password", err)
		}
	}
}

// run runs a JWKS of a real server until the first fetch has ended one way or the other.
func run(t *testing.T, url string, transport http.RoundTripper) verify.JWKSStatus {
	t.Helper()
	j, err := verify.NewJWKS(verify.JWKSConfig{URL: url, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		j.Run(ctx)
	}()
	for s := j.Status(); s.Keys == 0 && s.Failures == 0; s = j.Status() {
		<-time.After(time.Millisecond)
	}
	cancel()
	<-ended
	return j.Status()
}

// wrapped is what tracing makes of a transport.
type wrapped struct{ http.RoundTripper }

// A program may have put something else in place of net/http's own transport.
func TestDefaultTransportReplaced(t *testing.T) {
	before := http.DefaultTransport
	http.DefaultTransport = wrapped{before}
	defer func() { http.DefaultTransport = before }()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(allKeys()) }))
	defer server.Close()
	if got := run(t, server.URL, nil); got.Keys != 5 {
		t.Errorf("got %+v", got)
	}
}

// Over a real socket.
func TestFetch(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = w.Write(allKeys())
	}))
	defer other.Close()
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		keys    int
	}{
		"good": {func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != "/keys" || r.Header.Get("Accept") != "application/json" {
				t.Errorf("got %s %s, %v", r.Method, r.URL, r.Header)
			}
			_, _ = w.Write(allKeys())
		}, 5},
		"redirect to another host": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, 0},
		"redirect to the same host": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/there", http.StatusMovedPermanently)
		}, 0},
		"a bomb of 1 GiB of blanks": {func(w http.ResponseWriter, _ *http.Request) { bomb(w) }, 0},
		"broken off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			_, _ = w.Write(allKeys())
		}, 0},
		"a header of 1 MiB": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			_, _ = w.Write(allKeys())
		}, 0},
		"hung up":                    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0},
		"as text, with a BOM before": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append([]byte("\ufeff"), allKeys()...)) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tc.handler)
			defer server.Close()
			if got := run(t, server.URL+"/keys", nil); got.Keys != tc.keys || (got.Err == nil) != (tc.keys > 0) {
				t.Errorf("got %+v, want %d keys", got, tc.keys)
			}
		})
	}
	if got := elsewhere.Load(); got != 0 {
		t.Errorf("%d redirects were followed", got)
	}
}

func bomb(w http.ResponseWriter) {
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	blanks := []byte(strings.Repeat(" ", 1<<20))
	for range 1 << 10 {
		if _, err := z.Write(blanks); err != nil {
			return
		}
	}
	_ = z.Close()
}

func TestCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(allKeys()) }))
	defer server.Close()
	server.Config.ErrorLog = nil
	if got := run(t, server.URL, server.Client().Transport); got.Keys != 5 {
		t.Errorf("got %+v", got)
	}
	if got := run(t, server.URL, nil); got.Keys != 0 || got.Err == nil {
		t.Errorf("a certificate of nobody's is trusted: got %+v", got)
	}
}
