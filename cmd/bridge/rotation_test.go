package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rotation is how long a change of the secrets may take.
const rotation = 6 * time.Second

// TestRotation: the secrets change while deliveries flow, and none is refused.
func TestRotation(t *testing.T) {
	t.Parallel()
	path := writeFile(t, oldSecret+"\n")
	b := launch(t, byFile(path, local(t))).up(t)
	b.becomes(t, http.StatusOK)
	body := sample(t, "batch.succeeded")

	var secret atomic.Value // of the sender
	secret.Store(oldSecret)
	var sent int
	var flow sync.WaitGroup
	done := make(chan struct{})
	flow.Go(func() {
		for ; ; sent++ {
			select {
			case <-done:
				return
			default:
			}
			id := fmt.Sprint("msg_", sent)
			if r, err := send(b.client, b.url, secret.Load().(string), id, body); err != nil || r.code != http.StatusAccepted || r.Status != "published" {
				t.Errorf("%s: %v, %v", id, r, err)
				return
			}
		}
	})
	// until waits for a delivery signed with a secret to be answered so.
	until := func(secret string, code int) {
		t.Helper()
		began := time.Now()
		for n := 0; ; n++ {
			r, err := send(b.client, b.url, secret, fmt.Sprint("msg_probe_", code, "_", n), body)
			if err == nil && r.code == code {
				return
			}
			if time.Since(began) > rotation {
				t.Fatalf("%v after the change: %v, %v, want %d", rotation, r, err, code)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	defer flow.Wait()
	defer close(done)

	until(signingSecret, http.StatusUnauthorized)
	replace(t, path, "# both\n", false) // which is no secret
	b.log.line(t, `"level":"error"`, "BRIDGE_SIGNING_SECRETS_FILE", "unusable")
	replace(t, path, oldSecret+"\r\n\r\n"+signingSecret+"\r\n", false)
	until(signingSecret, http.StatusAccepted)
	until(oldSecret, http.StatusAccepted)
	secret.Store(signingSecret)
	replace(t, path, signingSecret+"\n", true)
	until(oldSecret, http.StatusUnauthorized)
	b.failReloads(t, path, 2)
	until(signingSecret, http.StatusAccepted)

	if !strings.Contains(strings.Join(b.log.lines("file reloaded"), "\n"), path) {
		t.Errorf("the log names no file:\n%s", b.log)
	}
	for _, s := range []string{signingSecret, oldSecret, signingSecret[6:], oldSecret[6:], "# both"} {
		if strings.Contains(b.log.String(), s) {
			t.Errorf("%q is in the log", s)
		}
	}
}

// replace writes a file, or puts another in its place.
func replace(t *testing.T, path, content string, rename bool) {
	t.Helper()
	target := path
	if rename {
		target = filepath.Join(filepath.Dir(path), "new")
	}
	if err := os.WriteFile(target, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(target, path); err != nil {
		t.Fatal(err)
	}
}

// failReloads replaces the secrets by what cannot be used, and waits until the failures are so many.
func (b *bridge) failReloads(t *testing.T, path string, want float64) {
	t.Helper()
	replace(t, path, "whsec_c2hvcnQ=\n", false)
	eventually(t, func() error {
		if got := b.metrics(t)[`bridge_file_reload_failures_total{file="BRIDGE_SIGNING_SECRETS_FILE"}`]; got != want {
			return fmt.Errorf("%v failures, want %v", got, want)
		}
		return nil
	})
}
