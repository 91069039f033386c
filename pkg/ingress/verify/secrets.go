package verify

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/secret"
)

const (
	secretPrefix = "whsec_"
	// Standard Webhooks asks for 24 to 64 bytes. Longer keys are no weaker, so only absurd ones are refused.
	minKey = 24
	maxKey = 1024
)

var (
	// ErrNoSecret: the list of secrets is empty, or one of them is, or is blank or only "whsec_". An empty
	// HMAC key can be computed with by anybody.
	ErrNoSecret = errors.New("no signing secret")
	// ErrSecretMalformed: a secret is not standard base64, or its padding or unused bits are wrong.
	ErrSecretMalformed = errors.New("not standard base64")
	// ErrSecretTooShort: a secret decodes to fewer than 24 bytes.
	ErrSecretTooShort = errors.New("shorter than 24 bytes")
	// ErrSecretTooLong: a secret decodes to more than 1024 bytes.
	ErrSecretTooLong = errors.New("longer than 1024 bytes")
)

// ParseSecrets reads the file form: one secret a line, lines as in files.Lines. It checks none of them; an
// empty file makes an empty list, which New and SetSecrets refuse.
func ParseSecrets(content []byte) []secret.Text {
	return texts(files.Lines(content))
}

// SplitSecrets reads the form of an environment variable: secrets separated by commas, blanks around them
// ignored. It checks none of them. A blank list has no secrets; otherwise an item between commas that is
// empty stays in the list, for New to refuse: "$OLD,$NEW" with one of them unset is a mistake to be told.
func SplitSecrets(list string) []secret.Text {
	if strings.TrimSpace(list) == "" {
		return nil
	}
	return texts(strings.Split(list, ","))
}

func texts(values []string) []secret.Text {
	secrets := make([]secret.Text, len(values))
	for i, value := range values {
		secrets[i] = secret.New(strings.TrimSpace(value))
	}
	return secrets
}

// GenerateSecret returns a new secret of 32 random bytes.
func GenerateSecret() secret.Text {
	var raw [32]byte
	rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
	return secret.New(secretPrefix + base64.StdEncoding.EncodeToString(raw[:]))
}

func newKeys(secrets []secret.Text) ([]*key, error) {
	if len(secrets) == 0 {
		return nil, ErrNoSecret
	}
	keys := make([]*key, len(secrets))
	var errs []error
	for i, s := range secrets {
		raw, err := decodeSecret(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("signing secret %d of %d%s: %w", i+1, len(secrets), hint(s), err))
			continue
		}
		keys[i] = newKey(raw, tail(s))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return keys, nil
}

func decodeSecret(s secret.Text) ([]byte, error) {
	encoded := strings.TrimPrefix(s.Reveal(), secretPrefix)
	if strings.TrimSpace(encoded) == "" {
		return nil, ErrNoSecret
	}
	if strings.ContainsAny(encoded, "\r\n") { // Go's decoder skips them
		return nil, ErrSecretMalformed
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(encoded, "=") {
		encoding = base64.StdEncoding
	}
	raw, err := encoding.Strict().DecodeString(encoded)
	switch {
	case err != nil:
		return nil, ErrSecretMalformed // err quotes nothing, but says where it stopped
	case len(raw) < minKey:
		return nil, ErrSecretTooShort
	case len(raw) > maxKey:
		return nil, ErrSecretTooLong
	}
	return raw, nil
}

// tail returns the last four characters, the way Google's console shows a secret: "whsec_...3frh".
func tail(s secret.Text) string {
	value := s.Reveal()
	return value[max(0, len(value)-4):]
}

// hint names a secret that is refused. What is too short to hide the rest of itself is not shown at all, and
// what is not base64 may be anything.
func hint(s secret.Text) string {
	end := tail(s)
	if len(s.Reveal()) < 16 || strings.ContainsFunc(end, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return ""
	}
	return " (..." + end + ")"
}
