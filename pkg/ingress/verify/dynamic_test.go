package verify_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

func TestV1ASignatures(t *testing.T) {
	good := signV1A(edPrivate(edKey), id, timestamp, payload)
	noKID := signV1A(edPrivate(edNoKID), id, timestamp, payload)
	stranger := signV1A(edPrivate(2), id, timestamp, payload) // whose key is not in the set
	bare := strings.TrimRight(good, "=")
	raw, err := base64.StdEncoding.DecodeString(good[len("v1a,"):])
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(b []byte) string { return "v1a," + base64.StdEncoding.EncodeToString(b) }
	changed := bytes.Clone(raw)
	changed[40] ^= 1
	repeat := func(n int, entry string) string { return strings.TrimSuffix(strings.Repeat(entry+" ", n), " ") }

	for name, tc := range map[string]struct {
		signature string
		want      verify.Reason
	}{
		"padded":                     {good, ""},
		"unpadded":                   {bare, ""},
		"by a key without kid":       {noKID, ""},
		"bad before and after":       {stranger + " " + good + " " + stranger, ""},
		"undecodable beside":         {"v1a,x v1a, " + good + " v1a,===", ""},
		"a v1 beside, which is void": {sign(secretB, id, timestamp, payload) + " " + good, ""},
		"32 entries":                 {repeat(31, stranger) + " " + good, ""},

		"by a key of nobody's":    {stranger, verify.SignatureMismatch},
		"one bit changed":         {encoded(changed), verify.SignatureMismatch},
		"zeros":                   {encoded(make([]byte, 64)), verify.SignatureMismatch},
		"all wrong":               {repeat(32, stranger), verify.SignatureMismatch},
		"another id's":            {signV1A(edPrivate(edKey), id+"x", timestamp, payload), verify.SignatureMismatch},
		"another timestamp's":     {signV1A(edPrivate(edKey), id, "1614265331", payload), verify.SignatureMismatch},
		"another body's":          {signV1A(edPrivate(edKey), id, timestamp, payload+"."), verify.SignatureMismatch},
		"of the body alone":       {encoded(raw[:0:0]) + strings.Repeat("A", 86), verify.SignatureMismatch},
		"v1, genuine":             {sign(secretA, id, timestamp, payload), verify.WrongPath},
		"v1, short":               {"v1,x", verify.WrongPath},
		"good under another name": {"v2," + good[4:], verify.NoV1Signature},
		"V1A":                     {"V1A," + good[4:], verify.NoV1Signature},
		"no version":              {good[4:], verify.NoV1Signature},
		"v1a without comma":       {"v1a", verify.NoV1Signature},
		"33 entries":              {good + " " + repeat(32, stranger), verify.TooManySignatures},
		"1000 entries":            {repeat(1000, "v1a,") + " " + good, verify.TooManySignatures},
		"8 KiB and one":           {good + " v2," + strings.Repeat("x", 8<<10-len(good)-3), verify.SignatureTooLong},
		"empty":                   {"", verify.SignatureMalformed},
		"v1a, alone":              {"v1a,", verify.SignatureMalformed},
		"space before":            {" " + good, verify.SignatureMalformed},
		"two spaces":              {good + "  " + good, verify.SignatureMalformed},
		"one of padding":          {bare + "=", verify.SignatureMalformed},
		"three of padding":        {good + "=", verify.SignatureMalformed},
		"padding and a letter":    {bare + "=A", verify.SignatureMalformed},
		"base64url":               {strings.NewReplacer("+", "-", "/", "_").Replace(good), verify.SignatureMalformed},
		"trailing bits":           {bare[:len(bare)-1] + "B==", verify.SignatureMalformed},
		"63 bytes":                {encoded(raw[:63]), verify.SignatureMalformed},
		"65 bytes":                {encoded(append(bytes.Clone(raw), 0)), verify.SignatureMalformed},
		"32 bytes":                {encoded(raw[:32]), verify.SignatureMalformed},
		"line break inside":       {good[:20] + "\n" + good[20:], verify.SignatureMalformed},
		"separated by commas":     {good + "," + good, verify.SignatureMalformed},
		"fullwidth letter":        {"v1a,Ａ" + good[5:], verify.SignatureMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v := newDynamic(t, signedAt, pinned(t, jwksOf(edJWK(edKey), edJWK(edNoKID))))
			wantDynamic(t, v, tokenA, id, timestamp, tc.signature, payload, tc.want)
		})
	}
}

