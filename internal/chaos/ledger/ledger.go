// Package ledger remembers what a bridge was sent and what it answered, and judges by that what a broker holds: an
// event that was answered 2xx is an obligation. It knows neither bridge nor broker.
package ledger

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// Event is one event that was sent, under one id, as often as it took.
type Event struct {
	ID   string
	Key  string // its partition key; without one its order is not judged
	Dead bool   // it is no valid event, and belongs among the dead letters
	Body []byte // as it was sent
	Sent time.Time
	// Answered is when the first 2xx had come; zero while none has. That makes it an obligation.
	Answered time.Time
	Result   string // of the first 2xx
}

// Answer is what one request came to.
type Answer struct {
	ID     string
	Begun  time.Time
	Ended  time.Time
	Code   int    // 0 when no answer came
	Result string // what the answer said, or why none came
}

// OK tells whether the answer puts the bridge under an obligation.
func (a Answer) OK() bool { return a.Code >= 200 && a.Code <= 299 }

// Ledger is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	file    io.Writer
	err     error
	events  map[string]*Event
	answers []Answer
	changed chan struct{} // closed, and replaced, by every answer
}

// New returns a ledger that writes a line of JSON to file for every 2xx, before Answered returns.
func New(file io.Writer) *Ledger {
	return &Ledger{file: file, events: map[string]*Event{}, changed: make(chan struct{})}
}

// Sent is called before an id's first request. The body must not be changed afterwards.
func (l *Ledger) Sent(id, key string, dead bool, body []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[id] = &Event{ID: id, Key: key, Dead: dead, Body: body, Sent: time.Now()}
}

// Answered is called after every request for an id.
func (l *Ledger) Answered(a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, a)
	close(l.changed)
	l.changed = make(chan struct{})
	event := l.events[a.ID]
	if !a.OK() || event == nil {
		return
	}
	if event.Answered.IsZero() {
		event.Answered, event.Result = a.Ended, a.Result
	}
	line, err := json.Marshal(struct {
		Time   time.Time `json:"time"`
		ID     string    `json:"id"`
		Key    string    `json:"key"`
		Code   int       `json:"code"`
		Result string    `json:"result"`
		Body   []byte    `json:"body"`
	}{a.Ended, a.ID, event.Key, a.Code, a.Result, event.Body})
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	l.err = cmp.Or(l.err, err)
}

// Await returns the first answer, from number n on, that is wanted, and the number after it. False when done is closed
// first; the number is then that of the next answer.
func (l *Ledger) Await(done <-chan struct{}, n int, wanted func(Answer) bool) (Answer, int, bool) {
	for {
		l.mu.Lock()
		answers, changed := l.answers, l.changed
		l.mu.Unlock()
		for ; n < len(answers); n++ {
			if wanted(answers[n]) {
				return answers[n], n + 1, true
			}
		}
		select {
		case <-changed:
		case <-done:
			return Answer{}, n, false
		}
	}
}

// Answers returns all answers from number n on, in the order in which they came.
func (l *Ledger) Answers(n int) []Answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.answers[n:])
}

// Count is how many answers there are.
func (l *Ledger) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

// Events returns all events, in the order in which they were first sent. The error is that of the file.
func (l *Ledger) Events() ([]Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]Event, 0, len(l.events))
	for _, event := range l.events {
		all = append(all, *event)
	}
	slices.SortFunc(all, func(a, b Event) int { return cmp.Or(a.Sent.Compare(b.Sent), cmp.Compare(a.ID, b.ID)) })
	return all, l.err
}

// Record is what a broker holds of one event.
type Record struct {
	ID       string
	Key      string
	Dead     bool
	Log      string // stream, or topic and partition: the order within it counts
	Position uint64
	Body     []byte // data.original, or what a dead letter says was sent
}

// Parse reads a CloudEvent that the bridge published.
func Parse(event []byte, log string, position uint64) (Record, error) {
	var e struct {
		ID, Type, PartitionKey string
		Data                   struct {
			Original   json.RawMessage
			Body       *string
			BodyBase64 []byte `json:"body_base64"`
		}
	}
	if err := json.Unmarshal(event, &e); err != nil {
		return Record{}, fmt.Errorf("%s %d: %w", log, position, err)
	}
	r := Record{ID: e.ID, Key: e.PartitionKey, Dead: e.Type == "bridge.dead_letter", Log: log, Position: position, Body: e.Data.Original}
	if r.Dead {
		r.Body = e.Data.BodyBase64
		if e.Data.Body != nil {
			r.Body = []byte(*e.Data.Body)
		}
	}
	if r.ID == "" || r.Body == nil {
		return Record{}, fmt.Errorf("%s %d: no id, or nothing of what was sent: %s", log, position, bytes.TrimSpace(event))
	}
	return r, nil
}
