package verify_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

const (
	tokenA   = "operator-token.A_0123456789~abcdefgh"
	tokenB   = "operator-token.B_0123456789~abcdefgh"
	myAud    = "my-audience"
	edKey    = 0 // of cases
	edNoKID  = 1
	rsaKey   = 0
	rsaLarge = 1
)

// dynamicAt is when the JWTs of the vectors are valid.
var dynamicAt = time.Unix(1769083200, 0)

// cases is testdata/dynamic_cases.json: the keys that the vectors are signed with.
var cases = sync.OnceValue(func() (c struct {
	At   int64
	Keys struct {
		Ed25519 []struct{ KID, D string }
		RSA     []map[string]any
	}
},
) {
	raw, err := os.ReadFile("testdata/dynamic_cases.json")
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		panic(err)
	}
	return c
})

func unbase64url(text any) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(text.(string))
	if err != nil {
		panic(err)
	}
	return raw
}

func edPrivate(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(unbase64url(cases().Keys.Ed25519[n].D))
}

func rsaPrivate(n int) *rsa.PrivateKey { return rsaKeys()[n] }

var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey { return []*rsa.PrivateKey{newRSA(0), newRSA(1)} })

func newRSA(n int) *rsa.PrivateKey {
	jwk := cases().Keys.RSA[n]
	number := func(name string) *big.Int { return new(big.Int).SetBytes(unbase64url(jwk[name])) }
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number("n"), E: int(number("e").Int64())},
		D:         number("d"), Primes: []*big.Int{number("p"), number("q")},
	}
	k.Precompute()
	return k
}

// strangersRSA is a key that no set has.
var strangersRSA = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func rsaJWK(n int) map[string]any {
	jwk := cases().Keys.RSA[n]
	return map[string]any{"kty": "RSA", "kid": jwk["kid"], "n": jwk["n"], "e": jwk["e"]}
}

func edJWK(n int) map[string]any {
	public := edPrivate(n).Public().(ed25519.PublicKey)
	jwk := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public)}
	if kid := cases().Keys.Ed25519[n].KID; kid != "" {
		jwk["kid"] = kid
	}
	return jwk
}

// with returns a copy of a JSON object with other members; nil takes one away.
func with(object map[string]any, members map[string]any) map[string]any {
	changed := maps.Clone(object)
	maps.Copy(changed, members)
	maps.DeleteFunc(changed, func(_ string, v any) bool { return v == nil })
	return changed
}

func jwksOf(keys ...map[string]any) []byte {
	if keys == nil {
		keys = []map[string]any{}
	}
	return toJSON(map[string]any{"keys": keys})
}

func toJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// allKeys is a set of all keys of the vectors.
func allKeys() []byte { return jwksOf(edJWK(0), edJWK(1), edJWK(2), rsaJWK(0), rsaJWK(1)) }

// pinned is a JWKS that fetches nothing.
func pinned(tb testing.TB, content []byte) *verify.JWKS {
	tb.Helper()
	j, err := verify.NewJWKS(verify.JWKSConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	if content != nil {
		if err := j.Set(content); err != nil {
			tb.Fatal(err)
		}
	}
	return j
}

// newDynamic has the tokens A and B, a secret, and a clock that stands still.
func newDynamic(tb testing.TB, now time.Time, keys *verify.JWKS) *verify.Verifier {
	tb.Helper()
	v, err := verify.New(verify.Config{
		Secrets: texts(secretA), Tokens: texts(tokenA, tokenB), JWKS: keys, Audience: myAud, Now: func() time.Time { return now },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// opened is the path with the token A.
func opened(tb testing.TB, v *verify.Verifier) verify.Path {
	tb.Helper()
	path, err := v.Token(tokenA)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// signV1A signs without the package's help.
func signV1A(key ed25519.PrivateKey, id, timestamp, body string) string {
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(id+"."+timestamp+"."+body)))
}

// part is one of a JWT's three.
func part(content string) string { return base64.RawURLEncoding.EncodeToString([]byte(content)) }

// signJWT signs whatever header and claims are, without any library's help.
func signJWT(key *rsa.PrivateKey, header, claims string) string {
	signed := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + part(string(signature))
}

const (
	jwtHeader = `{"alg":"RS256","kid":"rsa-2048-kid1"}`
	jwtEvent  = `"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batch_123456"}`
	jwtTimes  = `"aud":"my-audience","iat":1769083190,"exp":1769083500,`
)

var goodJWT = sync.OnceValue(func() string { return signJWT(rsaPrivate(rsaKey), jwtHeader, "{"+jwtTimes+jwtEvent+"}") })

// wantDynamic checks a refusal of VerifyDynamic, or with reason "" an acceptance; and that Head tells it when the reason
// is one that the headers tell.
func wantDynamic(t *testing.T, v *verify.Verifier, token, id, timestamp, signature, body string, reason verify.Reason) verify.Delivery {
	t.Helper()
	h := headers(id, timestamp, signature)
	if timestamp == "" {
		delete(h, "Webhook-Timestamp")
	}
	delivery, err := v.VerifyDynamic(token, h, []byte(body))
	if reason == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return delivery
	}
	if delivery != (verify.Delivery{}) {
		t.Errorf("refused, yet it returned %+v", delivery)
	}
	wantFailure(t, err, reason)
	for _, hidden := range []string{tokenA, "operator", "rsa-2048-kid1", "batch_", "my-audience", strings.Split(signature, ".")[0]} {
		if len(hidden) > 3 && err != nil && strings.Contains(err.Error(), hidden) {
			t.Errorf("error %q quotes %q", err, hidden)
		}
	}
	return delivery
}
