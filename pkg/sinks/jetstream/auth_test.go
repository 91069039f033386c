package jetstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

const (
	goodSecret = "open-sesame-7731"
	badSecret  = "let-me-in-please"
)

// TestCredentials tries each kind with the right one, and with a wrong one: the error names the setting, it is
// logged once however often the sink tries, no secret is told, and the right one heals without a restart.
func TestCredentials(t *testing.T) {
	seeds := newSeeds(t)
	jwts := newOperator(t)
	for _, c := range []struct {
		name      string
		configure func(*server.Options)
		good, bad func(*jetstream.Conn)
		setting   string
	}{
		{
			name:      "user and password",
			configure: func(o *server.Options) { o.Username, o.Password = "joe", goodSecret },
			good:      func(c *jetstream.Conn) { c.User, c.Password = "joe", secret.New(goodSecret) },
			bad:       func(c *jetstream.Conn) { c.User, c.Password = "joe", secret.New(badSecret) },
			setting:   "BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD",
		},
		{
			name:      "user in the URL",
			configure: func(o *server.Options) { o.Username, o.Password = "joe", goodSecret },
			good:      func(c *jetstream.Conn) { c.URL = strings.Replace(c.URL, "//", "//joe:"+goodSecret+"@", 1) },
			bad:       func(c *jetstream.Conn) { c.URL = strings.Replace(c.URL, "//", "//joe:"+badSecret+"@", 1) },
			setting:   "the user in BRIDGE_NATS_URL",
		},
		{
			name:      "token",
			configure: func(o *server.Options) { o.Authorization = goodSecret },
			good:      func(c *jetstream.Conn) { c.Token = secret.New(goodSecret) },
			bad:       func(c *jetstream.Conn) { c.Token = secret.New(badSecret) },
			setting:   "BRIDGE_NATS_TOKEN",
		},
		{
			name:      "nothing",
			configure: func(o *server.Options) { o.Authorization = goodSecret },
			good:      func(c *jetstream.Conn) { c.Token = secret.New(goodSecret) },
			bad:       func(*jetstream.Conn) {},
			setting:   "which of BRIDGE_NATS_USER, BRIDGE_NATS_TOKEN, BRIDGE_NATS_CREDS and BRIDGE_NATS_NKEY it wants",
		},
		{
			name:      "nkey",
			configure: func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: seeds.public}} },
			good:      func(c *jetstream.Conn) { c.NKey = contentOf(seeds.good) },
			bad:       func(c *jetstream.Conn) { c.NKey = contentOf(seeds.bad) },
			setting:   "BRIDGE_NATS_NKEY",
		},
		{
			name:      "creds",
			configure: jwts.configure,
			good:      func(c *jetstream.Conn) { c.Creds = contentOf(jwts.good) },
			bad:       func(c *jetstream.Conn) { c.Creds = contentOf(jwts.bad) },
			setting:   "BRIDGE_NATS_CREDS",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			b := startBroker(t, c.configure)
			conn := jetstream.Conn{URL: b.url()}
			c.good(&conn)
			s, l := openSink(t, jetstream.Config{Conn: conn})
			eventuallyReady(t, s)
			publish(t, s, 1)
			mustNotTell(t, l.String())

			conn = jetstream.Conn{URL: b.url()}
			c.bad(&conn)
			s, l = openSink(t, jetstream.Config{Conn: conn})
			mustNotTell(t, eventuallyDown(t, s, "refuses the credentials", c.setting))
			// Once it has been away for a while a publish says the same at once.
			eventually(t, "known to be away", func() error {
				_, err := s.Publish(ctxOf(t, 100*time.Millisecond), sinkstest.Event(1))
				if err == nil || errors.Is(err, sinks.ErrUnknown) || isRefused(err) {
					t.Fatalf("Publish: %v, want a not now", err)
				}
				if !strings.Contains(err.Error(), c.setting) {
					return err
				}
				return nil
			})
			if n := l.count(`"message"`); n != 1 || !strings.Contains(l.String(), c.setting) {
				t.Errorf("%d lines, want one that names the setting:\n%s", n, l)
			}
			mustNotTell(t, l.String())
		})
	}
}

func mustNotTell(t *testing.T, text string) {
	t.Helper()
	for _, s := range []string{goodSecret, badSecret} {
		if strings.Contains(text, s) {
			t.Errorf("a secret is told: %s", text)
		}
	}
}

