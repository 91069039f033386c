package verify_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// Without a token of its own no verifier accepts what Google has signed, whatever the caller leaves out or mixes up.
func TestAttemptsOfOthers(t *testing.T) {
	clock := func() time.Time { return signedAt }
	make := func(cfg verify.Config) *verify.Verifier {
		t.Helper()
		cfg.Now = clock
		v, err := verify.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	keys := pinned(t, allKeys())
	h := headers(id, timestamp, signV1A(edPrivate(edKey), id, timestamp, payload))
	dynamic := make(verify.Config{Tokens: texts(tokenA), JWKS: keys, Audience: myAud})
	v1a, err := opened(t, dynamic).Head(h)
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := opened(t, dynamic).Head(headers(id, timestamp, goodJWT()))
	if err != nil {
		t.Fatal(err)
	}
	v1, err := newVerifier(t, signedAt, secretA).Head(headers(id, timestamp, good))
	if err != nil {
		t.Fatal(err)
	}
	_, stale := opened(t, newDynamic(t, signedAt.Add(time.Hour), keys)).Head(h)
	wantFailure(t, stale, verify.TimestampTooOld)

	for name, v := range map[string]*verify.Verifier{
		"secrets only":         make(verify.Config{Secrets: texts(secretA)}),
		"secrets and keys":     make(verify.Config{Secrets: texts(secretA), JWKS: keys, Audience: myAud}),
		"another's tokens":     make(verify.Config{Tokens: texts(tokenB), JWKS: keys, Audience: myAud}),
		"equal, but not it":    make(verify.Config{Tokens: texts(tokenA), JWKS: keys, Audience: myAud}),
		"tokens, but not keys": make(verify.Config{Tokens: texts(tokenA), JWKS: pinned(t, nil), Audience: myAud}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, a := range []verify.Attempt{v1a, jwt, v1, {}} {
				delivery, err := v.Body(a, []byte(payload))
				wantFailure(t, err, verify.SignatureMismatch)
				if delivery != (verify.Delivery{}) {
					t.Errorf("got %+v", delivery)
				}
			}
			if v.WantsBody(stale) || !errors.Is(v.Explain(stale, []byte(payload)), stale) {
				t.Error("it explains another's refusal")
			}
		})
	}
	if _, err := dynamic.Body(v1a, []byte(payload)); err != nil {
		t.Errorf("its own: %v", err)
	}
}

// A Path that no token has made opens nothing.
func TestZeroPath(t *testing.T) {
	for _, signature := range []string{signV1A(edPrivate(edKey), id, timestamp, payload), goodJWT(), good, ""} {
		_, err := verify.Path{}.Head(headers(id, timestamp, signature))
		wantFailure(t, err, verify.TokenUnknown)
	}
	path, err := newDynamic(t, signedAt, pinned(t, allKeys())).Token(tokenA + "x")
	wantFailure(t, err, verify.TokenUnknown)
	_, err = path.Head(nil)
	wantFailure(t, err, verify.TokenUnknown)
}
