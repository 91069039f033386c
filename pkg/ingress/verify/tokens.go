package verify

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/gembridge/bridge/pkg/secret"
)

const (
	minToken = 32
	maxToken = 256
)

var (
	// ErrNoToken: the list of tokens is empty, or one of them is.
	ErrNoToken = errors.New("no token")
	// ErrTokenTooShort: a token has fewer than 32 characters.
	ErrTokenTooShort = errors.New("shorter than 32 characters")
	// ErrTokenTooLong: a token has more than 256 characters.
	ErrTokenTooLong = errors.New("longer than 256 characters")
	// ErrTokenMalformed: a token has characters other than letters, digits, "-", "_", ".", "~". Only these stand in a path
	// as they are (RFC 3986, 2.3); all others could be sent in more than one way.
	ErrTokenMalformed = errors.New(`characters other than A-Z a-z 0-9 - _ . ~`)
)

// token is the digest of one: equal in length, and worth nothing to whoever finds it.
type token [sha256.Size]byte

// CheckTokens returns the error that SetTokens would return for the form of the tokens.
func CheckTokens(tokens []secret.Text) error {
	_, err := newTokens(tokens)
	return err
}

func newTokens(tokens []secret.Text) ([]token, error) {
	if len(tokens) == 0 {
		return nil, ErrNoToken
	}
	digests := make([]token, len(tokens))
	var errs []error
	for i, t := range tokens {
		if err := checkToken(t.Reveal()); err != nil {
			errs = append(errs, fmt.Errorf("token %d of %d: %w", i+1, len(tokens), err))
		}
		digests[i] = sha256.Sum256([]byte(t.Reveal()))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return digests, nil
}

func checkToken(value string) error {
	switch {
	case strings.TrimSpace(value) == "":
		return ErrNoToken
	case strings.ContainsFunc(value, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.~", r)
	}):
		return ErrTokenMalformed
	case len(value) < minToken:
		return ErrTokenTooShort
	case len(value) > maxToken:
		return ErrTokenTooLong
	}
	return nil
}

// Token returns a Path if the last part of a path, as it was sent, is one of the tokens. It takes the same time whether it
// is, nearly is, or is nothing like one. The error is a *Failure with TokenUnknown.
func (v *Verifier) Token(candidate string) (Path, error) {
	tokens := v.tokens.Load()
	if tokens == nil {
		return Path{}, fail(TokenUnknown, "no token for dynamic deliveries is configured")
	}
	found := 0
	if len(candidate) <= maxToken {
		digest := sha256.Sum256([]byte(candidate))
		for i := range *tokens {
			found |= subtle.ConstantTimeCompare(digest[:], (*tokens)[i][:])
		}
	}
	if found == 0 {
		return Path{}, fail(TokenUnknown, "the last part of the path is no token")
	}
	return Path{v}, nil
}
