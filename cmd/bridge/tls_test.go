package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// sign makes a certificate and its key in PEM form.
func (a *authority) sign(name string, end time.Time) (cert, key string) {
	a.t.Helper()
	return a.signFrom(name, time.Now().Add(-2*time.Hour), end)
}

func (a *authority) signFrom(name string, begin, end time.Time) (cert, key string) {
	a.t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: begin, NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, own.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func (a *authority) server(name string) (cert, key string) {
	return a.sign(name, time.Now().Add(time.Hour))
}

func (a *authority) pair(name string) tls.Certificate {
	a.t.Helper()
	cert, key := a.server(name)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// client trusts this authority.
func (a *authority) trusting(own ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(a.pem))
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: own}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100,
	}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// secureBridge is one whose listener speaks TLS, with its files in dir.
type secureBridge struct {
	*bridge
	*authority
	dir, addr string
}

func launchSecure(t *testing.T, environ []string) *secureBridge {
	t.Helper()
	s, pair := newSecure(t)
	return s.is(launch(t, append(environ, pair...)).up(t))
}

// newSecure has a certificate and its key in files, and the settings that name them, for a bridge that is yet to come.
func newSecure(t *testing.T) (s *secureBridge, environ []string) {
	t.Helper()
	s = &secureBridge{authority: newAuthority(t), dir: t.TempDir()}
	cert, key := s.server("first")
	s.put("cert", cert)
	s.put("key", key)
	return s, []string{"BRIDGE_TLS_CERT=" + s.path("cert"), "BRIDGE_TLS_KEY=" + s.path("key")}
}

// is takes a bridge that is up.
func (s *secureBridge) is(b *bridge) *secureBridge {
	s.bridge = b
	s.url = strings.Replace(s.url, "http://", "https://", 1)
	s.addr = strings.TrimSuffix(strings.TrimPrefix(s.url, "https://"), "/webhooks/gemini")
	return s
}

func (s *secureBridge) path(name string) string { return filepath.Join(s.dir, name) }

// put renames, so that no look finds half a file.
func (s *secureBridge) put(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path("new"), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.path("new"), s.path(name)); err != nil {
		s.t.Fatal(err)
	}
}

// shown is the name in the certificate of a new connection.
func (s *secureBridge) shown() (string, error) {
	c, err := tls.Dial("tcp", s.addr, s.trusting().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func (s *secureBridge) wantShown(want string) {
	s.t.Helper()
	eventually(s.t, func() error {
		if got, err := s.shown(); got != want || err != nil {
			return errors.Join(err, fmt.Errorf("certificate of %q, want %q", got, want))
		}
		return nil
	})
}

func (s *secureBridge) wantFailures(setting string, want float64) {
	s.t.Helper()
	eventually(s.t, func() error {
		if got := s.metrics(s.t)[`bridge_file_reload_failures_total{file="`+setting+`"}`]; got != want {
			return fmt.Errorf("%v failures of %s, want %v", got, setting, want)
		}
		return nil
	})
}

// The certificate changes with its key, and what cannot be used changes nothing.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := launchSecure(t, local(t))
	body := sample(t, "batch.succeeded")
	client := s.trusting()
	request, err := signed(s.url, signingSecret, "msg_1", body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	readBody(t, response)
	if response.StatusCode != http.StatusAccepted || response.Proto != "HTTP/1.1" || response.TLS == nil || response.TLS.Version != tls.VersionTLS13 {
		t.Errorf("%s %s %+v", response.Proto, response.Status, response.TLS)
	}
	s.wantShown("first")

	cert, key := s.server("second")
	s.put("cert", cert) // alone: it does not fit the key
	s.wantFailures(tlsCert, 1)
	s.wantShown("first")
	s.put("key", key)
	s.wantShown("second")
	s.put("cert", "no certificate")
	s.wantFailures(tlsCert, 2)
	ended, endedKey := s.sign("ended", time.Now().Add(-time.Minute))
	s.put("cert", ended)
	s.put("key", endedKey)
	s.log.line(t, `"level":"error"`, tlsCert, "the certificate ended on")
	s.wantShown("second")

	if r, err := send(client, s.url, signingSecret, "msg_2", body); err != nil || r.code != http.StatusAccepted {
		t.Errorf("a connection from before: %v, %v", r, err)
	}
	if strings.Contains(s.log.String(), "PRIVATE KEY") {
		t.Error("the key is in the log")
	}

	code, stdout, stderr := invoke(t, []string{"BRIDGE_SIGNING_SECRETS=" + signingSecret}, "", "send", "--url", s.url, "--ca", writeFile(t, s.pem))
	if code != exitOK || !strings.HasPrefix(stdout, "202 ") {
		t.Errorf("send: %d %q %q", code, stdout, stderr)
	}
	for _, args := range [][]string{{}, {"--ca", writeFile(t, newAuthority(t).pem)}} {
		code, stdout, stderr := invoke(t, []string{"BRIDGE_SIGNING_SECRETS=" + signingSecret}, "", append([]string{"send", "--url", s.url}, args...)...)
		if code != exitFailure || !strings.Contains(stderr, "certificate") {
			t.Errorf("send %q to one that is not trusted: %d %q %q", args, code, stdout, stderr)
		}
	}
}

// What is older than TLS 1.2, or no TLS, or HTTP/2 alone, hears nothing.
func TestTLSRefuses(t *testing.T) {
	t.Parallel()
	s := launchSecure(t, local(t))
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.1":      func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"HTTP/2 alone": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
	} {
		config := s.trusting().Transport.(*http.Transport).TLSClientConfig
		change(config)
		if c, err := tls.Dial("tcp", s.addr, config); err == nil {
			t.Errorf("%s: a connection, %+v", name, c.ConnectionState())
			_ = c.Close()
		}
	}
	config := s.trusting().Transport.(*http.Transport).TLSClientConfig
	config.MaxVersion = tls.VersionTLS12
	c, err := tls.Dial("tcp", s.addr, config)
	if err != nil {
		t.Fatalf("TLS 1.2: %v", err)
	}
	_ = c.Close()
	if r, err := send(s.client, strings.Replace(s.url, "https", "http", 1), signingSecret, "msg_1", "{}"); err == nil {
		t.Errorf("HTTP without TLS was answered %v", r)
	}
}

func TestTLSClientCertificate(t *testing.T) {
	t.Parallel()
	mine, others := newAuthority(t), newAuthority(t)
	ca := writeFile(t, mine.pem)
	s := launchSecure(t, local(t, "BRIDGE_TLS_CLIENT_CA="+ca))
	body := sample(t, "batch.succeeded")
	n := 0
	// passes tells whether a sender with certificates gets in on a new connection.
	passes := func(own ...tls.Certificate) bool {
		n++
		client := s.trusting(own...)
		defer client.CloseIdleConnections()
		r, err := send(client, s.url, signingSecret, fmt.Sprint("msg_", n), body)
		return err == nil && r.code == http.StatusAccepted
	}
	want := func(want bool, own ...tls.Certificate) {
		t.Helper()
		eventually(t, func() error {
			if got := passes(own...); got != want {
				return fmt.Errorf("gets in: %v, want %v", got, want)
			}
			return nil
		})
	}
	my, other := mine.pair("proxy"), others.pair("proxy")
	want(true, my)
	want(false)
	want(false, other)
	replace(t, ca, "no certificate", true)
	s.wantFailures(tlsClientCA, 1)
	want(true, my)
	want(false, other)
	replace(t, ca, others.pem, true)
	want(true, other)
	want(false, my)
}
