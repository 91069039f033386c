package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// forms are the ways in which a secret may stand in a text: as it is, in hexadecimal, in base64 with either alphabet and
// at any place of what is encoded, escaped for an address or in JSON, or as numbers.
func forms(secret string) []string {
	quoted, _ := json.Marshal(secret)
	all := []string{
		secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		url.QueryEscape(secret), url.PathEscape(secret), strings.Trim(string(quoted), `"`), strings.Trim(strconv.QuoteToASCII(secret), `"`),
		strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]"),
	}
	for before := range 3 {
		bits := 8 * (before + len(secret))
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString(append(make([]byte, before), secret...))
			all = append(all, text[(8*before+5)/6:bits/6]) // without what depends on the bytes beside it
		}
	}
	return all
}

// told returns the secrets that a text tells in any form.
func told(text string, secrets ...string) (all []string) {
	for _, secret := range secrets {
		for _, form := range forms(secret) {
			if strings.Contains(text, form) {
				all = append(all, fmt.Sprintf("%q as %q", secret, form))
			}
		}
	}
	return all
}

func TestForms(t *testing.T) {
	const secret = "a\"secret\\ with <all> of it?\xff/+~~"
	quoted, err := json.Marshal("the secret: " + secret)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	for name, text := range map[string]string{
		"raw": "x" + secret + "x", "%x": fmt.Sprintf("%x", "x"+secret+"x"), "%X": fmt.Sprintf("%X", secret), "%q": fmt.Sprintf("%+q", secret), "%v": fmt.Sprintf("%d", []byte("x"+secret+"x")),
		"JSON": string(quoted), "path": "/" + url.PathEscape(secret) + "/", "query": "?a=" + url.QueryEscape("a "+secret),
		"base64": encode([]byte(secret)), "base64 after 1": encode([]byte("x" + secret)), "base64 after 2": encode([]byte("xx" + secret + "x")), "base64 after 3": encode([]byte("xxx" + secret + "xx")),
		"base64 of addresses": base64.URLEncoding.EncodeToString([]byte("xxxxx" + secret + "xxx")), "base64 without end": base64.RawURLEncoding.EncodeToString([]byte(secret)),
	} {
		if len(told(text, "another secret", secret)) == 0 {
			t.Errorf("%s is not found in %q", name, text)
		}
	}
	if got := told("nothing that matters", "another secret", secret); len(got) > 0 {
		t.Errorf("found %q", got)
	}
}

// listening notes the signatures that are sent: a JWT lets in whoever has it.
type listening struct {
	http.RoundTripper
	mu   sync.Mutex
	sent []string
}

func (l *listening) RoundTrip(r *http.Request) (*http.Response, error) {
	if signature := r.Header.Get("Webhook-Signature"); signature != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sent = append(l.sent, signature)
	}
	return l.RoundTripper.RoundTrip(r)
}

// keyLines are a private key as its file has it, and as a number.
func keyLines(t *testing.T, cert, key string) []string {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	number, err := pair.PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(key), "\n")
	return append(lines[1:len(lines)-1], string(number))
}

