package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// google signs as Google does, and serves its keys.
type google struct {
	ed  ed25519.PrivateKey
	rsa *rsa.PrivateKey
	*httptest.Server
	broken  atomic.Bool // it answers 500
	fetches atomic.Int64
}

func newGoogle(t *testing.T) *google {
	t.Helper()
	g := &google{}
	var err error
	if _, g.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if g.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		g.fetches.Add(1)
		if g.broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(g.keys())
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *google) keys() []byte {
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ed25519-key","x":%q},{"kty":"RSA","kid":"rs256-key","n":%q,"e":%q}]}`,
		encode(g.ed.Public().(ed25519.PublicKey)), encode(g.rsa.N.Bytes()), encode(big.NewInt(int64(g.rsa.E)).Bytes()))
}

// v1a posts a delivery with a v1a signature.
func (g *google) v1a(t *testing.T, b *bridge, token, id, body string) reply {
	t.Helper()
	now := fmt.Sprint(time.Now().Unix())
	signature := ed25519.Sign(g.ed, []byte(id+"."+now+"."+body))
	return g.post(t, b, token, id, now, "v1a,"+base64.StdEncoding.EncodeToString(signature), body)
}

// jwt posts a delivery whose event is in a JWT.
func (g *google) jwt(t *testing.T, b *bridge, token, id, audience, event string) reply {
	t.Helper()
	var claims map[string]any
	if err := json.Unmarshal([]byte(event), &claims); err != nil {
		t.Fatal(err)
	}
	claims["aud"], claims["iat"], claims["exp"] = audience, time.Now().Unix(), time.Now().Add(time.Minute).Unix()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"RS256","kid":"rs256-key","typ":"JWT"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, g.rsa, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return g.post(t, b, token, id, "", signed+"."+encode(signature), event)
}

