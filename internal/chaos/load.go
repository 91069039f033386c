package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gembridge/bridge/internal/chaos/ledger"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

const (
	signingSecret = "whsec_Y2hhb3MtY2hhb3MtY2hhb3MtY2hhb3MtY2hhb3M="

	// Gemini waits longer and repeats for 24 hours; these are its manners, in a hurry.
	requestTimeout = 10 * time.Second
	backoffMin     = 10 * time.Millisecond
	backoffMax     = 400 * time.Millisecond
)

// manners are how senders behave.
type manners struct {
	keys  int           // each of them a sender that sends one event after the other
	pause time.Duration // mean, between two events of a sender
	// polite senders never repeat what was answered, and never leave.
	polite bool
}

// load is senders that behave like Gemini towards one bridge: an event is repeated, under the same id with a new
// timestamp and signature, until it is answered 2xx, and now and then once more.
type load struct {
	manners
	seed   uint64
	url    string
	book   *ledger.Ledger
	bodies *bodies
	client *http.Client

	skew    atomic.Int64 // nanoseconds by which the senders' clocks are wrong
	senders sync.WaitGroup
	enough  chan struct{} // closed: no new events
	cancel  context.CancelFunc
}

// startLoad starts the senders. seed decides what they send, and when they repeat or leave.
func startLoad(seed uint64, url string, m manners, book *ledger.Ledger) (*load, error) {
	b, err := newBodies()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		manners: m, seed: seed, url: url, book: book, bodies: b, enough: make(chan struct{}), cancel: cancel,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: m.keys, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext}},
	}
	for key := range m.keys {
		l.senders.Go(func() { l.sender(ctx, key) })
	}
	return l, nil
}

// stop ends the senders when all that they began is answered 2xx, or at the end of patience.
func (l *load) stop(patience time.Duration) {
	close(l.enough)
	defer time.AfterFunc(patience, l.cancel).Stop()
	l.senders.Wait()
	l.cancel()
	l.client.CloseIdleConnections()
}

func (l *load) sender(ctx context.Context, number int) {
	rng := rand.New(rand.NewPCG(l.seed, uint64(number)))
	key := fmt.Sprintf("batches/chaos-%d", number)
	type sent struct {
		id   string
		body []byte
	}
	var recent []sent
	for n := 0; ; n++ {
		select {
		case <-l.enough:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(rng.Int64N(int64(2*l.pause) + 1))):
		}
		id := fmt.Sprintf("msg_%d_%d_%d", l.seed, number, n)
		body, dead := l.bodies.next(rng, key, n)
		order := key
		if dead {
			order = "" // a dead letter has a key of its own
		}
		l.book.Sent(id, order, dead, body)
		// A caller that leaves early has not heard the answer, and comes again.
		leaves := !l.polite && rng.IntN(50) == 0
		again := !l.polite && rng.IntN(20) == 0
		old := rng.IntN(50)
		l.insist(ctx, id, body, leaves)
		recent = append(recent, sent{id, body})
		if len(recent) > 50 {
			recent = recent[1:]
		}
		if again {
			// As if the answer had been lost on the way.
			one := recent[old%len(recent)]
			l.insist(ctx, one.id, one.body, false)
		}
	}
}

// insist repeats a delivery until it is answered 2xx.
func (l *load) insist(ctx context.Context, id string, body []byte, leaves bool) {
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		patience := requestTimeout
		if leaves {
			patience, leaves = time.Millisecond, false
		}
		if l.post(ctx, patience, id, body).OK() {
			return
		}
		select {
		case <-time.After(wait + rand.N(wait)):
		case <-ctx.Done():
			return
		}
	}
}

// Why no answer came.
const (
	nobodyThere = "connection refused"
	callerLeft  = "caller left"
	connBroken  = "connection broken"
)

func (l *load) post(ctx context.Context, patience time.Duration, id string, body []byte) ledger.Answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := ledger.Answer{ID: id, Begun: time.Now()}
	code, result, err := l.ask(ctx, id, body)
	a.Ended, a.Code, a.Result = time.Now(), code, result
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED):
		a.Code, a.Result = 0, nobodyThere
	case ctx.Err() != nil:
		a.Code, a.Result = 0, callerLeft
	default:
		a.Code, a.Result = 0, connBroken
	}
	l.book.Answered(a)
	return a
}

func (l *load) ask(ctx context.Context, id string, body []byte) (code int, result string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	now := time.Now().Add(time.Duration(l.skew.Load()))
	if err := verify.SetHeaders(request.Header, secret.New(signingSecret), id, now, body); err != nil {
		return 0, "", err
	}
	response, err := l.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, "", err
	}
	var reply struct{ Status, ID, Error string }
	if err := json.Unmarshal(text, &reply); err != nil {
		return 0, "", err
	}
	if response.StatusCode/100 == 2 && reply.ID != id {
		return 0, "", fmt.Errorf("the answer to %s names %s", id, reply.ID)
	}
	if reply.Status == "" {
		reply.Status = reply.Error
	}
	return response.StatusCode, reply.Status, nil
}
