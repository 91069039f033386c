package verify

import (
	"errors"
	"slices"
)

// ErrUnauthenticated is matched by every error of Head, Body and Verify. The caller answers 401 with the same
// words whatever the reason, and keeps the *Failure for its log and metrics.
var ErrUnauthenticated = errors.New("unauthenticated")

// Reason is why a delivery was refused: a stable token of a small closed set, fit for a metric's label.
type Reason string

// The reasons. TokenUnknown is ErrToken's, those up to TimestampTooNew come from Head, SignatureMismatch from Body.
const (
	// TokenUnknown: the delivery came to a path below the webhook path whose last part is no token.
	TokenUnknown Reason = "token_unknown"
	// HeaderMissing: webhook-id, webhook-timestamp or webhook-signature is absent.
	HeaderMissing Reason = "header_missing"
	// HeaderRepeated: one of the three has more than one line, so that two readers could see two deliveries.
	HeaderRepeated Reason = "header_repeated"
	// IDMalformed: webhook-id is not 1 to 256 visible ASCII bytes.
	IDMalformed Reason = "id_malformed"
	// TimestampMalformed: webhook-timestamp is not an integer in canonical decimal form.
	TimestampMalformed Reason = "timestamp_malformed"
	// SignatureTooLong: webhook-signature is longer than 8 KiB.
	SignatureTooLong Reason = "signature_too_long"
	// TooManySignatures: webhook-signature has more than 32 entries.
	TooManySignatures Reason = "too_many_signatures"
	// SignatureMalformed: webhook-signature is not a list separated by single spaces, or none of its v1 entries
	// is the strict base64 of 32 bytes.
	SignatureMalformed Reason = "signature_malformed"
	// NoV1Signature: webhook-signature has only entries of other versions.
	NoV1Signature Reason = "no_v1_signature"
	// TimestampTooOld: webhook-timestamp is more than Tolerance in the past.
	TimestampTooOld Reason = "timestamp_too_old"
	// TimestampTooNew: webhook-timestamp is more than Tolerance in the future.
	TimestampTooNew Reason = "timestamp_too_new"
	// SignatureMismatch: no v1 entry fits any secret.
	SignatureMismatch Reason = "signature_mismatch"
)

var reasons = [...]Reason{
	TokenUnknown, HeaderMissing, HeaderRepeated, IDMalformed, TimestampMalformed, SignatureTooLong, TooManySignatures,
	SignatureMalformed, NoV1Signature, TimestampTooOld, TimestampTooNew, SignatureMismatch,
}

// Reasons returns every Reason there is, in the order of the checks.
func Reasons() []Reason { return slices.Clone(reasons[:]) }

// Failure says why a delivery was refused. It matches ErrUnauthenticated.
type Failure struct {
	Reason Reason
	detail string
}

// Detail tells the operator more, "timestamp is 312 s old". It holds nothing secret and nothing that the
// sender wrote, but is not for the sender to read.
func (f *Failure) Detail() string { return f.detail }

func (f *Failure) Error() string { return "unauthenticated: " + f.detail }

func (f *Failure) Unwrap() error { return ErrUnauthenticated }

// ErrToken refuses deliveries to BRIDGE_PATH/<token>, where dynamic webhooks will arrive: no token is valid.
var ErrToken error = &Failure{Reason: TokenUnknown, detail: "no token for dynamic deliveries is configured"}
