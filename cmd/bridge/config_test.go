package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The secrets of these tests. None may be seen in any output.
const (
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	natsToken     = "t0ken-of-the-server"
	natsPassword  = "pa55word-of-the-server"
	dynamicToken  = "a-token-of-the-operator-0123456789"
)

var secretTexts = []string{signingSecret, signingSecret[6:], natsToken, natsPassword, dynamicToken}

func assertNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, s := range secretTexts {
		if strings.Contains(text, s) {
			t.Errorf("secret %q shows in:\n%s", s, text)
		}
	}
}

// working is an environment without mistakes, and what is added to it.
func working(more ...string) []string {
	return append([]string{"BRIDGE_SIGNING_SECRETS=" + signingSecret}, more...)
}

// external is working with a server of one's own.
func external(more ...string) []string {
	return working(append([]string{"BRIDGE_NATS_URL=nats://nats:4222"}, more...)...)
}

// toKafka is working with Kafka alone.
func toKafka(more ...string) []string {
	return working(append([]string{"BRIDGE_SINK=kafka", "BRIDGE_KAFKA_BROKERS=kafka:9092"}, more...)...)
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, environ []string) *Config {
	t.Helper()
	c, err := loadConfig(environ)
	if err != nil {
		t.Fatalf("environment %q: %v", environ, err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, working())
	if got, want := c.SigningSecrets[0].Reveal(), signingSecret; got != want {
		t.Errorf("signing secret %q, want %q", got, want)
	}
	c.SigningSecrets = nil
	want := &Config{
		Addr: ":8080", Path: "/webhooks/gemini", AdminAddr: "127.0.0.1:9090",
		Dynamic: DynamicConfig{JWKSURL: "https://generativelanguage.googleapis.com/.well-known/jwks.json"},
		MaxBody: 384 << 10, MaxInflight: 4096,
		AckTimeout: 3 * time.Second, ShutdownTimeout: 20 * time.Second,
		Sink: "nats", Source: "//generativelanguage.googleapis.com", ContentMode: "structured",
		OnInvalid: "dead-letter", OnUnknown: "publish",
		DedupWindow: 25 * time.Hour, DeadMaxAge: 720 * time.Hour, DataDir: "./data",
		Journal: "on", JournalMaxBytes: 1 << 30, JournalKeep: 5 * time.Minute,
		NATS: NATSConfig{
			EmbeddedAddr: "127.0.0.1:4222", Stream: "GEMINI", SubjectPrefix: "gemini", Replicas: 1, MaxAge: 168 * time.Hour,
		},
		Kafka: KafkaConfig{
			Topic: "gemini.events", Compression: "none", CreateTopics: "on", Partitions: 6, KafkaMaxAge: 168 * time.Hour,
			TLS: "off", SASLMechanism: "none",
		},
		LogLevel: "info", LogFormat: "auto",
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if got := c.warnings(); len(got) > 0 {
		t.Errorf("the defaults warn: %q", got)
	}
}

// Every variable changes the field it is named in, and no other.
func TestEveryVariableReachesItsField(t *testing.T) {
	file, dir := writeFile(t, "content"), t.TempDir()
	samples := map[string]struct {
		base  []string
		value string
	}{
		"BRIDGE_ADDR":                     {working(), "127.0.0.1:0"},
		"BRIDGE_PATH":                     {working(), "/hooks/a.b_c~d-1"},
		"BRIDGE_ADMIN_ADDR":               {working(), "[::1]:9091"},
		"BRIDGE_SIGNING_SECRETS":          {nil, signingSecret},
		"BRIDGE_SIGNING_SECRETS_FILE":     {nil, file},
		"BRIDGE_DYNAMIC_TOKENS":           {nil, dynamicToken},
		"BRIDGE_DYNAMIC_TOKENS_FILE":      {nil, file},
		"BRIDGE_JWKS_URL":                 {working(), "http://127.0.0.1:1/keys"},
		"BRIDGE_JWKS_FILE":                {working(), file},
		"BRIDGE_TLS_CERT":                 {working("BRIDGE_TLS_KEY=" + file), file},
		"BRIDGE_TLS_KEY":                  {working("BRIDGE_TLS_CERT=" + file), file},
		"BRIDGE_TLS_CLIENT_CA":            {working("BRIDGE_TLS_CERT="+file, "BRIDGE_TLS_KEY="+file), file},
		"BRIDGE_JWT_AUDIENCE":             {working(), "an-audience"},
		"BRIDGE_MAX_BODY":                 {working(), "1MiB"},
		"BRIDGE_MAX_INFLIGHT":             {working(), "1"},
		"BRIDGE_ACK_TIMEOUT":              {working(), "30s"},
		"BRIDGE_DRAIN_DELAY":              {working(), "5s"},
		"BRIDGE_SHUTDOWN_TIMEOUT":         {working(), "1m"},
		"BRIDGE_SOURCE":                   {working(), "urn:example:bridge"},
		"BRIDGE_CONTENT_MODE":             {working(), "binary"},
		"BRIDGE_ON_INVALID":               {working(), "reject"},
		"BRIDGE_ON_UNKNOWN":               {working(), "dead-letter"},
		"BRIDGE_SCHEMA_DIR":               {working(), dir},
		"BRIDGE_DEDUP_WINDOW":             {working(), "48h"},
		"BRIDGE_DEAD_MAX_AGE":             {working(), "25h"},
		"BRIDGE_DATA_DIR":                 {working(), filepath.Join(dir, "made", "later")},
		"BRIDGE_JOURNAL":                  {working(), "off"},
		"BRIDGE_JOURNAL_MAX_BYTES":        {working(), "64MiB"},
		"BRIDGE_JOURNAL_KEEP":             {working(), "0s"},
		"BRIDGE_NATS_URL":                 {working(), "tls://a:4222, b:4223,nats://[::1]:443"},
		"BRIDGE_NATS_CREDS":               {external(), file},
		"BRIDGE_NATS_NKEY":                {external(), file},
		"BRIDGE_NATS_TOKEN":               {external(), natsToken},
		"BRIDGE_NATS_TOKEN_FILE":          {external(), file},
		"BRIDGE_NATS_USER":                {external("BRIDGE_NATS_PASSWORD=" + natsPassword), "bridge"},
		"BRIDGE_NATS_PASSWORD":            {external("BRIDGE_NATS_USER=bridge"), natsPassword},
		"BRIDGE_NATS_PASSWORD_FILE":       {external("BRIDGE_NATS_USER=bridge"), file},
		"BRIDGE_NATS_TLS_CA":              {external(), file},
		"BRIDGE_NATS_TLS_CERT":            {external("BRIDGE_NATS_TLS_KEY=" + file), file},
		"BRIDGE_NATS_TLS_KEY":             {external("BRIDGE_NATS_TLS_CERT=" + file), file},
		"BRIDGE_NATS_EMBEDDED_ADDR":       {working(), "localhost:4223"},
		"BRIDGE_NATS_EMBEDDED_TOKEN":      {working(), natsToken},
		"BRIDGE_NATS_EMBEDDED_TOKEN_FILE": {working(), file},
		"BRIDGE_NATS_STREAM":              {working(), "EVENTS"},
		"BRIDGE_NATS_SUBJECT_PREFIX":      {working(), "prod.gemini_1"},
		"BRIDGE_NATS_REPLICAS":            {external(), "3"},
		"BRIDGE_NATS_MAX_AGE":             {working(), "25h"},
		"BRIDGE_KAFKA_BROKERS":            {working("BRIDGE_SINK=kafka"), "a:9092,[::1]:9093"},
		"BRIDGE_KAFKA_TOPIC":              {toKafka(), "prod.gemini_1-x"},
		"BRIDGE_KAFKA_COMPRESSION":        {toKafka(), "gzip"},
		"BRIDGE_KAFKA_CREATE_TOPICS":      {toKafka(), "off"},
		"BRIDGE_KAFKA_PARTITIONS":         {toKafka(), "12"},
		"BRIDGE_KAFKA_REPLICATION":        {toKafka(), "3"},
		"BRIDGE_KAFKA_MAX_AGE":            {toKafka(), "25h"},
		"BRIDGE_KAFKA_TLS":                {toKafka(), "on"},
		"BRIDGE_KAFKA_TLS_CA":             {toKafka("BRIDGE_KAFKA_TLS=on"), file},
		"BRIDGE_KAFKA_TLS_CERT":           {toKafka("BRIDGE_KAFKA_TLS=on", "BRIDGE_KAFKA_TLS_KEY="+file), file},
		"BRIDGE_KAFKA_TLS_KEY":            {toKafka("BRIDGE_KAFKA_TLS=on", "BRIDGE_KAFKA_TLS_CERT="+file), file},
		"BRIDGE_KAFKA_SASL_MECHANISM":     {toKafka("BRIDGE_KAFKA_SASL_USER=bridge", "BRIDGE_KAFKA_SASL_PASSWORD="+natsPassword), "SCRAM-SHA-512"},
		"BRIDGE_KAFKA_SASL_USER":          {toKafka("BRIDGE_KAFKA_SASL_MECHANISM=PLAIN", "BRIDGE_KAFKA_SASL_PASSWORD="+natsPassword), "bridge"},
		"BRIDGE_KAFKA_SASL_PASSWORD":      {toKafka("BRIDGE_KAFKA_SASL_MECHANISM=PLAIN", "BRIDGE_KAFKA_SASL_USER=bridge"), natsPassword},
		"BRIDGE_KAFKA_SASL_PASSWORD_FILE": {toKafka("BRIDGE_KAFKA_SASL_MECHANISM=PLAIN", "BRIDGE_KAFKA_SASL_USER=bridge"), file},
		"BRIDGE_SINK":                     {working("BRIDGE_KAFKA_BROKERS=kafka:9092"), "nats,kafka"},
		"BRIDGE_LOG_LEVEL":                {working(), "debug"},
		"BRIDGE_LOG_FORMAT":               {working(), "json"},
	}
	for _, s := range settings() {
		sample, ok := samples[s.name]
		if !ok {
			t.Errorf("%s has no sample here", s.name)
			continue
		}
		before, _ := readConfig(sample.base)
		after, found := readConfig(append(slices.Clone(sample.base), s.name+"="+sample.value))
		if len(found) > 0 {
			t.Errorf("%s=%s: %v", s.name, sample.value, found)
		}
		if got, want := changed(reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem()), []string{s.field}; !slices.Equal(got, want) {
			t.Errorf("%s=%s changes %v, want %v", s.name, sample.value, got, want)
		}
	}
	if got, want := len(settings()), len(samples); got != want {
		t.Errorf("%d settings, want %d", got, want)
	}
}

// changed lists the fields that differ, those of groups included.
func changed(a, b reflect.Value) []string {
	var names []string
	for i := range a.NumField() {
		field := a.Type().Field(i)
		_, isSetting := field.Tag.Lookup("env")
		switch {
		case !isSetting:
			names = append(names, changed(a.Field(i), b.Field(i))...)
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			names = append(names, field.Name)
		}
	}
	return names
}

func TestConfigTags(t *testing.T) {
	names, fields := make(map[string]bool), make(map[string]bool)
	for _, s := range settings() {
		if names[s.name] || fields[s.field] {
			t.Errorf("%s or its field %s is there twice; the parser's errors name only the field", s.name, s.field)
		}
		names[s.name], fields[s.field] = true, true
		if !strings.HasPrefix(s.name, variablePrefix) {
			t.Errorf("%s does not begin with %s", s.name, variablePrefix)
		}
		if !strings.HasSuffix(s.doc, ".") || strings.ContainsAny(s.doc, "|\n") {
			t.Errorf("%s: doc %q is no sentence that fits a table", s.name, s.doc)
		}
		if s.words != nil && !slices.Contains(s.words, s.fallback) {
			t.Errorf("%s: default %q is not among %q", s.name, s.fallback, s.words)
		}
		if s.secret() && s.fallback != "" {
			t.Errorf("%s: a secret with a default", s.name)
		}
		if s.file != "" && !slices.Contains([]string{"plain", "secret", "dir"}, s.file) {
			t.Errorf("%s: unknown kind of file %q", s.name, s.file)
		}
	}
	for name := range names {
		if value, ok := strings.CutSuffix(name, "_FILE"); ok && !names[value] && value != "BRIDGE_JWKS" { // whose other form is a URL
			t.Errorf("%s has no %s", name, value)
		}
	}
	for _, s := range settings() {
		if s.secret() && !names[s.name+"_FILE"] {
			t.Errorf("%s has no form by file", s.name)
		}
	}
}

func TestValuesThatAreGood(t *testing.T) {
	for _, environ := range [][]string{
		working("BRIDGE_ADDR=", "BRIDGE_NATS_URL=", "BRIDGE_ACK_TIMEOUT="), // empty is not set
		working("BRIDGE_ADDR=0.0.0.0:8443", "BRIDGE_ADMIN_ADDR=:0", "BRIDGE_NATS_EMBEDDED_ADDR=127.0.0.1:0"),
		working("BRIDGE_ADDR=127.0.0.1:0", "BRIDGE_ADMIN_ADDR=127.0.0.1:0"),
		working("BRIDGE_ADDR=127.0.0.1:80", "BRIDGE_ADMIN_ADDR=127.0.0.2:80"),
		working("BRIDGE_ADDR=[fe80::1%eth0]:80", "BRIDGE_ADMIN_ADDR=my-host.example.com:80"),
		working("BRIDGE_MAX_BODY=1KiB"),
		working("BRIDGE_MAX_BODY=1024"),
		working("BRIDGE_MAX_BODY=32752KiB"),
		working("BRIDGE_ACK_TIMEOUT=1ms", "BRIDGE_SHUTDOWN_TIMEOUT=1ms"),
		working("BRIDGE_DEDUP_WINDOW=100ms", "BRIDGE_NATS_MAX_AGE=100ms", "BRIDGE_DEAD_MAX_AGE=100ms"),
		working("BRIDGE_NATS_EMBEDDED_ADDR=:4222", "BRIDGE_NATS_EMBEDDED_TOKEN="+natsToken),
		working("BRIDGE_NATS_EMBEDDED_ADDR=0.0.0.0:4222", "BRIDGE_NATS_EMBEDDED_TOKEN_FILE="+writeFile(t, natsToken)),
		working("BRIDGE_NATS_EMBEDDED_ADDR=[::1]:4222"),
		{"BRIDGE_DYNAMIC_TOKENS= " + dynamicToken + " ," + dynamicToken[1:] + "\n"},
		{"BRIDGE_DYNAMIC_TOKENS_FILE=" + writeFile(t, dynamicToken+"\r\n\n"), "BRIDGE_JWKS_FILE=" + writeFile(t, "{}")},
		external("BRIDGE_NATS_TLS_CA=" + writeFile(t, "pem")),
		external("BRIDGE_ADDR=127.0.0.1:4222"), // no embedded server, so its port is free
		working("OTHER=1", "bridge_addr=1", "BRIDGE=1", "no equals sign"),
	} {
		mustLoad(t, environ)
	}
}

func TestSigningSecretsAreAList(t *testing.T) {
	const otherSecret = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="
	c := mustLoad(t, []string{"BRIDGE_SIGNING_SECRETS= " + signingSecret + " ," + otherSecret + "\n"})
	var got []string
	for _, s := range c.SigningSecrets {
		got = append(got, s.Reveal())
	}
	if want := []string{signingSecret, otherSecret}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProcessEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("BRIDGE_ADDR", "127.0.0.1:1")
	t.Setenv("BRIDGE_SIGNING_SECRETS", signingSecret)
	t.Setenv("BRIDGE_NO_SUCH", "1")
	if got, want := mustLoad(t, working()).Addr, ":8080"; got != want {
		t.Errorf("Addr %q, want %q", got, want)
	}
	if _, err := loadConfig(nil); err == nil {
		t.Error("no environment: loaded, want a mistake about the signing secret")
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "1": 1, "1023": 1023, "1024": 1024, "384KiB": 393216, "1MiB": 1048576, "8796093022207MiB": 8796093022207 << 20, "1GiB": 1 << 30,
	} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
		var again size
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%s prints as %s, which is %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "KiB", "1KB", "1kib", "1 KiB", "1.5MiB", "-1", "-1KiB", "1e6", "0x10", "9223372036854775807KiB", "8796093022208MiB", "1KiBMiB"} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: taken as %d", text, got)
		}
	}
	if got, want := fmt.Sprint(size(393216), size(1<<20), size(1000), size(3<<30)), "384KiB 1MiB 1000 3GiB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    string
	}{
		{working("BRIDGE_DEDUP_WINDOW=23h59m"), "BRIDGE_DEDUP_WINDOW is below 24h"},
		{working("BRIDGE_SHUTDOWN_TIMEOUT=2s"), "BRIDGE_SHUTDOWN_TIMEOUT is below BRIDGE_ACK_TIMEOUT"},
		{working("BRIDGE_JWT_AUDIENCE=a"), "BRIDGE_JWT_AUDIENCE does nothing without BRIDGE_DYNAMIC_TOKENS"},
		{working("BRIDGE_JWKS_FILE=" + writeFile(t, "{}")), "BRIDGE_JWKS_FILE does nothing without BRIDGE_DYNAMIC_TOKENS"},
		{working("BRIDGE_DYNAMIC_TOKENS=" + dynamicToken), "BRIDGE_JWT_AUDIENCE is not set"},
	} {
		got := mustLoad(t, c.environ).warnings()
		if len(got) != 1 || !strings.HasPrefix(got[0], c.want+":") {
			t.Errorf("%q: %q, want one that begins with %q", c.environ, got, c.want)
		}
	}
	if got := mustLoad(t, working("BRIDGE_DEDUP_WINDOW=24h", "BRIDGE_SHUTDOWN_TIMEOUT=3s", "BRIDGE_DYNAMIC_TOKENS="+dynamicToken, "BRIDGE_JWT_AUDIENCE=a")).warnings(); len(got) > 0 {
		t.Errorf("at the limits: %q, want none", got)
	}
}
