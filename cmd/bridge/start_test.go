package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMistakesEndTheStart: exit code 2, and all that is wrong at once.
func TestMistakesEndTheStart(t *testing.T) {
	for _, c := range []struct {
		environ, want []string
	}{
		{nil, []string{"BRIDGE_SIGNING_SECRETS: there is no signing secret", "bridge demo"}},
		{local(t, "BRIDGE_ADRR=:1", "BRIDGE_MAX_BODY=1MB", "BRIDGE_NATS_REPLICAS=2", "BRIDGE_SCHEMA_DIR=/no/such/dir"), []string{
			"BRIDGE_ADRR: there is no such variable; did you mean BRIDGE_ADDR?", "BRIDGE_MAX_BODY: ", "BRIDGE_NATS_REPLICAS: ", "BRIDGE_SCHEMA_DIR: ",
		}},
		{byFile(writeFile(t, "whsec_c2hvcnQ=\n"), local(t)), []string{"BRIDGE_SIGNING_SECRETS_FILE: ", "shorter than 24 bytes"}},
	} {
		b := command(t, c.environ, "serve")
		if code := b.exit(t); code != exitUsage {
			t.Errorf("%q: exit code %d, want %d", c.environ, code, exitUsage)
		}
		for _, want := range c.want {
			if !strings.Contains(b.log.String(), want) {
				t.Errorf("no %q in:\n%s", want, b.log)
			}
		}
		if b.out.String() != "" {
			t.Errorf("standard output: %s", b.out)
		}
		assertNoSecret(t, b.log.String())
	}
}

// TestNotStarted: exit code 1, and the setting to change.
func TestNotStarted(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := writeFile(t, "no credentials\n")
	schemas := t.TempDir()
	if err := os.WriteFile(filepath.Join(schemas, "batch.failed.schema.json"), []byte(`{"type":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		environ, want []string
	}{
		{local(t, "BRIDGE_ADDR="+taken.Addr().String()), []string{"BRIDGE_ADDR: ", "address already in use"}},
		{local(t, "BRIDGE_ADMIN_ADDR="+taken.Addr().String()), []string{"BRIDGE_ADMIN_ADDR: ", "address already in use"}},
		{local(t, "BRIDGE_NATS_EMBEDDED_ADDR="+taken.Addr().String()), []string{"BRIDGE_NATS_EMBEDDED_ADDR: ", "address already in use"}},
		{local(t, "BRIDGE_DATA_DIR="+filepath.Join(file, "data")), []string{"BRIDGE_DATA_DIR: "}},
		{remote(t, "nats://127.0.0.1:1", "BRIDGE_DATA_DIR="+filepath.Join(file, "data")), []string{"BRIDGE_DATA_DIR: ", "BRIDGE_JOURNAL=off"}},
		{local(t, "BRIDGE_SCHEMA_DIR="+schemas), []string{"BRIDGE_SCHEMA_DIR: ", "batch.failed.schema.json"}},
		{remote(t, "nats://127.0.0.1:1", "BRIDGE_NATS_CREDS="+file), []string{"BRIDGE_NATS_CREDS: "}},
		{remote(t, "nats://127.0.0.1:1", "BRIDGE_NATS_NKEY="+file), []string{"BRIDGE_NATS_NKEY: "}},
		{remote(t, "nats://127.0.0.1:1", "BRIDGE_NATS_TLS_CA="+file), []string{"BRIDGE_NATS_TLS_CA"}},
		{remote(t, "nats://127.0.0.1:1", "BRIDGE_NATS_TOKEN_FILE="+writeFile(t, "a\nb\n")), []string{"BRIDGE_NATS_TOKEN_FILE: ", "one line"}},
		{remote(t, "nats://127.0.0.1:1", "BRIDGE_NATS_USER=u", "BRIDGE_NATS_PASSWORD_FILE="+writeFile(t, "\n")), []string{"BRIDGE_NATS_PASSWORD_FILE: ", "one line"}},
		{local(t, "BRIDGE_NATS_EMBEDDED_TOKEN_FILE="+writeFile(t, "")), []string{"BRIDGE_NATS_EMBEDDED_TOKEN_FILE: ", "one line"}},
	} {
		b := command(t, c.environ) // "bridge" alone is "bridge serve"
		if code := b.exit(t); code != exitFailure {
			t.Errorf("%q: exit code %d, want %d", c.want, code, exitFailure)
		}
		line := b.log.line(t, "not started")
		for _, want := range c.want {
			if !strings.Contains(line, want) {
				t.Errorf("no %q in %s", want, line)
			}
		}
		if n := strings.Count(line, c.want[0]); n > 1 {
			t.Errorf("%q %d times in %s", c.want[0], n, line)
		}
		if others := slices.DeleteFunc(b.log.lines(`"level":"error"`), func(other string) bool { return other == line }); len(others) > 0 {
			t.Errorf("it says more than once why: %q", others)
		}
	}
}