func (g *google) post(t *testing.T, b *bridge, token, id, timestamp, signature, body string) reply {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, b.url+"/"+token, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Webhook-Id", id)
	request.Header.Set("Webhook-Signature", signature)
	if timestamp != "" {
		request.Header.Set("Webhook-Timestamp", timestamp)
	}
	r, err := ask(b.client, request)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func want(t *testing.T, what string, got reply, code int, status string) {
	t.Helper()
	if got.code != code || got.Status+got.Error != status {
		t.Errorf("%s: %v, want %d %s", what, got, code, status)
	}
}

// TestDynamic: all three forms reach the stream, each under its id, and nothing that the bridge says holds the token.
func TestDynamic(t *testing.T) {
	t.Parallel()
	g := newGoogle(t)
	b := launch(t, local(t, "BRIDGE_DYNAMIC_TOKENS="+dynamicToken, "BRIDGE_JWKS_URL="+g.URL+"/keys", "BRIDGE_JWT_AUDIENCE=an-audience", "BRIDGE_LOG_LEVEL=trace")).up(t)
	b.becomes(t, http.StatusOK, "verification keys State:ok")
	body := sample(t, "batch.succeeded")

	b.must(t, "published", "msg_1", body)
	want(t, "v1a", g.v1a(t, b, dynamicToken, "msg_2", body), 202, "published")
	want(t, "v1a again", g.v1a(t, b, dynamicToken, "msg_2", body), 202, "duplicate")
	first := g.jwt(t, b, dynamicToken, "msg_3", "an-audience", body)
	want(t, "JWT", first, 202, "published")
	again := g.jwt(t, b, dynamicToken, "msg_4", "an-audience", body)
	want(t, "JWT under another id", again, 202, "duplicate")
	if first.ID != again.ID || !strings.HasPrefix(first.ID, "jwt_") {
		t.Errorf("ids %q and %q", first.ID, again.ID)
	}
	want(t, "JWT for another", g.jwt(t, b, dynamicToken, "msg_5", "another", body), 401, "unauthenticated")
	want(t, "a wrong token", g.v1a(t, b, "x"+dynamicToken, "msg_6", body), 401, "unauthenticated")
	want(t, "no token", g.post(t, b, "", "msg_7", "", "", body), 404, "not_found")
	if _, err := send(b.client, b.url+"/"+dynamicToken, signingSecret, "msg_8", body); err != nil {
		t.Error(err)
	}

	var said strings.Builder
	for _, msg := range consume(t, connect(t, b.nats), "GEMINI", 3) {
		fmt.Fprintln(&said, msg.Headers(), string(msg.Data()))
	}
	metrics := b.metrics(t)
	for series, value := range map[string]float64{
		`bridge_verified_total{key="-key",scheme="v1a"}`:       2,
		`bridge_verified_total{key="-key",scheme="jwt"}`:       2,
		`bridge_verified_total{key="LaSw",scheme="v1"}`:        1,
		`bridge_verify_failures_total{reason="jwt_audience"}`:  1,
		`bridge_verify_failures_total{reason="token_unknown"}`: 1,
		`bridge_verify_failures_total{reason="wrong_path"}`:    1,
		`bridge_jwks_failures_total`:                           0,
	} {
		if metrics[series] != value {
			t.Errorf("%s is %v, want %v", series, metrics[series], value)
		}
	}
	if age := metrics["bridge_jwks_age_seconds"]; age <= 0 || age > patience.Seconds() {
		t.Errorf("the keys are %v s old", age)
	}
	for _, page := range []string{"/metrics", "/readyz"} {
		r, err := b.get(b.admin + page)
		fmt.Fprintln(&said, r.text, err)
	}
	said.WriteString(b.log.String() + b.out.String())
	if strings.Contains(said.String(), dynamicToken) {
		t.Errorf("the token is in what the bridge said:\n%s", said.String())
	}
	if got := g.fetches.Load(); got != 1 {
		t.Errorf("the keys were fetched %d times", got)
	}
}

// TestKeyServerAway: without keys static deliveries go on, dynamic ones are told to come again, and when there are keys
// those are accepted.
func TestKeyServerAway(t *testing.T) {
	t.Parallel()
	g := newGoogle(t)
	g.broken.Store(true)
	b := launch(t, local(t, "BRIDGE_DYNAMIC_TOKENS="+dynamicToken, "BRIDGE_JWKS_URL="+g.URL)).up(t)
	b.becomes(t, http.StatusOK, "verification keys State:degraded", "dynamic deliveries are answered 503", "answered 500")
	body := sample(t, "batch.succeeded")
	b.must(t, "published", "msg_1", body)
	want(t, "without keys", g.v1a(t, b, dynamicToken, "msg_2", body), 503, "unavailable")
	want(t, "with a wrong token", g.v1a(t, b, dynamicToken+"x", "msg_2", body), 401, "unauthenticated")
	if metrics := b.metrics(t); metrics["bridge_jwks_failures_total"] < 1 || metrics["bridge_jwks_age_seconds"] <= 0 {
		t.Errorf("%v failures, %v s old", metrics["bridge_jwks_failures_total"], metrics["bridge_jwks_age_seconds"])
	}
	g.broken.Store(false)
	b.becomes(t, http.StatusOK, "verification keys State:ok")
	want(t, "with keys", g.v1a(t, b, dynamicToken, "msg_2", body), 202, "published")
	for text, most := range map[string]int{"keys could not be fetched": 1, "keys changed": 1, "keys are fetched again": 1} {
		if lines := b.log.lines("verification " + text); len(lines) != most {
			t.Errorf("%d log lines, want %d: %q", len(lines), most, lines)
		}
	}
}

// TestOnlyDynamic: without a secret the bridge is as good as its keys.
func TestOnlyDynamic(t *testing.T) {
	t.Parallel()
	g := newGoogle(t)
	g.broken.Store(true)
	tokens := writeFile(t, dynamicToken+"\n")
	environ := slices.DeleteFunc(local(t, "BRIDGE_DYNAMIC_TOKENS_FILE="+tokens, "BRIDGE_JWKS_URL="+g.URL), func(line string) bool {
		return strings.HasPrefix(line, "BRIDGE_SIGNING_SECRETS=")
	})
	b := launch(t, environ).up(t)
	b.becomes(t, http.StatusServiceUnavailable, "verification keys State:down")
	body := sample(t, "batch.succeeded")
	if r := b.post(t, "msg_1", body); r.code != http.StatusUnauthorized {
		t.Errorf("a static delivery: %v", r)
	}
	g.broken.Store(false)
	b.becomes(t, http.StatusOK)
	want(t, "v1a", g.v1a(t, b, dynamicToken, "msg_1", body), 202, "published")
}

// TestTokensAndKeysByFile: both change while the bridge runs, and what cannot be used leaves the old ones.
func TestTokensAndKeysByFile(t *testing.T) {
	t.Parallel()
	const second = "another-token-of-the-operator-0123456789"
	g, next := newGoogle(t), newGoogle(t)
	tokens, keys := writeFile(t, dynamicToken+"\n"), writeFile(t, string(g.keys()))
	b := launch(t, local(t, "BRIDGE_DYNAMIC_TOKENS_FILE="+tokens, "BRIDGE_JWKS_FILE="+keys)).up(t)
	b.becomes(t, http.StatusOK, "verification keys State:ok")
	body := sample(t, "batch.succeeded")
	n := 0
	until := func(what string, g *google, token string, code int) {
		t.Helper()
		began := time.Now()
		for {
			n++
			r := g.v1a(t, b, token, fmt.Sprint("msg_", n), body)
			if r.code == code {
				return
			}
			if time.Since(began) > rotation {
				t.Fatalf("%s: %v after the change: %v, want %d", what, rotation, r, code)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	until("the first token", g, dynamicToken, 202)
	until("the second, before", g, second, 401)
	replace(t, tokens, dynamicToken+"\r\n\r\n"+second+"\n", true)
	until("the second", g, second, 202)
	until("the first, beside it", g, dynamicToken, 202)
	replace(t, tokens, "short\n", false)
	b.log.line(t, `"level":"error"`, tokensFile, "unusable")
	until("the second, after a file of no use", g, second, 202)
	replace(t, tokens, second+"\n", false)
	until("the first, when it is gone", g, dynamicToken, 401)

	until("the next key, before", next, second, 401)
	replace(t, keys, "{}", false)
	b.log.line(t, `"level":"error"`, jwksFile, "unusable")
	until("the key, after a file of no use", g, second, 202)
	replace(t, keys, string(next.keys()), true)
	until("the next key", next, second, 202)
	until("the key that is gone", g, second, 401)
	if got := b.metrics(t); got[`bridge_file_reload_failures_total{file="`+tokensFile+`"}`] != 1 || got[`bridge_file_reload_failures_total{file="`+jwksFile+`"}`] != 1 {
		t.Error("the failures are not counted, one each")
	}
	if g.fetches.Load()+next.fetches.Load() > 0 {
		t.Error("pinned keys were fetched")
	}
	for _, token := range []string{dynamicToken, second} {
		if strings.Contains(b.log.String(), token) {
			t.Error("a token is in the log")
		}
	}
}

// TestNoKeysInFile: a pinned file without keys is no start.
func TestNoKeysInFile(t *testing.T) {
	t.Parallel()
	b := launch(t, local(t, "BRIDGE_DYNAMIC_TOKENS="+dynamicToken, "BRIDGE_JWKS_FILE="+writeFile(t, "{}")))
	if code := b.exit(t); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	b.log.line(t, "not started", jwksFile, "no Ed25519 and no RSA key")
}
