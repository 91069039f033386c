package verify

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// lines returns the three headers. A JWT needs no timestamp.
func (v *Verifier) lines(h http.Header) (a Attempt, err error) {
	a.by = v
	if a.id, err = single(h, HeaderID); err != nil {
		return a, err
	}
	jwt := len(h[HeaderSignature]) == 1 && isJWT(h[HeaderSignature][0])
	if !jwt || len(h[HeaderTimestamp]) > 0 {
		if a.timestamp, err = single(h, HeaderTimestamp); err != nil {
			return a, err
		}
	}
	if a.signature, err = single(h, HeaderSignature); err != nil {
		return a, err
	}
	return a, checkSignatureHeader(a.signature)
}

// single returns the value of the header's only line. Header.Get would return the first of several.
func single(h http.Header, name string) (string, error) {
	switch lines := h[name]; len(lines) {
	case 0:
		return "", fail(HeaderMissing, "no "+strings.ToLower(name)+" header")
	case 1:
		return lines[0], nil
	default:
		return "", fail(HeaderRepeated, strconv.Itoa(len(lines))+" "+strings.ToLower(name)+" headers")
	}
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fail(IDMalformed, "webhook-id has "+strconv.Itoa(len(id))+" bytes, not 1 to 256")
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return fail(IDMalformed, "webhook-id has bytes other than visible ASCII")
		}
	}
	return nil
}

// parseTimestamp is stricter than strconv.ParseInt, which takes "+1" and "01" as well. What is signed are the
// header's bytes, so a value must have one form only.
func parseTimestamp(s string) (seconds int64, err error) {
	if s == "" || len(s) > maxTimestamp {
		return 0, fail(TimestampMalformed, "webhook-timestamp has "+strconv.Itoa(len(s))+" bytes, not 1 to 12")
	}
	if s[0] == '0' && s != "0" {
		return 0, fail(TimestampMalformed, "webhook-timestamp has a leading zero")
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fail(TimestampMalformed, "webhook-timestamp has bytes other than digits")
		}
		seconds = 10*seconds + int64(s[i]-'0')
	}
	return seconds, nil
}

func checkAge(age time.Duration) *Failure {
	if age > Tolerance {
		return fail(TimestampTooOld, "timestamp is "+inSeconds(age)+" old")
	}
	if age < -Tolerance {
		return fail(TimestampTooNew, "timestamp is "+inSeconds(-max(age, -math.MaxInt64))+" ahead of this machine's clock")
	}
	return nil
}

func inSeconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + " s" }
