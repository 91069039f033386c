package verify

import (
	"crypto/ed25519"
	"net/http"
	"strconv"
	"strings"
)

const sizeV1A = ed25519.SignatureSize

// The bounds of what one v1a delivery can cost: each entry of its list is verified with each key, some 40 µs and a hash
// of the body every time. Senders have one entry, or two while they replace a key.
const (
	minEntries       = 4           // are always tried
	maxVerifications = 2 * maxKeys // for more entries than that
	maxVerifiedOften = 16 << 10    // bytes; hashing a body of this size takes as long as the rest of a verification
)

// triable is how many v1a entries are tried.
func triable(keys, body int) int {
	if body > maxVerifiedOften {
		return minEntries
	}
	return max(minEntries, maxVerifications/max(keys, 1))
}

// Path is one that ends in a token. Verifier.Token makes it, so that without a token no dynamic delivery can be accepted.
type Path struct{ verifier *Verifier }

// Head is Verifier.Head for a delivery to the path: a v1a signature, the rules being those of v1, or a JWT, which may come
// without a timestamp and have 12 KiB in place of 8. The error is a *Failure; with the zero Path it has TokenUnknown.
func (p Path) Head(h http.Header) (Attempt, error) {
	v := p.verifier
	if v == nil {
		return Attempt{}, fail(TokenUnknown, "no token has been seen")
	}
	a, err := v.lines(h)
	if err != nil {
		return Attempt{}, err
	}
	if err := checkID(a.id); err != nil {
		return Attempt{}, err
	}
	if !isJWT(a.signature) {
		a.scheme = SchemeV1A
		return v.head(a, dynamicForm)
	}
	if a.timestamp != "" {
		if _, err := parseTimestamp(a.timestamp); err != nil {
			return Attempt{}, err
		}
	}
	if strings.Count(a.signature, ".") != 2 {
		return Attempt{}, fail(JWTMalformed, "webhook-signature is neither a list nor a JWT of three parts")
	}
	if v.audience == "" {
		return Attempt{}, fail(JWTAudience, "a JWT but no audience is configured")
	}
	a.scheme = SchemeJWT
	return a, nil
}

// dynamicForm checks that the list has a v1a entry that could fit.
func dynamicForm(list string) error {
	form, err := checkList(list)
	switch {
	case err != nil:
		return err
	case !form.v1a && form.v1:
		return fail(WrongPath, "v1 at a path with a token")
	case !form.v1a:
		return fail(NoV1Signature, "webhook-signature has neither a v1a nor a v1 entry")
	case !form.v1aSized:
		return fail(SignatureMalformed, "no v1a entry of webhook-signature is the base64 of 64 bytes")
	}
	return nil
}

// dynamic checks a v1a signature. It names no key, so all are tried.
func (v *Verifier) dynamic(a Attempt, body []byte) (Delivery, error) {
	set := v.jwks.current()
	matched, tried := matchDynamic(set, a, body)
	if matched == nil {
		if newer := v.jwks.refreshed(set); newer != nil {
			set = newer
			matched, tried = matchDynamic(set, a, body)
		}
	}
	if set == nil {
		return Delivery{}, ErrNoKeys
	}
	if matched == nil {
		return Delivery{}, fail(SignatureMismatch, "none of "+tried+" v1a signatures fits any of "+
			strconv.Itoa(len(set.ed25519))+" keys")
	}
	return Delivery{ID: a.id, Timestamp: a.timestamp, Scheme: SchemeV1A, Key: matched.tail}, nil
}

// matchDynamic stops at the first match: neither keys nor signatures are secret. It tells how many entries it tried. There
// may be no set.
func matchDynamic(set *keySet, a Attempt, body []byte) (matched *publicKey[ed25519.PublicKey], entriesTried string) {
	if set == nil {
		return nil, ""
	}
	message := appendHead(make([]byte, 0, len(a.id)+len(a.timestamp)+2+len(body)), a.id, a.timestamp)
	message = append(message, body...)
	tried, limit := 0, triable(len(set.ed25519), len(body))
	for entry := range entries(a.signature) {
		var signature [sizeV1A]byte
		encoded, ok := strings.CutPrefix(entry, v1aPrefix)
		if !ok || !decodeSignature(signature[:], encoded) {
			continue
		}
		if tried == limit {
			return nil, "the first " + strconv.Itoa(tried)
		}
		tried++
		for i := range set.ed25519 {
			if ed25519.Verify(set.ed25519[i].key, message, signature[:]) {
				return &set.ed25519[i], ""
			}
		}
	}
	return nil, strconv.Itoa(tried)
}
