package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/gembridge/bridge/pkg/secret"
)

// Config is every setting of the bridge, one field per environment variable. Tags: env is the variable,
// envDefault its default, oneof the words it takes, doc what the documentation says of it. A file tag marks a
// path that must be readable at start: "secret" when what stands in the file is a secret, else "plain" or "dir".
//
// Field names are unique across the groups, for the parser's errors carry nothing else.
type Config struct {
	Addr      string `env:"BRIDGE_ADDR" envDefault:":8080" doc:"Address, host:port, on which webhooks are received."`
	Path      string `env:"BRIDGE_PATH" envDefault:"/webhooks/gemini" doc:"Path of the webhook endpoint; any other path is answered 404."`
	AdminAddr string `env:"BRIDGE_ADMIN_ADDR" envDefault:"127.0.0.1:9090" doc:"Address, host:port, of /healthz, /readyz, /metrics and what bridge dead replay needs; keep it away from the internet."`

	TLS PublicTLSConfig

	SigningSecrets     []secret.Text `env:"BRIDGE_SIGNING_SECRETS" doc:"Signing secrets (whsec_…) of static webhooks, separated by commas; a delivery may be signed with any of them."`
	SigningSecretsFile string        `env:"BRIDGE_SIGNING_SECRETS_FILE" file:"secret" doc:"File with one signing secret per line, instead of BRIDGE_SIGNING_SECRETS; read again when it changes."`

	Dynamic DynamicConfig

	MaxBody     size `env:"BRIDGE_MAX_BODY" envDefault:"384KiB" doc:"Largest request body, in bytes or with KiB, MiB or GiB; a larger one is answered 413."`
	MaxInflight int  `env:"BRIDGE_MAX_INFLIGHT" envDefault:"4096" doc:"Number of verified deliveries handled at once; further ones are answered 503."`

	AckTimeout      time.Duration `env:"BRIDGE_ACK_TIMEOUT" envDefault:"3s" doc:"Time that a delivery waits for the broker's acknowledgement before the journal answers for it, or 503 is answered without one; at most 30s."`
	DrainDelay      time.Duration `env:"BRIDGE_DRAIN_DELAY" envDefault:"0s" doc:"Time after a signal to stop during which /readyz answers 503 and deliveries are still accepted."`
	ShutdownTimeout time.Duration `env:"BRIDGE_SHUTDOWN_TIMEOUT" envDefault:"20s" doc:"Time that requests have to finish at shutdown before they are cut, and that a second process waits for the data directory."`

	Sink        string `env:"BRIDGE_SINK" envDefault:"nats" oneof:"nats|kafka|nats,kafka" doc:"Broker that events are published to: nats, kafka, or both, in which case both must have an event before it is answered 202."`
	Source      string `env:"BRIDGE_SOURCE" envDefault:"//generativelanguage.googleapis.com" doc:"The source attribute of every CloudEvent, a URI reference."`
	ContentMode string `env:"BRIDGE_CONTENT_MODE" envDefault:"structured" oneof:"structured|binary" doc:"CloudEvents content mode: structured is the whole event as JSON, binary is its data with the attributes in headers."`
	OnInvalid   string `env:"BRIDGE_ON_INVALID" envDefault:"dead-letter" oneof:"dead-letter|reject" doc:"What becomes of authentic deliveries that are no valid event: a dead letter, or the answer 422."`
	OnUnknown   string `env:"BRIDGE_ON_UNKNOWN" envDefault:"publish" oneof:"publish|dead-letter|reject" doc:"What becomes of authentic deliveries of a type or version that the bridge does not know."`
	SchemaDir   string `env:"BRIDGE_SCHEMA_DIR" file:"dir" doc:"Directory whose files replace the built-in JSON Schemas of the same name."`

	DedupWindow time.Duration `env:"BRIDGE_DEDUP_WINDOW" envDefault:"25h" doc:"Time during which a delivery with a known id is a duplicate; Gemini repeats deliveries for 24 hours."`
	DeadMaxAge  time.Duration `env:"BRIDGE_DEAD_MAX_AGE" envDefault:"720h" doc:"Time that dead letters are kept; at least BRIDGE_DEDUP_WINDOW."`
	DataDir     string        `env:"BRIDGE_DATA_DIR" envDefault:"./data" doc:"Directory of the embedded broker's store and of the journal; one bridge per directory."`

	Journal         string        `env:"BRIDGE_JOURNAL" envDefault:"on" oneof:"on|off" doc:"Whether events are kept in a journal on disk until the broker has them for certain; off trusts the broker alone."`
	JournalMaxBytes size          `env:"BRIDGE_JOURNAL_MAX_BYTES" envDefault:"1GiB" doc:"Largest size of the journal of each sink, in bytes or with KiB, MiB or GiB; when it is full, only what the broker acknowledges is answered 202."`
	JournalKeep     time.Duration `env:"BRIDGE_JOURNAL_KEEP" envDefault:"5m" doc:"Time that an event stays in the journal after an external broker has acknowledged it, for the case that the broker forgets; 0s trusts its acknowledgement at once."`

	NATS  NATSConfig
	Kafka KafkaConfig

	LogLevel  string `env:"BRIDGE_LOG_LEVEL" envDefault:"info" oneof:"trace|debug|info|warn|error" doc:"Least important log lines to print."`
	LogFormat string `env:"BRIDGE_LOG_FORMAT" envDefault:"auto" oneof:"auto|json|console" doc:"Form of the log; auto is console on a terminal, else JSON."`
}

