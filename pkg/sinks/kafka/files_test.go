package kafka_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
)

// roots are the authorities that a file holds whenever it is asked.
func roots(t *testing.T, path string) func() *x509.CertPool {
	return func() *x509.CertPool {
		content, _ := os.ReadFile(path)
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(content) {
			t.Errorf("%s holds no certificate", path)
		}
		return pool
	}
}

// pair is a certificate with its key, likewise.
func pair(cert, key string) func() tls.Certificate {
	return func() tls.Certificate {
		pair, _ := tls.LoadX509KeyPair(cert, key)
		return pair
	}
}
