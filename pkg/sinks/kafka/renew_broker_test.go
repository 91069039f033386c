package kafka_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

// TestPasswordChangesAtTheBroker: the next login shows what the password has become, and publishing goes on; the old
// one is refused, and told by the setting's name.
func TestPasswordChangesAtTheBroker(t *testing.T) {
	const second, third = "the-second-password", "the-third-password"
	ofPlain := filepath.Join(t.TempDir(), "plain.properties") // read by the broker, at its start
	setPlain := func(password string) {
		t.Helper()
		if err := os.WriteFile(ofPlain, []byte("password="+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const first = "bridge-secret"
	setPlain(first)
	c := kafkatest.Start(t, kafkatest.Options{SASL: true, Set: map[string]string{
		"config.providers":                          "file",
		"config.providers.file.class":               "org.apache.kafka.common.config.provider.FileConfigProvider",
		"listener.name.sasl.plain.sasl.jaas.config": `org.apache.kafka.common.security.plain.PlainLoginModule required user_bridge="${file:` + ofPlain + `:password}";`,
	}})
	if c.Password() != first || c.User() != "bridge" {
		t.Fatal("the broker's user is another one")
	}
	var shown atomic.Pointer[secret.Text]
	show := func(password string) { shown.Store(new(secret.New(password))) }
	show(first)
	// At the broker. Its end ends all connections, so that everybody logs in anew.
	set := func(password string) {
		t.Helper()
		setPlain(password)
		c.SetPassword(password)
		c.Kill(1)
		c.Restart(1)
	}

	config := func(mechanism, password string) kafka.Config {
		return kafka.Config{
			Brokers: c.BootstrapSASL(), SASLMechanism: mechanism, SASLUser: c.User(), SASLPassword: secret.New(password),
			CreateTopics: true, Topic: mechanism,
		}
	}
	type client struct {
		mechanism string
		*kafka.Sink
		log *logBuffer
	}
	var clients []client
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		cfg := config(mechanism, first)
		cfg.Renewed = func() secret.Text { return *shown.Load() }
		s, log := openSink(t, cfg)
		clients = append(clients, client{mechanism, s, log})
	}
	published := 0
	publishes := func() {
		t.Helper()
		published++
		for _, client := range clients {
			eventuallyReady(t, client.Sink)
			publish(t, client.Sink, published)
		}
	}
	publishes()

	show(second)
	publishes() // nobody has to log in again
	set(second)
	publishes()

	set(third) // while the bridge still shows the second
	for _, client := range clients {
		eventually(t, client.mechanism+" refused", func() error {
			if err := ready(t, client.Sink); err == nil || !strings.Contains(err.Error(), "BRIDGE_KAFKA_SASL_PASSWORD") {
				return fmt.Errorf("Ready: %w", err)
			}
			return nil
		})
	}
	show(third)
	publishes()

	for _, client := range clients {
		if n := count(t, c.Bootstrap(), client.mechanism); n != published {
			t.Errorf("%s: %d events in the log, want %d", client.mechanism, n, published)
		}
		for _, password := range []string{first, second, third} {
			if strings.Contains(client.log.String(), password) {
				t.Errorf("%s: the log holds a password", client.mechanism)
			}
			s, _ := openSink(t, config(client.mechanism, password))
			err := s.Check(ctxOf(t, 10*time.Second))
			if (err == nil) != (password == third) {
				t.Errorf("%s with %s: %v", client.mechanism, password, err)
			}
		}
	}
}
