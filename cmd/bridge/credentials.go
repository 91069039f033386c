package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

// The settings of what the bridge shows to brokers, whose files are watched. A certificate stands for its key too.
const (
	natsCredsFile     = "BRIDGE_NATS_CREDS"
	natsNKeyFile      = "BRIDGE_NATS_NKEY"
	natsTokenFile     = "BRIDGE_NATS_TOKEN_FILE"
	natsPasswordFile  = "BRIDGE_NATS_PASSWORD_FILE"
	natsTLSCA         = "BRIDGE_NATS_TLS_CA"
	natsTLSCert       = "BRIDGE_NATS_TLS_CERT"
	embeddedTokenFile = "BRIDGE_NATS_EMBEDDED_TOKEN_FILE"
	kafkaPasswordFile = "BRIDGE_KAFKA_SASL_PASSWORD_FILE"
	kafkaTLSCA        = "BRIDGE_KAFKA_TLS_CA"
	kafkaTLSCert      = "BRIDGE_KAFKA_TLS_CERT"
)

// readOnce is for commands that soon end: what is watched by it is read, and not read again.
func readOnce() *files.Watcher { return files.New(files.Config{}) }

// credentials are read from files, which watcher looks after. err is all that was wrong with them.
type credentials struct {
	watcher *files.Watcher
	err     error
}

// watched returns what the files hold that could be parsed last, for whoever connects, or nil when none are named.
func watched[T any](c *credentials, setting string, parse func(contents [][]byte) (T, error), paths ...string) func() T {
	if paths[0] == "" {
		return nil
	}
	var current atomic.Pointer[T]
	err := c.watcher.Watch(setting, paths, func(contents [][]byte) error {
		value, err := parse(contents)
		if err == nil {
			current.Store(&value)
		}
		return err
	})
	if err != nil {
		c.err = errors.Join(c.err, err)
		return nil
	}
	return func() T { return *current.Load() }
}

// lineThat parses a file of one line, if check has nothing against it.
func lineThat(check func(secret.Text) error) func([][]byte) (secret.Text, error) {
	return func(contents [][]byte) (secret.Text, error) {
		line, err := oneLine(contents[0])
		if err == nil {
			err = check(line)
		}
		return line, err
	}
}

func anyLine(secret.Text) error { return nil }

// textThat takes the file as it is, if check has nothing against it.
func textThat(check func(secret.Text) error) func([][]byte) (secret.Text, error) {
	return func(contents [][]byte) (secret.Text, error) {
		text := secret.New(string(contents[0]))
		return text, check(text)
	}
}

func parseAuthorities(contents [][]byte) (*x509.CertPool, error) { return parseCA(contents[0]) }

// clientPair parses the certificate that the bridge shows to a broker, with its key. One that has ended, or has not begun,
// takes the place of none. At the start it is taken: the broker judges it, and until it is mended the journal takes what comes.
func clientPair() func([][]byte) (tls.Certificate, error) {
	started := false
	return func(contents [][]byte) (tls.Certificate, error) {
		pair, err := readPair(contents[0], contents[1])
		if err == nil && started {
			err = inForce(pair.Leaf, time.Now())
		}
		started = true
		return pair, err
	}
}

// natsConn is where the settings say that NATS is, and how to get in; with an empty URL it is the embedded server.
func natsConn(cfg *Config, watcher *files.Watcher) (jetstream.Conn, error) {
	nats := cfg.NATS
	conn := jetstream.Conn{URL: nats.URL, Token: nats.Token, User: nats.User, Password: nats.Password}
	c := &credentials{watcher: watcher}
	token := watched(c, natsTokenFile, lineThat(anyLine), nats.TokenFile)
	password := watched(c, natsPasswordFile, lineThat(anyLine), nats.PasswordFile)
	conn.Creds = watched(c, natsCredsFile, textThat(jetstream.CheckCreds), nats.Creds)
	conn.NKey = watched(c, natsNKeyFile, textThat(jetstream.CheckNKey), nats.NKey)
	conn.RootCAs = watched(c, natsTLSCA, parseAuthorities, nats.TLSCA)
	conn.Certificate = watched(c, natsTLSCert, clientPair(), nats.TLSCert, nats.TLSKey)
	switch {
	case token != nil:
		conn.Token, conn.Renewed = token(), token
	case password != nil:
		conn.Password, conn.Renewed = password(), password
	}
	return conn, c.err
}

// kafkaAccess fills in how the settings say to get in to the brokers.
func kafkaAccess(cfg *Config, watcher *files.Watcher) (kafka.Config, error) {
	k := cfg.Kafka
	access := kafka.Config{
		Brokers: k.Brokers, TLS: k.TLS == "on",
		SASLMechanism: saslMechanism(k), SASLUser: k.SASLUser, SASLPassword: k.SASLPassword,
	}
	check := func(password secret.Text) error {
		return kafka.CheckLogin(access.SASLMechanism, access.SASLUser, password)
	}
	c := &credentials{watcher: watcher}
	access.Renewed = watched(c, kafkaPasswordFile, lineThat(check), k.SASLPasswordFile)
	access.RootCAs = watched(c, kafkaTLSCA, parseAuthorities, k.KafkaTLSCA)
	access.Certificate = watched(c, kafkaTLSCert, clientPair(), k.KafkaTLSCert, k.KafkaTLSKey)
	if access.Renewed != nil {
		access.SASLPassword = access.Renewed()
	}
	return access, c.err
}

// embeddedToken is what consumers of the embedded server show.
func embeddedToken(cfg *Config) (secret.Text, error) {
	c := &credentials{watcher: readOnce()}
	if token := watched(c, embeddedTokenFile, lineThat(anyLine), cfg.NATS.EmbeddedTokenFile); token != nil {
		return token(), nil
	}
	return cfg.NATS.EmbeddedToken, c.err
}

func oneLine(content []byte) (secret.Text, error) {
	lines := files.Lines(content)
	if len(lines) != 1 {
		return secret.Text{}, errors.New("the file must hold one line")
	}
	if strings.ContainsFunc(lines[0], unicode.IsControl) {
		return secret.Text{}, errors.New("the file holds a control character")
	}
	return secret.New(lines[0]), nil
}
