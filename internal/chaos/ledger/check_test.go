package ledger_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/chaos/ledger"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// history is events "0" to "n-1" of one key, each first sent when the one before had been answered, and the records of
// a broker that did everything right.
func history(n int) ([]ledger.Event, []ledger.Record) {
	var events []ledger.Event
	var records []ledger.Record
	for i := range n {
		body := fmt.Appendf(nil, `{"n":%d}`, i)
		events = append(events, ledger.Event{
			ID: fmt.Sprint(i), Key: "k", Body: body, Result: "published",
			Sent: epoch.Add(time.Duration(2*i) * time.Second), Answered: epoch.Add(time.Duration(2*i+1) * time.Second),
		})
		records = append(records, ledger.Record{ID: fmt.Sprint(i), Key: "k", Log: "GEMINI", Position: uint64(i + 1), Body: body})
	}
	return events, records
}

// counts is what a report found: missing, altered, invented, doubled, reordered, unanswered.
type counts [6]int

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		change func(events []ledger.Event, records []ledger.Record) ([]ledger.Event, []ledger.Record)
		want   counts
	}{
		"nothing wrong": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) { return e, r }, counts{}},
		"read in another order": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			slices.Reverse(r)
			return e, r
		}, counts{}},
		"missing": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			return e, slices.Delete(r, 2, 3)
		}, counts{0: 1}},
		"missing at the end": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			return e, r[:len(r)-2]
		}, counts{0: 2}},
		"nothing there": {func(e []ledger.Event, _ []ledger.Record) ([]ledger.Event, []ledger.Record) { return e, nil }, counts{0: 6}},
		"not answered and not there": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			e[5].Answered = time.Time{}
			return e, r[:5]
		}, counts{5: 1}},
		"not answered and there": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			e[5].Answered = time.Time{}
			return e, r
		}, counts{5: 1}},
		"one bit": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			r[3].Body = bytes.Clone(r[3].Body)
			r[3].Body[2] ^= 1
			return e, r
		}, counts{1: 1}},
		"another key": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			r[3].Key = "j"
			return e, r
		}, counts{1: 1}},
		"buried alive": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			r[3].Dead, r[3].Log = true, "GEMINI_DEAD"
			return e, r
		}, counts{1: 1}},
		"invented": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			return e, append(r, ledger.Record{ID: "x", Log: "GEMINI", Position: 9})
		}, counts{2: 1}},
		"doubled": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			again := r[1]
			again.Position = 9
			return e, append(r, again)
		}, counts{3: 1}},
		"doubled and altered": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			again := r[1]
			again.Position, again.Body = 9, []byte("{}")
			return e, append(r, again)
		}, counts{1: 1, 3: 1}},
		"reordered": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			r[2].Position, r[3].Position = r[3].Position, r[2].Position
			return e, r
		}, counts{4: 1}},
		"one far behind": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			r[0].Position = 100
			return e, r
		}, counts{4: 1}},
		"sent at the same time": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			e[3].Sent = e[2].Answered.Add(-1)
			r[2].Position, r[3].Position = r[3].Position, r[2].Position
			return e, r
		}, counts{}},
		"keys without an order": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			e[2].Key, r[2].Key = "j", "j"
			r[2].Position = 100
			return e, r
		}, counts{}},
		"partitions without an order": {func(e []ledger.Event, r []ledger.Record) ([]ledger.Event, []ledger.Record) {
			r[2].Position, r[2].Log = 1, "gemini.events/1"
			return e, r
		}, counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			events, records := test.change(history(6))
			r := ledger.Check(events, records)
			got := counts{len(r.Missing), len(r.Altered), len(r.Invented), len(r.Doubled), len(r.Reordered), len(r.Unanswered)}
			if got != test.want {
				t.Errorf("missing, altered, invented, doubled, reordered, unanswered: %v, want %v\n%+v", got, test.want, r)
			}
			faults, doubled := r.Lines()
			if len(doubled) != got[3] || len(faults) != got[0]+got[1]+got[2]+got[4]+got[5] {
				t.Errorf("lines do not agree: %q, %q", faults, doubled)
			}
		})
	}
}

