package verify_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

func detail(tb testing.TB, err error) string {
	tb.Helper()
	failure, ok := errors.AsType[*verify.Failure](err)
	if !ok {
		tb.Fatalf("got %v, want a *Failure", err)
	}
	return failure.Detail()
}

func TestExplanations(t *testing.T) {
	const indented = "{\n  \"a\": [1, 2],\n  \"b\": \"x y\"\n}"
	const compact = `{"a":[1,2],"b":"x y"}`
	v1 := func(body string) string { return sign(secretA, id, timestamp, body) }
	v1a := func(body string) string { return signV1A(edPrivate(edKey), id, timestamp, body) }
	trimmed := "signature matches after trimming whitespace: a proxy re-serialised the body"
	inside := "signature matches without the whitespace inside the JSON: a proxy re-serialised the body"
	for name, tc := range map[string]struct {
		signature, body string
		age             time.Duration
		reason          verify.Reason
		detail          string
	}{
		"v1, old":                {v1(compact), compact, 312 * time.Second, verify.TimestampTooOld, "secret …LaSw was right, timestamp 312 s old"},
		"v1, ahead":              {v1(compact), compact, -400 * time.Second, verify.TimestampTooNew, "secret …LaSw was right, timestamp 400 s ahead of this machine's clock"},
		"v1, old, of nobody":     {v1("x"), compact, 312 * time.Second, verify.TimestampTooOld, "timestamp is 312 s old, and the signature fits no key"},
		"v1a, old":               {v1a(compact), compact, 312 * time.Second, verify.TimestampTooOld, "key …0001 was right, timestamp 312 s old"},
		"v1a, old, of nobody":    {v1a("x"), compact, 312 * time.Second, verify.TimestampTooOld, "timestamp is 312 s old, and the signature fits no key"},
		"v1, a line more":        {v1(compact), compact + "\n", 0, verify.BodyAltered, trimmed},
		"v1a, a line more":       {v1a(compact), "\r\n" + compact, 0, verify.BodyAltered, trimmed},
		"v1, indented":           {v1(compact), indented, 0, verify.BodyAltered, inside},
		"v1a, indented":          {v1a(compact), indented, 0, verify.BodyAltered, inside},
		"v1, compacted":          {v1(indented), compact, 0, verify.SignatureMismatch, "none of 1 v1 signatures fits any of 1 secrets"},
		"v1, no JSON":            {v1(compact), " a b ", 0, verify.SignatureMismatch, "none of 1 v1 signatures fits any of 1 secrets"},
		"v1a, altered":           {v1a(compact), "{}", 0, verify.SignatureMismatch, "none of 1 v1a signatures fits any of 2 keys"},
		"v1, altered and large":  {v1(compact), compact + strings.Repeat(" ", 64<<10), 0, verify.SignatureMismatch, "none of 1 v1 signatures fits any of 1 secrets"},
		"v1, old and large":      {v1(compact + strings.Repeat(" ", 64<<10)), compact + strings.Repeat(" ", 64<<10), 312 * time.Second, verify.TimestampTooOld, "timestamp is 312 s old"},
		"v1, altered, many":      {strings.Repeat(bad+" ", 4) + v1(compact), compact + "\n", 0, verify.SignatureMismatch, "none of 5 v1 signatures fits any of 1 secrets"},
		"v1, altered, a few":     {strings.Repeat(bad+" ", 3) + v1(compact), compact + "\n", 0, verify.BodyAltered, trimmed},
		"v1, old, far too many":  {strings.Repeat("v2,x ", 4) + v1(compact), compact, 312 * time.Second, verify.TimestampTooOld, "timestamp is 312 s old"},
		"v1, old, and malformed": {"v1,", compact, 312 * time.Second, verify.SignatureMalformed, "no v1 entry of webhook-signature is the base64 of 32 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newDynamic(t, signedAt.Add(tc.age), pinned(t, jwksOf(edJWK(0), edJWK(1))))
			h := headers(id, timestamp, tc.signature)
			var delivery verify.Delivery
			var err error
			if strings.HasPrefix(tc.signature, "v1a") {
				delivery, err = v.VerifyDynamic(tokenA, h, []byte(tc.body))
			} else {
				delivery, err = v.Verify(h, []byte(tc.body))
			}
			failure, ok := errors.AsType[*verify.Failure](err)
			if !ok || delivery != (verify.Delivery{}) || failure.Reason != tc.reason || failure.Detail() != tc.detail {
				t.Errorf("got %+v, %v, want %s %q", delivery, err, tc.reason, tc.detail)
			}
		})
	}
}

