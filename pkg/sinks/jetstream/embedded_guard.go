package jetstream

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/secret"
)

// guardSubject stands for "$JS.API." where a request of a stranger passes the guard. No prefix of events can
// begin so.
const guardSubject = "$BRIDGE.API."

// guardTimeout is how long JetStream may take for such a request.
const guardTimeout = 5 * time.Second

// startGuard connects and answers, one by one, the requests of strangers that create or change a consumer.
//
// A push consumer delivers inside the bridge's account. One on the dead letters with the deliver subject
// "gemini.x", and a live subscription to just that subject, would store dead letters as events. So strangers
// get pull consumers only; their replies reach them alone.
func (n *node) startGuard(password string) error {
	nc, err := nats.Connect("", append(connOptions(n.srv, password), nats.Name("guard"), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))...)
	if err != nil {
		return err
	}
	n.guard = nc
	sub, err := nc.Subscribe(guardSubject+">", func(m *nats.Msg) {
		if answer := forward(nc, m); answer != nil {
			if err := m.Respond(answer); err != nil {
				n.log.Warnf("Answer to a consumer's request: %v", err)
			}
		}
	})
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(1024, 8<<20); err != nil {
		return err
	}
	return nc.Flush()
}

// forward returns what the requester is told, or nil when JetStream gave no answer: the requester then runs
// into its time-out, as with any busy server.
func forward(nc *nats.Conn, m *nats.Msg) []byte {
	request, err := vet(m.Data)
	if err != nil {
		answer, _ := json.Marshal(server.ApiResponse{Type: server.JSApiConsumerCreateResponseType, Error: &server.ApiError{
			Code: 400, ErrCode: uint16(server.JSConsumerInvalidDeliverSubject), Description: err.Error(),
		}})
		return answer
	}
	// Of the headers only those that consumers need: others would act with the bridge's rights, a trace
	// destination among them.
	out := nats.NewMsg("$JS.API." + strings.TrimPrefix(m.Subject, guardSubject))
	out.Data = request
	for _, name := range []string{server.JSRequiredApiLevel, server.JSStreamIdentity} {
		if value := m.Header.Get(name); value != "" {
			out.Header.Set(name, value)
		}
	}
	answer, err := nc.RequestMsg(out, guardTimeout)
	if err != nil {
		return nil
	}
	return answer.Data
}

// vet checks a request and returns it encoded anew, so that the server reads exactly what was checked.
func vet(data []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields() // as the server does
	var request server.CreateConsumerRequest
	if err := decoder.Decode(&request); err != nil {
		return nil, fmt.Errorf("invalid JSON: %w", err)
	}
	// The server would read a second value into the same request.
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("invalid JSON: more than one value")
	}
	// Direct and sourcing consumers are the servers' own; they do not count towards the limit.
	if c := request.Config; c.DeliverSubject != "" || c.Direct || c.Sourcing {
		return nil, errors.New("this server has pull consumers only: leave deliver_subject empty")
	}
	return json.Marshal(request)
}

// gate decides who a connection is: one from within this process is the bridge or nobody, one over TCP is a
// stranger or nobody. The server's own users and token are not used: there, a user with an empty password
// gets in past the token.
type gate struct {
	password         string
	token            func() secret.Text
	bridge, stranger *server.User
}

func newGate(password string, cfg EmbeddedConfig) *gate {
	token := cfg.Renewed
	if token == nil {
		token = func() secret.Text { return cfg.Token }
	}
	return &gate{
		password: password,
		token:    token,
		bridge:   &server.User{Username: bridgeUser},
		stranger: &server.User{Username: consumerUser, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>", "$JS.ACK.>"}},
			Subscribe: &server.SubjectPermission{Allow: append([]string{"_INBOX.>"}, liveSubjects(cfg.Prefix)...)},
		}},
	}
}

// bind finds the accounts that the server made of its configuration.
func (g *gate) bind(srv *server.Server) error {
	var errs [2]error
	g.bridge.Account, errs[0] = srv.LookupAccount(bridgeAccount)
	g.stranger.Account, errs[1] = srv.LookupAccount(consumerAccount)
	return errors.Join(errs[:]...)
}

// Check implements server.Authentication.
func (g *gate) Check(client server.ClientAuthentication) bool {
	given := client.GetOpts()
	if addr := client.RemoteAddress(); addr != nil && addr.Network() == "pipe" {
		if given.Username != bridgeUser || !same(given.Password, g.password) {
			return false
		}
		client.RegisterUser(g.bridge)
		return true
	}
	if given.Username != "" || given.Password != "" || given.Nkey != "" || !same(given.Token, g.token().Reveal()) {
		return false
	}
	client.RegisterUser(g.stranger)
	return true
}

// same compares in a time that depends on neither content nor length of what it should be.
func same(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
