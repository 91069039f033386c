package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/sinks"
)

const (
	dialTimeout  = 2 * time.Second
	writeTimeout = time.Second // nats.go holds up every publish while a write is stuck, whatever its ctx
	pingInterval = 10 * time.Second

	// patience is for how long a lost connection is a hiccup that Publish waits out, so that the restart of a
	// broker or the loss of a cluster's node refuses nobody. After it the broker is known to be away.
	patience = time.Second
)

// keep holds a connection for as long as the sink lives.
func (s *Sink) keep() {
	for n := 0; s.life.Err() == nil; n++ {
		if nc, closed, err := s.dial(); err != nil {
			s.isDown(err)
		} else {
			n = 0
			s.isUp(nc)
			s.watch(closed)
			nc.Close()
			<-closed
			s.isLost(nc, nats.ErrConnectionClosed)
		}
		select {
		case <-time.After(delay(n)):
		case <-s.life.Done():
		}
	}
}

// watch looks at the streams whenever the connection is there again, until it is closed for good.
func (s *Sink) watch(closed <-chan struct{}) {
	for {
		s.mu.Lock()
		up, changed, nc := s.up, s.changed, s.nc
		s.mu.Unlock()
		var again <-chan time.Time
		if !up {
			// nats.go has no handler for what fails after the dial, such as a certificate.
			if err := nc.LastError(); err != nil {
				s.isDown(err)
			}
			again = time.After(time.Second)
		} else if found, err := s.look(s.life); err != nil || found.impossible != nil {
			again = time.After(time.Second)
		}
		select {
		case <-changed:
		case <-again:
		case <-closed:
			return
		case <-s.life.Done():
			return
		}
	}
}

// connection returns the connection, and what is closed when it breaks. A short loss is waited out. The error is
// ctx's, sinks.ErrClosed, or says why nothing can be published to the stream.
func (p *publication) connection(ctx context.Context) (nc *nats.Conn, broken <-chan struct{}, err error) {
	s := p.sink
	for {
		s.mu.Lock()
		nc, up, changed, since, why, barred := s.nc, s.up, s.changed, s.since, s.why.err, cmp.Or(s.denied.inbox, p.stream.barred)
		doubt := s.memory.doubt
		if up && doubt == nil {
			p.renew()
		} else if up {
			since, why = s.memory.since, s.memory.why
		}
		s.mu.Unlock()
		rest := patience - time.Since(since)
		switch {
		case s.life.Err() != nil:
			return nil, nil, sinks.ErrClosed
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case up && barred != nil:
			return nil, nil, barred
		case up && doubt == nil:
			return nc, changed, nil
		case rest <= 0:
			return nil, nil, why
		}
		timer := time.NewTimer(rest)
		select {
		case <-changed:
		case <-doubt:
		case <-timer.C:
		case <-ctx.Done():
		case <-s.life.Done():
		}
		timer.Stop()
	}
}

// renew makes sure that no answer counts that was given in another epoch. The caller holds Sink.mu.
func (p *publication) renew() {
	if p.epoch == p.sink.memory.epoch {
		return
	}
	p.epoch, p.acked = p.sink.memory.epoch, p.stream.last.sequence
	if p.sent > 0 && p.sink.forgotten != nil {
		p.sink.inbox.shut(p.exchange)
		p.exchange = p.sink.inbox.open(p.msg.Subject)
		p.msg.Reply = p.exchange.reply
	}
}

// dial connects once. Later losses are nats.go's to mend, for it knows the cluster's other servers, until it gives
// up: then closed is closed. It gives up when a server refuses the credentials twice, which is as well: only a new
// dial takes a new seed.
func (s *Sink) dial() (nc *nats.Conn, closed <-chan struct{}, err error) {
	opts, err := s.cfg.options()
	if err != nil {
		return nil, nil, &settingsError{err}
	}
	s.mu.Lock()
	s.denied = denied{}
	s.mu.Unlock()
	end := make(chan struct{})
	opts = append(opts,
		nats.Name("bridge"),
		nats.Timeout(dialTimeout),
		nats.SetCustomDialer(dialer{s.life}),
		nats.PingInterval(pingInterval),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(n int) time.Duration { return delay(n - 1) }),
		nats.ReconnectBufSize(-1), // an event is either sent or known not to be
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.DisconnectErrHandler(s.isLost),
		nats.ReconnectHandler(s.isUp),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { s.isDown(err) }),
		nats.ErrorHandler(s.onError),
		nats.ClosedHandler(func(*nats.Conn) { close(end) }),
	)
	nc, err = nats.Connect(s.cfg.URL, opts...)
	if err != nil {
		return nil, nil, err
	}
	sub, err := nc.Subscribe(s.inbox.prefix+"*", s.inbox.take)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, end, nil
}