// TestPasswordMended: the server is taught the password that the bridge has; nobody touches the bridge. Then it is
// changed under an established connection, and back.
func TestPasswordMended(t *testing.T) {
	b := startBroker(t, func(o *server.Options) { o.Username, o.Password = "joe", badSecret })
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), User: "joe", Password: secret.New(goodSecret)}})
	for range 2 {
		eventuallyDown(t, s, "refuses the credentials")
		b.stop(t)
		b.opts.Password = goodSecret
		b.start(t)
		eventuallyReady(t, s)
		publish(t, s, 1)
		b.stop(t)
		b.opts.Password = badSecret
		b.start(t)
	}
	eventuallyDown(t, s, "refuses the credentials")
	if n := l.count("connected to NATS"); n != 2 {
		t.Errorf("connected %d times, want 2:\n%s", n, l)
	}
	mustNotTell(t, l.String())
}

// TestCredentialsRotated: they are asked for at every connect. What has become of no use is told by its setting, before
// the first connection and after it, and without its content.
func TestCredentialsRotated(t *testing.T) {
	jwts := newOperator(t)
	b := startBroker(t, jwts.configure)
	file := filepath.Join(t.TempDir(), "creds")
	copyFile(t, jwts.bad, file)
	s, l := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), Creds: contentOf(file)}})
	eventuallyDown(t, s, "refuses the credentials", "BRIDGE_NATS_CREDS")
	for range 2 {
		if err := os.WriteFile(file, []byte(badSecret), 0o600); err != nil {
			t.Fatal(err)
		}
		b.stop(t)
		b.start(t)
		eventuallyDown(t, s, "BRIDGE_NATS_CREDS: ")
		copyFile(t, jwts.good, file)
		eventuallyReady(t, s)
	}
	mustNotTell(t, l.String())
}

// TestSeedRotated: the server knows only a new user when it comes back, whose seed is in the file by then.
func TestSeedRotated(t *testing.T) {
	before, after := newSeeds(t), newSeeds(t)
	b := startBroker(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: before.public}} })
	file := filepath.Join(t.TempDir(), "seed")
	copyFile(t, before.good, file)
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), NKey: contentOf(file)}})
	eventuallyReady(t, s)
	b.stop(t)
	b.opts.Nkeys = []*server.NkeyUser{{Nkey: after.public}}
	b.start(t)
	eventuallyDown(t, s, "refuses the credentials", "BRIDGE_NATS_NKEY")
	copyFile(t, after.good, file)
	eventuallyReady(t, s)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil { // a reader must not find it empty
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	serverCert, clientCert, clientKey := ca.issue(t, "server"), ca.file(t, "client.pem"), ca.file(t, "client.key")
	strangerCert, strangerKey := other.file(t, "client.pem"), other.file(t, "client.key")
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	plain := &tls.Config{Certificates: []tls.Certificate{serverCert}, MinVersion: tls.VersionTLS12}
	mutual := &tls.Config{Certificates: []tls.Certificate{serverCert}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	for _, c := range []struct {
		name   string
		server *tls.Config
		conn   jetstream.Conn
		want   string // of the error; empty = works
	}{
		{"CA", plain, jetstream.Conn{RootCAs: roots(t, ca.pem)}, ""},
		{"system's CAs", plain, jetstream.Conn{}, "unknown authority"},
		{"other CA", plain, jetstream.Conn{RootCAs: roots(t, other.pem)}, "unknown authority"},
		{"no TLS there", nil, jetstream.Conn{RootCAs: roots(t, ca.pem)}, "secure connection not available"},
		{"mutual", mutual, jetstream.Conn{RootCAs: roots(t, ca.pem), Certificate: pair(clientCert, clientKey)}, ""},
		{"mutual, no certificate", mutual, jetstream.Conn{RootCAs: roots(t, ca.pem)}, "tls"},
		{"mutual, a stranger's", mutual, jetstream.Conn{RootCAs: roots(t, ca.pem), Certificate: pair(strangerCert, strangerKey)}, "tls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := startBroker(t, func(o *server.Options) {
				o.TLSConfig, o.TLS, o.TLSVerify = c.server, c.server != nil, c.server == mutual
				o.TLSTimeout = 5
			})
			c.conn.URL = b.url()
			s, l := openSink(t, jetstream.Config{Conn: c.conn})
			if c.want == "" {
				eventuallyReady(t, s)
				publish(t, s, 1)
				return
			}
			eventuallyDown(t, s, "no trust", c.want, "BRIDGE_NATS_TLS_CA, BRIDGE_NATS_TLS_CERT and BRIDGE_NATS_TLS_KEY")
			if n := l.count(`"message"`); n != 1 {
				t.Errorf("%d lines, want 1:\n%s", n, l)
			}
		})
	}
}

