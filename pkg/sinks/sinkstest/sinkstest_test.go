package sinkstest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

const (
	brokenVariable = "SINKSTEST_BROKEN"
	limit          = 1 << 20
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a sink and its broker in one. broken names the rule that it breaks.
type memory struct {
	broken string

	mu      sync.Mutex
	away    bool
	closed  bool
	records []sinkstest.Record
	known   map[schema.Key]uint64
}

func (m *memory) Publish(ctx context.Context, e *schema.Event) (sinks.Ack, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := func(rule string) bool { return m.broken == rule }
	key := e.Key()
	if is("one space of ids") {
		key.Dead = false
	}
	switch {
	case m.closed && !is("open after Close"):
		return sinks.Ack{}, sinks.ErrClosed
	case ctx.Err() != nil && !is("deaf to ctx"):
		return sinks.Ack{}, ctx.Err()
	case m.away && is("acks without a broker"):
		return sinks.Ack{}, nil
	case m.away && is("refuses without a broker"):
		return sinks.Ack{}, &sinks.RefusedError{Reason: "away"}
	case m.away:
		return sinks.Ack{}, errors.New("away")
	case len(e.Structured) > limit && is("too large is not now"):
		return sinks.Ack{}, errors.New("too large")
	case len(e.Structured) > limit:
		return sinks.Ack{}, &sinks.RefusedError{Reason: "too large"}
	}
	if n := m.known[key]; n > 0 && !is("no dedup") {
		return sinks.Ack{Position: sinks.Position{Sequence: n}, Duplicate: !is("silent dedup")}, nil
	}
	r := sinkstest.Record{Dead: e.Dead, ID: e.ID, Event: bytes.Clone(e.Structured)}
	switch {
	case is("touches bytes"):
		r.Event = bytes.ReplaceAll(r.Event, []byte(`\/`), []byte(`/`))
	case is("changes the event"):
		e.Structured[0] = '['
	case is("turns order round"):
		m.records = append([]sinkstest.Record{r}, m.records...)
		m.known[key] = uint64(len(m.records))
		return sinks.Ack{Position: sinks.Position{Sequence: uint64(len(m.records))}}, nil
	case is("loses every 50th") && len(m.known)%50 == 49:
		m.known[key] = 1
		return sinks.Ack{Position: sinks.Position{Sequence: 1}}, nil
	}
	m.records = append(m.records, r)
	m.known[key] = uint64(len(m.records))
	if is("ctx alone, and stored") && len(m.records)%7 == 0 {
		return sinks.Ack{}, context.DeadlineExceeded
	}
	return sinks.Ack{Position: sinks.Position{Sequence: uint64(len(m.records))}}, nil
}

func (m *memory) Ready(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return sinks.ErrClosed
	case m.away:
		return errors.New("away")
	}
	return &sinks.DegradedError{Details: []string{"in memory"}}
}

func (m *memory) Close(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed && m.broken == "second Close fails" {
		return sinks.ErrClosed
	}
	m.closed = true
	return nil
}

func run(t *testing.T, broken string) {
	sinkstest.Run(t, sinkstest.Features{Count: 2000, TooLarge: 2 * limit, Restart: true, Leader: true}, func(*testing.T) sinkstest.Harness {
		m := &memory{broken: broken, known: map[schema.Key]uint64{}}
		setAway := func(away bool) func(*testing.T) {
			return func(*testing.T) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.away = away
				if !away && broken == "restart loses" {
					m.records = nil
				}
				if !away && broken == "restart forgets ids" {
					m.known = map[schema.Key]uint64{}
				}
			}
		}
		return sinkstest.Harness{
			Sink: m,
			Stored: func(*testing.T) []sinkstest.Record {
				m.mu.Lock()
				defer m.mu.Unlock()
				return append([]sinkstest.Record(nil), m.records...)
			},
			Stop: setAway(true), Start: setAway(false),
			KillLeader: func(*testing.T) {
				m.mu.Lock()
				defer m.mu.Unlock()
				if broken == "leader takes its last with it" {
					m.records = m.records[:len(m.records)-1]
				}
			},
		}
	})
}

func TestSound(t *testing.T) { run(t, "") }

// TestCatches runs the suite in a process of its own over sinks that break one rule each.
func TestCatches(t *testing.T) {
	if broken := os.Getenv(brokenVariable); broken != "" {
		run(t, broken)
		return
	}
	for broken, want := range map[string]string{
		"no dedup":                 "Duplicate",
		"silent dedup":             "Duplicate",
		"one space of ids":         "DeadLetterOfSameID",
		"touches bytes":            "ByteForByte",
		"changes the event":        "ByteForByte",
		"turns order round":        "OrderPerKey",
		"loses every 50th":         "Concurrent",
		"deaf to ctx":              "Cancelled",
		"ctx alone, and stored":    "CancelledUnderWay",
		"too large is not now":     "TooLarge",
		"open after Close":         "Close",
		"second Close fails":       "Close",
		"acks without a broker":    "BrokerAway",
		"refuses without a broker": "BrokerAway",
		"restart forgets ids":      "BrokerAway",
		"restart loses":            "RestartLosesNothing",

		"leader takes its last with it": "LeaderLosesNothing",
	} {
		t.Run(broken, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCatches$/^"+want+"$")
			cmd.Env = append(os.Environ(), brokenVariable+"="+broken)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestCatches/"+want+" ") {
				t.Errorf("case %s did not fail: %v\n%.2000s", want, err, out)
			}
		})
	}
}
