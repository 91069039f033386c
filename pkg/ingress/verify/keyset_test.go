package verify_test

import (
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// rsaOf is an RSA key whose modulus is any odd number of so many bits.
func rsaOf(bits uint, exponent []byte) map[string]any {
	n := new(big.Int).SetBit(big.NewInt(1), int(bits)-1, 1)
	return map[string]any{
		"kty": "RSA", "kid": "k", "n": base64.RawURLEncoding.EncodeToString(n.Bytes()), "e": base64.RawURLEncoding.EncodeToString(exponent),
	}
}

func TestKeySets(t *testing.T) {
	ed, rsa := edJWK(0), rsaJWK(0)
	f4 := []byte{1, 0, 1}
	private := with(ed, map[string]any{"d": base64.RawURLEncoding.EncodeToString(make([]byte, 32))})
	many := func(n int) []byte {
		keys := make([]map[string]any, n)
		for i := range keys {
			keys[i] = ed
		}
		return jwksOf(keys...)
	}
	for name, tc := range map[string]struct {
		set  []byte
		keys int
		want error
	}{
		"all of the vectors":        {allKeys(), 5, nil},
		"with use and alg":          {jwksOf(with(ed, map[string]any{"use": "sig", "alg": "EdDSA"}), with(rsa, map[string]any{"use": "sig", "alg": "RS256"})), 2, nil},
		"alg of RFC 9864":           {jwksOf(with(ed, map[string]any{"alg": "Ed25519"})), 1, nil},
		"unknown members":           {jwksOf(with(ed, map[string]any{"x": ed["x"], "issued": 1, "nested": []any{1}})), 1, nil},
		"a private key's public":    {jwksOf(private), 1, nil},
		"a certificate's address":   {jwksOf(with(rsa, map[string]any{"x5u": "https://evil.example/", "x5c": []any{"?"}})), 1, nil},
		"the same key twice":        {jwksOf(ed, ed, rsa, rsa), 4, nil},
		"padded base64url":          {jwksOf(with(ed, map[string]any{"x": ed["x"].(string) + "="})), 1, nil},
		"32 keys":                   {many(32), 32, nil},
		"33 keys":                   {many(33), 0, verify.ErrKeySetTooLarge},
		"unusable ones beside":      {jwksOf(ed, map[string]any{"kty": "oct", "k": "AAAA"}, map[string]any{"kty": "EC"}, map[string]any{"kty": "AKP"}, map[string]any{}), 1, nil},
		"a list of anything beside": {[]byte(`{"keys":[1,"x",null,[],{"kty":1},` + string(toJSON(ed)) + `]}`), 1, nil},
		"RSA of 2048 bits":          {jwksOf(rsaOf(2048, f4)), 1, nil},
		"RSA of 8192 bits":          {jwksOf(rsaOf(8192, f4)), 1, nil},
		"exponent 3":                {jwksOf(rsaOf(2048, []byte{3})), 1, nil},

		"RSA of 2047 bits":        {jwksOf(rsaOf(2047, f4)), 0, verify.ErrKeySetEmpty},
		"RSA of 8193 bits":        {jwksOf(rsaOf(8193, f4)), 0, verify.ErrKeySetEmpty},
		"RSA of 64 KiB":           {jwksOf(rsaOf(1<<19, f4)), 0, verify.ErrKeySetEmpty},
		"an even modulus":         {jwksOf(with(rsa, map[string]any{"n": base64.RawURLEncoding.EncodeToString(make0xfe(256))})), 0, verify.ErrKeySetEmpty},
		"exponent 1":              {jwksOf(rsaOf(2048, []byte{1})), 0, verify.ErrKeySetEmpty},
		"an even exponent":        {jwksOf(rsaOf(2048, []byte{1, 0, 0})), 0, verify.ErrKeySetEmpty},
		"an exponent of 33 bits":  {jwksOf(rsaOf(2048, []byte{1, 0, 0, 0, 1})), 0, verify.ErrKeySetEmpty},
		"an exponent of 72 bits":  {jwksOf(rsaOf(2048, []byte{1, 0, 0, 0, 0, 0, 1, 0, 1})), 0, verify.ErrKeySetEmpty},
		"exponent 2^31 and more":  {jwksOf(rsaOf(2048, []byte{0x80, 0, 0, 1})), 0, verify.ErrKeySetEmpty},
		"RSA without kid":         {jwksOf(with(rsa, map[string]any{"kid": nil})), 0, verify.ErrKeySetEmpty},
		"RSA without n":           {jwksOf(with(rsa, map[string]any{"n": nil})), 0, verify.ErrKeySetEmpty},
		"RSA for RS512":           {jwksOf(with(rsa, map[string]any{"alg": "RS512"})), 0, verify.ErrKeySetEmpty},
		"for encryption":          {jwksOf(with(rsa, map[string]any{"use": "enc"}), with(ed, map[string]any{"use": "enc"})), 0, verify.ErrKeySetEmpty},
		"Ed25519 for another alg": {jwksOf(with(ed, map[string]any{"alg": "ES256"})), 0, verify.ErrKeySetEmpty},
		"X25519":                  {jwksOf(with(ed, map[string]any{"crv": "X25519"})), 0, verify.ErrKeySetEmpty},
		"Ed448":                   {jwksOf(with(ed, map[string]any{"crv": "Ed448"})), 0, verify.ErrKeySetEmpty},
		"31 bytes":                {jwksOf(with(ed, map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 31))})), 0, verify.ErrKeySetEmpty},
		"no base64":               {jwksOf(with(ed, map[string]any{"x": "?"})), 0, verify.ErrKeySetEmpty},
		"kid with a line break":   {jwksOf(with(ed, map[string]any{"kid": "a\nb"})), 0, verify.ErrKeySetEmpty},
		"kid outside ASCII":       {jwksOf(with(ed, map[string]any{"kid": "schlüssel"})), 0, verify.ErrKeySetEmpty},
		"kid of 257":              {jwksOf(with(ed, map[string]any{"kid": strings.Repeat("k", 257)})), 0, verify.ErrKeySetEmpty},
		"no keys":                 {jwksOf(), 0, verify.ErrKeySetEmpty},
		"keys null":               {[]byte(`{"keys":null}`), 0, verify.ErrKeySetEmpty},
		"an empty object":         {[]byte(`{}`), 0, verify.ErrKeySetEmpty},
		"a single key":            {toJSON(ed), 0, verify.ErrKeySetEmpty},
		"keys an object":          {[]byte(`{"keys":{}}`), 0, verify.ErrKeySetMalformed},
		"a list":                  {toJSON([]any{ed}), 0, verify.ErrKeySetMalformed},
		"nothing":                 {[]byte{}, 0, verify.ErrKeySetMalformed},
		"HTML":                    {[]byte("<html>"), 0, verify.ErrKeySetMalformed},
		"cut off":                 {allKeys()[:200], 0, verify.ErrKeySetMalformed},
		"deep":                    {[]byte(`{"keys":` + strings.Repeat("[", 20000)), 0, verify.ErrKeySetMalformed},
		"256 KiB":                 {[]byte(string(allKeys()) + strings.Repeat(" ", 256<<10-len(allKeys()))), 5, nil},
		"256 KiB and one":         {[]byte(string(allKeys()) + strings.Repeat(" ", 256<<10+1-len(allKeys()))), 0, verify.ErrKeySetTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			j := pinned(t, nil)
			if err := j.Set(tc.set); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if got := j.Status(); got != (verify.JWKSStatus{Keys: tc.keys}) {
				t.Errorf("got %+v, want %d keys", got, tc.keys)
			}
			if tc.want == nil {
				return
			}
			j = pinned(t, allKeys()) // which stay
			if err := j.Set(tc.set); err == nil || j.Status().Keys != 5 {
				t.Errorf("after one that is good: got %v, %+v", err, j.Status())
			}
		})
	}
}