func TestDynamicHeaders(t *testing.T) {
	v := newDynamic(t, signedAt, pinned(t, allKeys()))
	for name, tc := range map[string]struct {
		id, timestamp string
		want          verify.Reason
	}{
		"untouched":          {id, timestamp, ""},
		"no timestamp":       {id, "", verify.HeaderMissing},
		"no id":              {"", timestamp, verify.IDMalformed},
		"blank in the id":    {"a b", timestamp, verify.IDMalformed},
		"leading zero":       {id, "01614265330", verify.TimestampMalformed},
		"fullwidth digits":   {id, "１６１４２６５３３０", verify.TimestampMalformed},
		"301 s old":          {id, "1614265029", verify.TimestampTooOld},
		"300 s old":          {id, "1614265030", ""},
		"301 s ahead":        {id, "1614265631", verify.TimestampTooNew},
		"300 s ahead":        {id, "1614265630", ""},
		"the id of 256":      {strings.Repeat("i", 256), timestamp, ""},
		"the id of 257":      {strings.Repeat("i", 257), timestamp, verify.IDMalformed},
		"line break, id":     {"a\nb", timestamp, verify.IDMalformed},
		"a word as time":     {id, "hello", verify.TimestampMalformed},
		"plus":               {id, "+1614265330", verify.TimestampMalformed},
		"milliseconds":       {id, "1614265330000", verify.TimestampMalformed},
		"without id, at all": {"", "", verify.HeaderMissing},
	} {
		t.Run(name, func(t *testing.T) {
			signature := signV1A(edPrivate(edKey), tc.id, tc.timestamp, payload)
			wantDynamic(t, v, tokenA, tc.id, tc.timestamp, signature, payload, tc.want)
		})
	}
	for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		h := headers(id, timestamp, signV1A(edPrivate(edKey), id, timestamp, payload))
		h.Add(name, h.Get(name))
		_, err := v.VerifyDynamic(tokenA, h, []byte(payload))
		wantFailure(t, err, verify.HeaderRepeated)
		h.Del(name)
		_, err = v.VerifyDynamic(tokenA, h, []byte(payload))
		wantFailure(t, err, verify.HeaderMissing)
	}
}

// Each form counts at its own path only, and the operator hears what is amiss.
func TestPaths(t *testing.T) {
	v1 := sign(secretA, id, timestamp, payload)
	v1a := signV1A(edPrivate(edKey), id, timestamp, payload)
	keys := pinned(t, allKeys())
	clock := func() time.Time { return signedAt }
	all := verify.Config{Secrets: texts(secretA), Tokens: texts(tokenA), JWKS: keys, Audience: myAud, Now: clock}
	staticOnly, dynamicOnly := all, all
	staticOnly.Tokens, dynamicOnly.Secrets = nil, nil
	for name, tc := range map[string]struct {
		cfg       verify.Config
		token     string // "" is the path without
		signature string
		want      verify.Reason
		detail    string
	}{
		"v1":                      {all, "", v1, "", ""},
		"v1a":                     {all, tokenA, v1a, "", ""},
		"both":                    {all, "", v1a + " " + v1, "", ""},
		"both, dynamic":           {all, tokenA, v1 + " " + v1a, "", ""},
		"v1 with a token":         {all, tokenA, v1, verify.WrongPath, "v1 at a path with a token"},
		"v1a without":             {all, "", v1a, verify.WrongPath, "v1a at the path without a token"},
		"JWT without":             {all, "", goodJWT(), verify.WrongPath, "a JWT at the path without a token"},
		"v1a, no tokens":          {staticOnly, "", v1a, verify.DynamicOff, "v1a but no dynamic token is configured"},
		"JWT, no tokens":          {staticOnly, "", goodJWT(), verify.DynamicOff, "a JWT but no dynamic token is configured"},
		"v1, no tokens":           {staticOnly, "", v1, "", ""},
		"a path, no tokens":       {staticOnly, tokenA, v1a, verify.TokenUnknown, "no token for dynamic deliveries is configured"},
		"v1, no secrets":          {dynamicOnly, "", v1, verify.StaticOff, "v1 but no signing secret is configured"},
		"v1a, no secrets":         {dynamicOnly, tokenA, v1a, "", ""},
		"wrong token":             {all, tokenB, v1a, verify.TokenUnknown, "the last part of the path is no token"},
		"wrong token, no secrets": {dynamicOnly, tokenB, v1, verify.TokenUnknown, "the last part of the path is no token"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := verify.New(tc.cfg)
			if err != nil {
				t.Fatal(err)
			}
			h := headers(id, timestamp, tc.signature)
			if tc.token == "" {
				_, err = v.Verify(h, []byte(payload))
			} else {
				_, err = v.VerifyDynamic(tc.token, h, []byte(payload))
			}
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFailure(t, err, tc.want)
			if failure, ok := errors.AsType[*verify.Failure](err); ok && failure.Detail() != tc.detail {
				t.Errorf("got %q, want %q", failure.Detail(), tc.detail)
			}
		})
	}
}

