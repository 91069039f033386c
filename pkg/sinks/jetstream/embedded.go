package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
)

// EmbeddedConfig says how to run a NATS server with JetStream in this process.
type EmbeddedConfig struct {
	// Dir holds the store; it is made with mode 0700 when it is missing. Two servers on one store lose
	// events that were acknowledged, so the caller locks it first.
	Dir string
	// Addr is the host:port on which consumers connect; port 0 picks a free one.
	Addr string
	// Token is what consumers must present. Without one Addr must be a loopback address (127.0.0.0/8, ::1
	// or localhost), and whoever can connect may consume.
	Token secret.Text
	// Prefix and Stream name what consumers may reach: the subjects "<Prefix>.>" and "<Prefix>-dead.>", the
	// streams "<Stream>" and "<Stream>_DEAD". Letters, digits, "-" and "_"; a prefix may have several tokens.
	Prefix, Stream string
	// MaxPayload is the largest message in bytes, headers included; 0 is the server's default of 1 MiB.
	MaxPayload int32
	// Log takes the server's warnings and errors, its notices at debug level. What it says about a single
	// consumer's connection is a warning, at most 20 a minute.
	Log zerolog.Logger
}

// Embedded is a NATS server in this process. Every publish that it acknowledges has been fsynced before
// (sync_interval "always"), one by one: the disk's sync rate is its publish rate.
//
// Consumers are strangers to it, whoever they are. They use pull consumers, read single messages and
// subscribe to live subjects. They cannot publish under the prefixes, nor change, purge or delete streams,
// nor make push consumers. They are not protected from each other: one may delete another's consumer, which
// loses no event.
type Embedded struct {
	srv      *server.Server
	guard    *nats.Conn
	password string
	log      *serverLog

	closing sync.Once
	down    chan struct{}
}

// StartEmbedded starts the server and returns once it accepts connections and has recovered its streams,
// the ids of the duplicate window included. Errors name the setting to change: the address is in use or
// needs a token, the directory cannot be used, a stream in it cannot be recovered (it is then left alone).
func StartEmbedded(cfg EmbeddedConfig) (*Embedded, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	e := &Embedded{password: rand.Text(), log: newServerLog(cfg.Log), down: make(chan struct{})}
	gate := newGate(e.password, cfg)
	opts.CustomClientAuthentication = gate
	if cfg.Token.IsZero() {
		// Clients are then told that they need no credentials; some refuse to try otherwise.
		opts.NoAuthUser, opts.Users = gate.stranger.Username, []*server.User{gate.stranger}
	}
	if e.srv, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	e.srv.SetLoggerV2(e.log, false, false, false)
	err = gate.bind(e.srv)
	if err == nil {
		err = e.start()
	}
	if err != nil {
		err = errors.Join(err, e.Close(context.Background()))
		return nil, fmt.Errorf("embedded NATS server: %w (store %q, BRIDGE_DATA_DIR; address %s, BRIDGE_NATS_EMBEDDED_ADDR)",
			err, cfg.Dir, cfg.Addr)
	}
	return e, nil
}

// start recovers the streams, then listens: a consumer that connects finds everything in its place.
func (e *Embedded) start() error {
	e.srv.Start()
	if err := e.log.fatal(); err != nil {
		return err
	}
	if err := e.Healthy(); err != nil {
		return err
	}
	if err := e.startGuard(); err != nil {
		return fmt.Errorf("connecting in process: %w", err)
	}
	e.srv.AcceptLoop(make(chan struct{}))
	return e.log.fatal()
}

// ConnOptions connects a NATS client in process as the bridge's own user, which may do everything. The
// user's password is made anew at every start and is refused over TCP.
func (e *Embedded) ConnOptions() []nats.Option {
	return []nats.Option{nats.InProcessServer(e.srv), nats.UserInfo(bridgeUser, e.password)}
}

// ClientURL is where consumers on this machine connect, without the token: "nats://127.0.0.1:4222". It is empty
// once the server is closed.
func (e *Embedded) ClientURL() string {
	addr, ok := e.srv.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	return clientURL(addr)
}

func clientURL(addr *net.TCPAddr) string {
	if addr.IP.IsUnspecified() {
		addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port}
	}
	return "nats://" + addr.String()
}

// Healthy returns nil while the server can store, else an error that names what is wrong, with the stream
// that it concerns. After a failed write (a full disk) a stream stays shut, and publishers get nothing but
// their own time-out, until the server is started anew; nothing acknowledged is lost by that.
func (e *Embedded) Healthy() error {
	var status *server.HealthStatus
	// It gives itself a millisecond to find out that it is ready, which a machine under load may take from it.
	for range 5 {
		status = e.srv.Healthz(&server.HealthzOptions{Details: true})
		if status.Status == "ok" {
			return nil
		}
	}
	faults := make([]string, 0, len(status.Errors))
	for _, fault := range status.Errors {
		faults = append(faults, fault.Error)
	}
	return fmt.Errorf("NATS server unhealthy: %s", strings.Join(faults, "; "))
}

// Close disconnects everybody and shuts the server down. It returns nil once the store is closed, or an
// error when ctx ends before; the shutdown then goes on, and Close may be called again to wait for it.
func (e *Embedded) Close(ctx context.Context) error {
	e.closing.Do(func() {
		go func() {
			defer close(e.down)
			if e.guard != nil {
				e.guard.Close()
			}
			e.srv.Shutdown()
			e.srv.WaitForShutdown()
		}()
	})
	select {
	case <-e.down:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("embedded NATS server is still shutting down: %w", ctx.Err())
	}
}
