package verify_test

import (
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// What is refused costs less than the same delivery when it is accepted, the cheaper the sooner it is refused. A list
// costs a verification for each entry, up to a bound.
func BenchmarkDynamic(b *testing.B) {
	body := strings.Repeat("x", 700)
	v1a := signV1A(edPrivate(edKey), id, timestamp, body)
	evil := signV1A(edPrivate(2), id, timestamp, body)
	keys := pinned(b, jwksOf(edJWK(edKey), rsaJWK(0), rsaJWK(1)))
	v1aVerifier, jwtVerifier := newDynamic(b, signedAt, keys), newDynamic(b, dynamicAt, keys)
	stranger := signJWT(strangersRSA(), jwtHeader, "{"+jwtTimes+jwtEvent+"}")
	for _, bench := range []struct {
		name, token, signature, body string
		verifier                     *verify.Verifier
		accepted                     bool
	}{
		{"v1a accepted", tokenA, v1a, body, v1aVerifier, true},
		{"v1a of a stranger", tokenA, evil, body, v1aVerifier, false},
		{"32 v1a of a stranger", tokenA, strings.TrimSpace(strings.Repeat(evil+" ", 32)), body, v1aVerifier, false},
		{"v1a malformed", tokenA, v1a + "=", body, v1aVerifier, false},
		{"wrong token", tokenB[:len(tokenB)-1], v1a, body, v1aVerifier, false},
		{"JWT accepted", tokenA, goodJWT(), "", jwtVerifier, true},
		{"JWT of a stranger", tokenA, stranger, "", jwtVerifier, false},
		{"JWT of an unknown kid", tokenA, signJWT(strangersRSA(), `{"alg":"RS256","kid":"?"}`, "{}"), "", jwtVerifier, false},
		{"JWT by HS256", tokenA, byHMAC(nil, `{"alg":"HS256","kid":"rsa-2048-kid1"}`), "", jwtVerifier, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h := headers(id, timestamp, bench.signature)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.verifier.VerifyDynamic(bench.token, h, []byte(bench.body)); (err == nil) != bench.accepted {
					b.Fatal(err)
				}
			}
		})
	}
}
