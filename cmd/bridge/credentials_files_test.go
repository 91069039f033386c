package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/gembridge/bridge/pkg/files"
)

// change is of a file, to content of no use when setting names whose.
type change struct{ file, content, setting string }

// TestBrokerFilesChange: what cannot be used stands in the files when the broker restarts, and the bridge comes back with
// what was there before. Then the broker wants something else, which the files hold by then.
func TestBrokerFilesChange(t *testing.T) {
	t.Parallel()
	for name, filesOf := range map[string]func(*testing.T) brokerFiles{"creds": credsFile, "nkey": nkeyFile, "TLS": tlsFiles} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := filesOf(t)
			dir := t.TempDir()
			put := func(file, content string) { replace(t, filepath.Join(dir, file), content, true) }
			var environ []string
			for _, good := range c.before {
				put(good.file, good.content)
				environ = append(environ, good.setting+"="+filepath.Join(dir, good.file))
			}
			broker := startBroker(t, c.old)
			b := launch(t, remote(t, broker.url(), append(environ, "BRIDGE_JOURNAL=off", "BRIDGE_LOG_LEVEL=trace")...)).up(t).connected(t)
			body := sample(t, "batch.succeeded")
			b.must(t, "published", "msg_0", body)
			failures := map[string]float64{}
			for i, bad := range c.broken {
				put(bad.file, bad.content)
				failures[bad.setting]++
				eventually(t, func() error {
					if got := b.metrics(t)[`bridge_file_reload_failures_total{file="`+bad.setting+`"}`]; got != failures[bad.setting] {
						return fmt.Errorf("%v failures of %s, want %v", got, bad.setting, failures[bad.setting])
					}
					return nil
				})
				b.log.line(t, `"level":"error"`, "stays in use", bad.setting)
				broker.stop()
				broker.start(t)
				b.connected(t)
				b.must(t, "published", fmt.Sprint("msg_broken_", i), body)
			}
			reloaded := len(b.log.lines("file reloaded"))
			for _, good := range c.after {
				put(good.file, good.content)
			}
			eventually(t, func() error {
				if got := len(b.log.lines("file reloaded")) - reloaded; got != c.groups {
					return fmt.Errorf("%d reloads, want %d", got, c.groups)
				}
				return nil
			})
			broker.stop()
			c.next(broker.opts)
			broker.start(t)
			b.connected(t)
			b.must(t, "published", "msg_next", body)
			for _, secret := range c.secrets {
				if lines := b.log.lines(secret); len(lines) > 0 {
					t.Errorf("a secret is in the log: %q", lines)
				}
			}
		})
	}
}

// brokerFiles are what a broker wants, and what it wants later.
type brokerFiles struct {
	old, next             func(*server.Options)
	before, broken, after []change
	groups                int // how many things the changes of after are
	secrets               []string
}

func nkeyFile(t *testing.T) brokerFiles {
	var seeds, publics [2]string
	for i := range seeds {
		seeds[i] = newSeed(t)
		pair, err := nkeys.FromSeed([]byte(seeds[i]))
		if err != nil {
			t.Fatal(err)
		}
		if publics[i], err = pair.PublicKey(); err != nil {
			t.Fatal(err)
		}
	}
	knows := func(i int) func(*server.Options) {
		return func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: publics[i]}} }
	}
	return brokerFiles{
		old: knows(0), next: knows(1), groups: 1, secrets: seeds[:],
		before: []change{{"seed", seeds[0] + "\n", natsNKeyFile}},
		broken: []change{{"seed", seeds[1][:30], natsNKeyFile}, {"seed", "", natsNKeyFile}},
		after:  []change{{"seed", seeds[1] + "\n", ""}},
	}
}

// credsFile is of two users of one account, of which the second takes the first one's place.
func credsFile(t *testing.T) brokerFiles {
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
	operator, operatorKey := pair(nkeys.CreateOperator)
	account, accountKey := pair(nkeys.CreateAccount)
	_, systemKey := pair(nkeys.CreateAccount)
	var tokens, seeds, users [2]string
	for i := range users {
		user, userKey := pair(nkeys.CreateUser)
		token, err := jwt.NewUserClaims(userKey).Encode(account)
		must(err)
		seed, err := user.Seed()
		must(err)
		tokens[i], seeds[i], users[i] = token, string(seed), userKey
	}
	creds := func(user int) string {
		content, err := jwt.FormatUserConfig(tokens[user], []byte(seeds[user]))
		must(err)
		return string(content)
	}
	without := func(user int) func(*server.Options) {
		claims := jwt.NewAccountClaims(accountKey)
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		claims.RevokeAt(users[user], time.Now().Add(time.Hour))
		resolver := &server.MemAccResolver{}
		for key, claims := range map[string]*jwt.AccountClaims{accountKey: claims, systemKey: jwt.NewAccountClaims(systemKey)} {
			token, err := claims.Encode(operator)
			must(err)
			must(resolver.Store(key, token))
		}
		return func(o *server.Options) {
			o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{operatorKey}, resolver, systemKey
		}
	}
	next := creds(1)
	return brokerFiles{
		old: without(1), next: without(0), groups: 1, secrets: append(tokens[:], seeds[:]...),
		before: []change{{"creds", creds(0), natsCredsFile}},
		broken: []change{
			{"creds", "rubbish", natsCredsFile},
			{"creds", next[:strings.Index(next, seeds[1])+20], natsCredsFile},              // half written
			{"creds", strings.Replace(next, tokens[1], tokens[1][:200], 1), natsCredsFile}, // damaged
			{"creds", strings.Replace(next, seeds[1], seeds[0], 1), natsCredsFile},         // half swapped
		},
		after: []change{{"creds", next, ""}},
	}
}

