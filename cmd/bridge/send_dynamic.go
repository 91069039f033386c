package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

const (
	sendKeyID    = "bridge-send"
	sendValidity = 5 * time.Minute // of a JWT
)

// ownKeys sign dynamic webhooks in the place of Google's, for a bridge that takes them by BRIDGE_JWKS_FILE.
type ownKeys struct {
	ed       ed25519.PrivateKey
	rsa      *rsa.PrivateKey
	audience string
}

// readKeys reads private keys, one for each form, in PEM form (PKCS #8). If there is no such file it makes one, and
// beside it that of the public keys.
func readKeys(path string) (keys *ownKeys, made bool, err error) {
	if path == "" {
		return nil, false, errors.New("v1a and jwt need --keys")
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, makeKeys(path)
	}
	keys = &ownKeys{}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		key, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
		switch key := key.(type) {
		case ed25519.PrivateKey:
			keys.ed = key
		case *rsa.PrivateKey:
			keys.rsa = key
		}
	}
	if err == nil && (keys.ed == nil || keys.rsa == nil) {
		err = fmt.Errorf("%s does not hold an Ed25519 and an RSA key in PEM form (PKCS #8)", path)
	}
	return keys, false, err
}

func makeKeys(path string) error {
	public, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	var private []byte
	for _, key := range []crypto.PrivateKey{ed, rsaKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		private = append(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	if err := os.WriteFile(path, private, 0o600); err != nil {
		return err
	}
	encode := base64.RawURLEncoding.EncodeToString
	return os.WriteFile(path+".jwks", fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q},{"kty":"RSA","kid":%[1]q,"n":%[3]q,"e":%[4]q}]}`+"\n",
		sendKeyID, encode(public), encode(rsaKey.N.Bytes()), encode(big.NewInt(int64(rsaKey.E)).Bytes())), 0o644)
}

// signV1A signs the body.
func (k *ownKeys) signV1A(h http.Header, id string, t time.Time, body []byte) error {
	timestamp := strconv.FormatInt(t.Unix(), 10)
	content := append([]byte(id+"."+timestamp+"."), body...)
	h.Set(verify.HeaderID, id)
	h.Set(verify.HeaderTimestamp, timestamp)
	h.Set(verify.HeaderSignature, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(k.ed, content)))
	return nil
}

// signJWT makes the body's members the claims.
func (k *ownKeys) signJWT(h http.Header, id string, t time.Time, body []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return fmt.Errorf("a JWT is made of a JSON object: %w", err)
	}
	claims := jwt.MapClaims{"aud": k.audience, "iat": t.Unix(), "exp": t.Add(sendValidity).Unix()}
	for _, name := range []string{"type", "version", "timestamp", "data", "user_metadata"} {
		if value, ok := members[name]; ok {
			claims[name] = value
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = sendKeyID
	signature, err := token.SignedString(k.rsa)
	h.Set(verify.HeaderID, id)
	h.Set(verify.HeaderSignature, signature)
	return err
}

// withToken ends an address with the first token of the settings, as the URI of a job ends, unless it does so already.
func withToken(target string, environ []string) (string, error) {
	tokens := verify.SplitSecrets(lookup(environ, "BRIDGE_DYNAMIC_TOKENS"))
	if file := lookup(environ, tokensFile); file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		tokens = verify.ParseSecrets(content)
	}
	if len(tokens) == 0 || strings.HasSuffix(target, "/"+tokens[0].Reveal()) {
		return target, nil
	}
	return strings.TrimSuffix(target, "/") + "/" + tokens[0].Reveal(), nil
}