// NATSConfig is the settings of the NATS JetStream sink.
type NATSConfig struct {
	URL          string      `env:"BRIDGE_NATS_URL" doc:"Addresses of a NATS server or cluster, separated by commas, such as nats://host:4222; empty runs one inside the bridge. Credentials have variables of their own."`
	Creds        string      `env:"BRIDGE_NATS_CREDS" file:"secret" doc:"Credentials file (user JWT and seed) for the server at BRIDGE_NATS_URL; read again when it changes, and used at the next connect."`
	NKey         string      `env:"BRIDGE_NATS_NKEY" file:"secret" doc:"File with the seed of an NKey for the server at BRIDGE_NATS_URL; read again when it changes, and used at the next connect."`
	Token        secret.Text `env:"BRIDGE_NATS_TOKEN" doc:"Token for the server at BRIDGE_NATS_URL."`
	TokenFile    string      `env:"BRIDGE_NATS_TOKEN_FILE" file:"secret" doc:"File with the token, instead of BRIDGE_NATS_TOKEN; read again when it changes, and shown at the next connect."`
	User         string      `env:"BRIDGE_NATS_USER" doc:"User name for the server at BRIDGE_NATS_URL."`
	Password     secret.Text `env:"BRIDGE_NATS_PASSWORD" doc:"Password of BRIDGE_NATS_USER."`
	PasswordFile string      `env:"BRIDGE_NATS_PASSWORD_FILE" file:"secret" doc:"File with the password, instead of BRIDGE_NATS_PASSWORD; read again when it changes, and shown at the next connect."`
	TLSCA        string      `env:"BRIDGE_NATS_TLS_CA" file:"plain" doc:"PEM file of the authorities that may have signed the server's certificate; empty trusts those of the system; read again when it changes, and used at the next connect."`
	TLSCert      string      `env:"BRIDGE_NATS_TLS_CERT" file:"plain" doc:"PEM file of the certificate that the bridge shows to the server; read again when it changes, and used at the next connect."`
	TLSKey       string      `env:"BRIDGE_NATS_TLS_KEY" file:"secret" doc:"PEM file of the key of BRIDGE_NATS_TLS_CERT; read again when it changes, and used at the next connect."`

	EmbeddedAddr      string      `env:"BRIDGE_NATS_EMBEDDED_ADDR" envDefault:"127.0.0.1:4222" doc:"Address, host:port, on which the embedded server serves consumers; any but a loopback address needs a token."`
	EmbeddedToken     secret.Text `env:"BRIDGE_NATS_EMBEDDED_TOKEN" doc:"Token that consumers show to the embedded server."`
	EmbeddedTokenFile string      `env:"BRIDGE_NATS_EMBEDDED_TOKEN_FILE" file:"secret" doc:"File with the token, instead of BRIDGE_NATS_EMBEDDED_TOKEN; read again when it changes, for consumers that connect from then on."`

	Stream        string        `env:"BRIDGE_NATS_STREAM" envDefault:"GEMINI" doc:"Stream of the events; dead letters go to the stream of this name with _DEAD behind it."`
	SubjectPrefix string        `env:"BRIDGE_NATS_SUBJECT_PREFIX" envDefault:"gemini" doc:"First part of every subject; dead letters have this prefix with -dead behind it."`
	Replicas      int           `env:"BRIDGE_NATS_REPLICAS" envDefault:"1" doc:"Copies of the streams that a NATS cluster keeps: 1, 3 or 5."`
	MaxAge        time.Duration `env:"BRIDGE_NATS_MAX_AGE" envDefault:"168h" doc:"Time that events are kept; at least BRIDGE_DEDUP_WINDOW."`
}

