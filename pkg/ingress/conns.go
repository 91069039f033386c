package ingress

import (
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// ConnCost is the memory that an open connection costs at most, in bytes, beside the body: net/http's buffers, the
	// stack, and the largest head. One that only waits costs a third of it.
	ConnCost = 64 << 10

	// maxLines is the largest number of lines of a head. net/http limits its bytes alone, of which short lines make
	// twenty times as much memory.
	maxLines = 128
)

const (
	// maxPassed is how many connections are passed over in search of one that can be closed.
	maxPassed = 1000
	// maxPause is the longest pause before another search, after 1, 2, 4 … ms.
	maxPause = 32 * time.Millisecond
)

var errTooManyLines = errors.New("too many header lines")

// NewListener returns l with a bound on the connections that are open at once. A connection more is accepted all the
// same, and another one is closed for it: of those that never brought an authentic delivery the oldest. Only if those
// are less than half of the bound is it, of the others, the one whose last authentic delivery is the longest ago. A
// connection stays while an authentic delivery is under way; if all have one, it is the new one that is closed. One
// whose sender waits for the server is passed over as long as there are others.
//
// It works with a server of NewServer only, which tells it how its connections fare. It logs when the bound is
// reached, and when that is over.
func NewListener(l net.Listener, limit int, logger zerolog.Logger) net.Listener {
	return &listener{Listener: l, limit: limit, log: logger}
}

type listener struct {
	net.Listener
	limit int
	log   zerolog.Logger
	tls   *tls.Config // nil without TLS

	mu        sync.Mutex
	open      int
	strangers list.List // of *conn without an authentic delivery so far, oldest first
	known     list.List // of *conn with one in the past, the longest past first
	full      bool      // as logged
	failures  int       // of handshakes, since they were logged
	told      time.Time // when they were
}

// conn is a connection of a listener.
type conn struct {
	net.Conn // with TLS a *tls.Conn over raw, else raw
	raw      *socket
	in       *listener
	greeted  bool // the TLS handshake has been tried; for one reader at a time

	// Under the listener's lock.
	list    *list.List // where it can be evicted from; nil while an authentic delivery is under way
	place   *list.Element
	closed  bool
	crowded bool // closed by the listener

	// For one reader at a time, as net/http's are.
	lines   int  // of a head that is not complete, with a first one that is not empty
	content bool // the line under way is not empty
	inBody  bool // the head is complete
	ahead   int  // lines behind it, of the body or of the next head: net/http may have some in its buffer
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := l.wrap(accepted)
		evicted := l.add(c)
		if evicted != nil {
			_ = evicted.raw.Close() // the end of TLS is a message, for which a sender that reads nothing would have to be waited
		}
		if evicted != c {
			return c, nil
		}
	}
}

func (l *listener) wrap(accepted net.Conn) *conn {
	c := &conn{raw: &socket{Conn: accepted}, in: l, greeted: l.tls == nil}
	c.Conn = c.raw
	if l.tls != nil {
		_ = accepted.SetWriteDeadline(time.Now().Add(headerTimeout)) // net/http sets one after the first head only
		c.Conn = tls.Server(c.raw, l.tls)
	}
	return c
}

// add returns the connection that is to be closed for c, which may be c itself.
func (l *listener) add(c *conn) (evicted *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	c.enter(&l.strangers)
	if l.open <= l.limit {
		return nil
	}
	if !l.full {
		l.full = true
		l.log.Warn().Int("connections", l.limit).Msg("connections at their bound: the oldest without an authentic delivery are closed")
	}
	for pause := time.Millisecond; ; pause *= 2 {
		from := &l.strangers
		if l.known.Len() > 0 && l.strangers.Len() <= l.limit/2 {
			from = &l.known
		}
		var behind bool
		if evicted, behind = oldest(from, c); evicted == nil && (!behind || pause > maxPause) {
			evicted = from.Front().Value.(*conn)
		}
		if evicted != nil {
			evicted.crowded = true
			evicted.leave()
			return evicted
		}
		l.mu.Unlock()
		time.Sleep(pause)
		l.mu.Lock()
		if l.open <= l.limit {
			return nil
		}
	}
}

// oldest is the first of a list whose sender is the one to be waited for, or nil when there is none. behind says that some
// have not had a turn yet, beside the newest: listening goes faster than serving, most of all on a busy machine. Then it is the
// listener that has to wait, while the system keeps who comes.
func oldest(of *list.List, newest *conn) (found *conn, behind bool) {
	for e, n := of.Front(), 0; e != nil && n < maxPassed; e, n = e.Next(), n+1 {
		c := e.Value.(*conn)
		if c.raw.waiting.Load() && !c.raw.readable() {
			return c, false
		}
		behind = behind || c != newest && !c.raw.served.Load()
	}
	return nil, behind
}

func (c *conn) enter(where *list.List) {
	c.list, c.place = where, where.PushBack(c)
}

// leave makes room.
func (c *conn) leave() {
	c.busy()
	c.closed = true
	c.in.open--
	if c.in.full && c.in.open <= c.in.limit*3/4 {
		c.in.full = false
		c.in.log.Info().Int("connections", c.in.open).Msg("connections below their bound again")
	}
}

func (c *conn) busy() {
	if c.list != nil {
		c.list.Remove(c.place)
		c.list = nil
	}
}

// Close closes the connection and makes room for another one.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if !c.closed {
		c.leave()
	}
	return err
}

// CloseWrite sends all there is and an end, for a client that still writes and shall hear what it is told.
func (c *conn) CloseWrite() error {
	if _, ok := c.Conn.(*socket); !ok {
		return c.Conn.(*tls.Conn).CloseWrite()
	}
	if half, ok := c.raw.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// verified keeps the connection from being evicted until it is idle again.
func (c *conn) verified() {
	if c == nil {
		return
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if !c.closed {
		c.busy()
	}
}

// idle says that a request has been answered and that a new one may come.
func (c *conn) idle() {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.lines, c.inBody, c.content = 0, false, false
	if c.list == &c.in.strangers {
		c.lines = c.ahead // if those were of a body, a stranger is refused that could have been heard
	}
	if !c.closed && c.list == nil {
		c.enter(&c.in.known)
	}
}

// evicted tells whether the connection was closed to make room for others.
func (c *conn) evicted() bool {
	if c == nil {
		return false
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.crowded
}

// Read reads, and fails within a head of too many lines, for good.
func (c *conn) Read(p []byte) (int, error) {
	if c.lines > maxLines {
		return 0, errTooManyLines
	}
	if err := c.greet(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.raw.kept = 0
	rest := p[:n]
	for !c.inBody && len(rest) > 0 {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		rest = after
		c.content = c.content || len(bytes.TrimSuffix(line, []byte{'\r'})) > 0
		if !ended {
			break
		}
		switch {
		case c.content:
			c.lines++
		case c.lines > 0: // before the first line net/http skips empty ones
			c.inBody, c.ahead = true, 0
		}
		if c.content = false; c.lines > maxLines {
			return 0, errTooManyLines
		}
	}
	c.ahead += bytes.Count(rest, []byte{'\n'})
	return n, err
}

type connKey struct{}

// connOf returns the connection of a request, or nil if it did not come by a listener of NewListener.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// follow makes a server tell its connections how they fare.
func follow(s *http.Server) {
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if c, ok := c.(*conn); ok {
			return context.WithValue(ctx, connKey{}, c)
		}
		return ctx
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if c, ok := c.(*conn); ok && state == http.StateIdle {
			c.idle()
		}
	}
}
