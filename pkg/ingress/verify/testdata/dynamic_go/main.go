// Command dynamic_go prints the deliveries of dynamic_cases.json, signed by crypto/ed25519 and go-jose, as JSON.
//
// The output is the same at every run. It is a module of its own, so that go-jose is no dependency of the bridge. To
// make dynamic_go.json anew:
//
//	cd dynamic_go && go run . < ../dynamic_cases.json > ../dynamic_go.json
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"log"
	"os"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

type seed struct{ KID, D string }

type delivery struct {
	Name      string         `json:"name"`
	Key       int            `json:"key,omitempty"`
	ID        string         `json:"id,omitempty"`
	Timestamp string         `json:"timestamp,omitempty"`
	Claims    map[string]any `json:"claims,omitempty"`
	Body      string         `json:"body"`
	Signature string         `json:"signature"`
}

func main() {
	var cases struct {
		Keys struct {
			Ed25519 []seed
			RSA     []jose.JSONWebKey
		}
		V1A, JWT []delivery
	}
	check(json.NewDecoder(os.Stdin).Decode(&cases))
	var private []ed25519.PrivateKey
	var public []jose.JSONWebKey
	for _, k := range cases.Keys.Ed25519 {
		raw, err := base64.RawURLEncoding.DecodeString(k.D)
		check(err)
		key := ed25519.NewKeyFromSeed(raw)
		private = append(private, key)
		public = append(public, jose.JSONWebKey{Key: key.Public(), KeyID: k.KID})
	}
	for _, k := range cases.Keys.RSA {
		public = append(public, k.Public())
	}
	for i, c := range cases.V1A {
		signature := ed25519.Sign(private[c.Key], []byte(c.ID+"."+c.Timestamp+"."+c.Body))
		cases.V1A[i].Signature = "v1a," + base64.StdEncoding.EncodeToString(signature)
	}
	for i, c := range cases.JWT {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: cases.Keys.RSA[c.Key]}, new(jose.SignerOptions).WithType("JWT"))
		check(err)
		cases.JWT[i].Signature, err = jwt.Signed(signer).Claims(c.Claims).Serialize()
		check(err)
	}
	for _, all := range [][]delivery{cases.V1A, cases.JWT} {
		for i := range all {
			all[i].Key, all[i].Body = 0, base64.StdEncoding.EncodeToString([]byte(all[i].Body))
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	check(out.Encode(map[string]any{
		"signed_by": "crypto/ed25519 and go-jose (Go)", "jwks": jose.JSONWebKeySet{Keys: public}, "v1a": cases.V1A, "jwt": cases.JWT,
	}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
