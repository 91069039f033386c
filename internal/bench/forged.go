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
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	benchToken    = "bench-bench-bench-bench-bench-bench"
	benchAudience = "bench"
)

// signer has keys as Google has them, or as a stranger has.
type signer struct {
	ed  ed25519.PrivateKey
	rsa *rsa.PrivateKey
}

func newSigner() (signer, error) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return signer{}, err
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	return signer{ed, private}, err
}

// publish writes the public keys as a JWKS.
func (s signer) publish(path string) error {
	encode := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "OKP", "crv": "Ed25519", "kid": "bench-ed", "x": encode(s.ed.Public().(ed25519.PublicKey))},
		{"kty": "RSA", "kid": "bench-rsa", "n": encode(s.rsa.N.Bytes()), "e": encode(big.NewInt(int64(s.rsa.E)).Bytes())},
	}})
	if err != nil {
		return err
	}
	return os.WriteFile(path, set, 0o600)
}

func (s signer) v1a(id, timestamp string) string {
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(s.ed, []byte(id+"."+timestamp+"."+string(benchBody))))
}

// jwt signs benchBody's event, to be valid until exp.
func (s signer) jwt(kid string, exp time.Time) (string, error) {
	encode := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"aud":%q,"iat":%d,"exp":%d,`, benchAudience, exp.Add(-time.Hour).Unix(), exp.Unix()) + string(benchBody[1:])
	signed := encode([]byte(`{"alg":"RS256","kid":"`+kid+`"}`)) + "." + encode([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.rsa, crypto.SHA256, sum[:])
	return signed + "." + encode(signature), err
}

// forgery is a request that is refused with 401.
type forgery struct {
	name    string
	request []byte
}

// withoutToken is how many of the forgeries know no token. The others are more expensive: they have a signature checked
// with a public key, or a JWT parsed.
const withoutToken = 4

// forgeries has every kind of refusal that a well-formed request can get. Their timestamps hold for five minutes.
func forgeries(google, stranger signer) ([]forgery, error) {
	const id, dynamic = "msg_forged", benchPath + "/" + benchToken
	now := strconv.FormatInt(time.Now().Unix(), 10)
	old := strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)
	forged, err := stranger.jwt("bench-rsa", time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	unknown, err := stranger.jwt("another", time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	expired, err := google.jwt("bench-rsa", time.Now().Add(-time.Minute))
	if err != nil {
		return nil, err
	}
	v1 := "v1," + base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	return []forgery{
		{"no signature", raw(benchPath, id, now, "", benchBody)},
		{"v1, stale", raw(benchPath, id, old, v1, benchBody)},
		{"v1 of nobody", raw(benchPath, id, now, v1, benchBody)},
		{"v1a, wrong token", raw(dynamic+"x", id, now, stranger.v1a(id, now), benchBody)},
		{"v1a of a stranger", raw(dynamic, id, now, stranger.v1a(id, now), benchBody)},
		{"JWT of an unknown kid", raw(dynamic, id, "", unknown, nil)},
		{"JWT of a stranger", raw(dynamic, id, "", forged, nil)},
		{"JWT, expired", raw(dynamic, id, "", expired, nil)},
	}, nil
}

// raw writes a request. Headers without a value are left out.
func raw(target, id, timestamp, signature string, body []byte) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", target, len(body))
	for _, h := range [][2]string{{"webhook-id", id}, {"webhook-timestamp", timestamp}, {"webhook-signature", signature}} {
		if h[1] != "" {
			b.WriteString(h[0] + ": " + h[1] + "\r\n")
		}
	}
	return append([]byte(b.String()+"\r\n"), body...)
}
