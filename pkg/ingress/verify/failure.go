package verify

import (
	"errors"
	"slices"
)

// ErrUnauthenticated is matched by every *Failure. The caller answers 401 with the same words whatever the
// reason, and keeps the *Failure for its log and metrics.
var ErrUnauthenticated = errors.New("unauthenticated")

// ErrNoKeys appears when a dynamic delivery has nothing wrong that can be told without Google's keys, and none have
// been fetched yet. The caller answers 503: a repetition can succeed.
var ErrNoKeys = errors.New("no verification keys have been fetched yet")

// Reason is why a delivery was refused: a stable token of a small closed set, fit for a metric's label.
type Reason string

// The reasons. TokenUnknown is Token's, those up to TimestampTooNew come from either Head, the others from Body.
const (
	// TokenUnknown: the delivery came to a path below the webhook path whose last part is no token.
	TokenUnknown Reason = "token_unknown"
	// HeaderMissing: webhook-id, webhook-timestamp (but for a JWT) or webhook-signature is absent.
	HeaderMissing Reason = "header_missing"
	// HeaderRepeated: one of the three has more than one line, so that two readers could see two deliveries.
	HeaderRepeated Reason = "header_repeated"
	// IDMalformed: webhook-id is not 1 to 256 visible ASCII bytes.
	IDMalformed Reason = "id_malformed"
	// TimestampMalformed: webhook-timestamp is not an integer in canonical decimal form.
	TimestampMalformed Reason = "timestamp_malformed"
	// SignatureTooLong: webhook-signature is longer than 8 KiB, or a JWT of more than 12 KiB.
	SignatureTooLong Reason = "signature_too_long"
	// TooManySignatures: webhook-signature has more than 32 entries.
	TooManySignatures Reason = "too_many_signatures"
	// SignatureMalformed: webhook-signature is not a list separated by single spaces, or none of its entries of the
	// version that counts is the strict base64 of a signature's bytes.
	SignatureMalformed Reason = "signature_malformed"
	// StaticOff: a v1 signature, but no secret is configured.
	StaticOff Reason = "static_off"
	// DynamicOff: a v1a signature or a JWT, but no token is configured.
	DynamicOff Reason = "dynamic_off"
	// WrongPath: a v1 signature at a path with a token, or a v1a signature or a JWT at the path without.
	WrongPath Reason = "wrong_path"
	// NoV1Signature: webhook-signature has only entries of versions that are not known.
	NoV1Signature Reason = "no_v1_signature"
	// JWTMalformed: webhook-signature is neither a list nor a JWT of three base64url parts with a header in JSON.
	JWTMalformed Reason = "jwt_malformed"
	// JWTAudience: no audience is configured, or the JWT is for another one.
	JWTAudience Reason = "jwt_audience"
	// TimestampTooOld: webhook-timestamp is more than Tolerance in the past.
	TimestampTooOld Reason = "timestamp_too_old"
	// TimestampTooNew: webhook-timestamp is more than Tolerance in the future.
	TimestampTooNew Reason = "timestamp_too_new"
	// SignatureMismatch: no signature fits any key.
	SignatureMismatch Reason = "signature_mismatch"
	// BodyAltered: the signature fits the body without the white space that somebody on the way has put into it.
	BodyAltered Reason = "body_altered"
	// JWTAlgorithm: the JWT is not signed by RS256.
	JWTAlgorithm Reason = "jwt_algorithm"
	// JWTHeader: the JWT's header has no kid, or brings a key, the address of one, or a critical extension.
	JWTHeader Reason = "jwt_header"
	// KeyUnknown: the JWT's kid is none of Google's keys.
	KeyUnknown Reason = "key_unknown"
	// JWTExpired: the JWT's exp has passed.
	JWTExpired Reason = "jwt_expired"
	// JWTTooNew: the JWT's iat, or without one its timestamp, or nbf is more than Tolerance in the future.
	JWTTooNew Reason = "jwt_too_new"
	// JWTTooOld: the JWT was issued longer ago than Config.MaxAge allows.
	JWTTooOld Reason = "jwt_too_old"
	// JWTClaims: the claims are no JSON object without duplicate names, or deeper than 128, one that is needed is missing, or a time or the
	// audience has another type.
	JWTClaims Reason = "jwt_claims"
	// BodyDisagrees: the body beside a JWT is neither empty nor a JSON object, at most 128 deep, that agrees with
	// the claims.
	BodyDisagrees Reason = "body_disagrees"
)

var reasons = [...]Reason{
	TokenUnknown, HeaderMissing, HeaderRepeated, IDMalformed, TimestampMalformed, SignatureTooLong, TooManySignatures,
	SignatureMalformed, StaticOff, DynamicOff, WrongPath, NoV1Signature, JWTMalformed, JWTAudience, TimestampTooOld,
	TimestampTooNew, SignatureMismatch, BodyAltered, JWTAlgorithm, JWTHeader, KeyUnknown, JWTExpired, JWTTooNew, JWTTooOld,
	JWTClaims, BodyDisagrees,
}

// Reasons returns every Reason there is, roughly in the order of the checks.
func Reasons() []Reason { return slices.Clone(reasons[:]) }

// Failure says why a delivery was refused. It matches ErrUnauthenticated.
type Failure struct {
	Reason Reason
	detail string
	stale  Attempt // with TimestampTooOld and TimestampTooNew, for Explain
}

// Detail tells the operator more, "timestamp is 312 s old". It holds nothing secret and nothing that the
// sender wrote, but is not for the sender to read.
func (f *Failure) Detail() string { return f.detail }

func (f *Failure) Error() string { return "unauthenticated: " + f.detail }

func (f *Failure) Unwrap() error { return ErrUnauthenticated }

func fail(reason Reason, detail string) *Failure { return &Failure{Reason: reason, detail: detail} }
