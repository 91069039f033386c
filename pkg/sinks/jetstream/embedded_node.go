package jetstream

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// node is one run of the embedded server.
type node struct {
	srv   *server.Server
	guard *nats.Conn
	log   *serverLog
}

// startNode returns once the server has recovered its streams and listens. A server that fails is shut down again.
func startNode(cfg EmbeddedConfig, password string) (*node, error) {
	opts, err := cfg.options()
	if err != nil {
		return nil, err
	}
	n := &node{log: newServerLog(cfg.Log)}
	gate := newGate(password, cfg)
	opts.CustomClientAuthentication = gate
	if cfg.Token.IsZero() {
		// Clients are then told that they need no credentials; some refuse to try otherwise.
		opts.NoAuthUser, opts.Users = gate.stranger.Username, []*server.User{gate.stranger}
	}
	if n.srv, err = server.NewServer(opts); err != nil {
		return nil, err
	}
	n.srv.SetLoggerV2(n.log, false, false, false)
	err = gate.bind(n.srv)
	if err == nil {
		err = n.start(password)
	}
	if err != nil {
		n.close()
		return nil, fmt.Errorf("%w (store %q, BRIDGE_DATA_DIR; address %s, BRIDGE_NATS_EMBEDDED_ADDR)", err, cfg.Dir, cfg.Addr)
	}
	return n, nil
}

// start recovers the streams, then listens: a consumer that connects finds everything in its place.
func (n *node) start(password string) error {
	n.srv.Start()
	if err := n.log.fatal(); err != nil {
		return err
	}
	if err := n.healthy(); err != nil {
		return err
	}
	if err := n.startGuard(password); err != nil {
		return fmt.Errorf("connecting in process: %w", err)
	}
	n.srv.AcceptLoop(make(chan struct{}))
	return n.log.fatal()
}

func (n *node) healthy() error {
	var status *server.HealthStatus
	// It gives itself a millisecond to find out that it is ready, which a machine under load may take from it.
	for range 5 {
		status = n.srv.Healthz(&server.HealthzOptions{Details: true})
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

// close returns once the store is closed.
func (n *node) close() {
	if n.guard != nil {
		n.guard.Close()
	}
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
}
