package main

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
)

// TestKill: the process is killed right after a 202, with more deliveries in flight. What was answered 202 is in the
// stream after the restart, once, and its id is still known. What was not answered may come again.
func TestKill(t *testing.T) {
	const (
		rounds  = 20
		senders = 6
	)
	environ := local(t)
	body := sample(t, "batch.succeeded")
	accepted := map[string]bool{} // by 202
	unknown := map[string]bool{}  // no answer
	b := spawn(t, environ).up(t)
	for round := range rounds {
		var mu sync.Mutex
		var fresh []string
		var load sync.WaitGroup
		for sender := range senders {
			load.Go(func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("msg_%d_%d_%d", round, sender, n)
					r, err := b.try(id, body)
					mu.Lock()
					if err != nil {
						unknown[id] = true
						mu.Unlock()
						return
					}
					if r.code != http.StatusAccepted || r.Status != "published" {
						t.Errorf("%s: %v", id, r)
					}
					accepted[id] = true
					fresh = append(fresh, id)
					if len(fresh) == 1+round%7 {
						b.signal(syscall.SIGKILL)
					}
					mu.Unlock()
				}
			})
		}
		load.Wait()
		b.exit(t)

		b = spawn(t, environ).up(t)
		b.drained(t)
		for _, id := range []string{fresh[0], fresh[len(fresh)-1]} {
			b.must(t, "duplicate", id, body)
		}
	}

	ids := stored(t, connect(t, b.nats), "GEMINI")
	for id := range accepted {
		if n := ids[id]; n != 1 {
			t.Errorf("%s was answered 202 and is stored %d times", id, n)
		}
	}
	if len(unknown) < rounds {
		t.Errorf("%d deliveries were in flight in %d rounds: too few to prove anything", len(unknown), rounds)
	}
	// The sender tries again what was not answered.
	arrived := 0
	for id := range unknown {
		want := "published"
		if ids[id] > 0 {
			want = "duplicate"
			arrived++
		}
		b.must(t, want, id, body)
	}
	t.Logf("%d deliveries answered, %d not, of which %d were stored", len(accepted), len(unknown), arrived)
	for id, n := range stored(t, connect(t, b.nats), "GEMINI") {
		if n != 1 {
			t.Errorf("%s is stored %d times", id, n)
		}
	}
}
