package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// isV1A tells whether an entry holds 64 bytes, by plain means.
func isV1A(entry string) bool {
	encoded, ok := strings.CutPrefix(entry, "v1a,")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		raw, err = base64.RawStdEncoding.DecodeString(encoded)
	}
	return ok && err == nil && len(raw) == 64 && strings.TrimRight(encoded, "=") == base64.RawStdEncoding.EncodeToString(raw)
}

// FuzzV1A compares with a verifier that writes every entry that would be good and looks for it. In signature, GOOD
// stands for what a key of the set signs, BARE for the same without padding, and EVIL for what another key signs.
func FuzzV1A(f *testing.F) {
	for _, signature := range []string{
		"v1a,GOOD", "v1a,BARE", "v1a,EVIL", "v1a,EVIL v1a,GOOD", "v1a,GOOD v1,x", "v1a,", "", "v1,GOOD", "GOOD", "v1a,GOOD=", "v1a,BARE=",
		" v1a,GOOD", "v1a,GOOD ", "v1a,GOOD  v1a,GOOD", "v1a,\nGOOD", "V1a,GOOD", "v1a,GOOD,", strings.Repeat("v1a,x ", 31) + "v1a,GOOD",
		strings.Repeat("v1a,x ", 32) + "v1a,GOOD", "v1a,GOOD v2," + strings.Repeat("x", 8200), "a.b.c", "..",
	} {
		f.Add(id, timestamp, signature, []byte(payload))
	}
	for _, file := range foreign(f) {
		for _, c := range file.V1A {
			f.Add(c.ID, c.Timestamp, c.Signature, c.Body)
			f.Add(c.ID, timestamp, "v1a,GOOD", c.Body)
		}
	}
	f.Add(id, timestamp, "v1a,EVIL v1a,EVIL v1a,EVIL v1a,EVIL v1a,GOOD", bytes.Repeat([]byte("x"), 16<<10+1))
	f.Add("a b", timestamp, "v1a,GOOD", []byte(nil))
	f.Add(id, "01614265330", "v1a,GOOD", []byte(nil))
	v := newDynamic(f, signedAt, pinned(f, jwksOf(edJWK(1), edJWK(edKey), rsaJWK(0))))
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		good := signV1A(edPrivate(edKey), id, timestamp, string(body))
		signature = strings.NewReplacer("GOOD", good[4:], "BARE", strings.TrimRight(good[4:], "="),
			"EVIL", signV1A(edPrivate(2), id, timestamp, string(body))[4:]).Replace(signature)
		delivery, err := v.VerifyDynamic(tokenA, headers(id, timestamp, signature), body)
		now := signedAt.Unix()
		want := idForm.MatchString(id) && timestampForm.MatchString(timestamp) && listForm.MatchString(signature) && len(signature) <= 8192 &&
			len(timestamp) == len("1614265330") && timestamp >= "1614265030" && timestamp <= "1614265630" && now == 1614265330
		if want {
			want = false
			tried := 0
			for entry := range strings.SplitSeq(signature, " ") {
				if !isV1A(entry) {
					continue
				}
				if tried++; tried > 4 && len(body) > 16<<10 {
					break // with two keys, all 32 of a smaller one
				}
				want = want || slices.ContainsFunc([]int{edKey, edNoKID}, func(key int) bool {
					padded := signV1A(edPrivate(key), id, timestamp, string(body))
					return entry == padded || entry == strings.TrimRight(padded, "=")
				})
			}
		}
		if (err == nil) != want {
			t.Fatalf("%q, %q, %q, %q: got %v, want accepted %v", id, timestamp, signature, body, err, want)
		}
		if err != nil {
			wantReasonOnly(t, err)
		} else if delivery.ID != id || delivery.Scheme != verify.SchemeV1A || !bytes.Equal(delivery.Event(body), body) {
			t.Fatalf("got %+v", delivery)
		}
	})
}

