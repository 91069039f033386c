package fanout_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks/fanout"
)

func TestMain(m *testing.M) { kafkatest.Main(m) } // which looks for goroutines that were left

// step is what a scripted part does at one Deliver: it waits, or blocks until ctx ends, and answers.
type step struct {
	wait   time.Duration
	block  bool
	result schema.Result
	err    error
	panics any
}

// scripted is a part that plays its steps one by one.
type scripted struct {
	mu     sync.Mutex
	steps  []step
	events []*schema.Event // of every Deliver
}

func script(steps ...step) *scripted { return &scripted{steps: steps} }

func (s *scripted) Deliver(ctx context.Context, event *schema.Event) (schema.Result, error) {
	s.mu.Lock()
	next := s.steps[len(s.events)]
	s.events = append(s.events, event)
	s.mu.Unlock()
	if next.panics != nil {
		panic(next.panics)
	}
	var over <-chan time.Time
	if !next.block {
		over = time.After(next.wait)
	}
	select {
	case <-over:
		return next.result, next.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// two are the parts of most tests.
func two(nats, kafka fanout.Deliverer) *fanout.Fanout {
	return fanout.New(fanout.Part{Name: "nats", Deliverer: nats}, fanout.Part{Name: "kafka", Deliverer: kafka})
}

// outcome is what a caller of Deliver got, and when, counted from its call.
type outcome struct {
	result schema.Result
	err    error
	after  time.Duration
}

func deliver(ctx context.Context, f *fanout.Fanout, e *schema.Event) <-chan outcome {
	c := make(chan outcome, 1)
	start := time.Now()
	go func() {
		result, err := f.Deliver(ctx, e)
		c <- outcome{result, err, time.Since(start)}
	}()
	return c
}
