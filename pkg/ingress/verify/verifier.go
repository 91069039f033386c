// Package verify tells genuine Gemini webhook deliveries from others, in all three forms of signature. Two are by the
// rules of Standard Webhooks 1.0.0
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md), stricter where that is
// silent: a delivery carries three headers, webhook-id, webhook-timestamp (unix seconds of this attempt) and
// webhook-signature, a list of "version,base64" separated by spaces, of which one match is enough. What is signed is
// "id.timestamp.body", all three as they were received.
//
//   - v1, of the webhooks of a project, is HMAC-SHA256 with that project's secret.
//   - v1a, of the webhooks of a job ("dynamic"), is Ed25519 with any OKP key of Google's JWKS.
//   - A JWT in place of the list, of dynamic webhooks as well, is RS256 with the JWKS' key of its kid. It signs neither
//     body nor headers: the event is its claims.
//
// All customers' dynamic webhooks are signed with the same keys, so such a signature says "Google" and not "for us".
// Therefore a dynamic delivery counts only at a path that ends in a token, a secret of the receiver's that it gave to
// Gemini as a part of the URI; and v1 counts only at the path without.
//
// The package has one way to succeed: there is no verifier without a secret or a token, no empty secret, no option that
// switches a check off.
package verify

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/gembridge/bridge/pkg/secret"
)

// The headers of a delivery, in net/http's canonical form.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// The Schemes of deliveries.
const (
	SchemeV1  = "v1"  // HMAC-SHA256
	SchemeV1A = "v1a" // Ed25519
	SchemeJWT = "jwt" // RS256, the event is the claims
)

// Tolerance is how far webhook-timestamp may be from the clock, in both directions and inclusive; and how far a JWT's
// iat, or without one its timestamp, and nbf may be ahead, unless half of Config.MaxAge is less. It is what the reference
// libraries of Standard Webhooks use.
const Tolerance = 5 * time.Minute

// DefaultMaxAge is Config.MaxAge, if that does not say: Gemini repeats deliveries for 24 hours.
const DefaultMaxAge = 25 * time.Hour

const (
	maxID = 256
	// maxTimestamp is in digits. Twelve last until the year 33658, and cannot overflow.
	maxTimestamp  = 12
	maxList       = 8 << 10
	maxJWT        = 12 << 10
	maxSignatures = 32
)

