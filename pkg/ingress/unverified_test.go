package ingress_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/schema"
)

const kib = 1 << 10

func (r *rig) wantUnverified(tb testing.TB, want float64) {
	tb.Helper()
	if got := r.series(tb)["bridge_unverified_bytes"]; got != want {
		tb.Errorf("bridge_unverified_bytes: got %v, want %v", got, want)
	}
}

// account gives unverified bodies n bytes.
func account(n int) func(*ingress.Config) {
	return func(c *ingress.Config) { c.MaxUnverified = n }
}

// Four bodies fill the account. Who is cut for the fifth depends on their speed and age alone.
func TestSlowestIsCut(t *testing.T) {
	const ms = time.Millisecond
	type body struct {
		age   time.Duration
		bytes int
	}
	for _, tt := range []struct {
		name   string
		bodies [4]body // the oldest first
		want   int
	}{
		{"fewest bytes at equal age", [4]body{{4000 * ms, 40}, {4000 * ms, 39}, {4000 * ms, 41}, {4000 * ms, 2000}}, 1},
		{"fewest bytes per second, not fewest bytes", [4]body{{8000 * ms, 50}, {4000 * ms, 40}, {2000 * ms, 20}, {1000 * ms, 10}}, 0},
		{"the youngest if it is the slowest", [4]body{{8000 * ms, 2000}, {4000 * ms, 1000}, {2000 * ms, 500}, {1000 * ms, 10}}, 3},
		{"nothing is slowest", [4]body{{8000 * ms, 1}, {4000 * ms, 1}, {2000 * ms, 0}, {1000 * ms, 1}}, 2},
		{"a young one with nothing is not judged", [4]body{{8000 * ms, 2000}, {4000 * ms, 1900}, {999 * ms, 0}, {0, 0}}, 0},
		{"not even beside a fast one", [4]body{{1001 * ms, 2047}, {900 * ms, 0}, {800 * ms, 0}, {700 * ms, 0}}, 0},
		{"the oldest of the young", [4]body{{999 * ms, 2000}, {998 * ms, 0}, {1 * ms, 0}, {0, 0}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, account(8*kib))
			var senders []*sender
			began := tt.bodies[0].age
			for _, b := range tt.bodies {
				r.clock.advance(began - b.age)
				began = b.age
				s := r.start(t, 2*kib)
				if b.bytes > 0 {
					s.send(t, b.bytes)
				}
				senders = append(senders, s)
			}
			r.clock.advance(began)
			r.wantUnverified(t, 8*kib)
			for i, s := range senders {
				if s.wasCut(t) {
					t.Fatalf("body %d was cut while there was room", i)
				}
			}

			fifth := r.start(t, 2*kib)
			for i, s := range append(senders, fifth) {
				if got := s.wasCut(t); got != (i == tt.want) {
					t.Errorf("body %d: got cut %v", i, got)
				}
			}
			r.wantUnverified(t, 8*kib)
			fifth.rest(t)
			await(t, "the reply", fifth.done)
			if fifth.Code != 202 {
				t.Errorf("the fifth got %d", fifth.Code)
			}
		})
	}
}

// A body gets room as it grows, however many must leave for it, and is itself cut if it is the slowest.
func TestGrowingBodies(t *testing.T) {
	r := newRig(t, account(16*kib))
	large := r.start(t, 100*kib)
	r.wantUnverified(t, 2*kib) // what it declared costs nothing
	for _, step := range []struct{ send, held int }{{2 * kib, 4 * kib}, {1, 4 * kib}, {2*kib - 1, 8 * kib}} {
		large.send(t, step.send)
		r.wantUnverified(t, float64(step.held))
	}
	var trickling []*sender
	for range 4 {
		s := r.start(t, 2*kib)
		s.send(t, 1)
		trickling = append(trickling, s)
	}
	r.wantUnverified(t, 16*kib)
	r.clock.advance(2 * time.Second)
	large.send(t, 4*kib)
	r.wantUnverified(t, 16*kib)
	for i, s := range trickling {
		if !s.wasCut(t) {
			t.Errorf("%d was not cut for what is faster", i)
		}
	}
	r.clock.advance(time.Minute)
	fresh := r.start(t, 8*kib)
	if !large.wasCut(t) {
		t.Error("the large one was not cut, though it had become the slowest")
	}
	r.wantUnverified(t, 2*kib)
	fresh.send(t, 5*kib)
	r.wantUnverified(t, 8*kib)
}