// Without keys nobody can be named.
func TestNoKeysNoExplanation(t *testing.T) {
	v := newDynamic(t, signedAt.Add(time.Hour), pinned(t, nil))
	_, err := v.VerifyDynamic(tokenA, headers(id, timestamp, signV1A(edPrivate(edKey), id, timestamp, "")), nil)
	if got, want := detail(t, err), "timestamp is 3600 s old"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A flood is explained five times a second, and of each kind as often, whatever there is of the others.
func TestExplanationsAreFew(t *testing.T) {
	now := signedAt
	v, err := verify.New(verify.Config{
		Secrets: texts(secretA), Tokens: texts(tokenA), JWKS: pinned(t, allKeys()), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	ed := edPrivate(edKey)
	static := func(timestamp, signature, body string) error {
		_, err := v.Verify(headers(id, timestamp, signature), []byte(body))
		return err
	}
	dynamic := func(timestamp, signature, body string) error {
		_, err := v.VerifyDynamic(tokenA, headers(id, timestamp, signature), []byte(body))
		return err
	}
	kinds := map[string]func() error{
		"altered v1":  func() error { return static(timestamp, good, payload+"\n") },
		"stale v1":    func() error { return static("1", sign(secretA, id, "1", payload), payload) },
		"altered v1a": func() error { return dynamic(timestamp, signV1A(ed, id, timestamp, payload), payload+"\n") },
		"stale v1a":   func() error { return dynamic("1", signV1A(ed, id, "1", payload), payload) },
	}
	for range 3 {
		explained := map[string]int{}
		for _, name := range slices.Sorted(maps.Keys(kinds)) {
			for range 50 {
				if what := detail(t, kinds[name]()); strings.Contains(what, "trimming") || strings.Contains(what, "was right") {
					explained[name]++
				}
			}
		}
		if want := (map[string]int{"altered v1": 5, "stale v1": 5, "altered v1a": 5, "stale v1a": 5}); !maps.Equal(explained, want) {
			t.Errorf("explained are %v, want %v", explained, want)
		}
		now = now.Add(time.Second)
	}
	if _, err := v.Verify(headers(id, timestamp, good), []byte(payload)); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

func TestExplainTakesOtherErrors(t *testing.T) {
	v := newVerifier(t, signedAt, secretA)
	_, missing := v.Head(nil)
	for _, err := range []error{nil, errors.New("x"), verify.ErrNoKeys, missing} {
		if v.WantsBody(err) || v.Explain(err, nil) != err { //nolint:errorlint // it is to be the same
			t.Errorf("%v: got %v", err, v.Explain(err, nil))
		}
	}
}

// What a verifier remembers of a stale delivery opens nothing.
func TestExplainedIsStillRefused(t *testing.T) {
	v := newVerifier(t, signedAt.Add(time.Hour), secretA)
	_, err := v.Head(headers(id, timestamp, good))
	if !v.WantsBody(err) {
		t.Fatal("the body is not wanted")
	}
	wantFailure(t, v.Explain(err, []byte(payload)), verify.TimestampTooOld)
}

func TestTimestampFarAhead(t *testing.T) {
	_, err := newVerifier(t, signedAt, secretA).Head(headers(id, "999999999999", good))
	if got, want := detail(t, err), "timestamp is 9223372036 s ahead of this machine's clock"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
