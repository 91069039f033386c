package jetstream

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// serverLog bridges the server's log, and keeps the first fatal error, upon which a server in a process of its
// own would exit.
type serverLog struct {
	log, strangers zerolog.Logger

	mu    sync.Mutex
	first error
}

func newServerLog(log zerolog.Logger) *serverLog {
	return &serverLog{log: log, strangers: log.Sample(&zerolog.BurstSampler{Burst: 20, Period: time.Minute})}
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = fmt.Errorf(format, v...)
	}
}

func (l *serverLog) Errorf(format string, v ...any) {
	if ofConnection(format) {
		l.strangers.Warn().Msgf(format, v...)
		return
	}
	l.log.Error().Msgf(format, v...)
}

func (l *serverLog) Warnf(format string, v ...any) {
	if ofConnection(format) {
		l.strangers.Warn().Msgf(format, v...)
		return
	}
	l.log.Warn().Msgf(format, v...)
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug().Msgf(format, v...) }
func (l *serverLog) Debugf(string, ...any)           {}
func (l *serverLog) Tracef(string, ...any)           {}

// ofConnection tells lines about one client from those about the server: the server writes the client's
// address and "cid:<number>" into the format.
func ofConnection(format string) bool { return strings.Contains(format, " - cid:") }
