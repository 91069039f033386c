package ingress

import (
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// maxKept is how much of a TLS connection may be read before something of it is understood, in bytes. A record has 16 KiB, and a
// handshake some. Without a bound crypto/tls keeps up to 256 KiB of a message that does not end.
const maxKept = 24 << 10

var errTooMuchKept = errors.New("a TLS message that is too long")

// NewTLSListener is NewListener for TLS with this config. The bound counts connections from the moment that they are
// accepted, those whose handshake is under way included. A handshake has as much time as the head of the first request,
// of which it is a part: five seconds for both. Those that fail are logged once a minute.
func NewTLSListener(l net.Listener, config *tls.Config, limit int, logger zerolog.Logger) net.Listener {
	return &listener{Listener: l, limit: limit, log: logger, tls: config}
}

// socket is what a conn reads from in the end.
type socket struct {
	net.Conn
	waiting atomic.Bool // for the sender
	served  atomic.Bool // it has been read from
	kept    int         // bytes that TLS has taken and given nothing for; for one reader at a time
}

func (s *socket) Read(p []byte) (int, error) {
	if s.kept > maxKept {
		return 0, errTooMuchKept
	}
	s.served.Store(true)
	s.waiting.Store(true)
	n, err := s.Conn.Read(p)
	s.waiting.Store(false)
	s.kept += n
	return n, err
}

// readable tells whether something has arrived that the server has not read yet.
func (s *socket) readable() (found bool) {
	raw, ok := s.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	err = control.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err == nil && n > 0
	})
	return found && err == nil
}

// greet makes the TLS handshake that must come before anything else. It fails again when it has failed.
func (c *conn) greet() error {
	if c.greeted {
		return nil
	}
	c.greeted = true
	err := c.Conn.(*tls.Conn).Handshake()
	c.raw.kept = 0
	if err != nil {
		c.in.failed(err)
	}
	return err
}

// failed tells of handshakes that failed once a minute: scanners make some, and a certificate that no sender trusts makes all fail.
func (l *listener) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures++
	if now := time.Now(); now.Sub(l.told) >= time.Minute {
		l.log.Warn().Err(err).Int("handshakes", l.failures).Msg("TLS handshakes failed; this is why the last one did")
		l.failures, l.told = 0, now
	}
}
