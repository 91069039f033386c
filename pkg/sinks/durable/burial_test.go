package durable_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
)

// letters counts.
type letters struct {
	prometheus.Counter
	n atomic.Int64
}

func (l *letters) Inc() { l.n.Add(1) }

// What becomes of an event that the sink refuses, delivered now or forwarded.
func TestRefusedWithJournal(t *testing.T) {
	for _, tt := range []struct {
		name          string
		letter        func(context.Context) (sinks.Ack, error)
		append        func() error
		want          schema.Result
		after         time.Duration
		waiting       []string // a while later, as the journal has them
		kept, aside   int
		spooledLetter int64 // as the counter has them, of an event delivered now
	}{
		{"letter acked", acks, nil, schema.DeadLettered, 2 * time.Second, nil, 1, 0, 0},
		{"letter known", knows, nil, schema.Duplicate, 2 * time.Second, nil, 1, 0, 0},
		{"letter not now", notNow, nil, schema.Spooled, 2 * time.Second, []string{"[a]"}, 0, 0, 1},
		{"letter refused", refuses, nil, schema.DeadLettered, 2 * time.Second, nil, 0, 1, 0},
		{"letter acked, journal failing", acks, writes(0, errDisk), schema.DeadLettered, 2 * time.Second, nil, 0, 0, 0},
		{"letter not now, journal failing", notNow, writes(0, errDisk), 0, 2 * time.Second, nil, 0, 0, 0},
		{"letter refused, journal failing", refuses, writes(0, errDisk), schema.DeadLettered, 2 * time.Second, nil, 0, 1, 0},
		{"letter slow", after(2500*time.Millisecond, sinks.Ack{}, nil), nil, schema.Spooled, ackTimeout, nil, 1, 0, 1},
	} {
		publish := func(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
			if e.Dead {
				return tt.letter(ctx)
			}
			return refuses(ctx)
		}
		check := func(t *testing.T, r *rig, m *memory) {
			t.Helper()
			if got := m.ids(t); len(got) != len(tt.waiting)+tt.kept || len(tt.waiting) > 0 && !slices.Equal(got, tt.waiting) {
				t.Errorf("unsettled: %q, want %q and %d kept", got, tt.waiting, tt.kept)
			}
			r.holds(t, len(tt.waiting), tt.kept)
			files, _ := filepath.Glob(filepath.Join(r.quarantine, "*"))
			if len(files) != tt.aside || r.Stats().Quarantined != uint64(tt.aside) || r.log.count("set aside") != tt.aside {
				t.Errorf("%d files, %d counted, want %d:\n%s", len(files), r.Stats().Quarantined, tt.aside, r.log.all.String())
			}
			for _, file := range files {
				var letter struct{ Data struct{ Body string } }
				content, err := os.ReadFile(file)
				if err == nil {
					err = json.Unmarshal(content, &letter)
				}
				if err != nil || letter.Data.Body != `{"n":"a"}` {
					t.Errorf("%s: %s, %v, want the dead letter with the original", file, content, err)
				}
			}
		}
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				counter := &letters{}
				m := &memory{append: tt.append}
				r := newRig(t, &fake{publish: publish}, m, durable.JournaledConfig{Keep: time.Hour, DeadLetters: counter})
				got := <-r.deliver(t.Context(), keyed("a", "k"))
				if got.result != tt.want || got.after != tt.after || (got.err == nil) != (tt.want != 0) {
					t.Errorf("got %+v, want %v after %v", got, tt.want, tt.after)
				}
				time.Sleep(10 * time.Second)
				check(t, r, m)
				if n := counter.n.Load(); n != tt.spooledLetter {
					t.Errorf("%v dead letters counted, want %v", n, tt.spooledLetter)
				}
				r.close(t)
			})
		})
		if tt.append != nil {
			continue
		}
		t.Run(tt.name+", forwarded", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				counter := &letters{}
				m := filled(t, keyed("a", "k"))
				r := newRig(t, &fake{publish: publish}, m, durable.JournaledConfig{Keep: time.Hour, DeadLetters: counter})
				time.Sleep(20 * time.Second)
				check(t, r, m)
				if n := counter.n.Load(); n != 1 && tt.want != schema.Duplicate {
					t.Errorf("%v dead letters counted, want 1", n)
				}
				r.close(t)
			})
		})
	}
}

