package kafka_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// prompt is what every answer takes less than, whatever is wrong.
const prompt = 10 * time.Second

// mustBeDown sees that Check is no error, and that Ready and Publish are prompt ones that hold the text.
func mustBeDown(t *testing.T, s *kafka.Sink, want string) {
	t.Helper()
	mustBePrompt(t, "Check", func() error { return s.Check(ctxOf(t, prompt)) }, "")
	mustBePrompt(t, "Publish", func() error { _, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1)); return err }, want)
	eventually(t, "down for the right reason", func() error {
		if err := ready(t, s); err == nil || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("Ready: %w, want %s", err, want)
		}
		return nil
	})
	mustBePrompt(t, "Ready", func() error { return ready(t, s) }, want)
}

// mustBePrompt sees that the error is none for "", else one that means "not now" and holds the text.
func mustBePrompt(t *testing.T, what string, call func() error, want string) {
	t.Helper()
	start := time.Now()
	err := call()
	if took := time.Since(start); took > prompt {
		t.Errorf("%s took %s", what, took)
	}
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want == "":
	case err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("%s: %v, want %s", what, err, want)
	case errors.Is(err, sinks.ErrUnknown) || isRefused(err):
		t.Errorf("%s: %v, want a not now", what, err)
	}
}

func isRefused(err error) bool {
	_, refused := errors.AsType[*sinks.RefusedError](err)
	return refused
}

func TestUnknownHost(t *testing.T) {
	t.Parallel()
	s, _ := openSink(t, kafka.Config{Brokers: []string{"no-such-host.invalid:9092"}})
	mustBeDown(t, s, "check BRIDGE_KAFKA_BROKERS")
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	s, log := openSink(t, kafka.Config{Brokers: []string{"127.0.0.1:1"}})
	mustBeDown(t, s, "check BRIDGE_KAFKA_BROKERS")
	if n := strings.Count(log.String(), "cannot be reached"); n != 1 {
		t.Errorf("said %d times that the broker cannot be reached:\n%s", n, log)
	}
}

// TestNeverAnswers: a listener that accepts and is silent.
func TestNeverAnswers(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", tls), func(t *testing.T) {
			t.Parallel()
			l := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			s, _ := openSink(t, kafka.Config{Brokers: []string{l}, TLS: tls})
			mustBeDown(t, s, "does not answer, check BRIDGE_KAFKA_BROKERS")
		})
	}
}

// TestHangsUp: a listener that ends every connection, as a broker does that expects something else.
func TestHangsUp(t *testing.T) {
	t.Parallel()
	l := listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	s, _ := openSink(t, kafka.Config{Brokers: []string{l}})
	mustBeDown(t, s, "check BRIDGE_KAFKA_TLS and BRIDGE_KAFKA_SASL_MECHANISM")
}

// TestUnreachableAddress: the brokers' metadata holds an address that leads nowhere.
func TestUnreachableAddress(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	topic := topicOf(t)
	c.CreateTopic(topic, 1, nil)
	c.CreateTopic(topic+".dead", 1, nil)
	proxy := listen(t, func(client net.Conn) {
		broker, err := net.Dial("tcp", c.Bootstrap()[0])
		if err != nil {
			t.Error(err)
			return
		}
		defer broker.Close()
		go func() {
			_, _ = io.Copy(broker, client)
			broker.Close()
		}()
		b := make([]byte, 64<<10)
		for {
			n, err := broker.Read(b)
			if _, writeErr := client.Write(bytes.ReplaceAll(b[:n], []byte("127.0.0.1"), []byte("127.9.9.9"))); err != nil || writeErr != nil {
				return
			}
		}
	})
	s, _ := openSink(t, kafka.Config{Brokers: []string{proxy}, Topic: topic})
	mustBeDown(t, s, "check advertised.listeners of the brokers and BRIDGE_KAFKA_BROKERS")
}

