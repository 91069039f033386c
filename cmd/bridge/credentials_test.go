package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A broker gets other credentials, and the bridge logs in with what its file says by then. So does bridge tail.
func TestCredentialsChange(t *testing.T) {
	t.Parallel()
	const next = "the-next-credential"
	for name, c := range map[string]struct {
		setting, more string
		set           func(*server.Options, string)
	}{
		"token":    {natsTokenFile, "BRIDGE_NATS_REPLICAS=1", func(o *server.Options, token string) { o.Authorization = token }},
		"password": {natsPasswordFile, "BRIDGE_NATS_USER=bridge", func(o *server.Options, password string) { o.Username, o.Password = "bridge", password }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := startBroker(t, func(o *server.Options) { c.set(o, natsToken) })
			path := writeFile(t, natsToken+"\n")
			b := launch(t, remote(t, broker.url(), c.setting+"="+path, c.more, "BRIDGE_JOURNAL=off")).up(t).connected(t)
			body := sample(t, "batch.succeeded")
			b.must(t, "published", "msg_1", body)
			tail := command(t, []string{"BRIDGE_NATS_URL=" + broker.url(), c.setting + "=" + path, c.more}, "tail", "--from", "start")
			printed := func(n int) {
				t.Helper()
				eventually(t, func() error {
					if len(tail.out.lines()) < n {
						return fmt.Errorf("bridge tail has printed %d events, want %d", len(tail.out.lines()), n)
					}
					return nil
				})
			}
			printed(1)

			replace(t, path, natsToken+"\n"+next+"\n", true) // which is it?
			b.log.line(t, `"level":"error"`, c.setting, "must hold one line")
			if got := b.metrics(t)[`bridge_file_reload_failures_total{file="`+c.setting+`"}`]; got != 1 {
				t.Errorf("%v failures, want 1", got)
			}
			broker.stop()
			broker.start(t)
			b.connected(t)
			b.must(t, "published", "msg_2", body)

			replace(t, path, next+"\r\n", true)
			b.log.line(t, "file reloaded", c.setting)
			broker.stop()
			c.set(broker.opts, next)
			broker.start(t)
			b.connected(t)
			b.must(t, "published", "msg_3", body)
			printed(3) // with the new one, too
			tail.stop(t)
			for _, secret := range []string{natsToken, next} {
				if lines := b.log.lines(secret); len(lines) > 0 {
					t.Errorf("%q is in the log: %q", secret, lines)
				}
			}
		})
	}
}

// Consumers that connect to the embedded server show the token that its file holds by then.
func TestEmbeddedTokenChanges(t *testing.T) {
	t.Parallel()
	const next = "the-next-credential"
	path := writeFile(t, natsToken)
	b := launch(t, local(t, embeddedTokenFile+"="+path)).up(t)
	enters := func(token string) error {
		nc, err := nats.Connect(b.nats, nats.Token(token))
		if err == nil {
			nc.Close()
		}
		return err
	}
	if err := enters(natsToken); err != nil {
		t.Fatal(err)
	}
	if err := enters(next); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a token of nobody's: %v", err)
	}
	replace(t, path, "\n", true)
	b.log.line(t, `"level":"error"`, embeddedTokenFile, "must hold one line")
	for _, token := range []string{"", "\n", next} {
		if err := enters(token); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%q: %v", token, err)
		}
	}
	if err := enters(natsToken); err != nil {
		t.Errorf("the file is empty: %v", err)
	}
	replace(t, path, next, true)
	eventually(t, func() error { return enters(next) })
	if err := enters(natsToken); !errors.Is(err, nats.ErrAuthorization) {
		t.Error(fmt.Errorf("the old token: %w", err))
	}
}
