package verify_test

import (
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

var (
	idForm        = regexp.MustCompile(`^[!-~]{1,256}$`)
	timestampForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,11})$`)
	listForm      = regexp.MustCompile(`^[!-~]+( [!-~]+){0,31}$`)
)

// reference says by plain means whether a delivery is genuine: it writes every entry that would be good and
// looks for it.
func reference(h http.Header, body string, now int64, encodedKeys ...string) bool {
	for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		if len(h[name]) != 1 {
			return false
		}
	}
	id, timestamp, list := h["Webhook-Id"][0], h["Webhook-Timestamp"][0], h["Webhook-Signature"][0]
	if !idForm.MatchString(id) || !timestampForm.MatchString(timestamp) || !listForm.MatchString(list) || len(list) > 8192 {
		return false
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || seconds < now-300 || seconds > now+300 {
		return false
	}
	for entry := range strings.SplitSeq(list, " ") {
		for _, key := range encodedKeys {
			if padded := sign(key, id, timestamp, body); entry == padded || entry == strings.TrimSuffix(padded, "=") {
				return true
			}
		}
	}
	return false
}

// FuzzVerify compares with reference. In signature, GOOD stands for what the first secret signs, BARE for the
// same without padding, NEXT for what the second signs, and ANON for what the empty key signs.
func FuzzVerify(f *testing.F) {
	for _, signature := range []string{
		good, bad, "v1,", "", "v1,GOOD", "v1,BARE", "v1,NEXT", "v1,ANON", "v1,bad v2,bad v1,GOOD v1,bad", "v1,NEXT v1,GOOD",
		"v1a,GOOD", "v2,GOOD", "GOOD", "v1,GOOD ", " v1,GOOD", "v1,bad  v1,GOOD", "v1,GOOD,x", "v1,GOOD=", "v1,\nGOOD",
		strings.Repeat("v2,x ", 31) + "v1,GOOD", strings.Repeat("v2,x ", 32) + "v1,GOOD", "v1,GOOD v2," + strings.Repeat("x", 8200),
	} {
		f.Add(id, timestamp, signature, "", []byte(payload))
		f.Add(id, timestamp, signature, "v1,GOOD", []byte(payload))
	}
	for _, ts := range []string{"+1614265330", "01614265330", "hello", "1614265030", "1614265029", "1614265630", "1614265631"} {
		f.Add(id, ts, "v1,GOOD", "", []byte(payload))
	}
	for _, v := range vectors(f) {
		f.Add(v.ID, v.Timestamp, v.Signature, "", v.Body)
		f.Add(v.ID, timestamp, "v1,GOOD", "", v.Body)
	}
	f.Add("", timestamp, "v1,GOOD", "", []byte(nil))
	f.Add("a b", timestamp, "v1,GOOD", "", []byte("\x00"))
	f.Add(strings.Repeat("i", 257), timestamp, "v1,GOOD", "", []byte("{}"))

	v := newVerifier(f, signedAt, secretA, secretB)
	f.Fuzz(func(t *testing.T, id, timestamp, signature, second string, body []byte) {
		signed := strings.NewReplacer(
			"GOOD", sign(secretA, id, timestamp, string(body))[len("v1,"):],
			"BARE", strings.TrimSuffix(sign(secretA, id, timestamp, string(body)), "=")[len("v1,"):],
			"NEXT", sign(secretB, id, timestamp, string(body))[len("v1,"):],
			"ANON", mac(nil, id+"."+timestamp+"."+string(body)),
		)
		h := headers(id, timestamp, signed.Replace(signature))
		if second != "" {
			h.Add("webhook-signature", signed.Replace(second))
		}
		delivery, err := v.Verify(h, body)
		if want := reference(h, string(body), signedAt.Unix(), secretA, secretB); (err == nil) != want {
			t.Fatalf("headers %q, body %q: got %v, want accepted %v", h, body, err, want)
		}
		if err != nil {
			wantReasonOnly(t, err)
			return
		}
		if delivery.ID != id || delivery.Timestamp != timestamp || delivery.Scheme != verify.SchemeV1 ||
			(delivery.Key != "LaSw" && delivery.Key != "b7oD") {
			t.Fatalf("headers %q: got %+v", h, delivery)
		}
	})
}

// wantReasonOnly checks an error of which the reason is not known beforehand.
func wantReasonOnly(t *testing.T, err error) {
	t.Helper()
	failure, ok := errors.AsType[*verify.Failure](err)
	if !ok || !slices.Contains(verify.Reasons(), failure.Reason) {
		t.Fatalf("got error %T %v, want a *Failure with one of Reasons()", err, err)
	}
}

// FuzzTimestamp compares the timestamp's form with the one that math/big writes.
func FuzzTimestamp(f *testing.F) {
	for _, ts := range []string{
		"", "0", "00", "-0", "+0", "1", "hello", timestamp, "+" + timestamp, "-" + timestamp, "0" + timestamp, timestamp + " ",
		" " + timestamp, timestamp + "\n", "1614265030", "1614265029", "1614265630", "1614265631", "１６１４２６５３３０", "1_614_265_330",
		"0x6037ba72", "1e9", "1614265330.0", "1614265330000", "999999999999", "18446744075323816946", "9223372036854775807",
		"99999999999999999999999999999999999999999",
	} {
		f.Add(ts)
	}
	v := newVerifier(f, signedAt, secretA)
	f.Fuzz(func(t *testing.T, ts string) {
		_, err := v.Head(headers(id, ts, good))
		number, ok := new(big.Int).SetString(ts, 10)
		want := ok && number.String() == ts &&
			number.Sub(number, big.NewInt(signedAt.Unix())).CmpAbs(big.NewInt(300)) <= 0
		if (err == nil) != want {
			t.Fatalf("%q: got %v, want accepted %v", ts, err, want)
		}
		if err != nil {
			wantReasonOnly(t, err)
		}
	})
}

// FuzzSecret: a secret that is accepted is the one way, padding and prefix aside, to write at least 24 bytes.
func FuzzSecret(f *testing.F) {
	for _, s := range []string{
		"", "whsec_", secretA, secretB, secretA + "=", secretA + "\n", whsec(encode(25)), whsec(bareOf(25)), whsec(encode(23)),
		whsec(encode(1024)), whsec(encode(1025)), "whsec_whsec_" + secretA, strings.Repeat("-_", 20), strings.Repeat("=", 40),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := verify.New(verify.Config{Secrets: texts(s)})
		encoded := strings.TrimPrefix(s, "whsec_")
		raw, decodeErr := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
		padded, bare := base64.StdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString(raw)
		want := decodeErr == nil && (encoded == padded || encoded == bare) && len(raw) >= 24 && len(raw) <= 1024
		if (err == nil) != want {
			t.Fatalf("%q: got %v, want accepted %v", s, err, want)
		}
		if err != nil && len(s) > 8 && strings.Contains(err.Error(), s) {
			t.Fatalf("error %q quotes the secret", err)
		}
	})
}
