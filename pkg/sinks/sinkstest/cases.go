package sinkstest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

func byteForByte(t *testing.T, h Harness) {
	for i := range 3 {
		if ack := mustPublish(t, h.Sink, Event(i)); ack.Duplicate {
			t.Errorf("event %d: Duplicate, want it new", i)
		}
	}
	mustHold(t, h, events(3)...)
}

func duplicate(t *testing.T, h Harness) {
	first := mustPublish(t, h.Sink, Event(1))
	other := mustPublish(t, h.Sink, Event(2))
	again := mustPublish(t, h.Sink, Event(1))
	if first.Duplicate || other.Duplicate || !again.Duplicate {
		t.Errorf("Duplicate: got %v, %v, %v, want false, false, true", first.Duplicate, other.Duplicate, again.Duplicate)
	}
	if again.Position != first.Position && again.Position != (sinks.Position{}) {
		t.Errorf("position of the duplicate: %+v, want %+v or zero", again.Position, first.Position)
	}
	if other.Position == first.Position {
		t.Errorf("two events at %+v", first.Position)
	}
	mustHold(t, h, Event(1), Event(2))
}

func deadLetterOfSameID(t *testing.T, h Harness) {
	for _, e := range []*schema.Event{Event(1), DeadLetter(1)} {
		if ack := mustPublish(t, h.Sink, e); ack.Duplicate {
			t.Errorf("dead %v: Duplicate, want it new", e.Dead)
		}
	}
	for _, e := range []*schema.Event{Event(1), DeadLetter(1)} {
		if ack := mustPublish(t, h.Sink, e); !ack.Duplicate {
			t.Errorf("dead %v: not Duplicate the second time", e.Dead)
		}
	}
	mustHold(t, h, Event(1), DeadLetter(1))
}

// orderPerKey: what one publisher publishes one after the other comes out in that order, key by key.
func orderPerKey(t *testing.T, h Harness) {
	const n = 60
	keys := map[string]string{}
	want := map[string][]string{}
	for i := range n {
		e := Event(i)
		e.PartitionKey, e.Subject = Event(3*(i%4)).PartitionKey, Event(3*(i%4)).Subject
		keys[e.ID] = e.PartitionKey
		want[e.PartitionKey] = append(want[e.PartitionKey], e.ID)
		mustPublish(t, h.Sink, e)
	}
	got := map[string][]string{}
	for _, r := range h.Stored(t) {
		got[keys[r.ID]] = append(got[keys[r.ID]], r.ID)
	}
	for key := range want {
		if !slices.Equal(got[key], want[key]) {
			t.Errorf("key %s: got %v, want %v", key, got[key], want[key])
		}
	}
}

// concurrent: many publishers at once, each of which repeats every tenth of its events.
func concurrent(t *testing.T, h Harness, count int) {
	const publishers = 64
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := p; i < count; i += publishers {
				for round := range 2 {
					if round == 1 && i%10 != 0 {
						break
					}
					ack, err := publish(t, h.Sink, Event(i), publishTimeout)
					if err != nil {
						t.Errorf("event %d: %v", i, err)
						return
					}
					if ack.Duplicate != (round == 1) {
						t.Errorf("event %d, round %d: Duplicate %v", i, round, ack.Duplicate)
					}
				}
			}
		})
	}
	wg.Wait()
	mustHold(t, h, events(count)...)
}

func large(t *testing.T, h Harness) {
	e := LargeEvent(1, 800<<10)
	mustPublish(t, h.Sink, e)
	mustHold(t, h, e)
}

func tooLarge(t *testing.T, h Harness, size int) {
	_, err := publish(t, h.Sink, LargeEvent(1, size), publishTimeout)
	if refused, ok := errors.AsType[*sinks.RefusedError](err); !ok || refused.Reason == "" {
		t.Errorf("event of %d bytes: %v, want a RefusedError with a reason", size, err)
	}
	mustPublish(t, h.Sink, Event(2))
	mustHold(t, h, Event(2))
}

func cancelled(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Sink.Publish(ctx, Event(1))
	stored := len(h.Stored(t)) > 0
	switch {
	case err == nil:
		t.Error("no error from a Publish whose context had ended")
	case errors.Is(err, sinks.ErrUnknown):
	case stored:
		t.Errorf("stored all the same, and the error was %v", err)
	case !errors.Is(err, context.Canceled):
		t.Errorf("got %v, want the context's error", err)
	}
	mustPublish(t, h.Sink, Event(1)) // the id is not taken
	mustHold(t, h, Event(1))
}

