package verify_test

import (
	"strings"
	"testing"
)

func BenchmarkVerify(b *testing.B) {
	body := []byte(strings.Repeat("x", 700))
	signature := sign(secretA, id, timestamp, string(body))
	for _, bench := range []struct {
		name      string
		secrets   []string
		signature string
	}{
		{"one secret", []string{secretA}, signature},
		{"two secrets, two signatures", []string{secretB, secretA}, bad + " " + signature},
		{"two secrets, 32 signatures", []string{secretB, secretA}, strings.Repeat(bad+" ", 31) + signature},
	} {
		b.Run(bench.name, func(b *testing.B) {
			v := newVerifier(b, signedAt, bench.secrets...)
			h := headers(id, timestamp, bench.signature)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(h, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("refused by its headers", func(b *testing.B) {
		v := newVerifier(b, signedAt, secretA)
		h := headers(id, "1", signature)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Head(h); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}
