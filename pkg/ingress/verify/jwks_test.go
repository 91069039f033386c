package verify_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// keyServer is the other end of a JWKS, without a network: what it answers can change, and when it was asked is kept.
type keyServer struct {
	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error)
	asked  []time.Time
	log    bytes.Buffer
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	answer := s.answer
	s.mu.Unlock()
	return answer(r)
}

func (s *keyServer) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(line)
}

func (s *keyServer) set(answer func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// fetches returns when fetches began, since the start of the test's bubble.
func (s *keyServer) fetches() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.asked...)
}

func (s *keyServer) lines() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.log.String(), "\n")
}

func answering(status int, body io.Reader) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Body: io.NopCloser(body), Header: http.Header{"Location": {"https://other.example/"}}}, nil
	}
}

func serving(content []byte) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		return answering(200, bytes.NewReader(content))(r)
	}
}

func down(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// trickle sends a byte a second, for ever.
type trickle struct{ ctx context.Context }

func (r trickle) Read(p []byte) (int, error) {
	select {
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	}
}

// endless sends blanks as fast as they are read.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

// bubble runs a JWKS and a verifier with it on a fake clock.
func bubble(t *testing.T, answer func(*http.Request) (*http.Response, error), do func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &keyServer{answer: answer}
		j, err := verify.NewJWKS(verify.JWKSConfig{URL: verify.GoogleJWKS, Transport: s, Log: zerolog.New(s)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			j.Run(ctx)
		}()
		synctest.Wait()
		do(t, s, j, newDynamic(t, signedAt, j))
		cancel()
		<-ended
	})
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// outcome is what becomes of a v1a delivery signed by one of the vectors' keys: "accepted", "503", or the reason.
func outcome(v *verify.Verifier, key int) string {
	_, err := v.VerifyDynamic(tokenA, headers(id, timestamp, signV1A(edPrivate(key), id, timestamp, payload)), []byte(payload))
	return outcomeOf(err)
}

func outcomeOf(err error) string {
	switch failure, ok := errors.AsType[*verify.Failure](err); {
	case err == nil:
		return "accepted"
	case errors.Is(err, verify.ErrNoKeys):
		return "503"
	case ok:
		return string(failure.Reason)
	}
	return err.Error()
}

// What a key server may do, at the start and later.
func TestKeyServerOutcomes(t *testing.T) {
	gzip := func(r *http.Request) (*http.Response, error) {
		response, err := serving([]byte("\x1f\x8b\x08"))(r)
		response.Header.Set("Content-Encoding", "gzip")
		return response, err
	}
	for name, tc := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		error  string // of the status
	}{
		"down":                       {down, "connection refused"},
		"silent":                     {silent, "deadline exceeded"},
		"trickling":                  {func(r *http.Request) (*http.Response, error) { return answering(200, trickle{r.Context()})(r) }, "deadline exceeded"},
		"huge":                       {answering(200, endless{}), "256 KiB"},
		"garbage":                    {serving([]byte("<html>502 Bad Gateway</html>")), "not a JSON Web Key Set"},
		"gzip that nobody asked for": {gzip, "not a JSON Web Key Set"},
		"nothing":                    {serving(nil), "not a JSON Web Key Set"},
		"empty set":                  {serving(jwksOf()), "no Ed25519 and no RSA key"},
		"only keys of other kinds":   {serving(jwksOf(map[string]any{"kty": "EC"})), "no Ed25519 and no RSA key"},
		"too many keys":              {serving([]byte(`{"keys":[` + strings.Repeat(string(toJSON(edJWK(0)))+",", 32) + string(toJSON(edJWK(0))) + `]}`)), "more than 32 keys"},
		"cut off":                    {serving(allKeys()[:300]), "not a JSON Web Key Set"},
		"500 with keys":              {answering(500, bytes.NewReader(allKeys())), "answered 500"},
		"204":                        {answering(204, http.NoBody), "answered 204"},
		"a redirect":                 {answering(302, bytes.NewReader(allKeys())), "answered 302"},
		"another redirect":           {answering(308, http.NoBody), "answered 308"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, tc.answer, func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
				check := func(when, known, unknown string, keys int) {
					t.Helper()
					if got := outcome(v, 0); got != known {
						t.Errorf("%s: got %s of a known key, want %s", when, got, known)
					}
					if got := outcome(v, 2); got != unknown {
						t.Errorf("%s: got %s of an unknown key, want %s", when, got, unknown)
					}
					if _, err := v.Verify(headers(id, timestamp, good), []byte(payload)); err != nil {
						t.Errorf("%s: static: %v", when, err)
					}
					if got := j.Status().Keys; got != keys {
						t.Errorf("%s: %d keys, want %d", when, got, keys)
					}
				}
				pass(10 * time.Second)
				check("at the start", "503", "503", 0)
				if status := j.Status(); status.Failures == 0 || status.Err == nil || !strings.Contains(status.Err.Error(), tc.error) {
					t.Errorf("got %+v, want an error with %q", status, tc.error)
				}

				s.set(serving(jwksOf(edJWK(0))))
				pass(20 * time.Second)
				check("once there are keys", "accepted", "signature_mismatch", 1)
				failures := j.Status().Failures
				if status := j.Status(); status.Err != nil {
					t.Errorf("once there are keys: got %+v", status)
				}

				s.set(tc.answer)
				pass(16 * time.Minute)
				check("when there were keys", "accepted", "signature_mismatch", 1)
				if status := j.Status(); status.Failures == failures || status.Err == nil || status.Age < 15*time.Minute {
					t.Errorf("when there were keys: got %+v", status)
				}

				s.set(serving(jwksOf(edJWK(2))))
				pass(2 * time.Minute)
				check("keys exchanged", "signature_mismatch", "accepted", 1)
				if got := s.lines(); got > 8 {
					t.Errorf("%d log lines of 6 changes of state: %s", got, s.log.String())
				}
			})
		})
	}
}

