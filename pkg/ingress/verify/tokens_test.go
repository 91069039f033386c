package verify_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

func TestTokenForms(t *testing.T) {
	long := strings.Repeat("a", 256)
	for name, tc := range map[string]struct {
		token string
		want  error
	}{
		"32 characters":     {long[:32], nil},
		"256 characters":    {long, nil},
		"every character":   {"ABCXYZabcxyz0123456789-_.~ABCXYZabcxyz", nil},
		"31 characters":     {long[:31], verify.ErrTokenTooShort},
		"257 characters":    {long + "a", verify.ErrTokenTooLong},
		"empty":             {"", verify.ErrNoToken},
		"blank":             {" \t", verify.ErrNoToken},
		"blank behind":      {long[:32] + " ", verify.ErrTokenMalformed},
		"line break inside": {long[:16] + "\n" + long[:16], verify.ErrTokenMalformed},
		"slash":             {long[:32] + "/", verify.ErrTokenMalformed},
		"percent":           {long[:32] + "%41", verify.ErrTokenMalformed},
		"question mark":     {long[:32] + "?", verify.ErrTokenMalformed},
		"plus":              {long[:32] + "+", verify.ErrTokenMalformed},
		"fullwidth":         {long[:32] + "Ａ", verify.ErrTokenMalformed},
		"invalid UTF-8":     {long[:32] + "\xff", verify.ErrTokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v := newDynamic(t, signedAt, pinned(t, allKeys()))
			err := v.SetTokens(texts(tokenA, tc.token))
			if check := verify.CheckTokens(texts(tokenA, tc.token)); fmt.Sprint(check) != fmt.Sprint(err) {
				t.Errorf("CheckTokens: got %v, SetTokens: %v", check, err)
			}
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), "token 2 of 2: ") || strings.Contains(err.Error(), "aaaa")) {
				t.Errorf("error %q", err)
			}
			if refused := tokenError(v, tc.token) != nil; refused != (tc.want != nil) {
				t.Errorf("refused: %v", refused)
			}
			if tokenError(v, tokenA) != nil || (tokenError(v, tokenB) == nil) != (tc.want != nil) {
				t.Error("the tokens are neither the old nor the new ones")
			}
		})
	}
}

func tokenError(v *verify.Verifier, candidate string) error {
	_, err := v.Token(candidate)
	return err
}

func TestTokenCandidates(t *testing.T) {
	v := newDynamic(t, signedAt, pinned(t, allKeys()))
	if err := tokenError(v, tokenB); err != nil {
		t.Error(err)
	}
	for _, candidate := range []string{
		"", tokenA[:len(tokenA)-1], tokenA + "x", tokenA[1:], strings.ToUpper(tokenA), tokenA + tokenB, tokenA + "/", tokenA + "?", tokenA + "\x00",
		strings.Replace(tokenA, ".", "%2E", 1), strings.Replace(tokenA, "~", "%7E", 1), strings.Repeat("a", 8<<10),
	} {
		wantFailure(t, tokenError(v, candidate), verify.TokenUnknown)
	}
	if err := v.SetTokens(nil); !errors.Is(err, verify.ErrNoToken) || tokenError(v, tokenA) != nil {
		t.Errorf("got %v for no tokens at all, or they have gone", err)
	}
}

// Tokens change all the time, and the one that deliveries come with is always among them.
func TestTokenRotationRefusesNobody(t *testing.T) {
	v := newDynamic(t, signedAt, pinned(t, allKeys()))
	h := headers(id, timestamp, signV1A(edPrivate(edKey), id, timestamp, payload))
	var stop atomic.Bool
	var rotating, verifying sync.WaitGroup
	rotating.Go(func() {
		for !stop.Load() {
			for _, tokens := range [][]string{{tokenA}, {tokenB, tokenA}, {tokenA, tokenA}} {
				if err := v.SetTokens(texts(tokens...)); err != nil {
					t.Error(err)
				}
				if err := v.SetTokens(texts(tokenB, "short")); err == nil {
					t.Error("a short token is accepted")
				}
			}
		}
	})
	for range 2 {
		verifying.Go(func() {
			for range 300 {
				if _, err := v.VerifyDynamic(tokenA, h, []byte(payload)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	verifying.Wait()
	stop.Store(true)
	rotating.Wait()
}
