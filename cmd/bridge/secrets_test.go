package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// TestSecretsStaySecret: whatever goes wrong, nothing that the bridge says or stores holds a secret.
func TestSecretsStaySecret(t *testing.T) {
	const junk = "junk-that-might-be-a-secret"
	seed := newSeed(t)
	creds, userJWT, userSeed := newCreds(t)
	signing := "BRIDGE_SIGNING_SECRETS=" + signingSecret + "," + oldSecret
	user := func(o *server.Options) { o.Username, o.Password = "bridge", natsPassword }
	token := func(o *server.Options) { o.Authorization = natsToken }
	closed := func(o *server.Options) { o.Username, o.Password = "bridge", "another" }
	for _, c := range []struct {
		name    string
		broker  func(*server.Options) // nil: the embedded one
		environ []string
		secrets []string
	}{
		{"embedded", nil, []string{"BRIDGE_NATS_EMBEDDED_TOKEN=" + natsToken}, []string{natsToken}},
		{"embedded file", nil, []string{"BRIDGE_NATS_EMBEDDED_TOKEN_FILE=" + writeFile(t, natsToken+"\r\n")}, []string{natsToken}},
		{"password", user, []string{"BRIDGE_NATS_USER=bridge", "BRIDGE_NATS_PASSWORD=" + natsPassword}, []string{natsPassword}},
		{"token file", token, []string{"BRIDGE_NATS_TOKEN_FILE=" + writeFile(t, natsToken+"\n")}, []string{natsToken}},
		{"wrong password", closed, []string{"BRIDGE_NATS_USER=bridge", "BRIDGE_NATS_PASSWORD_FILE=" + writeFile(t, natsPassword)}, []string{natsPassword}},
		{"wrong token", closed, []string{"BRIDGE_NATS_TOKEN=" + natsToken}, []string{natsToken}},
		{"wrong nkey", closed, []string{"BRIDGE_NATS_NKEY=" + writeFile(t, seed)}, []string{seed}},
		{"wrong creds", closed, []string{"BRIDGE_NATS_CREDS=" + writeFile(t, creds)}, []string{userJWT, userSeed}},
		{"junk nkey", closed, []string{"BRIDGE_NATS_NKEY=" + writeFile(t, junk)}, []string{junk}},
		{"junk creds", closed, []string{"BRIDGE_NATS_CREDS=" + writeFile(t, junk)}, []string{junk}},
		{"half creds", closed, []string{"BRIDGE_NATS_CREDS=" + writeFile(t, creds[:len(creds)*3/4]+junk)}, []string{junk, userJWT}},
		{"junk TLS key", closed, []string{"BRIDGE_NATS_TLS_CERT=" + writeFile(t, "no certificate"), "BRIDGE_NATS_TLS_KEY=" + writeFile(t, junk)}, []string{junk}},
		{"two tokens", closed, []string{"BRIDGE_NATS_TOKEN_FILE=" + writeFile(t, natsToken+"\n"+junk+"\n")}, []string{natsToken, junk}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			environ := local(t)
			var broker *broker
			if c.broker != nil {
				broker = startBroker(t, c.broker)
				environ = remote(t, broker.url(), "BRIDGE_JOURNAL=off")
			}
			environ = append(append(environ, signing, "BRIDGE_LOG_LEVEL=trace"), c.environ...)
			b := launch(t, environ)
			secrets := append([]string{signingSecret, signingSecret[6:], oldSecret, oldSecret[6:]}, c.secrets...)
			for _, s := range []string{signingSecret, oldSecret} {
				raw, err := base64.StdEncoding.DecodeString(s[6:])
				if err != nil {
					t.Fatal(err)
				}
				secrets = append(secrets, string(raw))
			}
			var said strings.Builder
			if strings.HasPrefix(c.name, "junk") || c.name == "two tokens" || c.name == "half creds" {
				if code := b.exit(t); code != exitFailure {
					t.Errorf("exit code %d", code)
				}
				b.log.line(t, "not started", "BRIDGE_NATS_")
			} else {
				b.up(t)
				provoke(t, b, broker, &said, &secrets)
			}
			for _, command := range []string{"config", "tail", "send"} {
				_, stdout, stderr := invoke(t, environ, "", command)
				said.WriteString(stdout + stderr)
			}
			said.WriteString(b.log.String() + b.out.String())
			for _, secret := range told(said.String(), secrets...) {
				t.Errorf("the bridge tells %s:\n%s", secret, said.String())
			}
		})
	}
}

// provoke makes the bridge say all that it can, and collects it. It adds what senders keep secret to secrets.
func provoke(t *testing.T, b *bridge, broker *broker, said *strings.Builder, secrets *[]string) {
	t.Helper()
	hear := func(r reply, err error) {
		fmt.Fprintln(said, r.text, r.header, err)
	}
	for i, body := range []string{sample(t, "batch.failed"), "[", `{"type":"ping"}`} {
		request, err := signed(b.url, signingSecret, fmt.Sprint("msg_", i), body)
		if err != nil {
			t.Fatal(err)
		}
		*secrets = append(*secrets, request.Header.Get("Webhook-Signature"))
		request.Header.Set("Authorization", "Bearer "+natsPassword)
		request.Header.Set("Cookie", "session="+natsToken)
		hear(ask(b.client, request))
	}
	hear(send(b.client, b.url, "whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 24)), "msg_wrong", "{}"))
	hear(send(b.client, b.url+"/"+natsToken, oldSecret, "msg_path", "{}"))
	*secrets = append(*secrets, natsToken, "session=", "Bearer")
	if broker == nil {
		for _, opt := range []nats.Option{nats.Token("wrong"), nats.UserInfo("bridge", "wrong")} {
			if nc, err := nats.Connect(b.nats, opt); err == nil {
				nc.Close()
				t.Error("a stranger is let in")
			}
		}
		for _, stream := range []string{"GEMINI", "GEMINI_DEAD"} {
			for _, msg := range consume(t, connect(t, b.nats, nats.Token(natsToken)), stream, map[string]int{"GEMINI": 2, "GEMINI_DEAD": 1}[stream]) {
				fmt.Fprintln(said, msg.Subject(), msg.Headers(), string(msg.Data()))
			}
		}
	}
	hear(b.get(b.admin + "/readyz"))
	hear(b.get(b.admin + "/metrics"))
	if broker != nil {
		broker.stop()
		b.becomes(t, http.StatusServiceUnavailable)
		hear(b.try("msg_away", sample(t, "batch.failed")))
		hear(b.get(b.admin + "/readyz"))
	}
	b.signal(syscall.SIGTERM)
	b.exit(t)
}

func newSeed(t *testing.T) string {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return string(seed)
}

// newCreds is a credentials file that no server trusts.
func newCreds(t *testing.T) (creds, token, seed string) {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err = jwt.NewUserClaims(public).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(token, secret)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), token, string(secret)
}