// Without keys what is wrong for certain is refused, and all else is not: a repetition can succeed.
func TestWithoutKeys(t *testing.T) {
	v1a := signV1A(edPrivate(edKey), id, timestamp, payload)
	claims := "{" + jwtTimes + jwtEvent + "}"
	own := rsaPrivate(rsaKey)
	for name, tc := range map[string]struct {
		token, timestamp, signature, body string
		want                              verify.Reason // "" is ErrNoKeys
	}{
		"v1a":                 {tokenA, timestamp, v1a, payload, ""},
		"v1a that none fits":  {tokenA, timestamp, v1a, "x", ""},
		"JWT":                 {tokenA, "", goodJWT(), "", ""},
		"JWT, unknown kid":    {tokenA, "", signJWT(own, `{"alg":"RS256","kid":"?"}`, claims), "", ""},
		"JWT, of nobody":      {tokenA, "", signJWT(strangersRSA(), jwtHeader, claims), "", ""},
		"wrong token":         {tokenA + "x", timestamp, v1a, payload, verify.TokenUnknown},
		"malformed":           {tokenA, timestamp, "v1a,x", payload, verify.SignatureMalformed},
		"v1":                  {tokenA, timestamp, good, payload, verify.WrongPath},
		"stale":               {tokenA, "1614265029", v1a, payload, verify.TimestampTooOld},
		"JWT, HS256":          {tokenA, "", signJWT(own, `{"alg":"HS256","kid":"rsa-2048-kid1"}`, claims), "", verify.JWTAlgorithm},
		"JWT without kid":     {tokenA, "", signJWT(own, `{"alg":"RS256"}`, claims), "", verify.JWTHeader},
		"JWT with crit":       {tokenA, "", signJWT(own, `{"alg":"RS256","kid":"k","crit":["x"]}`, claims), "", verify.JWTHeader},
		"JWT, expired":        {tokenA, "", signJWT(own, jwtHeader, strings.Replace(claims, "1769083500", "1769083199", 1)), "", verify.JWTExpired},
		"JWT, another aud":    {tokenA, "", signJWT(own, jwtHeader, strings.Replace(claims, myAud, "yours", 1)), "", verify.JWTAudience},
		"JWT without type":    {tokenA, "", signJWT(own, jwtHeader, strings.Replace(claims, `"type"`, `"kind"`, 1)), "", verify.JWTClaims},
		"JWT, deep claims":    {tokenA, "", signJWT(own, jwtHeader, "{"+jwtTimes+`"x":`+strings.Repeat("[", 128)+strings.Repeat("]", 128)+","+jwtEvent+"}"), "", verify.JWTClaims},
		"JWT, body disagrees": {tokenA, "", goodJWT(), `{"type":"batch.failed"}`, ""}, // it is not compared for a stranger
		"JWT, deep body":      {tokenA, "", goodJWT(), strings.Repeat("[", 129), ""},
	} {
		t.Run(name, func(t *testing.T) {
			at := signedAt
			if tc.timestamp == "" {
				at = dynamicAt
			}
			v := newDynamic(t, at, pinned(t, nil))
			if tc.want != "" {
				wantDynamic(t, v, tc.token, id, tc.timestamp, tc.signature, tc.body, tc.want)
				return
			}
			h := headers(id, tc.timestamp, tc.signature)
			if tc.timestamp == "" {
				h.Del("webhook-timestamp")
			}
			delivery, err := v.VerifyDynamic(tc.token, h, []byte(tc.body))
			if !errors.Is(err, verify.ErrNoKeys) || errors.Is(err, verify.ErrUnauthenticated) || delivery != (verify.Delivery{}) {
				t.Errorf("got %+v, %v, want ErrNoKeys", delivery, err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	keys := pinned(t, allKeys())
	for name, tc := range map[string]struct {
		cfg  verify.Config
		want []error
	}{
		"nothing":                    {verify.Config{}, []error{verify.ErrNoSecret}},
		"only keys":                  {verify.Config{JWKS: keys, Audience: myAud}, []error{verify.ErrNoSecret}},
		"tokens only":                {verify.Config{Tokens: texts(tokenA), JWKS: keys}, nil},
		"tokens without keys":        {verify.Config{Secrets: texts(secretA), Tokens: texts(tokenA)}, []error{verify.ErrNoJWKS}},
		"bad secret and short token": {verify.Config{Secrets: texts("x"), Tokens: texts("x"), JWKS: keys}, []error{verify.ErrSecretMalformed, verify.ErrTokenTooShort}},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := verify.New(tc.cfg)
			if (v != nil) != (tc.want == nil) || (err == nil) != (tc.want == nil) {
				t.Fatalf("got %v, %v", v, err)
			}
			for _, want := range tc.want {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
		})
	}
}
