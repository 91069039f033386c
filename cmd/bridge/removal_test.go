package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// shelf is a directory of files that one of the ways changes in which operators do.
type shelf struct {
	t    *testing.T
	dir  string
	next int
}

func (s *shelf) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shelf) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func inPlace(s *shelf, files map[string]string) {
	s.t.Helper()
	for name, content := range files {
		s.must(os.WriteFile(s.path(name), []byte(content), 0o600))
	}
}

func byRename(s *shelf, files map[string]string) {
	s.t.Helper()
	for name, content := range files {
		s.must(os.WriteFile(s.path(".new"), []byte(content), 0o600))
		s.must(os.Rename(s.path(".new"), s.path(name)))
	}
}

// bySymlink is what the kubelet does (AtomicWriter of k8s.io/kubernetes): name → ..data/name, ..data → a directory that
// is new each time, and the old one is removed.
func bySymlink(s *shelf, files map[string]string) {
	s.t.Helper()
	s.next++
	fresh := fmt.Sprint("..", s.next)
	s.must(os.Mkdir(s.path(fresh), 0o700))
	for name, content := range files {
		s.must(os.WriteFile(filepath.Join(s.path(fresh), name), []byte(content), 0o600))
		if err := os.Symlink(filepath.Join("..data", name), s.path(name)); !errors.Is(err, os.ErrExist) {
			s.must(err)
		}
	}
	old, _ := os.Readlink(s.path("..data"))
	s.must(os.Symlink(fresh, s.path("..data_tmp")))
	s.must(os.Rename(s.path("..data_tmp"), s.path("..data")))
	if old != "" {
		s.must(os.RemoveAll(s.path(old)))
	}
}

// TestRemovedIsRefused: what is taken out of a file lets nobody in six seconds later, however the file was changed, and
// what stays in it is not refused for a moment.
func TestRemovedIsRefused(t *testing.T) {
	t.Parallel()
	const otherToken = "another-token-of-the-operator-0123456789"
	for name, put := range map[string]func(*shelf, map[string]string){
		"written in place": inPlace, "renamed over": byRename, "swapped by Kubernetes": bySymlink,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &shelf{t: t, dir: t.TempDir()}
			google, proxies, others := newGoogle(t), newAuthority(t), newAuthority(t)
			put(s, map[string]string{
				"secrets": oldSecret + "\n" + signingSecret + "\n", "tokens": dynamicToken + "\n" + otherToken + "\n", "ca": others.pem + proxies.pem,
			})
			e := &edge{google: google, body: sample(t, "batch.succeeded"), secureBridge: launchSecure(t, byFile(s.path("secrets"), local(t,
				"BRIDGE_DYNAMIC_TOKENS_FILE="+s.path("tokens"), "BRIDGE_JWKS_FILE="+writeFile(t, string(google.keys())), "BRIDGE_TLS_CLIENT_CA="+s.path("ca"))))}
			proxy := e.trusting(proxies.pair("proxy"))
			other := e.trusting(others.pair("other")) // each of its deliveries is on a connection of its own
			other.Transport.(*http.Transport).DisableKeepAlives = true
			n := 0
			post := func(client *http.Client, secret, token string) (int, error) {
				n++
				r, err := e.try(client, secret, token, fmt.Sprint("msg_", n))
				return r.code, err
			}
			goes := func() {
				t.Helper()
				for _, token := range []string{"", otherToken} {
					if code, err := post(proxy, signingSecret, token); code != http.StatusAccepted {
						t.Fatalf("what stays is answered %d, %v", code, err)
					}
				}
			}
			removed := map[string]struct {
				client        *http.Client
				secret, token string
				certificate   bool // whose refusal is the end of the connection
			}{
				"secret":               {client: proxy, secret: oldSecret},
				"token":                {client: proxy, secret: signingSecret, token: dynamicToken},
				"client's certificate": {client: other, secret: signingSecret, certificate: true},
			}
			goes()
			for what, try := range removed {
				if code, err := post(try.client, try.secret, try.token); code != http.StatusAccepted {
					t.Fatalf("the old %s, before: %d, %v", what, code, err)
				}
			}
			put(s, map[string]string{"secrets": signingSecret + "\n", "tokens": otherToken + "\n", "ca": proxies.pem})
			began := time.Now()
			for refused := map[string]bool{}; len(refused) < len(removed); time.Sleep(20 * time.Millisecond) {
				for what, try := range removed {
					sent := time.Since(began)
					code, err := post(try.client, try.secret, try.token)
					switch {
					case code == http.StatusUnauthorized, err != nil && try.certificate:
						refused[what] = true
					case refused[what]:
						t.Fatalf("the old %s is in again: %d, %v", what, code, err)
					case code != http.StatusAccepted:
						t.Fatalf("the old %s: %d, %v", what, code, err)
					case sent > rotation:
						t.Fatalf("the old %s is accepted %v after its removal", what, sent)
					}
				}
				goes()
			}
			t.Logf("refused within %v", time.Since(began))
		})
	}
}