// isUp notes that there is a connection.
func (s *Sink) isUp(nc *nats.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nc = nc
	if s.up || !nc.IsConnected() || s.life.Err() != nil {
		return
	}
	if s.events.acked || s.dead.acked {
		s.ponder()
	}
	s.up, s.server = true, nc.ConnectedServerId()
	s.said = [troubleKinds]bool{}
	s.change()
	s.cfg.Log.Info().Str(LogKeyServer, nc.ConnectedServerName()).Msg("connected to NATS at " + s.cfg.servers())
}

// isLost notes that a connection broke, unless that is known already: what is known since is more to the point.
func (s *Sink) isLost(_ *nats.Conn, err error) {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	if err == nil {
		err = nats.ErrConnectionClosed
	}
	if up {
		s.isDown(err)
	}
}

// isDown notes that there is no connection, and why. It says so once for each kind of reason in an outage.
func (s *Sink) isDown(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return
	}
	s.why = s.cfg.explain(err, s.up)
	if s.up {
		s.memory.epoch++
		s.up, s.denied = false, denied{} // reset here, for the next connection's denials may come before isUp
		s.change()
	}
	if s.said[s.why.kind] {
		return
	}
	s.said[s.why.kind] = true
	s.cfg.Log.Error().Msg(s.why.err.Error())
}

// sayOnce logs an error that would come again with every attempt. The caller holds mu.
func (s *Sink) sayOnce(err error) {
	if text := err.Error(); text != s.spoken {
		s.spoken = text
		s.cfg.Log.Error().Msg(text)
	}
}

// change tells those who wait that up is another.
func (s *Sink) change() {
	s.since = time.Now()
	close(s.changed)
	s.changed = make(chan struct{})
}

var deniedSubject = regexp.MustCompile(`(Publish|Subscription) to "([^"]+)"`)

// onError gets what nats.go cannot answer a call with.
func (s *Sink) onError(nc *nats.Conn, _ *nats.Subscription, err error) {
	m := deniedSubject.FindStringSubmatch(err.Error())
	switch {
	case !errors.Is(err, nats.ErrPermissionViolation):
		if !nc.IsConnected() {
			s.isDown(err) // why it cannot reconnect
		}
	case m == nil:
	case m[1] == "Publish":
		s.mu.Lock()
		isNew := strings.HasPrefix(m[2], s.cfg.Prefix) && s.denied.subject == ""
		if isNew {
			s.denied.subject = m[2]
		}
		s.mu.Unlock()
		if isNew {
			s.cfg.Log.Error().Msg("NATS does not permit publishing to " + m[2])
		}
		s.inbox.deny(m[2], err)
	case strings.HasPrefix(m[2], s.inbox.prefix):
		s.mu.Lock()
		s.denied.inbox = fmt.Errorf("no answer can be received: allow the user to subscribe to _INBOX.>: %w", err)
		s.mu.Unlock()
		s.cfg.Log.Error().Msg("NATS does not permit subscribing to _INBOX.>")
	}
}

// dialer dials as long as the sink lives, so that Close never waits for a server that says nothing.
type dialer struct{ life context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(d.life, network, address)
	if err != nil {
		return nil, err
	}
	return &lifeConn{c, context.AfterFunc(d.life, func() { _ = c.Close() })}, nil
}

// lifeConn ends with the sink's life.
type lifeConn struct {
	net.Conn
	stop func() bool
}

func (c *lifeConn) Close() error {
	c.stop()
	return c.Conn.Close()
}