// While there are no keys they are asked for again and again, with growing pauses, whatever arrives.
func TestBackOffAtStart(t *testing.T) {
	bubble(t, down, func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
		for range 10 * 60 {
			if got := outcome(v, 0); got != "503" {
				t.Fatalf("got %s", got)
			}
			pass(time.Second)
		}
		var pauses []time.Duration
		fetches := s.fetches()
		for i := range fetches[1:] {
			pauses = append(pauses, fetches[i+1].Sub(fetches[i]))
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
		for i := range want {
			if len(pauses) <= i || pauses[i] != want[i]*time.Second {
				t.Fatalf("got pauses %v, want %v seconds", pauses, want)
			}
		}
		if status := j.Status(); int(status.Failures) != len(fetches) || status.Age != 10*time.Minute || s.lines() != 1 {
			t.Errorf("got %+v of %d fetches, %d lines", status, len(fetches), s.lines())
		}
	})
}

// A flood of deliveries with unknown keys, of both kinds: at most one fetch a minute leaves, but for the one at the
// start; all wait for that one, and only for it.
func TestFloodOfUnknownKeys(t *testing.T) {
	unknownKID := signJWT(rsaPrivate(rsaKey), `{"alg":"RS256","kid":"?"}`, "{"+jwtTimes+jwtEvent+"}")
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"answering": serving(jwksOf(edJWK(0))), "failing": down, "silent": silent,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, serving(jwksOf(edJWK(0))), func(t *testing.T, s *keyServer, _ *verify.JWKS, v *verify.Verifier) {
				s.set(answer)
				var flood sync.WaitGroup
				for n := range 8 {
					flood.Go(func() {
						<-time.After(time.Duration(n) * 37 * time.Millisecond)
						for began := time.Now(); time.Since(began) < 12*time.Minute; <-time.After(1911 * time.Millisecond) {
							asked := time.Now()
							if n%2 == 0 {
								if got := outcome(v, 2); got != "signature_mismatch" {
									t.Errorf("got %s", got)
								}
							} else if _, err := v.VerifyDynamic(tokenA, headers(id, timestamp, unknownKID), nil); err == nil {
								t.Error("accepted")
							}
							if waited := time.Since(asked); waited > 2*time.Second {
								t.Errorf("a delivery waited %s", waited)
							}
						}
					})
				}
				flood.Wait()
				fetches := s.fetches()
				if len(fetches) < 9 || len(fetches) > 14 {
					t.Errorf("%d fetches in 12 minutes", len(fetches))
				}
				for i := range fetches[2:] {
					if pause := fetches[i+2].Sub(fetches[i+1]); pause < time.Minute {
						t.Errorf("fetch %d came %s after the one before", i+2, pause)
					}
				}
				if pause := fetches[1].Sub(fetches[0]); pause > time.Second {
					t.Errorf("the fetch at the start counts: the next one came %s after it", pause)
				}
			})
		})
	}
}