// TestRefusesToConnect: what a change of the settings alone can mend is told at the start, and no secret with it.
func TestRefusesToConnect(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	foreign := foreignCA(t)
	falseCert, falseKey := impostor(t, c.CA())
	for _, addr := range []string{c.BootstrapTLS()[0], c.BootstrapMTLS()[0]} { // its first handshakes take a broker long
		conn, err := tls.Dial("tcp", addr, c.TLSConfig())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	const wrong = "not the password, and not to be seen"
	for name, test := range map[string]struct {
		cfg  kafka.Config
		want string
	}{
		"foreign CA":     {kafka.Config{Brokers: c.BootstrapTLS(), TLS: true, RootCAs: roots(t, foreign)}, "check BRIDGE_KAFKA_TLS, BRIDGE_KAFKA_TLS_CA"},
		"no certificate": {kafka.Config{Brokers: c.BootstrapMTLS(), TLS: true, RootCAs: roots(t, c.CA())}, "BRIDGE_KAFKA_TLS_CERT"},
		"a stranger's":   {kafka.Config{Brokers: c.BootstrapMTLS(), TLS: true, RootCAs: roots(t, c.CA()), Certificate: pair(falseCert, falseKey)}, "BRIDGE_KAFKA_TLS_CERT"},
		"no TLS":         {kafka.Config{Brokers: c.BootstrapTLS()}, "check BRIDGE_KAFKA_TLS"},
		"no SASL there":  {kafka.Config{Brokers: c.Bootstrap(), SASLMechanism: "PLAIN", SASLUser: c.User(), SASLPassword: secret.New(c.Password())}, "BRIDGE_KAFKA_SASL_MECHANISM"},
		"PLAIN":          {kafka.Config{Brokers: c.BootstrapSASL(), SASLMechanism: "PLAIN", SASLUser: c.User(), SASLPassword: secret.New(wrong)}, "BRIDGE_KAFKA_SASL_PASSWORD"},
		"SCRAM-SHA-256":  {kafka.Config{Brokers: c.BootstrapSASL(), SASLMechanism: "SCRAM-SHA-256", SASLUser: c.User(), SASLPassword: secret.New(wrong)}, "BRIDGE_KAFKA_SASL_PASSWORD"},
		"SCRAM-SHA-512":  {kafka.Config{Brokers: c.BootstrapSASL(), SASLMechanism: "SCRAM-SHA-512", SASLUser: "nobody", SASLPassword: secret.New(wrong)}, "BRIDGE_KAFKA_SASL_USER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, log := openSink(t, test.cfg)
			mustBePrompt(t, "Check", func() error { return s.Check(ctxOf(t, prompt)) }, test.want)
			mustBePrompt(t, "Publish", func() error { _, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1)); return err }, test.want)
			mustBePrompt(t, "Ready", func() error { return ready(t, s) }, test.want)
			if strings.Contains(log.String(), wrong) || strings.Contains(log.String(), c.Password()) {
				t.Error("the log holds a password")
			}
			if n := strings.Count(log.String(), `"level":"error"`); n != 1 {
				t.Errorf("%d errors were logged, want 1:\n%s", n, log)
			}
		})
	}
}

// TestAccess: every way in, and that the files are read again at each connect.
func TestAccess(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	password := secret.New(c.Password())
	for name, cfg := range map[string]kafka.Config{
		"TLS":                {Brokers: c.BootstrapTLS(), TLS: true, RootCAs: roots(t, c.CA())},
		"mTLS":               {Brokers: c.BootstrapMTLS(), TLS: true, RootCAs: roots(t, c.CA()), Certificate: pair(c.ClientCert(), c.ClientKey())},
		"PLAIN":              {Brokers: c.BootstrapSASL(), SASLMechanism: "PLAIN", SASLUser: c.User(), SASLPassword: password},
		"SCRAM-SHA-256":      {Brokers: c.BootstrapSASL(), SASLMechanism: "SCRAM-SHA-256", SASLUser: c.User(), SASLPassword: password},
		"SCRAM-SHA-512":      {Brokers: c.BootstrapSASL(), SASLMechanism: "SCRAM-SHA-512", SASLUser: c.User(), SASLPassword: password},
		"SCRAM-SHA-512, TLS": {Brokers: c.BootstrapSASLTLS(), TLS: true, RootCAs: roots(t, c.CA()), SASLMechanism: "SCRAM-SHA-512", SASLUser: c.User(), SASLPassword: password},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.CreateTopics, cfg.Topic = true, topicOf(t)
			s, log := openSink(t, cfg)
			if err := s.Check(ctxOf(t, prompt)); err != nil {
				t.Errorf("Check: %v", err)
			}
			eventuallyReady(t, s)
			publish(t, s, 1)
			if clear := strings.Contains(log.String(), "the password goes over the network as it is"); clear != (name == "PLAIN") {
				t.Errorf("warned of a clear password: %v", clear)
			}
			records := readN(t, kafka.ReaderConfig{
				Brokers: cfg.Brokers, TLS: cfg.TLS, RootCAs: cfg.RootCAs, Certificate: cfg.Certificate,
				SASLMechanism: cfg.SASLMechanism, SASLUser: cfg.SASLUser, SASLPassword: cfg.SASLPassword, Topic: cfg.Topic,
			}, sinks.FromStart(), 1)
			if !bytes.Equal(records[0].Data, sinkstest.Event(1).Structured) {
				t.Errorf("read %s", records[0].Data)
			}
		})
	}
	t.Run("file mended", func(t *testing.T) {
		ca := filepath.Join(t.TempDir(), "ca.pem")
		write := func(from string) {
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(ca, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		write(c.ClientCert())
		s, _ := openSink(t, kafka.Config{Brokers: c.BootstrapTLS(), TLS: true, RootCAs: roots(t, ca), CreateTopics: true, Topic: "mended"})
		if err := s.Check(ctxOf(t, prompt)); err == nil {
			t.Error("trusts a broker whose authority it does not know")
		}
		write(c.CA())
		eventuallyReady(t, s)
	})
}

// foreignCA returns the path of an authority's certificate that no broker has one from.
func foreignCA(t *testing.T) string {
	t.Helper()
	cert, _ := foreignPair(t, nil)
	return cert
}

// impostor returns a certificate and its key that claim to be of an authority, and are signed by nobody.
func impostor(t *testing.T, authority string) (cert, key string) {
	t.Helper()
	content, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return foreignPair(t, ca.RawSubject) // by which a client picks what it shows
}

func foreignPair(t *testing.T, name []byte) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: name, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "foreign.pem"), filepath.Join(t.TempDir(), "foreign.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// listen serves connections until the test ends, and returns its address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		running.Wait()
	})
	return l.Addr().String()
}