// TestTLSLaterUntrusted: the server comes back with another certificate.
func TestTLSLaterUntrusted(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	b := startBroker(t, func(o *server.Options) {
		o.TLSConfig, o.TLS, o.TLSTimeout = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "server")}, MinVersion: tls.VersionTLS12}, true, 5
	})
	s, _ := openSink(t, jetstream.Config{Conn: jetstream.Conn{URL: b.url(), RootCAs: roots(t, ca.pem)}})
	eventuallyReady(t, s)
	b.stop(t)
	trusted := b.opts.TLSConfig
	b.opts.TLSConfig = &tls.Config{Certificates: []tls.Certificate{other.issue(t, "server")}, MinVersion: tls.VersionTLS12}
	b.start(t)
	eventuallyDown(t, s, "no trust", "unknown authority")
	b.stop(t)
	b.opts.TLSConfig = trusted
	b.start(t)
	eventuallyReady(t, s)
}

// seeds are nkeys of a user that the server knows, and of one that it does not.
type seeds struct{ good, bad, public string }

func newSeeds(t *testing.T) seeds {
	t.Helper()
	var s seeds
	for _, file := range []*string{&s.bad, &s.good} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		*file = filepath.Join(t.TempDir(), "seed")
		if err := os.WriteFile(*file, seed, 0o600); err != nil {
			t.Fatal(err)
		}
		if s.public, err = pair.PublicKey(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// operator is a server in operator mode, and credentials of a user of its account and of another operator's.
type operator struct {
	configure func(*server.Options)
	good, bad string
}

func newOperator(t *testing.T) operator {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		p, err := create()
		must(err)
		public, err := p.PublicKey()
		must(err)
		return p, public
	}
	op, opKey := pair(nkeys.CreateOperator)
	account, accountKey := pair(nkeys.CreateAccount)
	_, systemKey := pair(nkeys.CreateAccount)
	stranger, _ := pair(nkeys.CreateAccount)

	resolver := &server.MemAccResolver{}
	for _, key := range []string{accountKey, systemKey} {
		claims := jwt.NewAccountClaims(key)
		if key == accountKey {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		token, err := claims.Encode(op)
		must(err)
		must(resolver.Store(key, token))
	}
	creds := func(issuer nkeys.KeyPair) string {
		user, userKey := pair(nkeys.CreateUser)
		token, err := jwt.NewUserClaims(userKey).Encode(issuer)
		must(err)
		seed, err := user.Seed()
		must(err)
		content, err := jwt.FormatUserConfig(token, seed)
		must(err)
		file := filepath.Join(t.TempDir(), "user.creds")
		must(os.WriteFile(file, content, 0o600))
		return file
	}
	return operator{
		configure: func(o *server.Options) {
			o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{opKey}, resolver, systemKey
		},
		good: creds(account), bad: creds(stranger),
	}
}

// ca is an authority for one test.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	pem  string // file of the certificate
}

func newCA(t *testing.T) *ca {
	t.Helper()
	c := &ca{dir: t.TempDir()}
	c.pem = filepath.Join(c.dir, "ca.pem")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	pair := c.sign(t, template)
	c.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	c.cert = pair.Leaf
	writePEM(t, c.pem, "CERTIFICATE", pair.Certificate[0])
	pair = c.issue(t, "client")
	key, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, c.file(t, "client.pem"), "CERTIFICATE", pair.Certificate[0])
	writePEM(t, c.file(t, "client.key"), "EC PRIVATE KEY", key)
	return c
}

func (c *ca) file(t *testing.T, name string) string { t.Helper(); return filepath.Join(c.dir, name) }

func (c *ca) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	return c.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// sign signs with the authority's key, or, while there is none, with the certificate's own.
func (c *ca) sign(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, parentKey := c.cert, c.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
