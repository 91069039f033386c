package kafka_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
)

func TestMistakes(t *testing.T) {
	const hidden = "hidden\u0007"
	password := secret.New(hidden)
	for name, test := range map[string]struct {
		change func(*kafka.Config)
		want   string
	}{
		"no brokers":         {func(c *kafka.Config) { c.Brokers = nil }, "BRIDGE_KAFKA_BROKERS"},
		"broker is no port":  {func(c *kafka.Config) { c.Brokers = []string{"a:1", "host"} }, "BRIDGE_KAFKA_BROKERS: number 2"},
		"broker is no host":  {func(c *kafka.Config) { c.Brokers = []string{":9092"} }, "BRIDGE_KAFKA_BROKERS: number 1"},
		"broker is a URL":    {func(c *kafka.Config) { c.Brokers = []string{"kafka://host:9092"} }, "BRIDGE_KAFKA_BROKERS: number 1"},
		"topic":              {func(c *kafka.Config) { c.Topic = "a b" }, "BRIDGE_KAFKA_TOPIC"},
		"topic is dots":      {func(c *kafka.Config) { c.Topic = ".." }, "BRIDGE_KAFKA_TOPIC"},
		"topic is long":      {func(c *kafka.Config) { c.Topic = strings.Repeat("x", 245) }, "BRIDGE_KAFKA_TOPIC"},
		"compression":        {func(c *kafka.Config) { c.Compression = "rar" }, `BRIDGE_KAFKA_COMPRESSION: "rar"`},
		"partitions":         {func(c *kafka.Config) { c.Partitions = -1 }, "BRIDGE_KAFKA_PARTITIONS"},
		"replication":        {func(c *kafka.Config) { c.Replication = -1 }, "BRIDGE_KAFKA_REPLICATION"},
		"age":                {func(c *kafka.Config) { c.MaxAge = time.Hour }, "BRIDGE_KAFKA_MAX_AGE: 1h0m0s is less than BRIDGE_DEDUP_WINDOW, 25h0m0s"},
		"age of the dead":    {func(c *kafka.Config) { c.DeadMaxAge = time.Hour }, "BRIDGE_DEAD_MAX_AGE"},
		"CA without TLS":     {func(c *kafka.Config) { c.RootCAs = x509.NewCertPool }, "need BRIDGE_KAFKA_TLS=on"},
		"pair without TLS":   {func(c *kafka.Config) { c.Certificate = func() tls.Certificate { return tls.Certificate{} } }, "need BRIDGE_KAFKA_TLS=on"},
		"no mechanism":       {func(c *kafka.Config) { c.SASLUser = "u" }, "need BRIDGE_KAFKA_SASL_MECHANISM"},
		"mechanism":          {func(c *kafka.Config) { c.SASLMechanism, c.SASLUser, c.SASLPassword = "GSSAPI", "u", password }, "none of PLAIN"},
		"no user":            {func(c *kafka.Config) { c.SASLMechanism, c.SASLPassword = "PLAIN", password }, "BRIDGE_KAFKA_SASL_MECHANISM needs"},
		"no password":        {func(c *kafka.Config) { c.SASLMechanism, c.SASLUser = "PLAIN", "u" }, "BRIDGE_KAFKA_SASL_MECHANISM needs"},
		"password for SCRAM": {func(c *kafka.Config) { c.SASLMechanism, c.SASLUser, c.SASLPassword = "SCRAM-SHA-256", "u", password }, "SCRAM does not allow"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := kafka.Config{Brokers: []string{"127.0.0.1:1"}, Log: zerolog.Nop()}
			test.change(&cfg)
			s, err := kafka.New(cfg)
			if err == nil {
				_ = s.Close(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
	cfg := kafka.Config{Topic: "a b", Compression: "rar"}
	if _, err := kafka.New(cfg); err == nil || strings.Count(err.Error(), "BRIDGE_KAFKA_") != 3 {
		t.Errorf("not all mistakes at once: %v", err)
	}
}