// FuzzJWT signs any header and any claims, as Google would, and as a stranger would. What is accepted must be what
// encoding/json sees as well.
func FuzzJWT(f *testing.F) {
	claims := "{" + jwtTimes + jwtEvent + "}"
	for _, header := range []string{
		jwtHeader, `{"alg":"none","kid":"rsa-2048-kid1"}`, `{"alg":"HS256","kid":"rsa-2048-kid1"}`, `{"alg":"RS256"}`, `{}`, `null`, `[`, ``,
		`{"alg":"RS256","kid":"rsa-2048-kid1","crit":[]}`, `{"alg":"RS256","kid":"rsa-2048-kid1","jku":""}`, `{"alg":"RS256","kid":"rsa-3072-kid2"}`,
	} {
		f.Add(header, claims, []byte(nil), "")
	}
	for _, c := range []string{
		"null", "{}", "[]", "", claims + claims, strings.Replace(claims, `"aud"`, `"Aud"`, 1), strings.Replace(claims, "1769083500", "1e400", 1),
		strings.Replace(claims, `"my-audience"`, `["my-audience"]`, 1), strings.Replace(claims, `"my-audience"`, `[["my-audience"]]`, 1),
		strings.Replace(claims, `{"id"`, `{"id":1,"id"`, 1), strings.Replace(claims, `"iat":1769083190,`, "", 1),
	} {
		f.Add(jwtHeader, c, []byte(claims), "")
	}
	f.Add(jwtHeader, claims, []byte(`{"type":"batch.failed"}`), "")
	f.Add(jwtHeader, claims, []byte(`{"data":{"id":"\u0062atch_123456"}}`), ".")
	v := newDynamic(f, dynamicAt, pinned(f, allKeys()))
	f.Fuzz(func(t *testing.T, header, claims string, body []byte, tail string) {
		h := headers("msg_1", "1", signJWT(strangersRSA(), header, claims)+tail)
		if _, err := v.VerifyDynamic(tokenA, h, body); err == nil {
			t.Fatalf("a stranger is accepted: %s %s", header, claims)
		}
		h = headers("msg_1", "1", signJWT(rsaPrivate(rsaKey), header, claims)+tail)
		delivery, err := v.VerifyDynamic(tokenA, h, body)
		if err != nil {
			wantReasonOnly(t, err)
			return
		}
		var got, want map[string]any
		if err := errors.Join(json.Unmarshal(delivery.Event(body), &got), json.Unmarshal([]byte(claims), &want)); err != nil {
			t.Fatalf("%s: %v", claims, err)
		}
		for _, name := range []string{"type", "version", "timestamp", "data"} {
			if _, ok := got[name]; !ok || !bytes.Equal(toJSON(got[name]), toJSON(want[name])) {
				t.Errorf("%s is %v in the event and %v in the claims", name, got[name], want[name])
			}
		}
		var top map[string]any
		if err := json.Unmarshal([]byte(header), &top); err != nil || top["alg"] != "RS256" || top["kid"] != "rsa-2048-kid1" || top["crit"] != nil {
			t.Errorf("accepted with the header %s", header)
		}
		exp, _ := want["exp"].(float64)
		if exp <= float64(dynamicAt.Unix()) || !strings.Contains(string(toJSON(want["aud"])), `"my-audience"`) || tail != "" {
			t.Errorf("accepted: %s", claims)
		}
		if len(body) > 0 && json.Unmarshal(body, &want) != nil {
			t.Errorf("accepted with the body %q", body)
		}
	})
}