// A delivery whose key has just been added is accepted at its first attempt, and so are those that wait with it.
func TestRotatedKey(t *testing.T) {
	bubble(t, serving(jwksOf(edJWK(0))), func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
		s.set(func(r *http.Request) (*http.Response, error) {
			<-time.After(time.Second)
			return serving(jwksOf(edJWK(0), edJWK(2), rsaJWK(0)))(r)
		})
		var waiting sync.WaitGroup
		for range 8 {
			waiting.Go(func() {
				if got := outcome(v, 2); got != "accepted" {
					t.Errorf("got %s", got)
				}
			})
			waiting.Go(func() {
				at := newDynamic(t, dynamicAt, j)
				if _, err := at.VerifyDynamic(tokenA, headers(id, timestamp, goodJWT()), nil); err != nil {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
		if got := len(s.fetches()); got != 2 {
			t.Errorf("%d fetches, want one at the start and one more", got)
		}

		// The next new key has to wait for its minute, then it is fetched when the delivery is repeated.
		s.set(serving(jwksOf(edJWK(1))))
		if got := outcome(v, 1); got != "signature_mismatch" {
			t.Errorf("within the minute: got %s", got)
		}
		pass(time.Minute)
		if got := outcome(v, 1); got != "accepted" {
			t.Errorf("after the minute: got %s", got)
		}
		if got := outcome(v, 0); got != "signature_mismatch" {
			t.Errorf("the key that was taken away: got %s", got)
		}
	})
}

// A key that Google takes away counts for a quarter of an hour at most; the same set again is no change.
func TestRefreshedInTheBackground(t *testing.T) {
	bubble(t, serving(jwksOf(edJWK(0))), func(t *testing.T, s *keyServer, j *verify.JWKS, v *verify.Verifier) {
		pass(time.Hour)
		if got := len(s.fetches()); got != 5 || s.lines() != 1 {
			t.Errorf("%d fetches and %d lines in an hour", got, s.lines())
		}
		if age := j.Status().Age; age != 0 {
			t.Errorf("got age %s after a fetch", age)
		}
		s.set(serving(jwksOf(edJWK(2))))
		pass(15 * time.Minute)
		if outcome(v, 0) == "accepted" || outcome(v, 2) != "accepted" {
			t.Error("the old key still counts, or the new one does not")
		}
		pass(7 * time.Minute)
		if age := j.Status().Age; age != 7*time.Minute {
			t.Errorf("got age %s", age)
		}
	})
}

// At the end nobody is left waiting, and without Run nobody waits at all.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &keyServer{answer: serving(jwksOf(edJWK(0)))}
		j, err := verify.NewJWKS(verify.JWKSConfig{URL: verify.GoogleJWKS, Transport: s})
		if err != nil {
			t.Fatal(err)
		}
		v := newDynamic(t, signedAt, j)
		if got := outcome(v, 0); got != "503" {
			t.Errorf("before Run: got %s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			j.Run(ctx)
			close(ended)
		}()
		synctest.Wait()
		s.set(silent)
		began := time.Now()
		waiting := make(chan string)
		go func() { waiting <- outcome(v, 2) }()
		synctest.Wait()
		cancel()
		<-ended
		if got := <-waiting; got != "signature_mismatch" || time.Since(began) > 0 {
			t.Errorf("got %s after %s", got, time.Since(began))
		}
		if got := outcome(v, 2); got != "signature_mismatch" || time.Since(began) > 0 {
			t.Errorf("after the end: got %s after %s", got, time.Since(began))
		}
		if outcome(v, 0) != "accepted" {
			t.Error("the keys are gone")
		}
	})
}

// Pinned keys are fetched from nowhere, and have no age.
func TestPinned(t *testing.T) {
	j := pinned(t, jwksOf(edJWK(0)))
	j.Run(t.Context()) // returns
	v := newDynamic(t, signedAt, j)
	if outcome(v, 0) != "accepted" || outcome(v, 2) != "signature_mismatch" {
		t.Error("the pinned key does not count, or another one does")
	}
	if err := j.Set(jwksOf(edJWK(2))); err != nil || outcome(v, 2) != "accepted" || outcome(v, 0) == "accepted" {
		t.Errorf("after the file has changed: %v", err)
	}
	if got := j.Status(); got != (verify.JWKSStatus{Keys: 1}) {
		t.Errorf("got %+v", got)
	}
}
