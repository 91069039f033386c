// Package verify tells genuine webhook deliveries from others, by the rules of Standard Webhooks 1.0.0
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md), stricter
// where that is silent.
//
// A delivery carries three headers: webhook-id, webhook-timestamp (unix seconds of this attempt) and
// webhook-signature (a list of "version,base64" separated by spaces, of which one match is enough). Scheme v1,
// which Gemini uses for the webhooks of a project, is HMAC-SHA256 over "id.timestamp.body", all three as they
// were received.
//
// The package has one way to succeed: there is no verifier without a secret, no empty secret, no option that
// switches a check off.
package verify

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gembridge/bridge/pkg/secret"
)

// The headers of a delivery, in net/http's canonical form.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// SchemeV1 is the Scheme of deliveries signed by HMAC-SHA256.
const SchemeV1 = "v1"

// Tolerance is how far webhook-timestamp may be from the clock, in both directions and inclusive. It is what
// the reference libraries of Standard Webhooks use.
const Tolerance = 5 * time.Minute

const (
	maxID = 256
	// maxTimestamp is in digits. Twelve last until the year 33658, and cannot overflow.
	maxTimestamp  = 12
	maxSignature  = 8 << 10
	maxSignatures = 32
)

// Config of a Verifier.
type Config struct {
	// Secrets are tried on every delivery: the current one, and those that it is about to replace. See
	// SetSecrets for what they must look like.
	Secrets []secret.Text
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

// Verifier verifies deliveries. It is safe for concurrent use. Make one with New.
type Verifier struct {
	now  func() time.Time
	keys atomic.Pointer[[]*key]
}

// New returns a Verifier, or the error of SetSecrets.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{now: cfg.Now}
	if v.now == nil {
		v.now = time.Now
	}
	if err := v.SetSecrets(cfg.Secrets); err != nil {
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

// Attempt is a delivery whose headers are good, and whose body has not been seen. Only Head makes one that
// Body can accept. It shares its strings with the headers.
type Attempt struct {
	id, timestamp, signature string
}

// ID returns the webhook-id. It is the sender's claim until Body has accepted it.
func (a Attempt) ID() string { return a.id }

// Delivery is a genuine delivery.
type Delivery struct {
	ID        string // webhook-id, the same on every attempt of one message
	Timestamp string // webhook-timestamp as received
	Scheme    string // SchemeV1
	Key       string // last four characters of the secret that matched, as Google's console shows them
}

// Verify is Head and Body in one.
func (v *Verifier) Verify(h http.Header, body []byte) (Delivery, error) {
	a, err := v.Head(h)
	if err != nil {
		return Delivery{}, err
	}
	return v.Body(a, body)
}

// Head checks all that can be known before the body is read: that the headers are there once, well-formed,
// with a v1 signature that could match, and that the timestamp is within Tolerance. Keys of h must be in
// canonical form, as net/http makes them. The error is a *Failure.
func (v *Verifier) Head(h http.Header) (Attempt, error) {
	var a Attempt
	var err error
	if a.id, err = single(h, HeaderID); err != nil {
		return Attempt{}, err
	}
	if a.timestamp, err = single(h, HeaderTimestamp); err != nil {
		return Attempt{}, err
	}
	if a.signature, err = single(h, HeaderSignature); err != nil {
		return Attempt{}, err
	}
	if err := checkID(a.id); err != nil {
		return Attempt{}, err
	}
	seconds, err := parseTimestamp(a.timestamp)
	if err != nil {
		return Attempt{}, err
	}
	if err := checkSignatures(a.signature); err != nil {
		return Attempt{}, err
	}
	if err := checkAge(v.now().Sub(time.Unix(seconds, 0))); err != nil {
		return Attempt{}, err
	}
	return a, nil
}

// single returns the value of the header's only line. Header.Get would return the first of several.
func single(h http.Header, name string) (string, error) {
	switch lines := h[name]; len(lines) {
	case 0:
		return "", &Failure{HeaderMissing, "no " + strings.ToLower(name) + " header"}
	case 1:
		return lines[0], nil
	default:
		return "", &Failure{HeaderRepeated, strconv.Itoa(len(lines)) + " " + strings.ToLower(name) + " headers"}
	}
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return &Failure{IDMalformed, "webhook-id has " + strconv.Itoa(len(id)) + " bytes, not 1 to 256"}
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return &Failure{IDMalformed, "webhook-id has bytes other than visible ASCII"}
		}
	}
	return nil
}

// parseTimestamp is stricter than strconv.ParseInt, which takes "+1" and "01" as well. What is signed are the
// header's bytes, so a value must have one form only.
func parseTimestamp(s string) (seconds int64, err error) {
	if s == "" || len(s) > maxTimestamp {
		return 0, &Failure{TimestampMalformed, "webhook-timestamp has " + strconv.Itoa(len(s)) + " bytes, not 1 to 12"}
	}
	if s[0] == '0' && s != "0" {
		return 0, &Failure{TimestampMalformed, "webhook-timestamp has a leading zero"}
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, &Failure{TimestampMalformed, "webhook-timestamp has bytes other than digits"}
		}
		seconds = 10*seconds + int64(s[i]-'0')
	}
	return seconds, nil
}

func checkAge(age time.Duration) error {
	if age > Tolerance {
		return &Failure{TimestampTooOld, "timestamp is " + inSeconds(age) + " old"}
	}
	if age < -Tolerance {
		return &Failure{TimestampTooNew, "timestamp is " + inSeconds(-age) + " ahead of this machine's clock"}
	}
	return nil
}

func inSeconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + " s" }
