package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
)

// EmbeddedConfig says how to run a NATS server with JetStream in this process.
type EmbeddedConfig struct {
	// Dir holds the store; it is made with mode 0700 when it is missing. Two servers on one store lose
	// events that were acknowledged, so the caller locks it first.
	Dir string
	// Lazy makes the server acknowledge what the operating system has, before the disk does. Whoever needs more
	// keeps a copy of each event until [Embedded.Sync] has returned nil, as the bridge's journal does, and hands it
	// in again after every start that was not preceded by a Close that returned nil. By default each event is
	// fsynced before it is acknowledged.
	Lazy bool
	// Reserve is how many bytes of the disk's free space the store leaves to others at most: to a journal that is
	// yet to grow, say. It is never more than half of what is free.
	Reserve int64
	// Addr is the host:port on which consumers connect; port 0 picks a free one.
	Addr string
	// Token is what consumers must present. Without one Addr must be a loopback address (127.0.0.0/8, ::1
	// or localhost), and whoever can connect may consume.
	Token secret.Text
	// Renewed is asked for what Token has become since, whenever a consumer connects. Those that are connected stay.
	// Optional; what it returns is never empty unless Token is.
	Renewed func() secret.Text
	// Prefix and Stream name what consumers may reach: the subjects "<Prefix>.>" and "<Prefix>-dead.>", the
	// streams "<Stream>" and "<Stream>_DEAD". Letters, digits, "-" and "_"; a prefix may have several tokens.
	Prefix, Stream string
	// MaxPayload is the largest message in bytes, headers included; 0 is the server's default of 1 MiB.
	MaxPayload int32
	// Log takes the server's warnings and errors, its notices at debug level. What it says about a single
	// consumer's connection is a warning, at most 20 a minute.
	Log zerolog.Logger
}

// Embedded is a NATS server in this process. Unless it is lazy, every publish that it acknowledges has been fsynced
// before (sync_interval "always"), one by one: the disk's sync rate is its publish rate.
//
// A server whose write or sync failed, on a full disk for example, gives publishers nothing but their own time-out,
// also when there is room again. It is shut down and started anew in the process then; consumers reconnect.
//
// Consumers are strangers to it, whoever they are. They use pull consumers, read single messages and
// subscribe to live subjects. They cannot publish under the prefixes, nor change, purge or delete streams,
// nor make push consumers. They are not protected from each other: one may delete another's consumer, which
// loses no event.
type Embedded struct {
	cfg      EmbeddedConfig // with the port that was picked
	password string
	store    *store
	url      string

	life    context.Context // of everything that runs beside the server
	end     context.CancelFunc
	tasks   sync.WaitGroup
	suspect chan struct{} // holds one word that the server may be unwell

	closing sync.Once
	down    chan struct{} // closed when closeErr is set
	closed  error

	mu      sync.Mutex
	node    *node       // nil while there is none
	trouble error       // why nothing can be stored until the server is started anew
	late    error       // a Sync that had no answer yet
	running bool        // a checkpoint is under way
	next    *checkpoint // which begins when the one under way has ended
	sink    *Sink       // is told when the store is down, and when it may have lost something
}

// StartEmbedded starts the server and returns once it accepts connections and has recovered its streams,
// the ids of the duplicate window included. Errors name the setting to change: the address is in use or
// needs a token, the directory cannot be used, a stream in it cannot be recovered (it is then left alone).
func StartEmbedded(cfg EmbeddedConfig) (*Embedded, error) {
	life, end := context.WithCancel(context.Background())
	e := &Embedded{
		cfg: cfg, password: rand.Text(), store: newStore(cfg.Dir), life: life, end: end,
		suspect: make(chan struct{}, 1), down: make(chan struct{}),
	}
	err := e.store.mend()
	if err != nil {
		err = fmt.Errorf("store directory (BRIDGE_DATA_DIR): %w", err)
	} else {
		e.node, err = startNode(cfg, e.password)
	}
	if err != nil {
		end()
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	addr, ok := e.node.srv.Addr().(*net.TCPAddr)
	if !ok {
		end()
		e.node.close()
		return nil, errors.New("embedded NATS server: it does not listen")
	}
	e.cfg.Addr = addr.String()
	e.url = clientURL(addr)
	e.tasks.Go(e.watch)
	return e, nil
}

var errClosed = errors.New("embedded NATS server: closed")

// ConnOptions connects a NATS client in process as the bridge's own user, which may do everything. The
// user's password is made anew at every StartEmbedded and is refused over TCP. A client that reconnects finds the
// server that runs then.
func (e *Embedded) ConnOptions() []nats.Option { return connOptions(inProcess{e}, e.password) }

func connOptions(server nats.InProcessConnProvider, password string) []nats.Option {
	return []nats.Option{nats.InProcessServer(server), nats.UserInfo(bridgeUser, password)}
}

// inProcess connects to the server that runs now.
type inProcess struct{ e *Embedded }

func (p inProcess) InProcessConn() (net.Conn, error) {
	p.e.mu.Lock()
	node, trouble := p.e.node, p.e.trouble
	p.e.mu.Unlock()
	if node == nil {
		return nil, trouble
	}
	return node.srv.InProcessConn()
}

// ClientURL is where consumers on this machine connect, without the token: "nats://127.0.0.1:4222". It is empty
// once the server is closed.
func (e *Embedded) ClientURL() string {
	if e.life.Err() != nil {
		return ""
	}
	return e.url
}

func clientURL(addr *net.TCPAddr) string {
	if addr.IP.IsUnspecified() {
		addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port}
	}
	return "nats://" + addr.String()
}

// Healthy returns nil while the server can store, else an error that names what is wrong, with the stream
// that it concerns. After a failed write or sync that lasts until the server has been started anew, which happens
// by itself as soon as the disk has room; nothing acknowledged is lost by that.
func (e *Embedded) Healthy() error {
	e.mu.Lock()
	node, err := e.node, cmp.Or(e.trouble, e.late)
	e.mu.Unlock()
	if err == nil {
		if err = node.healthy(); err != nil {
			e.wake()
		}
	}
	return err
}

// Close disconnects everybody, shuts the server down and syncs what it stored, if that was put off. It returns nil
// once all of that is done: then everything that was acknowledged is on disk. When ctx ends before, the shutdown
// goes on, and Close may be called again to wait for it.
func (e *Embedded) Close(ctx context.Context) error {
	e.closing.Do(func() {
		e.end()
		go func() {
			defer close(e.down)
			e.tasks.Wait()
			e.closed = e.shut()
		}()
	})
	select {
	case <-e.down:
		return e.closed
	case <-ctx.Done():
		return fmt.Errorf("embedded NATS server is still shutting down: %w", ctx.Err())
	}
}

func (e *Embedded) shut() error {
	e.mu.Lock()
	node, trouble := e.node, e.trouble
	e.trouble = cmp.Or(trouble, errClosed)
	e.mu.Unlock()
	if node != nil {
		node.close()
	}
	if !e.cfg.Lazy {
		return nil
	}
	var err error
	if trouble != nil {
		err = errors.Join(trouble, e.store.rewrite())
	} else {
		err = e.store.flush()
	}
	if err != nil {
		return fmt.Errorf("the last events may not be on disk: %w", err)
	}
	return nil
}
