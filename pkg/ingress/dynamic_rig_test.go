package ingress_test

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
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

const (
	capability = "capability-token-of-an-operator-0001"
	dynamic    = path + "/" + capability
	audience   = "an-audience"
	goodHeader = `{"alg":"RS256","kid":"rsa-key"}`
	goodTimes  = `"aud":"an-audience","iat":1769083190,"exp":1769083500,`
	goodEvent  = `"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/1"}`
	goodClaims = "{" + goodTimes + goodEvent + "}"
)

// googles are the keys of the tests' key server: those of the verifier's vectors.
type googles struct {
	ed  ed25519.PrivateKey
	rsa *rsa.PrivateKey
	set []byte
}

var google = sync.OnceValue(func() googles {
	var file struct {
		Keys struct {
			Ed25519 []struct{ D string }
			RSA     []map[string]string
		}
	}
	raw, err := os.ReadFile("verify/testdata/dynamic_cases.json")
	if err == nil {
		err = json.Unmarshal(raw, &file)
	}
	if err != nil {
		panic(err)
	}
	jwk := file.Keys.RSA[0]
	number := func(name string) *big.Int { return new(big.Int).SetBytes(unbase64url(jwk[name])) }
	k := googles{ed: ed25519.NewKeyFromSeed(unbase64url(file.Keys.Ed25519[0].D)), rsa: &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number("n"), E: int(number("e").Int64())},
		D:         number("d"), Primes: []*big.Int{number("p"), number("q")},
	}}
	k.rsa.Precompute()
	k.set = fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ed-key","x":%q},{"kty":"RSA","kid":"rsa-key","n":%q,"e":%q}]}`,
		base64.RawURLEncoding.EncodeToString(k.ed.Public().(ed25519.PublicKey)), jwk["n"], jwk["e"])
	return k
})

func unbase64url(text string) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return raw
}

// stranger has keys that no set has.
var stranger = sync.OnceValue(func() googles {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return googles{ed: ed, rsa: private}
})

// v1a signs a delivery.
func (g googles) v1a(id, timestamp, body string) string {
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(g.ed, []byte(id+"."+timestamp+"."+body)))
}

// jwt signs header and claims, whatever they are.
func (g googles) jwt(header, claims string) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, g.rsa, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// asV1A makes a dynamic delivery of a draft, signed as it is.
func asV1A(d draft) draft {
	d.target = or(d.target, dynamic)
	d.signature = or(d.signature, google().v1a(or(d.id, "msg_1"), or(d.timestamp, fmt.Sprint(signedAt.Unix())), d.body))
	return d
}

// asJWT makes a dynamic delivery of claims, and of a draft what is beside them.
func asJWT(claims string, d draft) draft {
	d.target = or(d.target, dynamic)
	d.timestamp = or(d.timestamp, "-")
	d.signature = or(d.signature, google().jwt(goodHeader, claims))
	return d
}

// withKeys makes a verifier of all three forms, whose key server has served set, or nothing.
func withKeys(set []byte, change ...func(*verify.Config)) func(*ingress.Config) {
	return func(c *ingress.Config) {
		keys, err := verify.NewJWKS(verify.JWKSConfig{})
		if err == nil && set != nil {
			err = keys.Set(set)
		}
		if err != nil {
			panic(err)
		}
		cfg := verify.Config{
			Secrets: []secret.Text{secret.New(signingSecret)}, Tokens: []secret.Text{secret.New(capability)},
			JWKS: keys, Audience: audience, Now: func() time.Time { return signedAt },
		}
		for _, f := range change {
			f(&cfg)
		}
		if c.Verifier, err = verify.New(cfg); err != nil {
			panic(err)
		}
	}
}

// newDynamicRig has a verifier of all three forms.
func newDynamicRig(tb testing.TB, change ...func(*ingress.Config)) *rig {
	tb.Helper()
	return newRig(tb, append([]func(*ingress.Config){withKeys(google().set)}, change...)...)
}