// Whoever asks for room is judged like the others.
func TestSlowestAsksForRoom(t *testing.T) {
	r := newRig(t, account(10*kib))
	fast, slow := r.start(t, 8*kib), r.start(t, 8*kib)
	fast.send(t, 5*kib)
	r.clock.advance(2 * time.Second)
	slow.send(t, 2*kib)
	if !slow.wasCut(t) || fast.wasCut(t) {
		t.Error("the faster one was cut for the slower one")
	}
	r.wantUnverified(t, 8*kib)
}

// A buffer that serves another body is not cut for what the first one did.
func TestJudgementIsOfTheBody(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // sync.Pool has a place for each
	r := newRig(t, account(8*kib))
	r.deliverer.clock = nil // all of this is one moment
	var old []*sender
	for range 4 {
		old = append(old, r.start(t, 2*kib))
		r.clock.advance(2 * time.Second)
	}
	for i, s := range old {
		s.send(t, 10-i)
	}
	r.start(t, 2*kib)
	if !old[0].wasCut(t) {
		t.Fatal("the slowest was not cut")
	}
	old[1].rest(t)
	await(t, "the reply", old[1].done)
	fresh := []*sender{r.start(t, 2*kib), r.start(t, 2*kib)} // the first one in the buffer of old[1]
	if fresh[0].wasCut(t) || fresh[1].wasCut(t) || !old[2].wasCut(t) {
		t.Errorf("cut %v, %v, and %v of the slowest", fresh[0].wasCut(t), fresh[1].wasCut(t), old[2].wasCut(t))
	}
}

// Who was slow and has made up for it is judged by what he is now.
func TestJudgementIsRenewed(t *testing.T) {
	r := newRig(t, account(8*kib))
	var bodies []*sender
	for range 4 {
		bodies = append(bodies, r.start(t, 2*kib))
	}
	r.clock.advance(2 * time.Second)
	for i, s := range bodies {
		s.send(t, 10+i)
	}
	r.start(t, 2*kib)
	if !bodies[0].wasCut(t) {
		t.Fatal("the slowest was not cut")
	}
	bodies[1].send(t, 100)
	r.clock.advance(100 * time.Millisecond)
	r.start(t, 2*kib)
	if bodies[1].wasCut(t) || !bodies[2].wasCut(t) {
		t.Errorf("cut %v, who had been slow, and %v of the slowest", bodies[1].wasCut(t), bodies[2].wasCut(t))
	}
}

// What is larger than the whole account is answered, and costs nobody else more than his turn.
func TestBodyBeyondTheAccount(t *testing.T) {
	r := newRig(t, account(8*kib))
	s := r.start(t, 9*kib)
	s.rest(t)
	if !s.wasCut(t) {
		t.Errorf("got %d", s.Code)
	}
	r.wantUnverified(t, 0)
	r.do(t, draft{body: sized(8 * kib)}).want(t, 202, accepted("published", "msg_1"))
}

// Room for unverified bodies is no room for verified ones: those are counted elsewhere.
func TestVerifiedBodiesAreOffTheAccount(t *testing.T) {
	r := newRig(t, account(8*kib))
	var during []float64
	r.deliverer.answer = func(context.Context, *schema.Event) (schema.Result, error) {
		during = append(during, r.series(t)["bridge_unverified_bytes"])
		return schema.Published, nil
	}
	r.do(t, draft{body: sized(8 * kib)}).want(t, 202, accepted("published", "msg_1"))
	if want := []float64{0}; !slices.Equal(during, want) {
		t.Errorf("while it was delivered: got %v, want %v", during, want)
	}
}