// Config of a Verifier. It needs secrets, or tokens with a JWKS, or both.
type Config struct {
	// Secrets are tried on every static delivery: the current one, and those that it is about to replace. See
	// SetSecrets for what they must look like. None: static deliveries are refused.
	Secrets []secret.Text
	// Tokens are the last parts of the paths at which dynamic deliveries count. See SetTokens for what they must look
	// like. None: dynamic deliveries are refused.
	Tokens []secret.Text
	// JWKS has the keys of dynamic deliveries. It is required with Tokens.
	JWKS *JWKS
	// Audience is what a JWT must be for, "aud". Without it every JWT is refused.
	Audience string
	// MaxAge is how long a JWT may be accepted from the first time to the last: no longer than the receiver remembers ids,
	// since a JWT may carry any later exp. It may be ahead of the clock, so it is refused when it was issued longer ago
	// than MaxAge less Tolerance, or less half of MaxAge if that is less. DefaultMaxAge when zero.
	MaxAge time.Duration
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

// Verifier verifies deliveries. It is safe for concurrent use. Make one with New.
type Verifier struct {
	now      func() time.Time
	keys     atomic.Pointer[[]*key]
	tokens   atomic.Pointer[[]token]
	jwks     *JWKS
	audience string
	maxAge   time.Duration
	parser   *jwt.Parser
	explain  map[explanation]*rate.Limiter // all of them
}

// ErrNoJWKS: there are tokens, but no JWKS to verify dynamic deliveries with.
var ErrNoJWKS = errors.New("tokens without a JWKS")

// New returns a Verifier, or ErrNoSecret when there is neither a secret nor a token, ErrNoJWKS, or the errors of
// SetSecrets and SetTokens.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{
		now: cfg.Now, jwks: cfg.JWKS, audience: cfg.Audience, maxAge: cfg.MaxAge,
		parser: newParser(), explain: newExplanations(),
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.maxAge == 0 {
		v.maxAge = DefaultMaxAge
	}
	var errs []error
	if len(cfg.Secrets) > 0 || len(cfg.Tokens) == 0 {
		errs = append(errs, v.SetSecrets(cfg.Secrets))
	}
	if len(cfg.Tokens) > 0 {
		errs = append(errs, v.SetTokens(cfg.Tokens))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return v, nil
}

// SetSecrets replaces all secrets at once; deliveries that are being verified keep the old ones. A secret is
// "whsec_", which may be absent, and the standard base64, padded or not, of 24 to 1024 bytes. A secret given
// twice does no harm.
//
// On error the old secrets stay. It matches ErrNoSecret, ErrSecretMalformed, ErrSecretTooShort or
// ErrSecretTooLong, or several of them when several secrets are bad, and names each by its position.
func (v *Verifier) SetSecrets(secrets []secret.Text) error {
	keys, err := newKeys(secrets)
	if err != nil {
		return err
	}
	v.keys.Store(&keys)
	return nil
}

// SetTokens replaces all tokens at once. A token is 32 to 256 letters, digits and "-", "_", ".", "~".
//
// On error the old tokens stay. It is ErrNoJWKS, or matches ErrNoToken, ErrTokenMalformed, ErrTokenTooShort or
// ErrTokenTooLong, or several of them, and names each by its position.
func (v *Verifier) SetTokens(tokens []secret.Text) error {
	if v.jwks == nil {
		return ErrNoJWKS
	}
	digests, err := newTokens(tokens)
	if err != nil {
		return err
	}
	v.tokens.Store(&digests)
	return nil
}

// Attempt is a delivery whose headers are good, and whose body has not been seen. Only Verifier.Head and Path.Head make
// ones that Body of the same Verifier can accept. It shares its strings with the headers.
type Attempt struct {
	by                       *Verifier
	id, timestamp, signature string
	scheme                   string
}

// ID returns the webhook-id. It is the sender's claim until Body has accepted it, and nobody's when a JWT is.
func (a Attempt) ID() string { return a.id }

// Delivery is a genuine delivery.
type Delivery struct {
	// ID is the same on every attempt of one message: webhook-id, or, with a JWT, "jwt_" and a digest of the event, however
	// that is written: white space, the order of names, escapes and forms of fractions aside.
	ID        string
	Timestamp string // webhook-timestamp as received; not signed, and perhaps empty, with a JWT
	Scheme    string // SchemeV1, SchemeV1A or SchemeJWT
	// Key is the last four characters of what verified: of the secret, as Google's console shows it, or of the kid, or of
	// the public key when it has no kid.
	Key string

	claims string // the event of a JWT
}

// Event returns the event: the body, or, with a JWT, the claims that stand for it.
func (d Delivery) Event(body []byte) []byte {
	if d.Scheme == SchemeJWT {
		return []byte(d.claims)
	}
	return body
}

// Verify verifies a delivery to the path without a token: a v1 signature. It is Head and Body in one, and Explain.
func (v *Verifier) Verify(h http.Header, body []byte) (Delivery, error) {
	a, err := v.Head(h)
	if err != nil {
		return Delivery{}, v.explained(err, body)
	}
	return v.Body(a, body)
}

// VerifyDynamic verifies a delivery to a path that ends in token: a v1a signature or a JWT, the event of which is
// Delivery.Event. It is Token, Path.Head and Body in one, and Explain.
func (v *Verifier) VerifyDynamic(token string, h http.Header, body []byte) (Delivery, error) {
	path, err := v.Token(token)
	if err != nil {
		return Delivery{}, err
	}
	a, err := path.Head(h)
	if err != nil {
		return Delivery{}, v.explained(err, body)
	}
	return v.Body(a, body)
}

// Head checks all that can be known of a static delivery before the body is read: that the headers are there once,
// well-formed, with a v1 signature that could match, and that the timestamp is within Tolerance. Keys of h must be in
// canonical form, as net/http makes them. The error is a *Failure.
func (v *Verifier) Head(h http.Header) (Attempt, error) {
	a, err := v.lines(h)
	if err != nil {
		return Attempt{}, err
	}
	if err := checkID(a.id); err != nil {
		return Attempt{}, err
	}
	if isJWT(a.signature) {
		return Attempt{}, v.notStatic("a JWT")
	}
	a.scheme = SchemeV1
	return v.head(a, v.staticForm)
}

// head checks the timestamp and, with form, the list of signatures.
func (v *Verifier) head(a Attempt, form func(list string) error) (Attempt, error) {
	seconds, err := parseTimestamp(a.timestamp)
	if err != nil {
		return Attempt{}, err
	}
	if err := form(a.signature); err != nil {
		return Attempt{}, err
	}
	if failure := checkAge(v.now().Sub(time.Unix(seconds, 0))); failure != nil {
		failure.stale = a
		return Attempt{}, failure
	}
	return a, nil
}

// Body checks the signature of a delivery, body being the bytes as received. One entry of the list that fits one key
// is enough, whatever the other entries are. Of v1a entries with 64 bytes the first four are tried with every key, and
// further ones only in a body of at most 16 KiB and as far as that makes 64 verifications: all 32 if the JWKS has two
// Ed25519 keys, 21 if it has three.
//
// A signature that fits no key of the JWKS waits at most two seconds for the keys to be fetched anew, if that is due, and
// any while the first ones are being fetched; but not more than 16 at a time. The error is a *Failure or ErrNoKeys. An
// Attempt that is not of this Verifier is a SignatureMismatch.
func (v *Verifier) Body(a Attempt, body []byte) (Delivery, error) {
	if a.by != v {
		return Delivery{}, fail(SignatureMismatch, "another verifier has seen the headers, or none")
	}
	var d Delivery
	var err error
	switch a.scheme {
	case SchemeV1A:
		d, err = v.dynamic(a, body)
	case SchemeJWT:
		d, err = v.jwt(a, body)
	default:
		d, err = v.static(a, body)
	}
	if err != nil {
		return Delivery{}, v.explainMismatch(err, a, body)
	}
	return d, nil
}
