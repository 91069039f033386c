package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/schemas"
)

const sendUsage = `Usage: bridge send [--url URL] [--type TYPE | --file FILE] [--id ID] [--secret-file FILE]
                   [--form FORM --keys FILE] [--ca FILE]

Signs a webhook as Gemini does and posts it to a bridge: to try an installation, or to see what becomes of a body.
Prints the reply. The same --id again is a duplicate; so is the same body as a JWT, which signs no id.

  --url URL            where to post (http://127.0.0.1:8080/webhooks/gemini)
  --type TYPE          which sample to send (batch.succeeded); one of
                       %s
  --file FILE          send this body instead; - reads standard input
  --id ID              the webhook-id (a new one)
  --secret-file FILE   file with the signing secret; else BRIDGE_SIGNING_SECRETS_FILE, else BRIDGE_SIGNING_SECRETS,
                       of which the first secret is used
  --form FORM          v1 (static, by the secret), or as dynamic webhooks are signed, by keys: v1a or jwt (v1)
  --keys FILE          for v1a and jwt, the keys in the place of Google's. When there is no such file it is made, and
                       FILE.jwks with the public ones beside it, and nothing is sent: start the bridge with
                       BRIDGE_JWKS_FILE=FILE.jwks. The first token of BRIDGE_DYNAMIC_TOKENS_FILE, else of
                       BRIDGE_DYNAMIC_TOKENS, becomes the end of URL; a JWT is for BRIDGE_JWT_AUDIENCE
  --ca FILE            for https: PEM file of the authorities that may have signed the bridge's certificate, or of the
                       certificate itself; else the system's

Exit code: 0 when the reply is 2xx, 1 when it is not or none came, 2 when the command line is wrong.
`

const (
	defaultURL  = "http://127.0.0.1:8080/webhooks/gemini"
	sendTimeout = 30 * time.Second
)

// signer sets the headers of a delivery.
type signer func(h http.Header, id string, t time.Time, body []byte) error

func sendCommand(args []string, sh shell) int {
	f := newFlags("send", fmt.Sprintf(sendUsage, strings.Join(schemas.Types(), " ")))
	target := f.String("url", defaultURL, "")
	typ := f.String("type", schemas.Types()[0], "")
	file := f.String("file", "", "")
	id := f.String("id", "", "")
	secretFile := f.String("secret-file", "", "")
	form := f.String("form", "v1", "")
	keys := f.String("keys", "", "")
	ca := f.String("ca", "", "")
	if code, done := f.parse(args, sh); done {
		return code
	}
	if u, err := url.Parse(*target); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		fmt.Fprintf(sh.err, "bridge send: --url %q is no URL like %s\n", *target, defaultURL)
		return exitUsage
	}
	body, err := sendBody(*typ, *file, sh.stdin)
	if err != nil {
		fmt.Fprintln(sh.err, "bridge send:", err)
		return exitUsage
	}
	address, sign, err := sendForm(*form, *target, *secretFile, *keys, sh.environ)
	if err != nil {
		fmt.Fprintln(sh.err, "bridge send:", err)
		return exitUsage
	}
	if sign == nil {
		fmt.Fprintf(sh.out, "Made %s, and %[1]s.jwks with its public keys.\nStart the bridge with BRIDGE_JWKS_FILE=%[1]s.jwks, then send again.\n", *keys)
		return exitOK
	}
	client, err := sendClient(*ca)
	if err != nil {
		fmt.Fprintln(sh.err, "bridge send:", err)
		return exitUsage
	}
	defer client.CloseIdleConnections()
	if *id == "" {
		*id = newID()
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	code, reply, err := post(ctx, client, address, sign, *id, body)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		failed.URL = *target // without the token
	}
	if err != nil {
		fmt.Fprintln(sh.err, "bridge send:", err)
		return exitFailure
	}
	fmt.Fprintln(sh.out, code, reply)
	if code < 200 || code > 299 {
		return exitFailure
	}
	return exitOK
}

// sendForm returns where a form of webhooks goes to, and who signs it: nobody when the keys have only now been made.
func sendForm(form, target, secretFile, keysFile string, environ []string) (address string, sign signer, err error) {
	switch form {
	case "v1":
		key, err := sendSecret(secretFile, environ)
		return target, static(key), err
	case "v1a", "jwt":
	default:
		return "", nil, fmt.Errorf("--form %q is none of v1, v1a and jwt", form)
	}
	keys, made, err := readKeys(keysFile)
	if err != nil || made {
		return "", nil, err
	}
	if sign = keys.signV1A; form == "jwt" {
		keys.audience, sign = lookup(environ, "BRIDGE_JWT_AUDIENCE"), keys.signJWT
	}
	address, err = withToken(target, environ)
	return address, sign, err
}

// static signs with a secret.
func static(key secret.Text) signer {
	return func(h http.Header, id string, t time.Time, body []byte) error {
		return verify.SetHeaders(h, key, id, t, body)
	}
}

func sendBody(typ, file string, stdin io.Reader) ([]byte, error) {
	switch {
	case file == "-":
		return io.ReadAll(stdin)
	case file != "":
		return os.ReadFile(file)
	case !slices.Contains(schemas.Types(), typ):
		return nil, fmt.Errorf("no sample of type %q; --file sends a body of your own", typ)
	}
	return schemas.Example(typ)
}

func sendSecret(file string, environ []string) (secret.Text, error) {
	if file == "" {
		file = lookup(environ, "BRIDGE_SIGNING_SECRETS_FILE")
	}
	secrets := verify.SplitSecrets(lookup(environ, "BRIDGE_SIGNING_SECRETS"))
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return secret.Text{}, err
		}
		secrets = verify.ParseSecrets(content)
	}
	if len(secrets) == 0 {
		return secret.Text{}, errors.New("no signing secret: set BRIDGE_SIGNING_SECRETS, or name a file with --secret-file")
	}
	_, err := verify.New(verify.Config{Secrets: secrets[:1]})
	return secrets[0], err
}

// sendClient trusts the system's authorities, or those of a file alone.
func sendClient(ca string) (*http.Client, error) {
	if ca == "" {
		return &http.Client{}, nil
	}
	content, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool, err := parseCA(content)
	if err != nil {
		return nil, fmt.Errorf("--ca %s: %w", ca, err)
	}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}, nil
}

func lookup(environ []string, name string) string {
	for _, line := range environ {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value
		}
	}
	return ""
}

// newID is a webhook-id in the form that Gemini's have been seen in.
func newID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails: crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("msg_%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// post signs body and posts it as Gemini does. reply is the body of the answer.
func post(ctx context.Context, client *http.Client, url string, sign signer, id string, body []byte) (code int, reply string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	if err := sign(request.Header, id, time.Now(), body); err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, strings.TrimSpace(string(answer)), err
}
