package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/files"
)

// The settings of the webhook listener's TLS, whose files are watched.
const (
	tlsCert     = "BRIDGE_TLS_CERT" // and the key, for they change together
	tlsKey      = "BRIDGE_TLS_KEY"
	tlsClientCA = "BRIDGE_TLS_CLIENT_CA"
)

// readPair reads a certificate with its chain and its key. The error holds nothing of the key.
func readPair(cert, key []byte) (tls.Certificate, error) {
	if err := checkChain(cert); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate and key cannot be used together: %w", err)
	}
	return pair, nil
}

// inForce returns an error unless the certificate is valid now.
func inForce(c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fmt.Errorf("the certificate ended on %s", c.NotAfter.UTC().Format(time.DateTime))
	}
	if now.Before(c.NotBefore) {
		return fmt.Errorf("the certificate is valid from %s: write it again then", c.NotBefore.UTC().Format(time.DateTime))
	}
	return nil
}

// parsePair is readPair for what must be valid now.
func parsePair(cert, key []byte, now time.Time) (tls.Certificate, error) {
	pair, err := readPair(cert, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pair, inForce(pair.Leaf, now)
}

// publicTLS is what the next handshake uses. What has been read of the files replaces it as a whole.
type publicTLS struct {
	mu      sync.Mutex // of writers
	current atomic.Pointer[tls.Config]
}

// startTLS returns the TLS of the webhook listener, which follows the files, or nil without it.
func startTLS(cfg PublicTLSConfig, watcher *files.Watcher, metrics prometheus.Registerer) (*tls.Config, error) {
	expires := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "bridge_tls_certificate_expires_seconds", Help: "When the certificate of the webhook listener ends, in Unix time; 0 without TLS.",
	})
	metrics.MustRegister(expires)
	if !cfg.on() {
		return nil, nil
	}
	var public publicTLS
	public.current.Store(&tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // the server speaks nothing else
	})
	err := watcher.Watch(tlsCert, []string{cfg.PublicCert, cfg.PublicKey}, func(contents [][]byte) error {
		pair, err := parsePair(contents[0], contents[1], time.Now())
		if err == nil {
			public.change(func(c *tls.Config) { c.Certificates = []tls.Certificate{pair} })
			expires.Set(float64(pair.Leaf.NotAfter.Unix()))
		}
		return err
	})
	if err != nil || cfg.PublicClientCA == "" {
		return public.config(), err
	}
	err = watcher.Watch(tlsClientCA, []string{cfg.PublicClientCA}, func(contents [][]byte) error {
		pool, err := parseCA(contents[0])
		if err == nil {
			public.change(func(c *tls.Config) {
				c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool
				c.SessionTicketsDisabled = true // a ticket would outlive the authority that let its owner in
			})
		}
		return err
	})
	return public.config(), err
}

func (p *publicTLS) change(set func(*tls.Config)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.current.Load().Clone()
	set(next)
	p.current.Store(next)
}

// config asks for the current one at every handshake.
func (p *publicTLS) config() *tls.Config {
	outer := p.current.Load().Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.current.Load(), nil }
	return outer
}