// However a delivery ends, its bytes are given back, and its buffer serves the next one.
func TestUnverifiedReturnsToZero(t *testing.T) {
	for _, size := range []int{200, 3 * kib, 100 * kib} {
		body := sized(size)
		for name, end := range map[string]func(*testing.T, *rig){
			"published": func(t *testing.T, r *rig) { r.do(t, draft{body: body}).want(t, 202, accepted("published", "msg_1")) },
			"a bad signature": func(t *testing.T, r *rig) {
				r.do(t, draft{body: body, signature: sign("msg_2", "1769083200", body)}).want(t, 401, unauthenticated)
			},
			"refused by its head": func(t *testing.T, r *rig) { r.do(t, draft{body: body, timestamp: "1"}).want(t, 401, unauthenticated) },
			"too large": func(t *testing.T, r *rig) {
				r.do(t, draft{body: strings.Repeat("x", maxBody+1), chunked: true}).want(t, 413, tooLarge)
			},
			"a broken body": func(t *testing.T, r *rig) { r.do(t, draft{body: body, broken: true}).want(t, 400, badRequest) },
			"no event": func(t *testing.T, r *rig) {
				r.do(t, draft{body: body[1:]}).want(t, 202, accepted("dead-lettered", "msg_1"))
			},
			"overload": func(t *testing.T, r *rig) {
				r.deliverer.answer = answering(0, errors.New("away"))
				r.do(t, draft{body: body}).want(t, 503, unavailable)
			},
			"a panic": func(t *testing.T, r *rig) {
				r.deliverer.answer = func(context.Context, *schema.Event) (schema.Result, error) { panic("a defect") }
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				r.do(t, draft{body: body})
			},
			"cut": func(t *testing.T, r *rig) {
				s := r.start(t, size)
				s.send(t, size/2)
				for range 70 {
					r.clock.advance(2 * time.Second)
					other := r.start(t, 128*kib)
					other.send(t, 127*kib)
					defer func() {
						if !other.wasCut(t) {
							other.rest(t)
						}
					}()
					if s.wasCut(t) {
						return
					}
				}
				t.Error("it was not cut")
			},
		} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				r := newRig(t, account(400*kib))
				for range 3 {
					end(t, r)
					r.deliverer.answer = nil
				}
				for _, s := range []int{200, 5 * kib, 100 * kib} {
					r.deliverer.events = nil
					r.do(t, draft{body: sized(s)}).want(t, 202, accepted("published", "msg_1"))
					if got := string(r.one(t).Original); got != sized(s) {
						t.Errorf("a body of %d bytes arrived as %d others", s, len(got))
					}
				}
				r.wantUnverified(t, 0)
			})
		}
	}
}

// With a real server: strangers who trickle fill the account again and again, and no good delivery fails. Those who
// are cut hear so, and fill nobody's log.
func TestStrangersNeverCostAGoodDelivery(t *testing.T) {
	r := newRig(t, account(64*kib), func(c *ingress.Config) { c.Now, c.Log = nil, c.Log.Level(zerolog.InfoLevel) })
	r.deliverer.clock = nil
	r.serve(t)
	head, _, _ := strings.Cut(draft{length: "300000", signature: "v1," + strings.Repeat("A", 43) + "="}.text(), "\r\n\r\n")
	var strangers []*client
	for i := range 100 {
		c := r.dial(t)
		c.write(t, head+"\r\n\r\n"+strings.Repeat("x", i*100)) // a second read for those over 2 KiB
		strangers = append(strangers, c)
		r.send(t, draft{id: fmt.Sprint("msg_", i), body: sized(3 * kib)}).want(t, 202, accepted("published", fmt.Sprint("msg_", i)))
	}
	cut := 0
	for _, c := range strangers {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.in.Peek(1); err != nil {
			continue
		}
		got := c.receive(t, "POST")
		got.want(t, 503, unavailable)
		if !got.close {
			t.Error("the connection of a body that was cut stays open")
		}
		cut++
	}
	if cut < 50 {
		t.Errorf("%d of 100 were cut: too few to prove anything", cut)
	}
	if got := len(r.log.lines(t)); got != 100 {
		t.Errorf("%d log lines at info, want those of the 100 good deliveries", got)
	}
	if got := r.series(t)["bridge_deliveries_total{result=unavailable,type=other}"]; got != float64(cut) {
		t.Errorf("%v counted as unavailable, want %d", got, cut)
	}
}

// All senders that are told to come again are told different times.
func TestRetryAfterVaries(t *testing.T) {
	r := newRig(t, func(c *ingress.Config) { c.MaxInflight = 0 })
	seen := map[string]bool{}
	for range 500 {
		got := r.do(t, draft{body: known})
		got.want(t, 503, unavailable)
		seen[got.header.Get("Retry-After")] = true
	}
	if len(seen) != 6 {
		t.Errorf("got %v, want each of 5 to 10", seen)
	}
}
