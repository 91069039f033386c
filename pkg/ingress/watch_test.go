package ingress_test

import (
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watch is a listener that knows what its connections have read, and which of them wait for more.
type watch struct {
	net.Listener
	mu    sync.Mutex
	moved *sync.Cond
	conns map[string]*watched // by the client's address
	gate  chan struct{}       // if not nil, nothing is read until it is closed
}

type watched struct {
	net.Conn
	by       *watch
	read     int
	requests int // answered
	waits    bool
}

// watch puts a watch below the listener of a rig that is not served yet.
func (r *rig) watch() *watch {
	w := &watch{conns: map[string]*watched{}}
	w.moved = sync.NewCond(&w.mu)
	r.below = func(l net.Listener) net.Listener {
		w.Listener = l
		return w
	}
	return w
}

func (w *watch) Accept() (net.Conn, error) {
	accepted, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &watched{Conn: accepted, by: w}
	w.conns[accepted.RemoteAddr().String()] = c
	return c, nil
}

func (c *watched) Read(p []byte) (int, error) {
	c.mark(0, true)
	if c.by.gate != nil {
		<-c.by.gate
	}
	n, err := c.Conn.Read(p)
	c.mark(n, false)
	return n, err
}

func (c *watched) SyscallConn() (syscall.RawConn, error) { return c.Conn.(*net.TCPConn).SyscallConn() }

func (c *watched) mark(n int, waits bool) {
	c.by.mu.Lock()
	defer c.by.mu.Unlock()
	c.read += n
	c.waits = waits
	c.by.moved.Broadcast()
}

func (w *watch) answered(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c.RemoteAddr().String()].requests++
}

// idle waits until the server has read n bytes of a client, has answered so many requests, and waits for more.
func (w *watch) idle(tb testing.TB, c net.Conn, n, requests int) {
	tb.Helper()
	late := time.AfterFunc(patience, func() {
		tb.Errorf("the server does not read %d bytes", n)
		w.moved.Broadcast()
	})
	defer late.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		is := w.conns[c.LocalAddr().String()]
		if is != nil && is.read == n && is.requests == requests && is.waits || tb.Failed() {
			return
		}
		w.moved.Wait()
	}
}