// cancelledUnderWay: callers leave at all moments of a publish. What they heard holds, and every id can come again.
func cancelledUnderWay(t *testing.T, h Harness) {
	const n = 100
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*50*time.Microsecond)
			defer cancel()
			_, errs[i] = h.Sink.Publish(ctx, Event(i))
		})
	}
	wg.Wait()
	for i, err := range errs {
		ack := mustPublish(t, h.Sink, Event(i))
		unknown := errors.Is(err, sinks.ErrUnknown)
		switch {
		case err == nil && !ack.Duplicate:
			t.Errorf("event %d was acked, and is not there", i)
		case err != nil && !unknown && ack.Duplicate:
			t.Errorf("event %d is there, and the error was %v", i, err)
		case err != nil && !unknown && !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("event %d: %v, want the context's error", i, err)
		}
	}
	mustHold(t, h, events(n)...)
}

func closed(t *testing.T, h Harness) {
	mustPublish(t, h.Sink, Event(1))
	if err := h.Sink.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := publish(t, h.Sink, Event(2), publishTimeout); !errors.Is(err, sinks.ErrClosed) {
		t.Errorf("Publish after Close: %v, want ErrClosed", err)
	}
	if err := h.Sink.Ready(t.Context()); !errors.Is(err, sinks.ErrClosed) {
		t.Errorf("Ready after Close: %v, want ErrClosed", err)
	}
	if err := h.Sink.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	mustHold(t, h, Event(1))
}

// closeWaits: what was under way when Close came is acked, or refused and not stored.
func closeWaits(t *testing.T, h Harness) {
	const n = 200
	var wg sync.WaitGroup
	begun := make(chan struct{}, n)
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			begun <- struct{}{}
			_, errs[i] = publish(t, h.Sink, Event(i), publishTimeout)
		})
	}
	for range n / 2 {
		<-begun
	}
	ctx, cancel := context.WithTimeout(t.Context(), publishTimeout)
	defer cancel()
	if err := h.Sink.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	var acked []*schema.Event
	for i, err := range errs {
		if err == nil {
			acked = append(acked, Event(i))
		} else if !errors.Is(err, sinks.ErrClosed) || errors.Is(err, sinks.ErrUnknown) {
			t.Errorf("event %d: %v, want an ack or ErrClosed", i, err)
		}
	}
	mustHold(t, h, acked...)
}

func brokerAway(t *testing.T, h Harness) {
	mustPublish(t, h.Sink, Event(1))
	h.Stop(t)
	for range 2 { // at once, and when the sink has noticed
		start := time.Now()
		_, err := publish(t, h.Sink, Event(2), 500*time.Millisecond)
		if took := time.Since(start); took > hang {
			t.Errorf("a Publish of 500 ms took %s", took)
		}
		if err == nil {
			t.Error("acked while the broker was away")
		}
		if _, refused := errors.AsType[*sinks.RefusedError](err); refused {
			t.Errorf("refused while the broker was away: %v", err)
		}
		eventually(t, "down", func() error {
			if accepting(t, h.Sink) == nil {
				return errors.New("ready")
			}
			return nil
		})
	}
	h.Start(t)
	insist(t, h.Sink, Event(2))
	if ack := mustPublish(t, h.Sink, Event(1)); !ack.Duplicate {
		t.Error("the broker's restart made the sink forget an id")
	}
	mustHold(t, h, Event(1), Event(2))
}

func readyFollowsBroker(t *testing.T, h Harness) {
	up := func() error { return accepting(t, h.Sink) }
	down := func() error {
		if up() == nil {
			return errors.New("ready")
		}
		return nil
	}
	h.Stop(t)
	eventually(t, "down", down)
	h.Start(t)
	eventually(t, "ready again", up)
	mustPublish(t, h.Sink, Event(1))
}

// losesNothing: whatever was acked while the broker, or a server of it, went away and came back is there once; whatever
// was not is there at most once, and can be published again.
func losesNothing(t *testing.T, h Harness, away func(t *testing.T)) {
	const publishers = 8
	var wg sync.WaitGroup
	stop := make(chan struct{})
	halfway := make(chan struct{}, publishers)
	published := make([][]*schema.Event, publishers)
	for p := range publishers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if i == 50 {
					halfway <- struct{}{}
				}
				e := Event(i*publishers + p)
				for t.Context().Err() == nil { // until it is acked: the id is the same
					if _, err := publish(t, h.Sink, e, time.Second); err == nil {
						break
					}
					time.Sleep(20 * time.Millisecond) // the brokers need the cores too
				}
				published[p] = append(published[p], e)
			}
		})
	}
	for range publishers {
		<-halfway
	}
	away(t)
	h.Start(t)
	insist(t, h.Sink, DeadLetter(1))
	close(stop)
	wg.Wait()
	all := append(slices.Concat(published...), DeadLetter(1))
	mustHold(t, h, all...)
}
