package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gembridge/bridge/schemas"
)

// invoke runs a command to its end.
func invoke(t *testing.T, environ []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	none := func() <-chan os.Signal { return nil }
	code = run(args, shell{environ: environ, stdin: strings.NewReader(stdin), out: &out, err: &err, signals: none})
	assertNoSecret(t, out.String()+err.String())
	return code, out.String(), err.String()
}

func TestHelp(t *testing.T) {
	usages := map[string]string{
		"serve": serveUsage, "demo": demoUsage, "tail": tailUsage, "config": configUsage, "version": versionUsage, "": usage, "help": usage,
		"dead": deadUsage, "dead list": deadListUsage, "dead show": deadShowUsage, "dead replay": deadReplayUsage,
		"journal": journalUsage, "journal list": journalListUsage, "journal drop": journalDropUsage,
	}
	for _, command := range []string{
		"", "serve", "demo", "send", "tail", "config", "version", "help", "dead", "dead list", "dead show", "dead replay",
		"journal", "journal list", "journal show", "journal export", "journal verify", "journal drop",
	} {
		for _, help := range []string{"--help", "-h", "-help"} {
			args := strings.Fields(command + " " + help)
			if command == "" && help == "-help" {
				continue
			}
			// Without any settings, or with wrong ones.
			code, stdout, stderr := invoke(t, []string{"BRIDGE_ADDR=nonsense"}, "", args...)
			if code != exitOK || stderr != "" {
				t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
			}
			if want, ok := usages[command]; ok && stdout != want {
				t.Errorf("%q: got\n%s\nwant\n%s", args, stdout, want)
			}
			if command != "" && command != "help" && !strings.HasPrefix(stdout, "Usage: bridge "+command) {
				t.Errorf("%q does not begin with how to use it:\n%s", args, stdout)
			}
			if command != "" && command != "help" && !strings.Contains(usage+deadUsage+journalUsage, "  bridge "+command) {
				t.Errorf("bridge --help does not know %s", command)
			}
		}
	}
	_, stdout, _ := invoke(t, nil, "", "send", "--help")
	for _, typ := range schemas.Types() {
		if !strings.Contains(stdout, typ) {
			t.Errorf("send --help does not know %s", typ)
		}
	}
}

