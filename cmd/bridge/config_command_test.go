package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// config runs "bridge config". Whatever it prints shows no secret.
func config(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = configCommand(args, environ, &out, &err)
	assertNoSecret(t, out.String()+err.String())
	return code, out.String(), err.String()
}

// row is the table's line for a variable, its blanks made one.
func row(t *testing.T, table, variable string) string {
	t.Helper()
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == variable {
			return strings.Join(fields, " ")
		}
	}
	t.Errorf("no row for %s in:\n%s", variable, table)
	return ""
}

func TestConfigTable(t *testing.T) {
	file := writeFile(t, natsToken)
	code, table, stderr := config(t, working(
		"BRIDGE_ACK_TIMEOUT=1500ms", "BRIDGE_NATS_EMBEDDED_TOKEN_FILE="+file, "BRIDGE_LOG_LEVEL=", "BRIDGE_SOURCE=urn:ex:%C3%A9",
		"BRIDGE_DEDUP_WINDOW=1h", "BRIDGE_PORT=tcp://10.0.0.1:80",
	))
	if code != exitOK || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{
		"VARIABLE VALUE SOURCE",
		"BRIDGE_ADDR :8080 default",
		"BRIDGE_SIGNING_SECRETS [redacted] environment",
		"BRIDGE_SIGNING_SECRETS_FILE - default",
		"BRIDGE_ACK_TIMEOUT 1500ms environment",
		"BRIDGE_SOURCE urn:ex:%C3%A9 environment",
		"BRIDGE_NATS_URL - default",
		"BRIDGE_NATS_EMBEDDED_TOKEN [redacted] file " + file,
		"BRIDGE_NATS_EMBEDDED_TOKEN_FILE " + file + " environment",
		"BRIDGE_LOG_LEVEL info default",
	} {
		if got := row(t, table, strings.Fields(want)[0]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, s := range settings() {
		row(t, table, s.name)
	}
	for _, want := range []string{
		"\nIgnored, because Kubernetes sets them for a Service of this name: BRIDGE_PORT\n",
		"\nWarning: BRIDGE_DEDUP_WINDOW is below 24h:",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in:\n%s", want, table)
		}
	}
	if strings.Contains(table, "Mistakes") {
		t.Errorf("mistakes in:\n%s", table)
	}
}

func TestConfigMistakes(t *testing.T) {
	environ := []string{
		"BRIDGE_ADDR=a\tb\n", "BRIDGE_ADRR=1", "BRIDGE_ACK_TIMEOUT=3", "BRIDGE_NATS_TOKEN_FILE=" + natsToken,
		"BRIDGE_NATS_NKEY=" + natsToken, "BRIDGE_NATS_PASSWORD=" + natsPassword, "BRIDGE_NATS_URL=nats://u:" + natsPassword + "@a:1,nats://" + natsToken + "@b:2",
		"BRIDGE_DEDUP_WINDOW=1h", "BRIDGE_PATH_FILE=" + writeFile(t, "/hook"),
	}
	code, table, stderr := config(t, environ)
	if code != exitUsage || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{
		`BRIDGE_ADDR "a\tb\n" environment`,
		"BRIDGE_PATH /webhooks/gemini default",
		"BRIDGE_ACK_TIMEOUT 3 environment",
		"BRIDGE_NATS_TOKEN [redacted] file [redacted]",
		"BRIDGE_NATS_TOKEN_FILE [redacted] environment",
		"BRIDGE_NATS_NKEY [redacted] environment",
		"BRIDGE_NATS_PASSWORD [redacted] environment",
		"BRIDGE_NATS_URL [redacted]@b:2 environment",
	} {
		if got := row(t, table, strings.Fields(want)[0]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	_, err := loadConfig(environ)
	if err == nil || !strings.HasSuffix(table, "\nMistakes:\n"+err.Error()+"\n") {
		t.Errorf("the table does not end with all mistakes:\n%s\nwant %v", table, err)
	}
	if strings.Contains(table, "Warning") { // of values that may not have been read
		t.Errorf("warnings beside mistakes:\n%s", table)
	}
}

func TestConfigJSON(t *testing.T) {
	type report struct {
		Settings []struct{ Variable, Value, Source string }
		Ignored  []string
		Warnings []string
		Mistakes []struct{ Variable, Message string }
	}
	read := func(text string) (r report) {
		t.Helper()
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&r); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		return r
	}

	code, out, stderr := config(t, working("BRIDGE_SHUTDOWN_TIMEOUT=1s", "BRIDGE_SERVICE_HOST=10.0.0.1"), "--json")
	got := read(out)
	if code != exitOK || stderr != "" || len(got.Settings) != len(settings()) || len(got.Warnings) != 1 || len(got.Mistakes) != 0 ||
		!slices.Equal(got.Ignored, []string{"BRIDGE_SERVICE_HOST"}) {
		t.Errorf("exit code %d, stderr %q, %+v", code, stderr, got)
	}
	if got, want := got.Settings[0], (struct{ Variable, Value, Source string }{"BRIDGE_ADDR", ":8080", "default"}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, member := range []string{`"settings": [`, `"ignored": [`, `"warnings": [`, `"mistakes": []`} {
		if !strings.Contains(out, member) {
			t.Errorf("no %s in:\n%s", member, out)
		}
	}

	code, out, stderr = config(t, []string{"BRIDGE_PATH=x", "BRIDGE_X=1"}, "--json")
	got = read(out)
	var variables []string
	for _, m := range got.Mistakes {
		variables = append(variables, m.Variable)
	}
	if want := []string{"BRIDGE_PATH", "BRIDGE_SIGNING_SECRETS", "BRIDGE_X"}; code != exitUsage || stderr != "" || !slices.Equal(variables, want) {
		t.Errorf("exit code %d, stderr %q, mistakes in %v, want %v", code, stderr, variables, want)
	}
}

func TestConfigArguments(t *testing.T) {
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"--help"}, exitOK, configUsage, ""},
		{[]string{"-h"}, exitOK, configUsage, ""},
		{[]string{"--jsn"}, exitUsage, "", "bridge config: flag provided but not defined: -jsn\nbridge config --help tells more\n"},
		{[]string{"show"}, exitUsage, "", "bridge config: unexpected argument \"show\"\nbridge config --help tells more\n"},
	} {
		code, stdout, stderr := config(t, working(), c.args...)
		if code != c.code || stdout != c.stdout || stderr != c.stderr {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}
