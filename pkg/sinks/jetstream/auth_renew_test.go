package jetstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

// TestTLSFilesChange: the server comes back with a certificate of another authority, and takes only those; the bridge's
// files hold what fits by then.
func TestTLSFilesChange(t *testing.T) {
	before, after := newCA(t), newCA(t)
	config := func(authority *ca) *tls.Config {
		pool := x509.NewCertPool()
		pool.AddCert(authority.cert)
		return &tls.Config{
			Certificates: []tls.Certificate{authority.issue(t, "server")}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}
	}
	b := startBroker(t, func(o *server.Options) {
		o.TLSConfig, o.TLS, o.TLSVerify, o.TLSTimeout = config(before), true, true, 5
	})
	dir := t.TempDir()
	trusted, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	conn := jetstream.Conn{URL: b.url(), RootCAs: roots(t, trusted), Certificate: pair(cert, key)}
	put := func(authority *ca) {
		t.Helper()
		copyFile(t, authority.pem, trusted)
		copyFile(t, authority.file(t, "client.pem"), cert)
		copyFile(t, authority.file(t, "client.key"), key)
	}
	put(before)
	s, _ := openSink(t, jetstream.Config{Conn: conn})
	eventuallyReady(t, s)
	b.stop(t)
	b.opts.TLSConfig = config(after)
	b.start(t)
	eventuallyDown(t, s, "no trust", "BRIDGE_NATS_TLS_CA")
	put(after)
	eventuallyReady(t, s)
	publish(t, s, 1)
}