func tlsFiles(t *testing.T) brokerFiles {
	before, after := newAuthority(t), newAuthority(t)
	wants := func(a *authority) func(*server.Options) {
		pool := x509.NewCertPool()
		pool.AddCert(a.parsed())
		config := &tls.Config{
			Certificates: []tls.Certificate{a.pair("server")}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}
		return func(o *server.Options) { o.TLSConfig, o.TLS, o.TLSVerify, o.TLSTimeout = config, true, true, 5 }
	}
	oldCert, oldKey := before.server("bridge")
	cert, key := after.server("bridge")
	ended, endedKey := before.sign("bridge", time.Now().Add(-time.Minute))
	return brokerFiles{
		old: wants(before), next: wants(after), groups: 2, secrets: append(keyLines(t, oldCert, oldKey), keyLines(t, cert, key)...),
		before: []change{{"ca", before.pem, natsTLSCA}, {"cert", oldCert, natsTLSCert}, {"key", oldKey, "BRIDGE_NATS_TLS_KEY"}},
		broken: []change{
			{"ca", "", natsTLSCA},
			{"ca", before.pem + after.pem[:200], natsTLSCA},
			{"cert", cert, natsTLSCert},              // with the old key
			{"key", key[:len(key)/2], natsTLSCert},   // half written
			{"cert", cert + before.pem, natsTLSCert}, // a chain of others
			{"cert", ended + endedKey, natsTLSCert},  // with the half key
			{"key", endedKey, natsTLSCert},           // fits, and has ended
		},
		after: []change{{"ca", after.pem, ""}, {"cert", cert, ""}, {"key", key, ""}},
	}
}

func (a *authority) parsed() *x509.Certificate {
	a.t.Helper()
	all, err := parseCertificates([]byte(a.pem))
	if err != nil {
		a.t.Fatal(err)
	}
	return all[0]
}

// A certificate that has ended is no reason to refuse to start: the broker judges it.
func TestClientPair(t *testing.T) {
	a := newAuthority(t)
	good, goodKey := a.server("bridge")
	ended, endedKey := a.sign("bridge", time.Now().Add(-time.Minute))
	parse := clientPair()
	for i, c := range []struct {
		cert, key string
		works     bool
	}{{ended, endedKey, true}, {good, goodKey, true}, {ended, endedKey, false}, {good, endedKey, false}, {good, goodKey, true}} {
		if _, err := parse([][]byte{[]byte(c.cert), []byte(c.key)}); (err == nil) != c.works {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// What is named and cannot be used keeps the bridge from starting, and each thing is told.
func TestCredentialMistakes(t *testing.T) {
	t.Parallel()
	rubbish := writeFile(t, "rubbish\n")
	control := writeFile(t, "pass\u0007word\u00a0")
	forbidden := writeFile(t, "pass\u200fword\u0378\n") // not assigned: SASLprep has no place for it
	for name, c := range map[string]struct {
		environ []string
		want    []string
	}{
		"creds":        {external(natsCredsFile + "=" + rubbish), []string{natsCredsFile + ": "}},
		"seed":         {external(natsNKeyFile + "=" + rubbish), []string{natsNKeyFile + ": "}},
		"all at once":  {external(natsTLSCA+"="+rubbish, natsTLSCert+"="+rubbish, "BRIDGE_NATS_TLS_KEY="+rubbish), []string{natsTLSCA + ": " + errNoCertificate.Error(), natsTLSCert + ": " + errNoCertificate.Error()}},
		"control":      {external("BRIDGE_NATS_USER=u", natsPasswordFile+"="+control), []string{natsPasswordFile + ": the file holds a control character"}},
		"Kafka's TLS":  {toKafka("BRIDGE_KAFKA_TLS=on", kafkaTLSCA+"="+rubbish), []string{kafkaTLSCA + ": " + errNoCertificate.Error()}},
		"Kafka's pair": {toKafka("BRIDGE_KAFKA_TLS=on", kafkaTLSCert+"="+rubbish, "BRIDGE_KAFKA_TLS_KEY="+rubbish), []string{kafkaTLSCert + ": " + errNoCertificate.Error()}},
		"SCRAM":        {toKafka("BRIDGE_KAFKA_SASL_MECHANISM=SCRAM-SHA-256", "BRIDGE_KAFKA_SASL_USER=u", kafkaPasswordFile+"="+forbidden), []string{kafkaPasswordFile + ": ", "SCRAM does not allow"}},
	} {
		cfg := mustLoad(t, c.environ)
		_, err := natsConn(cfg, readOnce())
		if cfg.uses("kafka") {
			_, err = kafkaAccess(cfg, readOnce())
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}

// TestForbiddenPassword: one that SCRAM does not allow does not take the place of one that works.
func TestForbiddenPassword(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "first\n")
	var failures atomic.Int64
	watcher := files.New(files.Config{Interval: quickLook, OnFailure: func(string) { failures.Add(1) }})
	access, err := kafkaAccess(mustLoad(t, toKafka("BRIDGE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "BRIDGE_KAFKA_SASL_USER=u", kafkaPasswordFile+"="+path)), watcher)
	if err != nil {
		t.Fatal(err)
	}
	stop := inBackground(watcher.Run)
	defer func() {
		if err := stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	wants := func(password string, failed int64) {
		t.Helper()
		eventually(t, func() error {
			if got, n := access.Renewed().Reveal(), failures.Load(); got != password || n != failed {
				return fmt.Errorf("%q after %d failures, want %q after %d", got, n, password, failed)
			}
			return nil
		})
	}
	replace(t, path, "pass\u0378word\n", true)
	wants("first", 1)
	replace(t, path, "second\n", true)
	wants("second", 1)
}
