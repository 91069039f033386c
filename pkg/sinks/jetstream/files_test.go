package jetstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"

	"github.com/gembridge/bridge/pkg/secret"
)

// contentOf is what a file holds whenever it is asked; none is no text.
func contentOf(path string) func() secret.Text {
	return func() secret.Text {
		content, _ := os.ReadFile(path)
		return secret.New(string(content))
	}
}

// roots are the authorities in a file, likewise.
func roots(t *testing.T, path string) func() *x509.CertPool {
	return func() *x509.CertPool {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(contentOf(path)().Reveal())) {
			t.Errorf("%s holds no certificate", path)
		}
		return pool
	}
}

// pair is a certificate with its key, likewise. While the files do not fit, it is none.
func pair(cert, key string) func() tls.Certificate {
	return func() tls.Certificate {
		pair, _ := tls.LoadX509KeyPair(cert, key)
		return pair
	}
}