func TestCommandLines(t *testing.T) {
	none := func(what string) string { return "bridge: unknown command \"" + what + "\"\n\n" + usage }
	secret := []string{"BRIDGE_SIGNING_SECRETS=" + signingSecret}
	for _, c := range []struct {
		environ []string
		args    []string
		code    int
		stdout  string
		stderr  string // begins so
	}{
		{nil, []string{"version"}, exitOK, "bridge dev\n", ""},
		{nil, []string{"--version"}, exitOK, "bridge dev\n", ""},
		{nil, []string{"help"}, exitOK, usage, ""},
		{nil, []string{"serv"}, exitUsage, "", none("serv")},
		{nil, []string{"--verbose"}, exitUsage, "", none("--verbose")},
		{nil, []string{""}, exitUsage, "", none("")},
		{nil, []string{"version", "2"}, exitUsage, "", `bridge version: unexpected argument "2"`},
		{nil, []string{"serve", "now"}, exitUsage, "", `bridge serve: unexpected argument "now"`},
		{nil, []string{"serve", "--port", "1"}, exitUsage, "", `bridge serve: flag provided but not defined: -port`},
		{nil, []string{"demo", "--stayy"}, exitUsage, "", `bridge demo: flag provided but not defined: -stayy`},

		{secret, []string{"send", "--type"}, exitUsage, "", `bridge send: flag needs an argument: -type`},
		{secret, []string{"send", "batch.failed"}, exitUsage, "", `bridge send: unexpected argument "batch.failed"`},
		{secret, []string{"send", "--type", "no.such"}, exitUsage, "", `bridge send: no sample of type "no.such"; --file sends a body of your own`},
		{secret, []string{"send", "--file", "/no/such/file"}, exitUsage, "", `bridge send: open /no/such/file`},
		{secret, []string{"send", "--secret-file", "/no/such/file"}, exitUsage, "", `bridge send: open /no/such/file`},
		{secret, []string{"send", "--url", "127.0.0.1:8080/webhooks/gemini"}, exitUsage, "", `bridge send: --url`},
		{secret, []string{"send", "--url", "ftp://127.0.0.1/"}, exitUsage, "", `bridge send: --url`},
		{secret, []string{"send", "--url", "http://"}, exitUsage, "", `bridge send: --url`},
		{nil, []string{"send"}, exitUsage, "", `bridge send: no signing secret: set BRIDGE_SIGNING_SECRETS, or name a file with --secret-file`},
		{nil, []string{"send", "--secret-file", writeFile(t, "\n\n")}, exitUsage, "", `bridge send: no signing secret`},
		{[]string{"BRIDGE_SIGNING_SECRETS=whsec_c2hvcnQ="}, []string{"send"}, exitUsage, "", `bridge send: signing secret 1 of 1: shorter than 24 bytes`},
		{secret, []string{"send", "--url", "http://" + freeAddr(t)}, exitFailure, "", `bridge send: Post`},

		{nil, []string{"tail", "--from", "yesterday"}, exitUsage, "", `bridge tail: --from "yesterday" is neither start, new nor a duration like 1h`},
		{nil, []string{"tail", "--from", "-1h"}, exitUsage, "", `bridge tail: --from "-1h"`},
		{nil, []string{"tail", "-n", "many"}, exitUsage, "", `bridge tail: invalid value "many" for flag -n`},
		{nil, []string{"tail", "-n", "-1"}, exitUsage, "", `bridge tail: -n`},
		{nil, []string{"tail", "gemini.>"}, exitUsage, "", `bridge tail: unexpected argument`},
		{[]string{"BRIDGE_NATS_URL=nats://a:b@c:1"}, []string{"tail"}, exitUsage, "", `BRIDGE_NATS_URL: credentials in the URL`},
		{[]string{"BRIDGE_NATS_URL=nats://" + freeAddr(t)}, []string{"tail"}, exitFailure, "", `bridge tail: NATS at 127.0.0.1:`},
		{[]string{"BRIDGE_NATS_EMBEDDED_ADDR=" + freeAddr(t)}, []string{"tail"}, exitFailure, "", `bridge tail: NATS at 127.0.0.1:`},
	} {
		code, stdout, stderr := invoke(t, c.environ, "", c.args...)
		if code != c.code || stdout != c.stdout || !strings.HasPrefix(stderr, c.stderr) || (c.stderr == "") != (stderr == "") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	b := launch(t, local(t, "BRIDGE_MAX_BODY=4KiB")).up(t)
	b.becomes(t, 200)
	secret := []string{"BRIDGE_SIGNING_SECRETS=" + signingSecret + "," + oldSecret}
	wrong := []string{"BRIDGE_SIGNING_SECRETS=" + oldSecret}
	file, body := writeFile(t, signingSecret+"\r\n"), writeFile(t, sample(t, "batch.failed"))
	for _, c := range []struct {
		environ []string
		stdin   string
		args    []string
		code    int
		stdout  []string
	}{
		{secret, "", nil, exitOK, []string{`202 {"status":"published","id":"msg_`}},
		{secret, "", []string{"--id", "msg_mine"}, exitOK, []string{`202 {"status":"published","id":"msg_mine"}`}},
		{secret, "", []string{"--id", "msg_mine"}, exitOK, []string{`202 {"status":"duplicate","id":"msg_mine"}`}},
		{secret, "", []string{"--file", body}, exitOK, []string{`202 {"status":"published"`}},
		{secret, "not JSON", []string{"--file", "-"}, exitOK, []string{`202 {"status":"dead-lettered"`}},
		{secret, strings.Repeat(" ", 5<<10), []string{"--file", "-"}, exitFailure, []string{`413 {"error":"too_large"`}},
		{wrong, "", nil, exitFailure, []string{`401 {"error":"unauthenticated"`}},
		{[]string{"BRIDGE_SIGNING_SECRETS_FILE=" + file}, "", nil, exitOK, []string{`202 `}},
		{wrong, "", []string{"--secret-file", file}, exitOK, []string{`202 `}},
		{secret, "", []string{"--url", strings.TrimSuffix(b.url, "gemini")}, exitFailure, []string{`404 {"error":"not_found"`}},
	} {
		code, stdout, stderr := invoke(t, c.environ, c.stdin, append([]string{"send", "--url", b.url}, c.args...)...)
		if code != c.code || stderr != "" || strings.Count(stdout, "\n") != 1 || !strings.HasPrefix(stdout, c.stdout[0]) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q", c.args, code, stdout, stderr, c.code, c.stdout)
		}
	}
	for _, typ := range schemas.Types() {
		if code, stdout, _ := invoke(t, secret, "", "send", "--url", b.url, "--type", typ, "--id", "msg_"+typ); code != exitOK {
			t.Errorf("%s: exit code %d, %s", typ, code, stdout)
		}
	}
	ids := stored(t, connect(t, b.nats), "GEMINI")
	for _, typ := range schemas.Types() {
		if ids["msg_"+typ] != 1 {
			t.Errorf("no event of %s: %v", typ, ids)
		}
	}
	if len(ids) != 5+len(schemas.Types()) {
		t.Errorf("%d events: ids are not unique", len(ids))
	}
}

// TestInterruptedSend: a command that waits for others is ended by Ctrl-C.
func TestInterruptedSend(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	b := spawn(t, []string{"BRIDGE_SIGNING_SECRETS=" + signingSecret}, "send", "--url", "http://"+silent.Addr().String())
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.signal(syscall.SIGINT)
	if _, err := io.Copy(io.Discard, conn); err != nil { // it hangs up
		t.Fatal(err)
	}
	if code := b.exit(t); code != -1 {
		t.Errorf("exit code %d, want that of a process ended by a signal", code)
	}
}
