package main

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// lines are the lines of the error that loading environ returns.
func lines(t *testing.T, environ []string) []string {
	t.Helper()
	c, err := loadConfig(environ)
	if err == nil {
		return nil
	}
	if c != nil {
		t.Error("a Config beside the error")
	}
	if _, ok := errors.AsType[mistakes](err); !ok {
		t.Errorf("error of type %T", err)
	}
	assertNoSecret(t, err.Error())
	return strings.Split(err.Error(), "\n")
}

func TestMistakes(t *testing.T) {
	file, dir := writeFile(t, "content"), t.TempDir()
	missing := filepath.Join(dir, "missing")
	const (
		notDuration = " is not a duration: write a number with its unit, such as 500ms, 3s, 5m or 25h"
		notSize     = " is not a size: write bytes, or a whole number with KiB, MiB or GiB, such as 384KiB"
		notPath     = " is no path for the endpoint: begin with a slash, end without one, and use only letters, digits and . _ ~ - between single slashes"
		notAddress  = " is no address: write host:port, or :port for every interface"
		notPrefix   = " is no beginning for a subject: use letters, digits, _ and -, with single dots between them, at most 64 in all"
		notStream   = " is no name for a stream: use letters, digits, _ and -, at most 128 of them"
		notServer   = " is no address of a NATS server: write nats://host:4222 (or tls, ws, wss), more than one with commas between them"
		notCopies   = " is no number of copies that keeps a majority: set 1, 3 or 5"
		noFile      = "there is no such file: set the path of a file, not what stands in it"
		inURL       = "credentials in the URL would end up in logs: set BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD, or BRIDGE_NATS_TOKEN, instead"
		forExternal = "this is for an external server: set BRIDGE_NATS_URL too, or remove this"
		forEmbedded = "this is for the embedded server: remove it, or BRIDGE_NATS_URL"
		needsToken  = " can be reached from other machines: set BRIDGE_NATS_EMBEDDED_TOKEN or BRIDGE_NATS_EMBEDDED_TOKEN_FILE, or a loopback address"
		ackBounds   = " is out of bounds: set more than 0s and at most 30s, for Gemini waits only some seconds"
		bodyBounds  = " is out of bounds: set 1KiB to 32752KiB"
		noTime      = " leaves requests no time to finish: set more than 0s"
		shortWindow = " is too short: set 25h, which is more than the 24 hours for which Gemini repeats deliveries"
		keepBounds  = " is out of bounds: set 0s to BRIDGE_DEDUP_WINDOW (25h), after which a broker takes an event that it has for a new one"
		controlChar = "it holds a line break or another control character: remove that"
		makeToken   = "; make one with: openssl rand -hex 32"
		notKeys     = "it must begin with https://, or with http:// and a loopback address, and hold no credentials"
		emptySecret = ": no signing secret; set it as Gemini showed it: whsec_ and base64"
	)
	for _, c := range []struct {
		environ []string
		want    []string
	}{
		// What the parser refuses.
		{working("BRIDGE_ACK_TIMEOUT=3"), []string{`BRIDGE_ACK_TIMEOUT: "3"` + notDuration}},
		{working("BRIDGE_DRAIN_DELAY=soon"), []string{`BRIDGE_DRAIN_DELAY: "soon"` + notDuration}},
		{working("BRIDGE_DEDUP_WINDOW=1d"), []string{`BRIDGE_DEDUP_WINDOW: "1d"` + notDuration}}, // and nothing about ages
		{working("BRIDGE_NATS_MAX_AGE=7d"), []string{`BRIDGE_NATS_MAX_AGE: "7d"` + notDuration}},
		{working("BRIDGE_MAX_BODY=1MB"), []string{`BRIDGE_MAX_BODY: "1MB"` + notSize}},
		{working("BRIDGE_MAX_INFLIGHT=many"), []string{`BRIDGE_MAX_INFLIGHT: "many" is not a whole number`}},
		{working("BRIDGE_NATS_REPLICAS=1.5"), []string{`BRIDGE_NATS_REPLICAS: "1.5" is not a whole number`}},
		{working("BRIDGE_ACK_TIMEOUT=\x1b[31m" + strings.Repeat("x", 200)), []string{
			`BRIDGE_ACK_TIMEOUT: "\x1b[31m` + strings.Repeat("x", 75) + `"…` + notDuration,
		}},

		// Words.
		{working("BRIDGE_SINK=rabbit"), []string{`BRIDGE_SINK: "rabbit" is not one of its values: set nats or kafka or nats,kafka`}},

		// Kafka.
		{working("BRIDGE_SINK=kafka"), []string{"BRIDGE_KAFKA_BROKERS: there is no broker to publish to: set it, such as kafka-1:9092,kafka-2:9092"}},
		{working("BRIDGE_KAFKA_BROKERS=a:1"), []string{"BRIDGE_KAFKA_BROKERS: this is for another sink: set BRIDGE_SINK to kafka or nats,kafka, or remove this"}},
		{toKafka("BRIDGE_NATS_URL=nats://a"), []string{"BRIDGE_NATS_URL: this is for another sink: set BRIDGE_SINK to nats or nats,kafka, or remove this"}},
		{working("BRIDGE_SINK=nats,kafka", "BRIDGE_KAFKA_BROKERS=a:1,b"), []string{`BRIDGE_KAFKA_BROKERS: "b" is no address of a broker: write host:port`}},
		{toKafka("BRIDGE_KAFKA_TOPIC=a b"), []string{`BRIDGE_KAFKA_TOPIC: "a b" is no name for a topic: use letters, digits and . _ -, at most 244 of them`}},
		{toKafka("BRIDGE_KAFKA_COMPRESSION=brotli"), []string{`BRIDGE_KAFKA_COMPRESSION: "brotli" is not one of its values: set none or gzip or snappy or lz4 or zstd`}},
		{toKafka("BRIDGE_KAFKA_PARTITIONS=0"), []string{`BRIDGE_KAFKA_PARTITIONS: "0" is out of bounds: set 1 to 10000`}},
		{toKafka("BRIDGE_KAFKA_REPLICATION=-1"), []string{`BRIDGE_KAFKA_REPLICATION: "-1" is out of bounds: set 0, for the brokers' default, to 32`}},
		{toKafka("BRIDGE_KAFKA_TLS_CA=" + file), []string{"BRIDGE_KAFKA_TLS_CA: it is of no use without TLS: set BRIDGE_KAFKA_TLS=on"}},
		{toKafka("BRIDGE_KAFKA_TLS=on", "BRIDGE_KAFKA_TLS_CERT="+file), []string{"BRIDGE_KAFKA_TLS_CERT: it is of no use without BRIDGE_KAFKA_TLS_KEY: set that too"}},
		{toKafka("BRIDGE_KAFKA_SASL_USER=u"), []string{"BRIDGE_KAFKA_SASL_MECHANISM: there is a user or a password and no way to show it: set this to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"}},
		{toKafka("BRIDGE_KAFKA_SASL_MECHANISM=PLAIN"), []string{
			"BRIDGE_KAFKA_SASL_USER: there is no user to log in: set this",
			"BRIDGE_KAFKA_SASL_PASSWORD: there is no password: set this or BRIDGE_KAFKA_SASL_PASSWORD_FILE",
		}},
		{working("BRIDGE_CONTENT_MODE=Binary"), []string{`BRIDGE_CONTENT_MODE: "Binary" is not one of its values: set structured or binary`}},
		{working("BRIDGE_ON_INVALID=publish"), []string{`BRIDGE_ON_INVALID: "publish" is not one of its values: set dead-letter or reject`}},
		{working("BRIDGE_ON_UNKNOWN=drop"), []string{`BRIDGE_ON_UNKNOWN: "drop" is not one of its values: set publish or dead-letter or reject`}},
		{working("BRIDGE_LOG_LEVEL=loud"), []string{`BRIDGE_LOG_LEVEL: "loud" is not one of its values: set trace or debug or info or warn or error`}},
		{working("BRIDGE_LOG_FORMAT=text"), []string{`BRIDGE_LOG_FORMAT: "text" is not one of its values: set auto or json or console`}},

		// Signing secrets.
		{nil, strings.Split("BRIDGE_SIGNING_SECRETS: "+noSigningSecret, "\n")},
		{[]string{"BRIDGE_SIGNING_SECRETS=", "BRIDGE_SIGNING_SECRETS_FILE="}, strings.Split("BRIDGE_SIGNING_SECRETS: "+noSigningSecret, "\n")},
		{[]string{"BRIDGE_SIGNING_SECRETS= "}, []string{"BRIDGE_SIGNING_SECRETS: signing secret 1 of 1" + emptySecret}},
		{[]string{"BRIDGE_SIGNING_SECRETS=" + signingSecret + ","}, []string{"BRIDGE_SIGNING_SECRETS: signing secret 2 of 2" + emptySecret}},
		{working("BRIDGE_SIGNING_SECRETS_FILE=" + file), []string{"BRIDGE_SIGNING_SECRETS_FILE: both this and BRIDGE_SIGNING_SECRETS are set: remove one of them"}},
		{working("BRIDGE_SIGNING_SECRETS_FILE=" + missing), []string{"BRIDGE_SIGNING_SECRETS_FILE: both this and BRIDGE_SIGNING_SECRETS are set: remove one of them"}}, // once

		// Tokens and keys.
		{working("BRIDGE_DYNAMIC_TOKENS=" + dynamicToken[:31]), []string{"BRIDGE_DYNAMIC_TOKENS: token 1 of 1: shorter than 32 characters" + makeToken}},
		{working("BRIDGE_DYNAMIC_TOKENS=" + dynamicToken + ",," + dynamicToken + "/"), []string{
			"BRIDGE_DYNAMIC_TOKENS: token 2 of 3: no token" + makeToken,
			"BRIDGE_DYNAMIC_TOKENS: token 3 of 3: characters other than A-Z a-z 0-9 - _ . ~" + makeToken,
		}},
		{[]string{"BRIDGE_DYNAMIC_TOKENS_FILE=" + writeFile(t, "\n")}, []string{"BRIDGE_DYNAMIC_TOKENS_FILE: no token" + makeToken}},
		{[]string{"BRIDGE_DYNAMIC_TOKENS_FILE=" + dynamicToken}, []string{"BRIDGE_DYNAMIC_TOKENS_FILE: " + noFile}},
		{working("BRIDGE_DYNAMIC_TOKENS="+dynamicToken, "BRIDGE_DYNAMIC_TOKENS_FILE="+file), []string{"BRIDGE_DYNAMIC_TOKENS_FILE: both this and BRIDGE_DYNAMIC_TOKENS are set: remove one of them"}},
		{[]string{"BRIDGE_SIGNING_SECRETS=", "BRIDGE_DYNAMIC_TOKENS=", "BRIDGE_JWT_AUDIENCE=a"}, strings.Split("BRIDGE_SIGNING_SECRETS: "+noSigningSecret, "\n")},
		{working("BRIDGE_JWKS_URL=http://example.com/keys"), []string{"BRIDGE_JWKS_URL: " + notKeys}},
		{working("BRIDGE_JWKS_URL=https://user:" + natsPassword + "@example.com/"), []string{"BRIDGE_JWKS_URL: " + notKeys}},
		{working("BRIDGE_JWKS_URL=keys"), []string{"BRIDGE_JWKS_URL: " + notKeys}},
		{working("BRIDGE_JWKS_URL=https://example.com/", "BRIDGE_JWKS_FILE="+file), []string{"BRIDGE_JWKS_FILE: both this and BRIDGE_JWKS_URL are set: remove one of them"}},
		{working("BRIDGE_TLS_CERT=" + file), []string{"BRIDGE_TLS_CERT: it is of no use without BRIDGE_TLS_KEY: set that too"}},
		{working("BRIDGE_TLS_KEY=" + file), []string{"BRIDGE_TLS_KEY: it is of no use without BRIDGE_TLS_CERT: set that too"}},
		{working("BRIDGE_TLS_CLIENT_CA=" + writeFile(t, newAuthority(t).pem)), []string{"BRIDGE_TLS_CLIENT_CA: it is of no use without TLS: set BRIDGE_TLS_CERT and BRIDGE_TLS_KEY too, or remove this"}},
		{working("BRIDGE_TLS_CERT="+file, "BRIDGE_TLS_KEY="+file, "BRIDGE_TLS_CLIENT_CA="+file), []string{
			"BRIDGE_TLS_CERT: the file holds no certificate in PEM form",
			"BRIDGE_TLS_CLIENT_CA: the file holds no certificate in PEM form",
		}},
		{working("BRIDGE_JWKS_FILE=" + missing), []string{`BRIDGE_JWKS_FILE: "` + missing + `" cannot be found: name one that exists`}},

		// Files.
		{[]string{"BRIDGE_SIGNING_SECRETS_FILE=" + missing}, []string{"BRIDGE_SIGNING_SECRETS_FILE: " + noFile}},
		{[]string{"BRIDGE_SIGNING_SECRETS_FILE=" + signingSecret}, []string{"BRIDGE_SIGNING_SECRETS_FILE: " + noFile}},
		{[]string{"BRIDGE_SIGNING_SECRETS_FILE=" + dir}, []string{`BRIDGE_SIGNING_SECRETS_FILE: "` + dir + `" is no file: name one`}},
		{external("BRIDGE_NATS_TOKEN_FILE=" + natsToken), []string{"BRIDGE_NATS_TOKEN_FILE: " + noFile}},
		{external("BRIDGE_NATS_CREDS=" + natsToken), []string{"BRIDGE_NATS_CREDS: " + noFile}},
		{external("BRIDGE_NATS_NKEY=" + natsToken), []string{"BRIDGE_NATS_NKEY: " + noFile}},
		{external("BRIDGE_NATS_TLS_CERT="+file, "BRIDGE_NATS_TLS_KEY=-----BEGIN\n"+natsToken), []string{"BRIDGE_NATS_TLS_KEY: " + noFile}},
		{external("BRIDGE_NATS_TLS_CA=" + missing), []string{`BRIDGE_NATS_TLS_CA: "` + missing + `" cannot be found: name one that exists`}},
		{working("BRIDGE_SCHEMA_DIR=" + missing), []string{`BRIDGE_SCHEMA_DIR: "` + missing + `" cannot be found: name one that exists`}},
		{working("BRIDGE_SCHEMA_DIR=" + file), []string{`BRIDGE_SCHEMA_DIR: "` + file + `" is no directory: name one`}},
		{working("BRIDGE_DATA_DIR=" + file), []string{`BRIDGE_DATA_DIR: "` + file + `" is no directory: name one; it is made when it is missing`}},

		// Ingress.
		{working("BRIDGE_PATH=webhooks"), []string{`BRIDGE_PATH: "webhooks"` + notPath}},
		{working("BRIDGE_PATH=/"), []string{`BRIDGE_PATH: "/"` + notPath}},
		{working("BRIDGE_PATH=/a/"), []string{`BRIDGE_PATH: "/a/"` + notPath}},
		{working("BRIDGE_PATH=/a//b"), []string{`BRIDGE_PATH: "/a//b"` + notPath}},
		{working("BRIDGE_PATH=/a%20b"), []string{`BRIDGE_PATH: "/a%20b"` + notPath}},
		{working("BRIDGE_PATH=/a?b"), []string{`BRIDGE_PATH: "/a?b"` + notPath}},
		{working("BRIDGE_PATH=/a\n"), []string{`BRIDGE_PATH: "/a\n"` + notPath}},
		{working("BRIDGE_PATH=/a/../b"), []string{`BRIDGE_PATH: "/a/../b"` + notPath}},
		{working("BRIDGE_MAX_BODY=1023"), []string{`BRIDGE_MAX_BODY: "1023"` + bodyBounds}},
		{working("BRIDGE_MAX_BODY=32753KiB"), []string{`BRIDGE_MAX_BODY: "32753KiB"` + bodyBounds}},
		{working("BRIDGE_MAX_INFLIGHT=0"), []string{`BRIDGE_MAX_INFLIGHT: "0" is too small: set 1 or more`}},
		{working("BRIDGE_SOURCE=a b"), []string{`BRIDGE_SOURCE: "a b" is no URI reference: write something like //generativelanguage.googleapis.com or urn:example:bridge`}},
		{working("BRIDGE_SOURCE=%zz"), []string{`BRIDGE_SOURCE: "%zz" is no URI reference: write something like //generativelanguage.googleapis.com or urn:example:bridge`}},

		// Times.
		{working("BRIDGE_ACK_TIMEOUT=0s"), []string{`BRIDGE_ACK_TIMEOUT: "0s"` + ackBounds}},
		{working("BRIDGE_ACK_TIMEOUT=30.001s"), []string{`BRIDGE_ACK_TIMEOUT: "30.001s"` + ackBounds}},
		{working("BRIDGE_DRAIN_DELAY=-1s"), []string{`BRIDGE_DRAIN_DELAY: "-1s" is negative: set 0s or more`}},
		{working("BRIDGE_SHUTDOWN_TIMEOUT=0s"), []string{`BRIDGE_SHUTDOWN_TIMEOUT: "0s"` + noTime}},
		{working("BRIDGE_DEDUP_WINDOW=0s"), []string{`BRIDGE_DEDUP_WINDOW: "0s"` + shortWindow}},
		{working("BRIDGE_DEDUP_WINDOW=-25h"), []string{`BRIDGE_DEDUP_WINDOW: "-25h"` + shortWindow}},
		{working("BRIDGE_DEDUP_WINDOW=99ms"), []string{`BRIDGE_DEDUP_WINDOW: "99ms"` + shortWindow}},
		{working("BRIDGE_NATS_MAX_AGE=24h"), []string{`BRIDGE_NATS_MAX_AGE: 24h is shorter than BRIDGE_DEDUP_WINDOW (25h): set at least that`}},
		{working("BRIDGE_NATS_MAX_AGE=0s"), []string{`BRIDGE_NATS_MAX_AGE: 0s is shorter than BRIDGE_DEDUP_WINDOW (25h): set at least that`}},
		{working("BRIDGE_DEAD_MAX_AGE=24h59m"), []string{`BRIDGE_DEAD_MAX_AGE: 24h59m is shorter than BRIDGE_DEDUP_WINDOW (25h): set at least that`}},
		{working("BRIDGE_DEDUP_WINDOW=200h"), []string{`BRIDGE_NATS_MAX_AGE: 168h is shorter than BRIDGE_DEDUP_WINDOW (200h): set at least that`}},

		// The journal.
		{working("BRIDGE_JOURNAL=yes"), []string{`BRIDGE_JOURNAL: "yes" is not one of its values: set on or off`}},
		{working("BRIDGE_JOURNAL_MAX_BYTES=1GB"), []string{`BRIDGE_JOURNAL_MAX_BYTES: "1GB"` + notSize}},
		{working("BRIDGE_JOURNAL_MAX_BYTES=67108863"), []string{`BRIDGE_JOURNAL_MAX_BYTES: "67108863" is too small: set 64MiB or more`}},
		{working("BRIDGE_MAX_BODY=16MiB", "BRIDGE_JOURNAL_MAX_BYTES=256MiB"), []string{`BRIDGE_JOURNAL_MAX_BYTES: "256MiB" is too small: set 262400KiB or more`}},
		{working("BRIDGE_JOURNAL_KEEP=-1s"), []string{`BRIDGE_JOURNAL_KEEP: "-1s"` + keepBounds}},
		{working("BRIDGE_JOURNAL_KEEP=25h1s"), []string{`BRIDGE_JOURNAL_KEEP: "25h1s"` + keepBounds}},
		{working("BRIDGE_JOURNAL=off", "BRIDGE_JOURNAL_KEEP=1m", "BRIDGE_JOURNAL_MAX_BYTES=1GiB"), []string{
			"BRIDGE_JOURNAL_MAX_BYTES: it is of no use without a journal: set BRIDGE_JOURNAL=on, or remove this",
			"BRIDGE_JOURNAL_KEEP: it is of no use without a journal: set BRIDGE_JOURNAL=on, or remove this",
		}},

		// Addresses.
		{working("BRIDGE_ADDR=8080"), []string{`BRIDGE_ADDR: "8080"` + notAddress}},
		{working("BRIDGE_ADDR=:http"), []string{`BRIDGE_ADDR: ":http"` + notAddress}},
		{working("BRIDGE_ADDR=:65536"), []string{`BRIDGE_ADDR: ":65536"` + notAddress}},
		{working("BRIDGE_ADDR=http://localhost:80"), []string{`BRIDGE_ADDR: "http://localhost:80"` + notAddress}},
		{working("BRIDGE_ADMIN_ADDR=::1:80"), []string{`BRIDGE_ADMIN_ADDR: "::1:80"` + notAddress}},
		{working("BRIDGE_ADMIN_ADDR=a b:80"), []string{`BRIDGE_ADMIN_ADDR: "a b:80"` + notAddress}},
		{working("BRIDGE_NATS_EMBEDDED_ADDR=nats"), []string{`BRIDGE_NATS_EMBEDDED_ADDR: "nats"` + notAddress}},
		{working("BRIDGE_ADDR=:9090"), []string{`BRIDGE_ADMIN_ADDR: 127.0.0.1:9090 takes the port of BRIDGE_ADDR (:9090): set another port`}},
		{working("BRIDGE_ADDR=127.0.0.1:80", "BRIDGE_ADMIN_ADDR=127.0.0.1:80"), []string{`BRIDGE_ADMIN_ADDR: 127.0.0.1:80 takes the port of BRIDGE_ADDR (127.0.0.1:80): set another port`}},
		{working("BRIDGE_ADDR=127.0.0.1:80", "BRIDGE_ADMIN_ADDR=:80"), []string{`BRIDGE_ADMIN_ADDR: :80 takes the port of BRIDGE_ADDR (127.0.0.1:80): set another port`}},
		{working("BRIDGE_ADMIN_ADDR=[::]:4222"), []string{`BRIDGE_NATS_EMBEDDED_ADDR: 127.0.0.1:4222 takes the port of BRIDGE_ADMIN_ADDR ([::]:4222): set another port`}},

		// NATS.
		{working("BRIDGE_NATS_STREAM=a.b"), []string{`BRIDGE_NATS_STREAM: "a.b"` + notStream}},
		{working("BRIDGE_NATS_STREAM=a/b"), []string{`BRIDGE_NATS_STREAM: "a/b"` + notStream}},
		{working("BRIDGE_NATS_STREAM=a b"), []string{`BRIDGE_NATS_STREAM: "a b"` + notStream}},
		{working("BRIDGE_NATS_STREAM=>"), []string{`BRIDGE_NATS_STREAM: ">"` + notStream}},
		{working("BRIDGE_NATS_STREAM=a!b"), []string{`BRIDGE_NATS_STREAM: "a!b"` + notStream}},
		{working("BRIDGE_NATS_STREAM=" + strings.Repeat("a", 129)), []string{`BRIDGE_NATS_STREAM: "` + strings.Repeat("a", 80) + `"…` + notStream}},
		{working("BRIDGE_NATS_SUBJECT_PREFIX=gemini."), []string{`BRIDGE_NATS_SUBJECT_PREFIX: "gemini."` + notPrefix}},
		{working("BRIDGE_NATS_SUBJECT_PREFIX=a..b"), []string{`BRIDGE_NATS_SUBJECT_PREFIX: "a..b"` + notPrefix}},
		{working("BRIDGE_NATS_SUBJECT_PREFIX=gemini.>"), []string{`BRIDGE_NATS_SUBJECT_PREFIX: "gemini.>"` + notPrefix}},
		{working("BRIDGE_NATS_SUBJECT_PREFIX=$JS.API"), []string{`BRIDGE_NATS_SUBJECT_PREFIX: "$JS.API"` + notPrefix}},
		{working("BRIDGE_NATS_SUBJECT_PREFIX=_INBOX"), []string{`BRIDGE_NATS_SUBJECT_PREFIX: "_INBOX"` + notPrefix}},
		{working("BRIDGE_NATS_SUBJECT_PREFIX=" + strings.Repeat("a", 65)), []string{`BRIDGE_NATS_SUBJECT_PREFIX: "` + strings.Repeat("a", 65) + `"` + notPrefix}},
		{external("BRIDGE_NATS_REPLICAS=0"), []string{`BRIDGE_NATS_REPLICAS: "0"` + notCopies}},
		{external("BRIDGE_NATS_REPLICAS=2"), []string{`BRIDGE_NATS_REPLICAS: "2"` + notCopies}},
		{external("BRIDGE_NATS_REPLICAS=7"), []string{`BRIDGE_NATS_REPLICAS: "7"` + notCopies}},
		{working("BRIDGE_NATS_REPLICAS=3"), []string{`BRIDGE_NATS_REPLICAS: "3" is too many for the embedded server, which is only one: set 1, or BRIDGE_NATS_URL to a cluster`}},
		{working("BRIDGE_NATS_EMBEDDED_ADDR=:4222"), []string{`BRIDGE_NATS_EMBEDDED_ADDR: :4222` + needsToken}},
		{working("BRIDGE_NATS_EMBEDDED_ADDR=[::]:4222"), []string{`BRIDGE_NATS_EMBEDDED_ADDR: [::]:4222` + needsToken}},
		{working("BRIDGE_NATS_EMBEDDED_ADDR=nats.local:4222"), []string{`BRIDGE_NATS_EMBEDDED_ADDR: nats.local:4222` + needsToken}},
		{working("BRIDGE_NATS_EMBEDDED_TOKEN="+natsToken, "BRIDGE_NATS_EMBEDDED_TOKEN_FILE="+file), []string{"BRIDGE_NATS_EMBEDDED_TOKEN_FILE: both this and BRIDGE_NATS_EMBEDDED_TOKEN are set: remove one of them"}},
		{working("BRIDGE_NATS_URL=http://nats:4222"), []string{`BRIDGE_NATS_URL: "http://nats:4222"` + notServer}},
		{working("BRIDGE_NATS_URL=nats://a:4222,nats://:4222"), []string{`BRIDGE_NATS_URL: "nats://:4222"` + notServer}},
		{working("BRIDGE_NATS_URL=nats://a,wss://b"), []string{"BRIDGE_NATS_URL: websockets and other connections cannot be mixed: use one kind"}},
		{working("BRIDGE_NATS_STREAM=_a"), []string{`BRIDGE_NATS_STREAM: "_a"` + notStream}},
		{working("BRIDGE_NATS_URL=nats://a:0"), []string{`BRIDGE_NATS_URL: "nats://a:0"` + notServer}},
		{working("BRIDGE_NATS_URL=a:4222,"), []string{`BRIDGE_NATS_URL: ""` + notServer}},
		{working("BRIDGE_NATS_URL=nats://bridge:" + natsPassword + "@nats:4222"), []string{"BRIDGE_NATS_URL: " + inURL}},
		{working("BRIDGE_NATS_URL=nats://nats:4222," + natsToken + "@nats:70000"), []string{"BRIDGE_NATS_URL: " + inURL}},
		{external("BRIDGE_NATS_TOKEN=" + natsToken + "\n"), []string{"BRIDGE_NATS_TOKEN: " + controlChar}},
		{external("BRIDGE_NATS_TOKEN="+natsToken, "BRIDGE_NATS_TOKEN_FILE="+file), []string{"BRIDGE_NATS_TOKEN_FILE: both this and BRIDGE_NATS_TOKEN are set: remove one of them"}},
		{external("BRIDGE_NATS_USER=u"), []string{"BRIDGE_NATS_USER: there is no password for this user: set BRIDGE_NATS_PASSWORD or BRIDGE_NATS_PASSWORD_FILE"}},
		{external("BRIDGE_NATS_PASSWORD=" + natsPassword), []string{"BRIDGE_NATS_USER: there is no user for the password: set this"}},
		{external("BRIDGE_NATS_PASSWORD_FILE=" + file), []string{"BRIDGE_NATS_USER: there is no user for the password: set this"}},
		{external("BRIDGE_NATS_CREDS="+file, "BRIDGE_NATS_TOKEN_FILE="+file), []string{"BRIDGE_NATS_CREDS: there is more than one way to log in (BRIDGE_NATS_CREDS, BRIDGE_NATS_TOKEN): keep one"}},
		{external("BRIDGE_NATS_TLS_CERT=" + file), []string{"BRIDGE_NATS_TLS_CERT: it is of no use without BRIDGE_NATS_TLS_KEY: set that too"}},
		{external("BRIDGE_NATS_TLS_KEY=" + file), []string{"BRIDGE_NATS_TLS_KEY: it is of no use without BRIDGE_NATS_TLS_CERT: set that too"}},
		{working("BRIDGE_NATS_CREDS=" + file), []string{"BRIDGE_NATS_CREDS: " + forExternal}},
		{working("BRIDGE_NATS_USER=u", "BRIDGE_NATS_PASSWORD="+natsPassword), []string{"BRIDGE_NATS_USER: " + forExternal, "BRIDGE_NATS_PASSWORD: " + forExternal}},
		{working("BRIDGE_NATS_TLS_CA=" + file), []string{"BRIDGE_NATS_TLS_CA: " + forExternal}},
		{external("BRIDGE_NATS_EMBEDDED_ADDR=127.0.0.1:4222"), []string{"BRIDGE_NATS_EMBEDDED_ADDR: " + forEmbedded}},
		{external("BRIDGE_NATS_EMBEDDED_TOKEN=" + natsToken), []string{"BRIDGE_NATS_EMBEDDED_TOKEN: " + forEmbedded}},
		{external("BRIDGE_NATS_EMBEDDED_TOKEN_FILE=" + file), []string{"BRIDGE_NATS_EMBEDDED_TOKEN_FILE: " + forEmbedded}},

		// Names that are not there.
		{working("BRIDGE_ADRR=:1"), []string{"BRIDGE_ADRR: there is no such variable; did you mean BRIDGE_ADDR?"}},
		{working("BRIDGE_ADRR="), []string{"BRIDGE_ADRR: there is no such variable; did you mean BRIDGE_ADDR?"}},
		{working("BRIDGE_SIGNING_SECRET=" + signingSecret), []string{"BRIDGE_SIGNING_SECRET: there is no such variable; did you mean BRIDGE_SIGNING_SECRETS?"}},
		{working("BRIDGE_NATS_TOKEN:" + natsToken + "="), []string{"BRIDGE_NATS_TOKEN…: there is no such variable; did you mean BRIDGE_NATS_TOKEN?"}},
		{working("BRIDGE_RABBIT_URL=a"), []string{"BRIDGE_RABBIT_URL: there is no such variable; `bridge config` lists all there are"}},
		{working("BRIDGE_=1"), []string{"BRIDGE_: there is no such variable; `bridge config` lists all there are"}},
	} {
		if got := lines(t, c.environ); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%q\ngot  %s\nwant %s", c.environ, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
}

// A socket cannot be opened by anybody, and a pipe that nobody writes to must not be waited for.
func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	socket, pipe := filepath.Join(dir, "socket"), filepath.Join(dir, "pipe")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		socket: " cannot be read: give the bridge's user the right to",
		pipe:   " is no file: name one",
	} {
		want = `BRIDGE_SIGNING_SECRETS_FILE: "` + path + `"` + want
		if got := strings.Join(lines(t, []string{"BRIDGE_SIGNING_SECRETS_FILE=" + path}), "\n"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	got := lines(t, []string{
		"BRIDGE_ZZZ_NOT_THERE=1", "BRIDGE_LOG_LEVEL=loud", "BRIDGE_ADRR=1", "BRIDGE_NATS_REPLICAS=x", "BRIDGE_ADDR=no",
		"BRIDGE_ACK_TIMEOUT=3", "BRIDGE_MAX_BODY=1", "BRIDGE_NATS_TOKEN=" + natsToken, "BRIDGE_PATH=x", "BRIDGE_SCHEMA_DIR=/not/there",
		"BRIDGE_NATS_MAX_AGE=1h",
	})
	want := []string{
		"BRIDGE_ADDR", "BRIDGE_PATH", "BRIDGE_SIGNING_SECRETS", "BRIDGE_MAX_BODY", "BRIDGE_ACK_TIMEOUT", "BRIDGE_SCHEMA_DIR",
		"BRIDGE_NATS_TOKEN", "BRIDGE_NATS_REPLICAS", "BRIDGE_NATS_MAX_AGE", "BRIDGE_LOG_LEVEL", "BRIDGE_ADRR", "BRIDGE_ZZZ_NOT_THERE",
	}
	var variables []string
	for _, line := range got {
		if !strings.HasPrefix(line, " ") {
			variable, _, _ := strings.Cut(line, ": ")
			variables = append(variables, variable)
		}
	}
	if strings.Join(variables, " ") != strings.Join(want, " ") {
		t.Errorf("got  %v\nwant %v", variables, want)
	}
}

// What the kubelet sets for Services named bridge and bridge-admin, all kinds of ports (Kubernetes,
// pkg/kubelet/envvars).
func TestKubernetesServiceLinks(t *testing.T) {
	links := []string{
		"BRIDGE_SERVICE_HOST=10.0.0.11", "BRIDGE_SERVICE_PORT=8080", "BRIDGE_SERVICE_PORT_HTTP=8080", "BRIDGE_PORT=tcp://10.0.0.11:8080",
		"BRIDGE_PORT_8080_TCP=tcp://10.0.0.11:8080", "BRIDGE_PORT_8080_TCP_PROTO=tcp", "BRIDGE_PORT_8080_TCP_PORT=8080", "BRIDGE_PORT_8080_TCP_ADDR=10.0.0.11",
		"BRIDGE_PORT_53_UDP=udp://10.0.0.11:53", "BRIDGE_PORT_53_UDP_PROTO=udp", "BRIDGE_PORT_53_UDP_PORT=53", "BRIDGE_PORT_53_UDP_ADDR=10.0.0.11",
		"BRIDGE_PORT_9_SCTP=sctp://10.0.0.11:9", "BRIDGE_PORT_9_SCTP_ADDR=10.0.0.11",
		"BRIDGE_ADMIN_SERVICE_HOST=fd00::1", "BRIDGE_ADMIN_SERVICE_PORT=9090", "BRIDGE_ADMIN_SERVICE_PORT_METRICS_1=9090",
		"BRIDGE_ADMIN_PORT=tcp://[fd00::1]:9090", "BRIDGE_ADMIN_PORT_9090_TCP=tcp://[fd00::1]:9090", "BRIDGE_ADMIN_PORT_9090_TCP_ADDR=fd00::1",
		"BRIDGE_X_PORT=udp://10.0.0.1:1",
	}
	for _, link := range links {
		if got := lines(t, working(link)); got != nil {
			t.Errorf("%s is not ignored: %q", link, got)
		}
	}
	for _, typo := range []string{
		"BRIDGE_ADMIN_PORT=9090", "BRIDGE_PORTS=80", "BRIDGE_PORT_HTTP=80", "BRIDGE_SERVICE_HOSTS=a", "BRIDGE_PORT_80_HTTP=80", "BRIDGE_PORT_80_TCP_X=1",
		"BRIDGE_XPORT=tcp://10.0.0.1:1",
	} {
		if got := lines(t, working(typo)); len(got) != 1 {
			t.Errorf("%s: %q, want one mistake", typo, got)
		}
	}
}

func TestNearestName(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"BRIDGE_ADDRESS", "BRIDGE_ADDR"},
		{"BRIDGE_NAT_URL", "BRIDGE_NATS_URL"},
		{"BRIDGE_ACK_TIMEOUTS", "BRIDGE_ACK_TIMEOUT"},
		{"BRIDGE_MAXBODY", "BRIDGE_MAX_BODY"},
		{"BRIDGE_NATS_TLS_CER", "BRIDGE_NATS_TLS_CERT"}, // one edit, though TLS_CA takes two
		{"BRIDGE_LOG_XXXX", ""},
		{"BRIDGE_LOGLEVEL", "BRIDGE_LOG_LEVEL"},
		{"BRIDGE_JOURNEY", "BRIDGE_JOURNAL"},
	} {
		if got := nearest(c.name, settings()); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"abc", "acb", 2}, {"flaw", "lawn", 2}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