func make0xfe(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xfe
	}
	return b
}

// A kid that two keys have is both of theirs, and a key's part in Delivery.Key is the end of its kid.
func TestKeysOfOneName(t *testing.T) {
	second := with(rsaJWK(rsaLarge), map[string]any{"kid": "rsa-2048-kid1"})
	v := newDynamic(t, dynamicAt, pinned(t, jwksOf(second, rsaJWK(rsaKey))))
	for _, key := range []int{rsaKey, rsaLarge} {
		jwt := signJWT(rsaPrivate(key), jwtHeader, "{"+jwtTimes+jwtEvent+"}")
		if got := wantDynamic(t, v, tokenA, "msg_1", "", jwt, "", ""); got.Key != "kid1" {
			t.Errorf("got %+v", got)
		}
	}
	v = newDynamic(t, signedAt, pinned(t, jwksOf(edJWK(edNoKID), with(edJWK(edKey), map[string]any{"kid": "k"}))))
	if got := wantDynamic(t, v, tokenA, id, timestamp, signV1A(edPrivate(edNoKID), id, timestamp, ""), "", ""); got.Key != "VMbg" {
		t.Errorf("got %+v, want the end of the key itself", got)
	}
	if got := wantDynamic(t, v, tokenA, id, timestamp, signV1A(edPrivate(edKey), id, timestamp, ""), "", ""); got.Key != "k" {
		t.Errorf("got %+v", got)
	}
}
