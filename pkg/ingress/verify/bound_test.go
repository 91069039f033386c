package verify_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// manyKeys is a set of n Ed25519 keys that nobody signs with but the last, which is edKey.
func manyKeys(n int) []byte {
	keys := make([]map[string]any, n)
	for i := range keys {
		seed := make([]byte, ed25519.SeedSize)
		seed[0] = byte(i + 1)
		public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
		keys[i] = map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public)}
	}
	keys[n-1] = edJWK(edKey)
	return jwksOf(keys...)
}

// A list of many v1a entries does not cost a verification for each of them with each of many keys.
func TestVerificationsAreBounded(t *testing.T) {
	for _, tc := range []struct {
		keys, body int
		tried      int // entries
	}{
		{1, 20, 32},
		{2, 20, 32},
		{3, 20, 21},
		{8, 20, 8},
		{31, 20, 4},
		{32, 20, 4},
		{1, 16 << 10, 32},
		{1, 16<<10 + 1, 4},
		{32, 16<<10 + 1, 4},
	} {
		t.Run(fmt.Sprintf("%d keys, %d bytes", tc.keys, tc.body), func(t *testing.T) {
			v := newDynamic(t, signedAt, pinned(t, manyKeys(tc.keys)))
			body := strings.Repeat("x", tc.body)
			good, stranger := signV1A(edPrivate(edKey), id, timestamp, body), signV1A(edPrivate(2), id, timestamp, body)
			wantDynamic(t, v, tokenA, id, timestamp, strings.Repeat(stranger+" ", tc.tried-1)+good, body, "")
			want := "none of 32 v1a signatures"
			if tc.tried < 32 {
				// Those that cannot be a signature cost nothing.
				wantDynamic(t, v, tokenA, id, timestamp, "v1a,x v1,x "+strings.Repeat(stranger+" ", tc.tried-1)+good, body, "")
				wantDynamic(t, v, tokenA, id, timestamp, strings.Repeat(stranger+" ", tc.tried)+good, body, verify.SignatureMismatch)
				want = fmt.Sprintf("none of the first %d v1a signatures", tc.tried)
			}
			_, err := v.VerifyDynamic(tokenA, headers(id, timestamp, strings.Repeat(stranger+" ", 31)+stranger), []byte(body))
			if got, want := detail(t, err), fmt.Sprintf("%s fits any of %d keys", want, tc.keys); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
