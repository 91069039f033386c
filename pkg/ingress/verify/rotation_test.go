package verify_test

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// Secrets change all the time, one delivery's own is always among them: none is refused, and none of a
// stranger gets in.
func TestRotationRefusesNobody(t *testing.T) {
	const secretC = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
	v := newVerifier(t, signedAt, secretA, secretB)
	var stop atomic.Bool
	var rotating, verifying sync.WaitGroup
	rotating.Go(func() {
		for !stop.Load() {
			for _, secrets := range [][]string{{secretA, secretB}, {secretC, secretB, secretA}, {secretB, secretA, secretA}} {
				if err := v.SetSecrets(texts(secrets...)); err != nil {
					t.Error(err)
				}
				if err := v.SetSecrets(texts(secretC, "")); err == nil {
					t.Error("an empty secret is accepted")
				}
			}
		}
	})
	signedA, signedB := headers(id, timestamp, good), headers(id, timestamp, sign(secretB, id, timestamp, payload))
	for _, tc := range []struct {
		h   http.Header
		key string
	}{{signedA, "LaSw"}, {signedB, "b7oD"}, {headers(id, timestamp, bad), ""}} {
		verifying.Go(func() {
			for range 3000 {
				delivery, err := v.Verify(tc.h, []byte(payload))
				if delivery.Key != tc.key || (err == nil) != (tc.key != "") {
					t.Errorf("got key %q, %v, want %q", delivery.Key, err, tc.key)
					return
				}
			}
		})
	}
	verifying.Wait()
	stop.Store(true)
	rotating.Wait()
}

// Many deliveries at once share the pooled states, and none sees another's.
func TestConcurrentDeliveries(t *testing.T) {
	v := newVerifier(t, signedAt, secretA, secretB)
	var verifying sync.WaitGroup
	for n := range 8 {
		body := string(make([]byte, 100*n))
		h := headers(id, timestamp, sign(secretB, id, timestamp, body))
		verifying.Go(func() {
			for range 500 {
				if _, err := v.Verify(h, []byte(body)); err != nil {
					t.Errorf("%d bytes: %v", len(body), err)
					return
				}
				if _, err := v.Verify(h, []byte(body+".")); err == nil {
					t.Errorf("%d bytes: another body is accepted", len(body))
					return
				}
			}
		})
	}
	verifying.Wait()
}

// The secrets' file, a watcher and a verifier, as a daemon puts them together.
func TestRotationByFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "secrets")
		write := func(content string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			<-time.After(5 * time.Second)
			synctest.Wait()
		}
		write(secretA + "\n")
		v := newVerifier(t, signedAt, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX")
		failures := make(chan string, 10)
		watcher := files.New(files.Config{Log: zerolog.Nop(), OnFailure: func(name string) { failures <- name }})
		err := watcher.Watch("signing secrets", []string{path}, func(contents [][]byte) error {
			return v.SetSecrets(verify.ParseSecrets(contents[0]))
		})
		if err != nil {
			t.Fatal(err)
		}
		go watcher.Run(t.Context())

		signedA, signedB := headers(id, timestamp, good), headers(id, timestamp, sign(secretB, id, timestamp, payload))
		accepted := func(when string, a, b bool) {
			t.Helper()
			_, errA := v.Verify(signedA, []byte(payload))
			_, errB := v.Verify(signedB, []byte(payload))
			if (errA == nil) != a || (errB == nil) != b {
				t.Errorf("%s: got %v and %v, want accepted %v and %v", when, errA, errB, a, b)
			}
		}
		accepted("at start", true, false)
		write("\ufeff" + secretA + "\r\n\r\n" + secretB + "\r\n")
		accepted("both", true, true)
		write("")
		accepted("emptied", true, true)
		write(secretB + "\nhunter2\n")
		accepted("a bad line", true, true)
		if len(failures) != 2 {
			t.Errorf("%d failures reported, want 2", len(failures))
		}
		write(secretB)
		accepted("the new one only", false, true)
	})
}