func TestLedger(t *testing.T) {
	var file bytes.Buffer
	l := ledger.New(&file)
	body := []byte("{\"x\":\"\xff\"}")
	l.Sent("a", "k", false, body)
	l.Sent("b", "k", true, []byte("{}"))
	for _, a := range []ledger.Answer{
		{ID: "a", Code: 503, Ended: epoch},
		{ID: "a", Ended: epoch.Add(1)},
		{ID: "a", Code: 202, Result: "spooled", Ended: epoch.Add(2)},
		{ID: "a", Code: 202, Result: "duplicate", Ended: epoch.Add(3)},
		{ID: "b", Code: 401, Ended: epoch.Add(4)},
	} {
		l.Answered(a)
	}
	events, err := l.Events()
	if err != nil || len(events) != 2 {
		t.Fatal(events, err)
	}
	if a := events[0]; a.ID != "a" || !a.Answered.Equal(epoch.Add(2)) || a.Result != "spooled" || !bytes.Equal(a.Body, body) {
		t.Errorf("%+v", a)
	}
	if b := events[1]; !b.Answered.IsZero() || !b.Dead {
		t.Errorf("%+v", b)
	}
	var results []string
	for line := range bytes.Lines(file.Bytes()) {
		var logged struct {
			ID, Key, Result string
			Code            int
			Body            []byte
		}
		if err := json.Unmarshal(line, &logged); err != nil || logged.ID != "a" || logged.Key != "k" || logged.Code != 202 || !bytes.Equal(logged.Body, body) {
			t.Errorf("%s: %v", line, err)
		}
		results = append(results, logged.Result)
	}
	if want := []string{"spooled", "duplicate"}; !slices.Equal(results, want) {
		t.Errorf("logged %q, want %q", results, want)
	}
	answer, next, ok := l.Await(t.Context().Done(), 1, func(a ledger.Answer) bool { return a.OK() })
	if !ok || answer.Result != "spooled" || next != 3 {
		t.Errorf("Await: %+v, %d, %t", answer, next, ok)
	}
	closed := make(chan struct{})
	close(closed)
	if _, next, ok := l.Await(closed, 0, func(a ledger.Answer) bool { return a.ID == "z" }); ok || next != 5 {
		t.Errorf("Await of nothing: %d, %t", next, ok)
	}
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		event string
		want  ledger.Record
		bad   bool
	}{
		"event": {
			event: `{"id":"m","type":"com.google.gemini.batch.failed","partitionkey":"k","data":{"original":{"n":1.50e+3, "s":"\u00e9\/"}}}`,
			want:  ledger.Record{ID: "m", Key: "k", Body: []byte(`{"n":1.50e+3, "s":"\u00e9\/"}`)},
		},
		"dead letter": {
			event: `{"id":"m","type":"bridge.dead_letter","partitionkey":"m","data":{"body":"{\"n\":"}}`,
			want:  ledger.Record{ID: "m", Key: "m", Dead: true, Body: []byte(`{"n":`)},
		},
		"dead letter in base64": {
			event: `{"id":"m","type":"bridge.dead_letter","data":{"body_base64":"/w=="}}`,
			want:  ledger.Record{ID: "m", Dead: true, Body: []byte{0xff}},
		},
		"not JSON":    {event: `{`, bad: true},
		"no id":       {event: `{"data":{"original":{}}}`, bad: true},
		"no original": {event: `{"id":"m","type":"x","data":{"body":"{}"}}`, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ledger.Parse([]byte(test.event), "L", 7)
			if test.bad {
				if err == nil {
					t.Errorf("%+v, want an error", got)
				}
				return
			}
			test.want.Log, test.want.Position = "L", 7
			if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) {
				t.Errorf("%+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}