// TestNoOutputTellsASecret: a bridge that has all kinds of secrets says all that it can, at its most talkative: lines of
// the log, replies, pages of the admin listener, errors of files that are exchanged for broken ones and of commands, and
// the stacks that SIGQUIT makes it print. None tells a secret in any form.
func TestNoOutputTellsASecret(t *testing.T) {
	t.Parallel()
	for name, outside := range map[string]bool{"broker inside": false, "broker outside": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGoogle(t)
			s, environ := newSecure(t)
			spare, lost := "whsec_"+base64.StdEncoding.EncodeToString([]byte(rand.Text())), rand.Text()+rand.Text()
			secrets := append(keyLines(t, readFile(t, s.path("cert")), readFile(t, s.path("key"))), signingSecret, signingSecret[6:], oldSecret, oldSecret[6:], dynamicToken, natsToken, natsPassword, spare[6:], lost)
			for _, secret := range []string{signingSecret, oldSecret} {
				raw, err := base64.StdEncoding.DecodeString(secret[6:])
				if err != nil {
					t.Fatal(err)
				}
				secrets = append(secrets, string(raw))
			}
			for file, content := range map[string]string{
				"secrets": oldSecret + "\n" + signingSecret, "tokens": dynamicToken, "keys": string(g.keys()), "token": natsToken, "password": natsPassword,
			} {
				s.put(file, content)
			}
			credential := embeddedTokenFile + "=" + s.path("token")
			if outside {
				broker := startBroker(t, func(o *server.Options) { o.Username, o.Password = "bridge", natsPassword })
				environ = append(remote(t, broker.url(), "BRIDGE_NATS_USER=bridge"), environ...)
				credential = natsPasswordFile + "=" + s.path("password")
			} else {
				environ = append(local(t), environ...)
			}
			environ = append(byFile(s.path("secrets"), environ), credential,
				"BRIDGE_LOG_LEVEL=trace", tokensFile+"="+s.path("tokens"), jwksFile+"="+s.path("keys"), "BRIDGE_JWT_AUDIENCE=us")
			s.is(spawn(t, environ, "serve").up(t))
			ear := &listening{RoundTripper: s.trusting().Transport}
			s.client = &http.Client{Transport: ear, Timeout: patience}

			var said strings.Builder
			hear := func(r reply, _ error) { fmt.Fprintln(&said, r.text, r.header) } // the sender's own errors name the address
			s.talk(t, g, hear)
			if !outside {
				door, err := readDoor(of(environ, "BRIDGE_DATA_DIR"))
				if err != nil {
					t.Fatal(err)
				}
				secrets = append(secrets, door.Token)
				request, err := http.NewRequest(http.MethodPost, s.admin+doorPath, strings.NewReader("{"))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", "Bearer "+door.Token)
				hear(ask(s.client, request))
				request.Header.Set("Authorization", "Bearer "+door.Token+"x")
				hear(ask(s.client, request))
			}

			// What each file becomes is of no use, and holds something new that nobody may know.
			stranger := newAuthority(t)
			foreignCert, foreignKey := stranger.server("stranger")
			secrets = append(secrets, keyLines(t, foreignCert, foreignKey)...)
			setting := map[string]string{"secrets": secretsFile, "tokens": tokensFile, "keys": jwksFile, "key": tlsCert, "token": embeddedTokenFile, "password": natsPasswordFile}
			broken := map[string]string{
				"secrets": signingSecret + "\n" + spare + "*\n" + lost, "tokens": dynamicToken + "\n" + lost + "/" + natsToken, "key": foreignKey,
				"keys": `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + lost + `","d":"` + lost, "token": natsToken + "\n" + lost, "password": natsPassword + "\n" + lost,
			}
			delete(broken, map[bool]string{true: "token", false: "password"}[outside])
			for file, content := range broken {
				s.put(file, content)
			}
			for file := range broken {
				s.wantFailures(setting[file], 1)
			}
			s.talk(t, g, hear)
			for _, command := range []string{"config", "send", "tail", "dead list", "journal list"} {
				_, stdout, stderr := invoke(t, environ, "", strings.Fields(command)...)
				said.WriteString(stdout + stderr)
			}
			s.signal(syscall.SIGQUIT)
			if code := s.exit(t); code != 2 {
				t.Errorf("exit code %d", code)
			}
			s.log.line(t, "SIGQUIT: quit")
			if len(s.log.lines("goroutine ")) < 5 {
				t.Errorf("these are not all stacks:\n%s", s.log)
			}
			said.WriteString(s.log.String() + s.out.String())
			for _, signature := range ear.sent {
				if _, value, found := strings.Cut(signature, ","); found {
					signature = value
				}
				secrets = append(secrets, signature)
			}
			if len(ear.sent) < 10 || len(said.String()) < 10_000 {
				t.Errorf("%d deliveries and %d bytes are not all that it can say", len(ear.sent), len(said.String()))
			}
			for _, secret := range told(said.String(), secrets...) {
				t.Errorf("the bridge tells %s", secret)
			}
		})
	}
}

// talk makes the bridge speak of good and bad deliveries, and of itself.
func (s *secureBridge) talk(t *testing.T, g *google, hear func(reply, error)) {
	t.Helper()
	body := sample(t, "batch.succeeded")
	id := "msg_" + rand.Text()
	for _, secret := range []string{signingSecret, oldSecret, "whsec_" + strings.Repeat("A", 32)} {
		hear(send(s.client, s.url, secret, id+secret[len(secret)-4:], body))
	}
	hear(send(s.client, s.url, signingSecret, id+"_dead", "["))
	hear(send(s.client, s.url+"/"+dynamicToken, signingSecret, id, body))
	hear(send(s.client, s.url+"/"+natsPassword+"/"+natsToken, signingSecret, id, body))
	request, err := signed(s.url, signingSecret, id+"_altered", body+" ")
	if err != nil {
		t.Fatal(err)
	}
	request.Body = http.NoBody
	request.ContentLength = 0
	request.Header.Set("Authorization", "Bearer "+natsToken)
	request.Header.Set("Cookie", "session="+natsPassword)
	hear(ask(s.client, request))
	for _, token := range []string{dynamicToken, dynamicToken + "x", "x/" + dynamicToken, dynamicToken + "?" + dynamicToken} {
		hear(g.v1a(t, s.bridge, token, id+"_v1a", body), nil)
		hear(g.jwt(t, s.bridge, token, id+"_jwt", "us", body), nil)
		hear(g.jwt(t, s.bridge, token, id+"_other", "others", body), nil)
	}
	// Without TLS, to a port that speaks nothing else.
	hear(send(http.DefaultClient, strings.Replace(s.url, "https:", "http:", 1)+"/"+dynamicToken, signingSecret, id, body))
	for _, page := range []string{"/healthz", "/readyz", "/metrics", "/", doorPath, "/" + dynamicToken} {
		hear(s.get(s.admin + page))
	}
}
