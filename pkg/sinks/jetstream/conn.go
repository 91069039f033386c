package jetstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/gembridge/bridge/pkg/secret"
)

// Conn says where NATS is and who connects. At most one of Creds, NKey, Token and User is given. Files are read
// again at every connect.
type Conn struct {
	URL   string // nats://, tls://, ws:// or wss://, several by comma; may hold user:password or a token
	Creds string // file with a user's JWT and seed
	NKey  string // file with a user's seed

	User     string
	Password secret.Text
	Token    secret.Text

	TLSCA   string // PEM file of the authorities that may have signed the server's certificate; empty = the system's
	TLSCert string // PEM file of the client's certificate
	TLSKey  string // PEM file of its key

	// ConnOptions are used instead of all of the above: the in-process connection to an embedded server.
	ConnOptions []nats.Option
}

// options checks the settings, reads the files and returns what nats.Connect needs. The error names the setting
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
	if c.Creds != "" {
		given = append(given, "BRIDGE_NATS_CREDS")
		if err := checkCreds(c.Creds); err != nil {
			return nil, fmt.Errorf("BRIDGE_NATS_CREDS: %w", err)
		}
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		given = append(given, "BRIDGE_NATS_NKEY")
		opt, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("BRIDGE_NATS_NKEY: %w", err)
		}
		opts = append(opts, opt)
	}
	if !c.Token.IsZero() {
		given = append(given, "BRIDGE_NATS_TOKEN")
		opts = append(opts, nats.Token(c.Token.Reveal()))
	}
	if c.User != "" {
		given = append(given, "BRIDGE_NATS_USER")
		opts = append(opts, nats.UserInfo(c.User, c.Password.Reveal()))
	}
	if len(given) > 1 {
		return nil, fmt.Errorf("%s: only one of them may be set", strings.Join(given, ", "))
	}
	if c.User == "" && !c.Password.IsZero() {
		return nil, errors.New("BRIDGE_NATS_PASSWORD needs BRIDGE_NATS_USER")
	}
	tls, err := c.tlsOptions()
	return append(opts, tls...), err
}

func (c Conn) tlsOptions() ([]nats.Option, error) {
	var opts []nats.Option
	if c.TLSCA != "" {
		opts = append(opts, nats.RootCAs(c.TLSCA))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, errors.New("BRIDGE_NATS_TLS_CERT and BRIDGE_NATS_TLS_KEY: both or neither")
	}
	if c.TLSCert != "" {
		opts = append(opts, nats.ClientCert(c.TLSCert, c.TLSKey))
	}
	for _, opt := range opts {
		if err := opt(&nats.Options{}); err != nil { // reads the file, as every connect will
			return nil, fmt.Errorf("BRIDGE_NATS_TLS_CA, BRIDGE_NATS_TLS_CERT, BRIDGE_NATS_TLS_KEY: %w", err)
		}
	}
	return opts, nil
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

func checkCreds(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if _, err := nkeys.ParseDecoratedJWT(b); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	pair, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	pair.Wipe()
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

// settingsError is a file that could be used at the start and cannot any more.
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
	case c.Creds != "":
		return "BRIDGE_NATS_CREDS"
	case c.NKey != "":
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
