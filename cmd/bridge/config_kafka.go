package main

import (
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/secret"
)

// KafkaConfig is the settings of the Kafka sink.
type KafkaConfig struct {
	Brokers []string `env:"BRIDGE_KAFKA_BROKERS" doc:"Addresses, host:port, of some brokers of one Kafka cluster, separated by commas."`

	Topic            string        `env:"BRIDGE_KAFKA_TOPIC" envDefault:"gemini.events" doc:"Topic of the events; dead letters go to the topic of this name with .dead behind it."`
	Compression      string        `env:"BRIDGE_KAFKA_COMPRESSION" envDefault:"none" oneof:"none|gzip|snappy|lz4|zstd" doc:"Compression of records; gzip is the one that every consumer reads."`
	CreateTopics     string        `env:"BRIDGE_KAFKA_CREATE_TOPICS" envDefault:"on" oneof:"on|off" doc:"Whether topics that are missing are created."`
	Partitions       int           `env:"BRIDGE_KAFKA_PARTITIONS" envDefault:"6" doc:"Partitions of topics that are created."`
	Replication      int           `env:"BRIDGE_KAFKA_REPLICATION" envDefault:"0" doc:"Copies of topics that are created; 0 is the brokers' own default."`
	KafkaMaxAge      time.Duration `env:"BRIDGE_KAFKA_MAX_AGE" envDefault:"168h" doc:"Time that events are kept in a topic that is created; at least BRIDGE_DEDUP_WINDOW."`
	TLS              string        `env:"BRIDGE_KAFKA_TLS" envDefault:"off" oneof:"on|off" doc:"Whether connections to the brokers use TLS."`
	KafkaTLSCA       string        `env:"BRIDGE_KAFKA_TLS_CA" file:"plain" doc:"PEM file of the authorities that may have signed the brokers' certificates; empty trusts those of the system; read again when it changes, and used at the next connect."`
	KafkaTLSCert     string        `env:"BRIDGE_KAFKA_TLS_CERT" file:"plain" doc:"PEM file of the certificate that the bridge shows to the brokers; read again when it changes, and used at the next connect."`
	KafkaTLSKey      string        `env:"BRIDGE_KAFKA_TLS_KEY" file:"secret" doc:"PEM file of the key of BRIDGE_KAFKA_TLS_CERT; read again when it changes, and used at the next connect."`
	SASLMechanism    string        `env:"BRIDGE_KAFKA_SASL_MECHANISM" envDefault:"none" oneof:"none|PLAIN|SCRAM-SHA-256|SCRAM-SHA-512" doc:"How the bridge logs in to the brokers."`
	SASLUser         string        `env:"BRIDGE_KAFKA_SASL_USER" doc:"User name for the brokers."`
	SASLPassword     secret.Text   `env:"BRIDGE_KAFKA_SASL_PASSWORD" doc:"Password of BRIDGE_KAFKA_SASL_USER."`
	SASLPasswordFile string        `env:"BRIDGE_KAFKA_SASL_PASSWORD_FILE" file:"secret" doc:"File with the password, instead of BRIDGE_KAFKA_SASL_PASSWORD; read again when it changes, and shown at the next connect."`
}

const maxPartitions = 10_000

var topicForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,243}$`) // Kafka's 249 less ".dead"

// kafka checks the settings of the sink.
func (k *checker) kafka() {
	if len(k.Kafka.Brokers) == 0 {
		k.report("there is no broker to publish to: set it, such as kafka-1:9092,kafka-2:9092", "BRIDGE_KAFKA_BROKERS")
	}
	for _, broker := range k.Kafka.Brokers {
		if host, port, err := net.SplitHostPort(broker); err != nil || host == "" || port == "" || !isPort(port) {
			k.report(quote(broker)+" is no address of a broker: write host:port", "BRIDGE_KAFKA_BROKERS")
		}
	}
	if !topicForm.MatchString(k.Kafka.Topic) {
		k.reportValue("BRIDGE_KAFKA_TOPIC", "is no name for a topic: use letters, digits and . _ -, at most 244 of them")
	}
	if n := k.Kafka.Partitions; n < 1 || n > maxPartitions {
		k.reportValue("BRIDGE_KAFKA_PARTITIONS", "is out of bounds: set 1 to 10000")
	}
	if n := k.Kafka.Replication; n < 0 || n > 32 {
		k.reportValue("BRIDGE_KAFKA_REPLICATION", "is out of bounds: set 0, for the brokers' default, to 32")
	}
	k.pair("BRIDGE_KAFKA_TLS_CERT", "BRIDGE_KAFKA_TLS_KEY")
	k.kafkaLogin()
}

func (k *checker) kafkaLogin() {
	if k.Kafka.TLS == "off" {
		for _, variable := range []string{"BRIDGE_KAFKA_TLS_CA", "BRIDGE_KAFKA_TLS_CERT", "BRIDGE_KAFKA_TLS_KEY"} {
			if k.given[variable] != "" {
				k.report("it is of no use without TLS: set BRIDGE_KAFKA_TLS=on", variable)
			}
		}
	}
	hasPassword := !k.Kafka.SASLPassword.IsZero() || k.Kafka.SASLPasswordFile != ""
	if k.Kafka.SASLMechanism == "none" {
		if k.Kafka.SASLUser != "" || hasPassword {
			k.report("there is a user or a password and no way to show it: set this to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", "BRIDGE_KAFKA_SASL_MECHANISM")
		}
		return
	}
	if k.Kafka.SASLUser == "" {
		k.report("there is no user to log in: set this", "BRIDGE_KAFKA_SASL_USER")
	}
	if !hasPassword {
		k.report("there is no password: set this or BRIDGE_KAFKA_SASL_PASSWORD_FILE", "BRIDGE_KAFKA_SASL_PASSWORD")
	}
}

// otherSink reports what is set for a sink that is not used: its owner believes that it is.
func (k *checker) otherSink(sink, prefix string) {
	for _, s := range settings() {
		if strings.HasPrefix(s.name, prefix) && k.given[s.name] != "" {
			k.report("this is for another sink: set BRIDGE_SINK to "+sink+" or nats,kafka, or remove this", s.name)
		}
	}
}
