package ingress

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

const defaultRefusalLines = 5

// A window is long while there is more to be logged than may be.
const shortWindow, longWindow = time.Second, 10 * time.Second

// Keys of the line that stands for those that were not logged one by one.
const (
	keyRefusals = "refusals" // how many, by reason
	keySeconds  = "seconds"  // in which they came
)

// refusals bounds the log lines of requests that were not authentic. Anybody can send them. Each reason has lines of its
// own, so that a flood of one kind does not hide the few of another.
type refusals struct {
	logger zerolog.Logger
	lines  int // of each reason in a window

	mu     sync.Mutex
	window time.Duration // under way; 0 when there is none
	began  time.Time
	timer  *time.Timer // of the last window
	seen   map[string]int
	next   time.Duration // of the next window; 0 = short
}

// admit tells whether a refusal for this reason gets a line. When there are too many, one line tells at the end of the
// window how many had none.
func (r *refusals) admit(reason string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.window == 0 {
		r.window, r.began, r.seen = max(r.next, shortWindow), time.Now(), map[string]int{}
		r.timer = time.AfterFunc(r.window, r.end)
	}
	r.seen[reason]++
	return r.seen[reason] <= r.lines
}

// flush ends the window under way before its time.
func (r *refusals) flush() {
	r.mu.Lock()
	timer := r.timer
	r.mu.Unlock()
	if timer != nil && timer.Stop() {
		r.end()
	}
}

func (r *refusals) end() {
	r.mu.Lock()
	window, seen := min(r.window, time.Since(r.began).Round(time.Millisecond)), r.seen
	r.window, r.seen, r.next = 0, nil, 0
	withheld := zerolog.Dict()
	for _, reason := range slices.Sorted(maps.Keys(seen)) {
		if n := seen[reason] - r.lines; n > 0 {
			withheld.Int(reason, n)
			r.next = longWindow
		}
	}
	many := r.next > 0
	r.mu.Unlock()
	if many {
		r.logger.Warn().Dict(keyRefusals, withheld).Float64(keySeconds, window.Seconds()).
			Msg("more requests were refused than are logged one by one")
	}
}

// refusal is the reason of a request that is not authentic, as metrics have it.
func refusal(p *passage, rep reply, err error) (reason string, refused bool) {
	if err == nil || p.proof.Scheme != "" {
		return "", false
	}
	if failure, ok := errors.AsType[*verify.Failure](err); ok {
		return string(failure.Reason), true
	}
	return rep.token, true
}
