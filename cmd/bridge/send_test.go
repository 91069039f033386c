package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSendDynamic: with keys of one's own, and a bridge that takes them.
func TestSendDynamic(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys.pem")
	token := []string{"BRIDGE_DYNAMIC_TOKENS= " + dynamicToken + ",another-token-of-the-operator-0123456789", "BRIDGE_JWT_AUDIENCE=us"}
	code, stdout, stderr := invoke(t, token, "", "send", "--form", "v1a", "--keys", keys)
	if code != exitOK || stderr != "" || !strings.Contains(stdout, "BRIDGE_JWKS_FILE="+keys+".jwks") {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	info, err := os.Stat(keys)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v, want mode 0600", info, err)
	}
	if public := readFile(t, keys+".jwks"); strings.Contains(public, `"d":`) {
		t.Errorf("private keys in the file of the public ones: %s", public)
	}

	b := launch(t, local(t, append(token, jwksFile+"="+keys+".jwks")...)).up(t)
	b.becomes(t, http.StatusOK, "verification keys State:ok")
	tokens := writeFile(t, dynamicToken+"\n")
	for _, c := range []struct {
		environ []string
		form    string
		more    []string
		code    int
		stdout  string
	}{
		{token, "v1a", []string{"--id", "msg_mine"}, exitOK, `202 {"status":"published","id":"msg_mine"}`},
		{token, "v1a", []string{"--id", "msg_mine"}, exitOK, `202 {"status":"duplicate","id":"msg_mine"}`},
		{[]string{tokensFile + "=" + tokens}, "v1a", nil, exitOK, `202 {"status":"published"`},
		{nil, "v1a", []string{"--url", b.url + "/" + dynamicToken}, exitOK, `202 {"status":"published"`},
		{token, "v1a", []string{"--url", b.url + "/" + dynamicToken}, exitOK, `202 {"status":"published"`},
		{token, "jwt", nil, exitOK, `202 {"status":"published","id":"jwt_`},
		{token, "jwt", []string{"--id", "msg_other"}, exitOK, `202 {"status":"duplicate","id":"jwt_`},
		{token, "jwt", []string{"--type", "video.generated"}, exitOK, `202 {"status":"published","id":"jwt_`},
		{token[:1], "jwt", nil, exitFailure, `401 `}, // without an audience
		{nil, "v1a", nil, exitFailure, `401 `},       // without a token
		{[]string{"BRIDGE_DYNAMIC_TOKENS=" + dynamicToken[1:]}, "v1a", nil, exitFailure, `401 `},
	} {
		args := append([]string{"send", "--url", b.url, "--form", c.form, "--keys", keys}, c.more...)
		code, stdout, stderr := invoke(t, c.environ, "", args...)
		if code != c.code || stderr != "" || !strings.HasPrefix(stdout, c.stdout) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q", args, code, stdout, stderr, c.code, c.stdout)
		}
	}

	nobody := "http://" + freeAddr(t)
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"--form", "v2"}, exitUsage, `--form "v2" is none of v1, v1a and jwt`},
		{[]string{"--form", "v1a"}, exitUsage, `v1a and jwt need --keys`},
		{[]string{"--form", "v1a", "--keys", tokens}, exitUsage, tokens + " does not hold an Ed25519 and an RSA key"},
		{[]string{"--form", "v1a", "--keys", filepath.Dir(tokens)}, exitUsage, `read `},
		{[]string{"--form", "v1a", "--keys", "/no/such/keys"}, exitUsage, `open /no/such/keys`},
		{[]string{"--form", "jwt", "--keys", keys, "--file", "-"}, exitFailure, `a JWT is made of a JSON object`},
		{[]string{"--form", "v1a", "--keys", keys, "--url", nobody}, exitFailure, `Post "` + nobody + `": `},
	} {
		code, stdout, stderr := invoke(t, token, "no object", append([]string{"send"}, c.args...)...)
		if code != c.code || stdout != "" || !strings.HasPrefix(stderr, "bridge send: "+c.stderr) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q", c.args, code, stdout, stderr, c.code, c.stderr)
		}
	}
	code, _, stderr = invoke(t, []string{tokensFile + "=/no/such/file"}, "", "send", "--form", "v1a", "--keys", keys)
	if code != exitUsage || !strings.HasPrefix(stderr, "bridge send: open /no/such/file") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
