package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
)

const (
	rotations = 100
	quickLook = 25 * time.Millisecond // between two looks at the files, for a rotation to take 40 times less than it does
)

// accepting is a broker of its own kind.
type accepting struct{ events atomic.Int64 }

func (a *accepting) Deliver(context.Context, *schema.Event) (schema.Result, error) {
	a.events.Add(1)
	return schema.Published, nil
}

// edge is a bridge's way from the socket to the verifier with all that follows files, which it looks at more often.
type edge struct {
	*secureBridge
	google    *google
	delivered accepting
	body      string

	mu            sync.RWMutex // held by senders while a delivery is under way
	secret, token string       // of the senders
}

func launchEdge(t *testing.T, secret, token string) *edge {
	t.Helper()
	e := &edge{
		secureBridge: &secureBridge{bridge: newBridge(t), authority: newAuthority(t), dir: t.TempDir()},
		google:       newGoogle(t), body: sample(t, "batch.succeeded"), secret: secret, token: token,
	}
	cert, key := e.server("0")
	for name, content := range map[string]string{"secrets": secret, "tokens": token, "cert": cert, "key": key, "keys": string(e.google.keys())} {
		e.put(name, content)
	}
	cfg := mustLoad(t, byFile(e.path("secrets"), local(t,
		"BRIDGE_DYNAMIC_TOKENS_FILE="+e.path("tokens"), "BRIDGE_JWKS_FILE="+e.path("keys"),
		"BRIDGE_TLS_CERT="+e.path("cert"), "BRIDGE_TLS_KEY="+e.path("key"))))
	watcher := files.New(files.Config{Interval: quickLook})
	metrics := prometheus.NewRegistry()
	keys, err := newJWKS(cfg, watcher, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := newVerifier(cfg, keys, watcher)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := startTLS(cfg.TLS, watcher, metrics)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := schema.NewRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	server := ingress.NewServer(ingress.New(ingress.Config{
		Path: cfg.Path, Verifier: verifier, Registry: registry, Deliverer: &e.delivered, Source: cfg.Source,
		OnInvalid: ingress.DeadLetter, OnUnknown: ingress.Publish, MaxBody: int(cfg.MaxBody), MaxInflight: cfg.MaxInflight,
		Metrics: ingress.NewMetrics(metrics, registry.Types()), Log: zerolog.Nop(),
	}), cfg.AckTimeout, zerolog.Nop())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.addr = listener.Addr().String()
	e.url = "https://" + e.addr + cfg.Path
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ingress.NewTLSListener(listener, secure, 100, zerolog.Nop())) })
	stop := inBackground(watcher.Run)
	t.Cleanup(func() {
		if err := stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		_ = server.Close()
		serving.Wait()
	})
	return e
}

// try posts a static delivery, or a dynamic one when there is a token.
func (e *edge) try(client *http.Client, secret, token, id string) (reply, error) {
	request, err := signed(e.url, secret, id, e.body)
	if err != nil {
		return reply{}, err
	}
	if token != "" {
		request.URL.Path += "/" + token
		signature := ed25519.Sign(e.google.ed, []byte(id+"."+request.Header.Get("Webhook-Timestamp")+"."+e.body))
		request.Header.Set("Webhook-Signature", "v1a,"+base64.StdEncoding.EncodeToString(signature))
	}
	return ask(client, request)
}

// flow sends one delivery after the other until done, none of which may be refused, and every tenth on a new connection.
func (e *edge) flow(name string, dynamic bool, done <-chan struct{}) {
	client := e.trusting()
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		default:
		}
		if n%10 == 0 {
			client.CloseIdleConnections()
		}
		e.mu.RLock()
		token := e.token
		if !dynamic {
			token = ""
		}
		r, err := e.try(client, e.secret, token, fmt.Sprint("msg_", name, "_", n))
		e.mu.RUnlock()
		if err != nil || r.code != http.StatusAccepted {
			e.t.Errorf("%s, delivery %d: %v, %v", name, n, r, err)
			return
		}
	}
}

// TestRotationUnderLoad: secrets, tokens and the certificate change a hundred times while deliveries flow. None is
// refused, and what has been taken out of a file lets nobody in.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	secretOf := func(n int) string {
		return "whsec_" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "secret number %016d", n))
	}
	tokenOf := func(n int) string { return fmt.Sprintf("token-number-%032d", n) }
	e := launchEdge(t, secretOf(0), tokenOf(0))
	done := make(chan struct{})
	var flows sync.WaitGroup
	for n := range 4 {
		flows.Go(func() { e.flow(fmt.Sprint("flow", n), n%2 == 1, done) })
	}
	defer flows.Wait()
	defer close(done)

	probe := e.trusting()
	probes := 0
	// until waits for deliveries of this secret, and of this token, to be answered so.
	until := func(n, code int) {
		t.Helper()
		for began, token := time.Now(), ""; ; probes++ {
			r, err := e.try(probe, secretOf(n), token, fmt.Sprint("msg_probe_", probes))
			if err == nil && r.code == code {
				if token != "" {
					return
				}
				token = tokenOf(n)
				continue
			}
			if time.Since(began) > rotation {
				t.Fatalf("rotation %d, %v after the change: %v, %v, want %d", n, rotation, r, err, code)
			}
			time.Sleep(quickLook / 5)
		}
	}
	for n := 1; n <= rotations && !t.Failed(); n++ {
		cert, key := e.server(fmt.Sprint(n))
		e.put("secrets", secretOf(n-1)+"\n"+secretOf(n)+"\n")
		e.put("tokens", tokenOf(n-1)+"\n"+tokenOf(n)+"\n")
		e.put("cert", cert)
		e.put("key", key)
		until(n, http.StatusAccepted)
		e.mu.Lock() // waits for deliveries under way
		e.secret, e.token = secretOf(n), tokenOf(n)
		e.mu.Unlock()
		e.put("secrets", secretOf(n))
		e.put("tokens", tokenOf(n))
		until(n-1, http.StatusUnauthorized)
		e.wantShown(fmt.Sprint(n))
	}
	if got := e.delivered.events.Load(); got < 10*rotations {
		t.Errorf("%d deliveries beside %d rotations are no load", got, rotations)
	}
}