// A letter that waits already is not written again: the event is done with.
func TestRefusedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		event := keyed("a", "k")
		letter := event.Refused("too large")
		var away atomic.Bool
		away.Store(true)
		f := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			switch {
			case !e.Dead:
				return sinks.Ack{}, &sinks.RefusedError{Reason: "too large"}
			case away.Load():
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, nil
		}}
		m := filled(t, letter, event)
		r := newRig(t, f, m, durable.JournaledConfig{})
		synctest.Wait()
		if got := m.ids(t); !slices.Equal(got, []string{"[a]"}) {
			t.Errorf("unsettled: %q, want the letter alone", got)
		}
		if appends, _ := m.count(); appends != 0 {
			t.Errorf("%d appends, want none", appends)
		}
		away.Store(false)
		time.Sleep(2 * time.Second)
		r.holds(t, 0, 0)
		r.close(t)
	})
}

// The dead letter is in the journal before the event leaves it.
func TestLetterBeforeTheEventIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := filled(t, keyed("a", "k"))
		m.append = func() error {
			time.Sleep(time.Second)
			if got := m.ids(t); !slices.Equal(got, []string{"a"}) {
				t.Errorf("unsettled: %q, want a until its letter is durable", got)
			}
			return nil
		}
		f := &fake{publish: func(_ context.Context, e *schema.Event) (sinks.Ack, error) {
			if e.Dead {
				return sinks.Ack{}, errBroken
			}
			return sinks.Ack{}, &sinks.RefusedError{}
		}}
		r := newRig(t, f, m, durable.JournaledConfig{})
		time.Sleep(1500 * time.Millisecond)
		if got := m.ids(t); !slices.Equal(got, []string{"[a]"}) {
			t.Errorf("unsettled: %q, want the letter", got)
		}
		r.close(t)
	})
}

// Without a place for it, what is refused waits.
func TestQuarantineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{publish: func(context.Context, *schema.Event) (sinks.Ack, error) {
			return sinks.Ack{}, &sinks.RefusedError{Reason: "too large"}
		}}
		at := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m := filled(t, keyed("a", "k"), keyed("b", "l"))
		m.records[2] = m.records[2][:len(m.records[2])-5]
		m.append = writes(0, errDisk)
		r := newRig(t, f, m, durable.JournaledConfig{Quarantine: filepath.Join(at, "quarantine")})
		got := <-r.deliver(t.Context(), keyed("c", "c"))
		if got.err == nil || !strings.Contains(got.err.Error(), "too large") || !strings.Contains(got.err.Error(), "could not be set aside") {
			t.Errorf("got %+v, want an error that tells all of it", got)
		}
		time.Sleep(time.Minute)
		r.holds(t, 2, 0)
		if r.Stats().Quarantined != 0 {
			t.Errorf("%+v", r.Stats())
		}
		r.close(t)
	})
}

// Records that are no events are set aside: at the start, or when it is their turn.
func TestRecordsThatAreNoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := filled(t, keyed("a", "k"), keyed("b", "k"), keyed("c", "k"))
		m.records[1] = []byte("no event")
		m.records[2] = m.records[2][:len(m.records[2])-5] // with a label
		f := &fake{}
		r := newRig(t, f, m, durable.JournaledConfig{})
		time.Sleep(time.Second)
		r.holds(t, 0, 0)
		if got := ids(f.published()); !slices.Equal(got, []string{"c"}) {
			t.Errorf("published %q, want c", got)
		}
		files, _ := filepath.Glob(filepath.Join(r.quarantine, "*.bin"))
		if len(files) != 2 || r.Stats().Quarantined != 2 {
			t.Errorf("%q, %+v, want two", files, r.Stats())
		}
		if _, records := m.count(); records != 0 {
			t.Errorf("%d records unsettled", records)
		}
		r.close(t)

		m = filled(t, keyed("a", "k"))
		m.records[1] = []byte("no event")
		at := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := durable.NewJournaled(f, m, durable.JournaledConfig{Quarantine: filepath.Join(at, "x")}); err == nil {
			t.Error("no error although it could not be set aside")
		}
	})
}
