package verify

import (
	"errors"

	"github.com/golang-jwt/jwt/v5"
)

// newParser takes RS256 only, decodes base64 strictly, and leaves the claims to claims.go.
func newParser() *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
}

// rawClaims is the payload of a JWT, for parseClaims to read once it is verified.
type rawClaims struct {
	jwt.RegisteredClaims // stays empty, makes it jwt.Claims
	payload              []byte
}

func (c *rawClaims) UnmarshalJSON(payload []byte) error {
	c.payload = append(c.payload[:0], payload...)
	return nil
}

// jwt checks a JWT: its header, its signature, its claims, and that the body does not disagree.
func (v *Verifier) jwt(a Attempt, body []byte) (Delivery, error) {
	set := v.jwks.current()
	payload, tail, err := v.parse(a.signature, set)
	if errors.Is(err, ErrNoKeys) {
		// What is wrong with the claims is wrong for certain, whoever signed them. To compare the body costs more.
		if _, wrong := v.claims(payload); wrong != nil {
			return Delivery{}, wrong
		}
	}
	if failure, ok := errors.AsType[*Failure](err); errors.Is(err, ErrNoKeys) || ok && failure.Reason == KeyUnknown {
		if newer := v.jwks.refreshed(set); newer != nil {
			payload, tail, err = v.parse(a.signature, newer)
		}
	}
	if err != nil {
		return Delivery{}, err
	}
	c, err := v.claims(payload)
	if err != nil {
		return Delivery{}, err
	}
	canonical := c.event.canonical()
	if err := canonical.agree(body); err != nil {
		return Delivery{}, err
	}
	return Delivery{ID: canonical.id(), Timestamp: a.timestamp, Scheme: SchemeJWT, Key: tail, claims: c.event.envelope()}, nil
}

// claims reads and judges a JWT's payload.
func (v *Verifier) claims(payload []byte) (*claims, error) {
	c, err := parseClaims(payload)
	if err == nil {
		err = v.judge(c)
	}
	return c, err
}

// parse returns the payload of a JWT that one of the keys has signed, and that key's tail. With ErrNoKeys, the payload
// is that of a JWT of which only the header has been found good. Any other error is a *Failure.
func (v *Verifier) parse(token string, set *keySet) (payload []byte, tail string, err error) {
	var claims rawClaims
	var keyed error
	asked := false
	_, err = v.parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		var keys jwt.VerificationKeySet
		asked = true
		keys, tail, keyed = keysFor(t.Header, set)
		return keys, keyed
	})
	switch {
	case err == nil:
		return claims.payload, tail, nil
	case keyed != nil:
		return claims.payload, "", keyed
	case asked:
		return nil, "", fail(SignatureMismatch, "the JWT's signature does not fit the key of its kid")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, "", fail(JWTMalformed, "a part of the JWT is not base64url, or not JSON")
	}
	return nil, "", fail(JWTAlgorithm, "the JWT's algorithm is not RS256")
}

// foreign are the header members by which a token brings or names its own key (RFC 7515, 4.1.2 to 4.1.6), and "crit",
// the extensions that must be understood. A verifier that follows them lets the sender choose the key.
var foreign = [...]string{"crit", "jku", "jwk", "x5u", "x5c"}

// keysFor returns the keys that a JWT's header names.
func keysFor(header map[string]any, set *keySet) (keys jwt.VerificationKeySet, tail string, err error) {
	for _, name := range foreign {
		if _, ok := header[name]; ok {
			return keys, "", fail(JWTHeader, "the JWT's header has "+name)
		}
	}
	kid, _ := header["kid"].(string)
	if kid == "" {
		return keys, "", fail(JWTHeader, "the JWT's header has no kid")
	}
	if set == nil {
		return keys, "", ErrNoKeys
	}
	for _, k := range set.withID(kid) {
		keys.Keys = append(keys.Keys, k.key)
		tail = k.tail
	}
	if len(keys.Keys) == 0 {
		return keys, "", fail(KeyUnknown, "the JWT's kid is none of the keys")
	}
	return keys, tail, nil
}
