package durable_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// Many deliveries of few ids at random times, to a sink that dedups, answers late or never, fails, refuses, panics
// and stores before it fails: whatever happens, one copy per id is in the air, and a nil error means stored.
func TestUnderLoad(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			n := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			inAir, stored := map[schema.Key]int{}, map[schema.Key]int{}
			sink := &fake{publish: func(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
				mu.Lock()
				if inAir[e.Key()]++; inAir[e.Key()] > 1 {
					t.Errorf("seed %d: %v is twice in the air", seed, e.Key())
				}
				mu.Unlock()
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					inAir[e.Key()]--
				}()
				time.Sleep(time.Duration(n(5000)) * time.Millisecond) // whatever ctx says
				store := func() bool {
					mu.Lock()
					defer mu.Unlock()
					stored[e.Key()]++
					return stored[e.Key()] > 1
				}
				switch n(8) {
				case 0:
					return sinks.Ack{}, errBroken
				case 1:
					store()
					return sinks.Ack{}, sinks.ErrUnknown
				case 2:
					return sinks.Ack{}, &sinks.RefusedError{Reason: "too large"}
				case 3:
					panic("oh")
				}
				return sinks.Ack{Duplicate: store()}, nil
			}}
			d := newDeliverer(t, sink)
			var wg sync.WaitGroup
			for range 300 {
				key := schema.Key{ID: fmt.Sprint(n(5))}
				wg.Go(func() {
					time.Sleep(time.Duration(n(60_000)) * time.Millisecond)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+n(6000))*time.Millisecond)
					defer cancel()
					start := time.Now()
					result, err := d.Deliver(ctx, event(t, key.ID))
					if took := time.Since(start); took > ackTimeout {
						t.Errorf("seed %d: %v", seed, took)
					}
					mu.Lock()
					defer mu.Unlock()
					letter := schema.Key{Dead: true, ID: key.ID}
					if (err == nil) != (result != 0) || err == nil && stored[key] == 0 && stored[letter] == 0 {
						t.Errorf("seed %d: got %v, %v; stored %d and %d", seed, result, err, stored[key], stored[letter])
					}
					if result == schema.Published && stored[key] == 0 || result == schema.DeadLettered && stored[letter] == 0 {
						t.Errorf("seed %d: got %v, stored %d and %d", seed, result, stored[key], stored[letter])
					}
				})
			}
			wg.Wait()
			if err := d.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
