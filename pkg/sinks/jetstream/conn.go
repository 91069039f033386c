package jetstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/secret"
)

// Conn says where NATS is and who connects. At most one of Creds, NKey, Token and User is given. The functions are
// asked at every connect, from goroutines of the client; nil ones are not used.
type Conn struct {
	URL string // nats://, tls://, ws:// or wss://, several by comma; may hold user:password or a token

	Creds func() secret.Text // a user's JWT and seed, in the form of a credentials file
	NKey  func() secret.Text // a user's seed; a new one is shown when the old one is refused

	User     string
	Password secret.Text
	Token    secret.Text
	// Renewed is asked at every connect for what Password or Token, the one that is given, has become since. Optional.
	Renewed func() secret.Text

	RootCAs     func() *x509.CertPool  // the authorities that may have signed the server's certificate; nil = the system's
	Certificate func() tls.Certificate // the client's

	// ConnOptions are used instead of all of the above: the in-process connection to an embedded server.
	ConnOptions []nats.Option
}

// options checks the settings and returns what nats.Connect needs. The error names the setting
// and holds no secret.
func (c Conn) options() ([]nats.Option, error) {
	if c.ConnOptions != nil {
		return c.ConnOptions, nil
	}
	if err := c.checkURL(); err != nil {
		return nil, err
	}
	var given []string
	var opts []nats.Option
	if c.Creds != nil {
		given = append(given, "BRIDGE_NATS_CREDS")
		if err := CheckCreds(c.Creds()); err != nil {
			return nil, fmt.Errorf("BRIDGE_NATS_CREDS: %w", err)
		}
		opts = append(opts, renewingCreds(c.Creds))
	}
	if c.NKey != nil {
		given = append(given, "BRIDGE_NATS_NKEY")
		opt, err := nkeyOption(c.NKey())
		if err != nil {
			return nil, fmt.Errorf("BRIDGE_NATS_NKEY: %w", err)
		}
		opts = append(opts, opt)
	}
	if !c.Token.IsZero() {
		given = append(given, "BRIDGE_NATS_TOKEN")
		token := c.renewed(c.Token)
		opts = append(opts, nats.TokenHandler(func() string { return token().Reveal() }))
	}
	if c.User != "" {
		given = append(given, "BRIDGE_NATS_USER")
		password := c.renewed(c.Password)
		opts = append(opts, nats.UserInfoHandler(func() (user, pass string) { return c.User, password().Reveal() }))
	}
	if len(given) > 1 {
		return nil, fmt.Errorf("%s: only one of them may be set", strings.Join(given, ", "))
	}
	if c.User == "" && !c.Password.IsZero() {
		return nil, errors.New("BRIDGE_NATS_PASSWORD needs BRIDGE_NATS_USER")
	}
	if c.RootCAs != nil || c.Certificate != nil {
		opts = append(opts, c.tlsOption())
	}
	return opts, nil
}

func (c Conn) renewed(given secret.Text) func() secret.Text {
	if c.Renewed != nil {
		return c.Renewed
	}
	return func() secret.Text { return given }
}

func (c Conn) tlsOption() nats.Option {
	var certificate nats.TLSCertHandler
	if c.Certificate != nil {
		certificate = func() (tls.Certificate, error) { return c.Certificate(), nil }
	}
	var roots nats.RootCAsHandler
	if c.RootCAs != nil {
		roots = func() (*x509.CertPool, error) { return c.RootCAs(), nil }
	}
	return nats.ClientTLSConfig(certificate, roots)
}

// checkURL does not wrap url.Parse's error, for it repeats the URL with its password.
func (c Conn) checkURL() error {
	websockets := 0
	urls := strings.Split(c.URL, ",")
	for i, s := range urls {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Hostname() == "":
			return fmt.Errorf("BRIDGE_NATS_URL: number %d is not a URL like nats://host:4222", i+1)
		case u.Scheme == "ws" || u.Scheme == "wss":
			websockets++
		case u.Scheme != "nats" && u.Scheme != "tls":
			return fmt.Errorf("BRIDGE_NATS_URL: number %d has a scheme other than nats, tls, ws and wss", i+1)
		}
	}
	if websockets != 0 && websockets != len(urls) {
		return errors.New("BRIDGE_NATS_URL: websockets and others cannot be mixed")
	}
	return nil
}

// servers names where NATS is, without the user and the password that a URL may hold.
func (c Conn) servers() string {
	if c.ConnOptions != nil {
		return "the embedded server"
	}
	var hosts []string
	for s := range strings.SplitSeq(c.URL, ",") {
		_, host, found := strings.Cut(s, "://")
		if !found {
			host = s
		}
		hosts = append(hosts, strings.TrimSpace(host[strings.LastIndexByte(host, '@')+1:]))
	}
	return strings.Join(hosts, ",")
}

// trouble is a reason for having no connection, of a kind that is logged once per outage.
type trouble struct {
	kind troubleKind
	err  error
}

type troubleKind int

const (
	away troubleKind = iota
	unauthorized
	untrusted
	misconfigured
	troubleKinds
)

// explain says what a failed or broken connection means and which setting mends it.
func (c Conn) explain(err error, wasConnected bool) trouble {
	if e, ok := errors.AsType[*settingsError](err); ok {
		return trouble{misconfigured, e}
	}
	switch {
	case isAuth(err):
		return trouble{unauthorized, fmt.Errorf("NATS at %s refuses the credentials, check %s: %w", c.servers(), c.credentials(), err)}
	case isTLS(err):
		return trouble{untrusted, fmt.Errorf("no trust between the bridge and NATS at %s, check BRIDGE_NATS_TLS_CA, BRIDGE_NATS_TLS_CERT and BRIDGE_NATS_TLS_KEY: %w", c.servers(), err)}
	case wasConnected:
		return trouble{away, fmt.Errorf("connection to NATS at %s lost: %w", c.servers(), err)}
	}
	return trouble{away, fmt.Errorf("NATS at %s cannot be reached, check BRIDGE_NATS_URL: %w", c.servers(), err)}
}

// settingsError is a credential that could be used at the start and cannot any more.
type settingsError struct{ error }

func (e *settingsError) Unwrap() error { return e.error }

func isAuth(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isTLS goes by the text as well: a server that misses the client's certificate says so only after the handshake,
// by an alert that crypto/tls gives no type of its own.
func isTLS(err error) bool {
	return errors.Is(err, nats.ErrTLS) || errors.Is(err, nats.ErrSecureConnWanted) || strings.Contains(err.Error(), "tls: ")
}

func (c Conn) credentials() string {
	switch {
	case c.ConnOptions != nil:
		return "the embedded server's configuration"
	case c.Creds != nil:
		return "BRIDGE_NATS_CREDS"
	case c.NKey != nil:
		return "BRIDGE_NATS_NKEY"
	case !c.Token.IsZero():
		return "BRIDGE_NATS_TOKEN"
	case c.User != "":
		return "BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD"
	case strings.Contains(c.URL, "@"):
		return "the user in BRIDGE_NATS_URL"
	}
	return "which of BRIDGE_NATS_USER, BRIDGE_NATS_TOKEN, BRIDGE_NATS_CREDS and BRIDGE_NATS_NKEY it wants"
}

// delay is how long to wait before attempt n+1: up to a second, with jitter, so that many bridges do not come back
// to a broker at the same moment.
func delay(n int) time.Duration {
	base := 100 * time.Millisecond << min(n, 3)
	return base + rand.N(base/4)
}
