package main

import (
	"net"
	"sync"
	"time"
)

// proxy stands between a bridge and its broker, and can be as bad as a network. (Toxiproxy does no more of what is
// needed here, and brings six modules that have not moved since 2022.)
type proxy struct {
	listener net.Listener
	target   string
	serving  sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool
	delay time.Duration // of every piece
	gate  chan struct{} // nil, or closed when the network is whole again
	ended bool
}

func startProxy(target string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, target: target, open: map[net.Conn]bool{}}
	p.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.serving.Go(func() { p.serve(conn) })
		}
	})
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// slow delays every piece by d from now on, in both directions and one after the other.
func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// cut lets nothing through, and keeps connections open.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// heal ends cut: what was held back arrives, unless reset, which breaks all connections instead.
func (p *proxy) heal(reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reset {
		for conn := range p.open {
			_ = conn.Close() // that is the point
		}
	}
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

func (p *proxy) close() {
	_ = p.listener.Close() // nothing to be told
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.heal(true)
	p.serving.Wait()
}

func (p *proxy) serve(from net.Conn) {
	if !p.hold(from) {
		return
	}
	defer p.drop(from)
	p.pass()
	to, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil || !p.hold(to) {
		return
	}
	defer p.drop(to)
	var back sync.WaitGroup
	back.Go(func() { p.pipe(from, to) })
	p.pipe(to, from)
	back.Wait()
}

func (p *proxy) pipe(to, from net.Conn) {
	defer func() { p.drop(to); p.drop(from) }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.pass()
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits as long as the network makes one wait.
func (p *proxy) pass() {
	p.mu.Lock()
	delay, gate := p.delay, p.gate
	p.mu.Unlock()
	time.Sleep(delay)
	if gate != nil {
		<-gate
	}
}

func (p *proxy) hold(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		_ = conn.Close() // refused
		return false
	}
	p.open[conn] = true
	return true
}

func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, conn)
	_ = conn.Close() // both directions end here, the second one finds it closed
}
