package verify_test

import (
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// crowd runs n deliveries at once and tells how many had which outcome, and after how many seconds.
func crowd(n int, outcome func() string) map[string]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	outcomes := map[string]int{}
	began := time.Now()
	for range n {
		all.Go(func() {
			what := outcome() + " after " + time.Since(began).String()
			mu.Lock()
			defer mu.Unlock()
			outcomes[what]++
		})
	}
	all.Wait()
	return outcomes
}

func wantOutcomes(t *testing.T, when string, got, want map[string]int) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", when, got, want)
	}
}

// slowly is a key server that thinks for a while.
func slowly(content []byte, pause time.Duration) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		<-time.After(pause)
		return serving(content)(r)
	}
}

// jwtOutcome is outcome for the JWT.
func jwtOutcome(t *testing.T, j *verify.JWKS) func() string {
	t.Helper()
	v := newDynamic(t, dynamicAt, j)
	return func() string {
		_, err := v.VerifyDynamic(tokenA, headers("msg_1", "1", goodJWT()), nil)
		return outcomeOf(err)
	}
}

// Sixteen deliveries at a time wait for new keys. The others are judged by those at hand.
func TestFewWaitForNewKeys(t *testing.T) {
	bubble(t, serving(jwksOf(edJWK(0))), func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
		v1a, jwt := func() string { return outcome(v, 2) }, jwtOutcome(t, j)
		s.set(silent)
		wantOutcomes(t, "v1a", crowd(40, v1a), map[string]int{"signature_mismatch after 0s": 24, "signature_mismatch after 2s": 16})
		wantOutcomes(t, "JWT, while the same fetch is under way", crowd(40, jwt), map[string]int{"key_unknown after 0s": 24, "key_unknown after 2s": 16})
		s.set(serving(jwksOf(edJWK(0))))
		pass(10 * time.Minute)
		s.set(slowly(jwksOf(edJWK(2), rsaJWK(0)), time.Second))
		wantOutcomes(t, "when they come", crowd(20, v1a), map[string]int{"signature_mismatch after 0s": 4, "accepted after 1s": 16})
		wantOutcomes(t, "behind them", crowd(40, jwt), map[string]int{"accepted after 0s": 40})
	})
}

// Deliveries that come while the first keys are being fetched wait for them, so that a restart refuses nobody.
func TestFirstKeysAreWaitedFor(t *testing.T) {
	for name, dynamic := range map[string]func(*testing.T, *verify.JWKS, *verify.Verifier) func() string{
		"v1a": func(_ *testing.T, _ *verify.JWKS, v *verify.Verifier) func() string {
			return func() string { return outcome(v, 0) }
		},
		"JWT": func(t *testing.T, j *verify.JWKS, _ *verify.Verifier) func() string { return jwtOutcome(t, j) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, slowly(allKeys(), time.Second), func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
				wantOutcomes(t, "in time", crowd(20, dynamic(t, j, v)), map[string]int{"accepted after 1s": 16, "503 after 0s": 4})
				if got := len(s.fetches()); got != 1 {
					t.Errorf("%d fetches", got)
				}
			})
			bubble(t, silent, func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
				wantOutcomes(t, "too late", crowd(20, dynamic(t, j, v)), map[string]int{"503 after 2s": 16, "503 after 0s": 4})
				if got := len(s.fetches()); got != 1 {
					t.Errorf("%d fetches", got)
				}
			})
			bubble(t, down, func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
				wantOutcomes(t, "between two fetches", crowd(20, dynamic(t, j, v)), map[string]int{"503 after 0s": 20})
				if got := len(s.fetches()); got != 1 {
					t.Errorf("%d fetches", got)
				}
			})
		})
	}
}

// A delivery that has waited for the first keys, and fits none, does not wait for others as well.
func TestWaitsOnce(t *testing.T) {
	bubble(t, slowly(jwksOf(edJWK(0)), 1500*time.Millisecond), func(t *testing.T, s *keyServer, _ *verify.JWKS, v *verify.Verifier) {
		wantOutcomes(t, "a stranger's", crowd(1, func() string { return outcome(v, 2) }), map[string]int{"signature_mismatch after 1.5s": 1})
		synctest.Wait()
		if got := len(s.fetches()); got != 1 {
			t.Errorf("%d fetches", got)
		}
	})
}
