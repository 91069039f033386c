package main

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// crowd is a number of connections that strangers keep open to a bridge, each in its own bad way, and open again when
// it has been closed. A few goroutines do it, since the race detector has room for 8128 only.
type crowd struct {
	host    string
	members []*member
	opened  atomic.Int64
	stop    chan struct{}
	workers sync.WaitGroup
}

// member is one connection of a crowd. It sends what it can of text in pieces, one at each turn, then waits.
type member struct {
	conn  net.Conn
	head  string // sent at once
	text  string
	piece int
	sent  int
	again time.Time // not before, after it was closed
}

// back is how long a stranger that was closed stays away.
const back = 3 * time.Second

const sweepers = 4

// gather opens size connections: idle ones, half-sent heads, slow bodies, huge bodies without an end, and huge
// bodies that lack the last byte.
func gather(t *testing.T, b *bridge, size, maxBody int) *crowd {
	t.Helper()
	request, err := signed(b.url, oldSecret, "msg_stranger", "{}") // with the wrong secret
	if err != nil {
		t.Fatal(err)
	}
	var head strings.Builder
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: %s\r\n", request.URL.Path, request.URL.Host)
	if err := request.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	slow, huge := strings.Repeat("s", 1000), strings.Repeat("h", maxBody-1)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 32<<10, strings.Repeat("c", 32<<10))
	kinds := []member{
		{},
		{head: "POST ", text: head.String(), piece: 1},
		{head: head.String() + "Content-Length: 2000\r\n\r\n", text: slow, piece: 1},
		{head: head.String() + "Content-Length: 30000\r\n\r\n" + strings.Repeat("s", 3000), text: slow, piece: 1},
		{head: head.String() + fmt.Sprintf("Content-Length: %d\r\n\r\n", maxBody), text: huge, piece: 64 << 10},
		{head: head.String() + "Transfer-Encoding: chunked\r\n\r\n", text: strings.Repeat(chunk, maxBody/(32<<10)+1), piece: 64 << 10},
	}
	c := &crowd{host: request.URL.Host, stop: make(chan struct{})}
	for i := range size {
		m := kinds[i%len(kinds)]
		c.members = append(c.members, &m)
	}
	for i := range sweepers {
		c.workers.Go(func() { c.sweep(i) })
	}
	t.Cleanup(c.disperse)
	return c
}

// disperse closes all connections; again does no harm.
func (c *crowd) disperse() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.workers.Wait()
	for _, m := range c.members {
		if m.conn != nil {
			_ = m.conn.Close()
		}
	}
}

// sweep gives every fourth member its turn, again and again.
func (c *crowd) sweep(first int) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		for i := first; i < len(c.members); i += sweepers {
			select {
			case <-c.stop:
				return
			default:
				c.turn(c.members[i])
			}
		}
	}
}

func (c *crowd) turn(m *member) {
	if m.conn != nil && m.hungUp() {
		_ = m.conn.Close()
		m.conn, m.again = nil, time.Now().Add(back)
	}
	if m.conn == nil {
		if time.Now().Before(m.again) {
			return
		}
		conn, err := net.DialTimeout("tcp", c.host, 5*time.Second)
		if err != nil {
			return
		}
		c.opened.Add(1)
		m.conn, m.sent = conn, 0
		_, _ = conn.Write([]byte(m.head))
		return
	}
	if piece := m.text[m.sent:min(m.sent+m.piece, len(m.text))]; piece != "" {
		_ = m.conn.SetWriteDeadline(time.Now().Add(5 * time.Millisecond)) // a bridge that is busy need not take it now
		n, _ := m.conn.Write([]byte(piece))
		m.sent += n
	}
}

// hungUp tells whether the other side has closed the connection, without waiting. What it said is of no interest.
func (m *member) hungUp() bool {
	raw, err := m.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	if err := raw.Read(func(fd uintptr) bool {
		var scratch [512]byte
		n, err := syscall.Read(int(fd), scratch[:])
		gone = n == 0 || err != nil && err != syscall.EAGAIN
		return true
	}); err != nil {
		return true
	}
	return gone
}