// loadConfig makes a Config of environ, lines of NAME=value as os.Environ returns them. It looks at nothing else
// of the process but the files that are named. The error is mistakes: every one there is, and none holds a secret.
func loadConfig(environ []string) (*Config, error) {
	c, found := readConfig(environ)
	found = append(found, c.verifyingMistakes()...).sorted()
	if len(found) > 0 {
		return nil, found
	}
	return c, nil
}

// readConfig is loadConfig for commands that receive no webhooks and so need neither secret nor token. With mistakes the
// fields concerned may be zero.
func readConfig(environ []string) (*Config, mistakes) {
	given := givenVariables(environ)
	var c Config
	found := parse(&c, given)
	found = append(found, check(&c, given, found)...)
	return &c, append(found, unknownVariables(environ)...).sorted()
}

// givenVariables is the bridge's part of environ. An empty variable counts as not given.
func givenVariables(environ []string) map[string]string {
	given := make(map[string]string)
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, variablePrefix) && value != "" {
			given[name] = value
		}
	}
	return given
}

// parse fills c. Fields whose value cannot be read stay zero. Blanks around signing secrets and tokens are dropped.
func parse(c *Config, given map[string]string) mistakes {
	var found mistakes
	all, _ := errors.AsType[env.AggregateError](env.ParseWithOptions(c, env.Options{Environment: given}))
	for _, err := range all.Errors {
		found = append(found, parseMistake(err, given))
	}
	for _, list := range [][]secret.Text{c.SigningSecrets, c.Dynamic.DynamicTokens} {
		for i, s := range list {
			list[i] = secret.New(strings.TrimSpace(s.Reveal()))
		}
	}
	return found
}

// parseMistake says it in the bridge's words: the parser's name the field and may hold the value.
func parseMistake(err error, given map[string]string) mistake {
	if failed, ok := errors.AsType[env.ParseError](err); ok {
		for _, s := range settings() {
			if s.field == failed.Name {
				return mistake{s.name, fmt.Sprintf("%s is not %s", quote(given[s.name]), s.form())}
			}
		}
	}
	return mistake{"config", err.Error()}
}

// size is a number of bytes, written as 1073741824, 1048576KiB, 1024MiB or 1GiB.
type size int64

// UnmarshalText takes a number of bytes, alone or with KiB, MiB or GiB.
func (s *size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	if n, ok := strings.CutSuffix(number, "KiB"); ok {
		number, unit = n, 1<<10
	} else if n, ok := strings.CutSuffix(number, "MiB"); ok {
		number, unit = n, 1<<20
	} else if n, ok := strings.CutSuffix(number, "GiB"); ok {
		number, unit = n, 1<<30
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return err
	}
	if n < 0 || n > math.MaxInt64/unit {
		return strconv.ErrRange
	}
	*s = size(n * unit)
	return nil
}

// String is the size with the largest unit that leaves a whole number.
func (s size) String() string {
	switch {
	case s > 0 && s%(1<<30) == 0:
		return strconv.FormatInt(int64(s)>>30, 10) + "GiB"
	case s > 0 && s%(1<<20) == 0:
		return strconv.FormatInt(int64(s)>>20, 10) + "MiB"
	case s > 0 && s%(1<<10) == 0:
		return strconv.FormatInt(int64(s)>>10, 10) + "KiB"
	}
	return strconv.FormatInt(int64(s), 10)
}
