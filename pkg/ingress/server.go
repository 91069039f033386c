package ingress

import (
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second // from the request's first byte to the body's last
	idleTimeout   = 60 * time.Second
	writeTimeout  = 5 * time.Second // for the reply, once there is one
	maxHeader     = 16 << 10        // the longest signature, a JWT of 12 KiB, and what is beside it
)

// NewServer returns the public server of handler with every time-out set, to serve a listener of NewListener or
// NewTLSListener.
// ackTimeout is how long a delivery may take once its body is there. It speaks HTTP/1 alone.
func NewServer(handler http.Handler, ackTimeout time.Duration, logger zerolog.Logger) *http.Server {
	s := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      bodyTimeout + ackTimeout + writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(serverLog{logger}, "", 0),

		DisableGeneralOptionsHandler: true, // "OPTIONS *" is another path like any other
	}
	follow(s)
	return s
}

// serverLog takes what net/http has to say: clients that break off are everyday, panics and a lack of file descriptors
// are not.
type serverLog struct{ logger zerolog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := zerolog.DebugLevel
	switch {
	case strings.HasPrefix(text, "http: panic"):
		level = zerolog.ErrorLevel
	case strings.HasPrefix(text, "http: Accept error"):
		level = zerolog.WarnLevel
	}
	l.logger.WithLevel(level).Msg(text)
	return len(line), nil
}