// FuzzKeySet: whatever a key server sends, there are at most 32 keys, or an error and the old keys.
func FuzzKeySet(f *testing.F) {
	for _, file := range foreign(f) {
		f.Add([]byte(file.JWKS))
	}
	for _, set := range []string{
		"", "{}", `{"keys":[]}`, `{"keys":[{}]}`, `{"keys":[null,1,"x"]}`, `{"keys":{"kty":"OKP"}}`, `{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}`,
		`{"keys":[{"kty":"RSA","kid":"k","n":"","e":""}]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":""}]}`, `{"KEYS":[{"kty":"oct","k":"AA"}]}`,
	} {
		f.Add([]byte(set))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		j := pinned(t, jwksOf(edJWK(0)))
		before := j.Status()
		err := j.Set(content)
		known := errors.Is(err, verify.ErrKeySetMalformed) || errors.Is(err, verify.ErrKeySetEmpty) || errors.Is(err, verify.ErrKeySetTooLarge)
		if err != nil && (!known || j.Status() != before) {
			t.Fatalf("got %v and %+v", err, j.Status())
		}
		if got := j.Status().Keys; got < 1 || got > 32 {
			t.Fatalf("%d keys", got)
		}
		v := newDynamic(t, dynamicAt, j)
		for _, signature := range []string{"v1a," + strings.Repeat("A", 86), goodJWT()[:len(goodJWT())-4] + "AAAA"} {
			if _, err := v.VerifyDynamic(tokenA, headers("msg_1", "1769083200", signature), nil); err == nil {
				if strings.HasPrefix(signature, "v1a") { // zeros are the signature of a key of small order
					continue
				}
				t.Fatalf("accepted with the keys %q", content)
			}
		}
	})
}

var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{32,256}$`)

// FuzzToken: a candidate is accepted if and only if it is a token, and only what has a token's form can be one.
func FuzzToken(f *testing.F) {
	for _, t := range []string{"", tokenA, tokenB, tokenA + "\n", "%6f" + tokenA[1:], tokenA[:31], strings.Repeat("~", 257), strings.Repeat("é", 16)} {
		f.Add(t, tokenA)
		f.Add(t, t)
	}
	keys := pinned(f, allKeys())
	f.Fuzz(func(t *testing.T, token, candidate string) {
		v, err := verify.New(verify.Config{Tokens: texts(token), JWKS: keys, Now: func() time.Time { return signedAt }})
		if (err == nil) != tokenForm.MatchString(token) {
			t.Fatalf("%q: got %v", token, err)
		}
		if err != nil {
			if len(token) > 3 && strings.Contains(err.Error(), token) {
				t.Fatalf("error %q quotes the token", err)
			}
			return
		}
		_, err = v.Token(candidate)
		if (err == nil) != (candidate == token) {
			t.Fatalf("%q for %q: got %v", candidate, token, err)
		}
		if err != nil {
			wantReasonOnly(t, err)
		}
	})
}

// FuzzSignatureHeader: no form of webhook-signature is good at both paths, and nothing is accepted that nobody signed.
func FuzzSignatureHeader(f *testing.F) {
	for _, s := range []string{"", "v1,x", good, "a.b.c", "v1a," + strings.Repeat("A", 86), "v1,x v1a,x", "x", " ", ".", ",", goodJWT(), strings.Repeat(" ", 40)} {
		f.Add(s)
	}
	v := newDynamic(f, signedAt, pinned(f, allKeys()))
	f.Fuzz(func(t *testing.T, signature string) {
		h := headers(id, timestamp, signature)
		_, static := v.Head(h)
		_, dynamic := opened(t, v).Head(h)
		for _, err := range []error{static, dynamic} {
			if err != nil {
				wantReasonOnly(t, err)
			}
		}
		if static == nil && dynamic == nil && (!strings.Contains(signature, "v1,") || !strings.Contains(signature, "v1a,")) {
			t.Fatalf("%q is good at both paths", signature)
		}
		if _, err := v.Verify(h, []byte("nobody has signed this")); err == nil {
			t.Fatalf("%q is accepted", signature)
		}
		if _, err := v.VerifyDynamic(tokenA, h, []byte("nobody has signed this")); err == nil {
			t.Fatalf("%q is accepted", signature)
		}
	})
}
