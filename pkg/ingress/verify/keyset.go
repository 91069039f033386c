package verify

import (
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/MicahParks/jwkset"
)

const (
	maxKeys    = 32 // each is tried on a v1a signature
	minRSABits = 2048
	maxRSABits = 8192 // verifying costs the square of it
	maxKID     = 256
)

// The errors of a key set.
var (
	// ErrKeySetMalformed: it is no JSON object with a list of keys.
	ErrKeySetMalformed = errors.New("not a JSON Web Key Set")
	// ErrKeySetEmpty: it has no key that a delivery can be verified with.
	ErrKeySetEmpty = errors.New("the key set has no Ed25519 and no RSA key for signatures")
	// ErrKeySetTooLarge: it has more than 32 such keys, or more than 256 KiB.
	ErrKeySetTooLarge = errors.New("the key set has more than 32 keys or 256 KiB")
)

// keySet is what can be used of a JWKS. It does not change.
type keySet struct {
	ed25519 []publicKey[ed25519.PublicKey]
	rsa     []publicKey[*rsa.PublicKey]
}

type publicKey[K any] struct {
	id   string // kid
	tail string // for Delivery.Key
	key  K
}

// parseKeySet takes the keys that verify v1a and RS256. Others are passed over, as RFC 7517 (5) wants it: types, uses and
// algorithms that are not known, keys that are malformed or weak. Private keys lose their private part, and
// certificates are not looked at.
func parseKeySet(content []byte) (*keySet, error) {
	var file struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeySetMalformed, err)
	}
	set := &keySet{}
	for _, raw := range file.Keys {
		set.add(raw)
		if len(set.ed25519)+len(set.rsa) > maxKeys {
			return nil, ErrKeySetTooLarge
		}
	}
	if len(set.ed25519)+len(set.rsa) == 0 {
		return nil, ErrKeySetEmpty
	}
	return set, nil
}

func (s *keySet) add(raw json.RawMessage) {
	var all jwkset.JWKMarshal
	if json.Unmarshal(raw, &all) != nil || all.USE != "" && all.USE != jwkset.UseSig || !visible(all.KID) || len(all.KID) > maxKID {
		return
	}
	public := jwkset.JWKMarshal{KTY: all.KTY, CRV: all.CRV, X: all.X, N: all.N, E: all.E}
	jwk, err := jwkset.NewJWKFromMarshal(public, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return
	}
	switch key := jwk.Key().(type) {
	case ed25519.PublicKey:
		if all.ALG == "" || all.ALG == jwkset.AlgEdDSA || all.ALG == "Ed25519" {
			s.ed25519 = append(s.ed25519, publicKey[ed25519.PublicKey]{all.KID, fingerprint(all.KID, key), key})
		}
	case *rsa.PublicKey:
		if (all.ALG == "" || all.ALG == jwkset.AlgRS256) && all.KID != "" && strong(key) {
			s.rsa = append(s.rsa, publicKey[*rsa.PublicKey]{all.KID, fingerprint(all.KID, nil), key})
		}
	}
}

// strong tells whether a key is worth verifying with.
func strong(key *rsa.PublicKey) bool {
	bits := key.N.BitLen()
	return bits >= minRSABits && bits <= maxRSABits && key.N.Bit(0) == 1 && key.E >= 3 && key.E&1 == 1
}

// fingerprint is the last four characters of what names a key.
func fingerprint(kid string, key ed25519.PublicKey) string {
	name := kid
	if name == "" {
		name = base64.RawURLEncoding.EncodeToString(key)
	}
	return name[max(0, len(name)-4):]
}

// visible tells whether s is visible ASCII only, which can be a metric's label cut anywhere.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// withID returns the RSA keys of a kid, which should be one.
func (s *keySet) withID(kid string) (keys []publicKey[*rsa.PublicKey]) {
	for _, k := range s.rsa {
		if k.id == kid {
			keys = append(keys, k)
		}
	}
	return keys
}
