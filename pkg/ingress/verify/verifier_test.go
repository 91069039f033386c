package verify_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

// The published example of Standard Webhooks.
const (
	secretA   = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB   = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	id        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	timestamp = "1614265330"
	payload   = `{"test": 2432232314}`
	good      = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	bad       = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
)

var signedAt = time.Unix(1614265330, 0)

// newVerifier has a clock that stands still.
func newVerifier(tb testing.TB, now time.Time, secrets ...string) *verify.Verifier {
	tb.Helper()
	v, err := verify.New(verify.Config{Secrets: texts(secrets...), Now: func() time.Time { return now }})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func texts(values ...string) []secret.Text {
	var secrets []secret.Text
	for _, value := range values {
		secrets = append(secrets, secret.New(value))
	}
	return secrets
}

func headers(id, timestamp, signature string) http.Header {
	return http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
}

// sign signs whatever is in the headers, well-formed or not, without the package's help.
func sign(encodedKey, id, timestamp, body string) string {
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimPrefix(encodedKey, "whsec_"), "="))
	if err != nil {
		panic(err)
	}
	return "v1," + mac(key, id+"."+timestamp+"."+body)
}

func mac(key []byte, text string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// wantReason checks a refusal, or with reason "" an acceptance, and that Head alone tells all but a mismatch.
func wantReason(t *testing.T, v *verify.Verifier, h http.Header, body string, reason verify.Reason) {
	t.Helper()
	before := h.Clone()
	delivery, err := v.Verify(h, []byte(body))
	if !reflect.DeepEqual(h, before) {
		t.Errorf("headers changed from %v to %v", before, h)
	}
	if reason == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		want := verify.Delivery{ID: h["Webhook-Id"][0], Timestamp: h["Webhook-Timestamp"][0], Scheme: "v1", Key: "LaSw"}
		if delivery != want {
			t.Errorf("got %+v, want %+v", delivery, want)
		}
		return
	}

	if delivery != (verify.Delivery{}) {
		t.Errorf("refused, yet it returned %+v", delivery)
	}
	wantFailure(t, err, reason)
	attempt, err := v.Head(h)
	if reason == verify.SignatureMismatch {
		if err != nil || attempt.ID() != h["Webhook-Id"][0] {
			t.Errorf("Head returned %q, %v, want the id: only the body can tell", attempt.ID(), err)
		}
		return
	}
	wantFailure(t, err, reason)
	if attempt != (verify.Attempt{}) {
		t.Errorf("Head refused, yet it returned an attempt")
	}
}

func wantFailure(t *testing.T, err error, reason verify.Reason) {
	t.Helper()
	failure, ok := errors.AsType[*verify.Failure](err)
	if !ok {
		t.Fatalf("got error %v, want a *Failure with reason %s", err, reason)
	}
	if failure.Reason != reason {
		t.Errorf("got reason %s (%s), want %s", failure.Reason, failure.Detail(), reason)
	}
	if !errors.Is(err, verify.ErrUnauthenticated) {
		t.Errorf("%v does not match ErrUnauthenticated", err)
	}
	if !slices.Contains(verify.Reasons(), failure.Reason) {
		t.Errorf("%s is not among Reasons()", failure.Reason)
	}
	if failure.Detail() == "" || !strings.Contains(err.Error(), failure.Detail()) {
		t.Errorf("error %q lacks detail %q", err, failure.Detail())
	}
	if failure.Reason != verify.TimestampTooOld && failure.Reason != verify.TimestampTooNew && strings.Contains(err.Error(), "LaSw") {
		t.Errorf("error %q names a secret that does not fit", err)
	}
	for _, hidden := range []string{"MfKQ", "7oD", "g0hM", "Ceo5", "msg_", "2432232314"} {
		if strings.Contains(err.Error(), hidden) {
			t.Errorf("error %q quotes %q", err, hidden)
		}
	}
}

func TestPublishedVector(t *testing.T) {
	wantReason(t, newVerifier(t, signedAt, secretA), headers(id, timestamp, good), payload, "")
	if got := sign(secretA, id, timestamp, payload); got != good {
		t.Errorf("the tests sign %s, want %s", got, good)
	}
}

func TestHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(h http.Header)
		want   verify.Reason
	}{
		"untouched":            {func(http.Header) {}, ""},
		"other headers beside": {func(h http.Header) { h["Webhook-Other"] = []string{"a", "b"} }, ""},

		"no id":        {func(h http.Header) { h.Del("webhook-id") }, verify.HeaderMissing},
		"no timestamp": {func(h http.Header) { h.Del("webhook-timestamp") }, verify.HeaderMissing},
		"no signature": {func(h http.Header) { h.Del("webhook-signature") }, verify.HeaderMissing},
		"no headers":   {func(h http.Header) { clear(h) }, verify.HeaderMissing},
		"header without lines": {
			func(h http.Header) { h["Webhook-Signature"] = nil }, verify.HeaderMissing,
		},
		"key not canonical": {
			func(h http.Header) { h["webhook-id"] = h["Webhook-Id"]; delete(h, "Webhook-Id") }, verify.HeaderMissing,
		},

		"second id":                  {func(h http.Header) { h.Add("webhook-id", "other") }, verify.HeaderRepeated},
		"same id twice":              {func(h http.Header) { h.Add("webhook-id", id) }, verify.HeaderRepeated},
		"second timestamp":           {func(h http.Header) { h.Add("webhook-timestamp", timestamp) }, verify.HeaderRepeated},
		"second, bad signature line": {func(h http.Header) { h.Add("webhook-signature", bad) }, verify.HeaderRepeated},
		"second, good signature line": {
			func(h http.Header) { h["Webhook-Signature"] = []string{bad, good} }, verify.HeaderRepeated,
		},
		"second, empty signature line": {func(h http.Header) { h.Add("webhook-signature", "") }, verify.HeaderRepeated},
	} {
		t.Run(name, func(t *testing.T) {
			h := headers(id, timestamp, good)
			tc.change(h)
			wantReason(t, newVerifier(t, signedAt, secretA), h, payload, tc.want)
		})
	}
}

// What net/http makes of a request's lines.
func TestHeadersAsReceived(t *testing.T) {
	for name, tc := range map[string]struct {
		lines string
		want  verify.Reason
	}{
		"any case": {"WEBHOOK-ID: " + id + "\r\nwebhook-timestamp: " + timestamp + "\r\nWebHook-SigNature: " + good + "\r\n", ""},
		"blanks around values are not part of them": {
			"webhook-id: \t " + id + " \r\nwebhook-timestamp:" + timestamp + "\t\r\nwebhook-signature:   " + good + "\r\n", "",
		},
		"repeated in another case": {
			"webhook-id: " + id + "\r\nwebhook-timestamp: " + timestamp +
				"\r\nwebhook-signature: " + good + "\r\nWEBHOOK-SIGNATURE: " + bad + "\r\n",
			verify.HeaderRepeated,
		},
		"two lines joined by a proxy": {
			"webhook-id: " + id + ", " + id + "\r\nwebhook-timestamp: " + timestamp + "\r\nwebhook-signature: " + good + "\r\n",
			verify.IDMalformed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := "POST / HTTP/1.1\r\nHost: bridge\r\n" + tc.lines + "\r\n"
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
			if err != nil {
				t.Fatal(err)
			}
			wantReason(t, newVerifier(t, signedAt, secretA), r.Header, payload, tc.want)
		})
	}
}

func TestID(t *testing.T) {
	for name, tc := range map[string]struct {
		id   string
		want verify.Reason
	}{
		"one byte":             {"!", ""},
		"last visible byte":    {"~", ""},
		"dots":                 {"a.1614265330.b", ""},
		"256 bytes":            {strings.Repeat("i", 256), ""},
		"257 bytes":            {strings.Repeat("i", 257), verify.IDMalformed},
		"empty":                {"", verify.IDMalformed},
		"space inside":         {"msg 1", verify.IDMalformed},
		"space at the end":     {"msg_1 ", verify.IDMalformed},
		"tab":                  {"msg\t1", verify.IDMalformed},
		"line break":           {"msg\n1", verify.IDMalformed},
		"NUL":                  {"msg\x001", verify.IDMalformed},
		"DEL":                  {"msg\x7f1", verify.IDMalformed},
		"letter outside ASCII": {"msg_é", verify.IDMalformed},
		"invalid UTF-8":        {"msg_\xff", verify.IDMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			h := headers(tc.id, timestamp, sign(secretA, tc.id, timestamp, payload))
			wantReason(t, newVerifier(t, signedAt, secretA), h, payload, tc.want)
		})
	}
}

// Every form is tried with a signature over the header's bytes, which a verifier with a lax parser accepts,
// and with one over the canonical form, which a verifier that renders the number anew accepts.
func TestTimestampForms(t *testing.T) {
	for name, tc := range map[string]struct {
		timestamp string
		want      verify.Reason
	}{
		"canonical":              {"1614265330", ""},
		"empty":                  {"", verify.TimestampMalformed},
		"word":                   {"hello", verify.TimestampMalformed},
		"plus":                   {"+1614265330", verify.TimestampMalformed},
		"minus":                  {"-1614265330", verify.TimestampMalformed},
		"leading zero":           {"01614265330", verify.TimestampMalformed},
		"zeros only":             {"00", verify.TimestampMalformed},
		"fullwidth digits":       {"１６１４２６５３３０", verify.TimestampMalformed},
		"one fullwidth digit":    {"161426533０", verify.TimestampMalformed},
		"arabic digits":          {"١٦١٤٢٦٥٣٣٠", verify.TimestampMalformed},
		"space before":           {" 1614265330", verify.TimestampMalformed},
		"space after":            {"1614265330 ", verify.TimestampMalformed},
		"tab after":              {"1614265330\t", verify.TimestampMalformed},
		"line break after":       {"1614265330\n", verify.TimestampMalformed},
		"NUL after":              {"1614265330\x00", verify.TimestampMalformed},
		"fraction":               {"1614265330.0", verify.TimestampMalformed},
		"exponent":               {"161426533e1", verify.TimestampMalformed},
		"hexadecimal":            {"0x6037ba72", verify.TimestampMalformed},
		"underscores":            {"1_614_265330", verify.TimestampMalformed},
		"RFC 3339":               {"2021-02-25T15:02:10Z", verify.TimestampMalformed},
		"milliseconds":           {"1614265330000", verify.TimestampMalformed},
		"twelve digits":          {"999999999999", verify.TimestampTooNew},
		"2 to the 64th over":     {"18446744075323816946", verify.TimestampMalformed}, // 1<<64 + 1614265330
		"thousand digits":        {strings.Repeat("1", 1000), verify.TimestampMalformed},
		"zero, the oldest there": {"0", verify.TimestampTooOld},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, signedAt, secretA)
			wantReason(t, v, headers(id, tc.timestamp, sign(secretA, id, tc.timestamp, payload)), payload, tc.want)
			wantReason(t, v, headers(id, tc.timestamp, good), payload, tc.want)
		})
	}
	t.Run("zero in time", func(t *testing.T) {
		v := newVerifier(t, time.Unix(0, 0), secretA)
		wantReason(t, v, headers(id, "0", sign(secretA, id, "0", payload)), payload, "")
		wantReason(t, v, headers(id, "00", sign(secretA, id, "00", payload)), payload, verify.TimestampMalformed)
		wantReason(t, v, headers(id, "-0", sign(secretA, id, "-0", payload)), payload, verify.TimestampMalformed)
	})
}

func TestTimestampWindow(t *testing.T) {
	for name, tc := range map[string]struct {
		age    time.Duration
		want   verify.Reason
		detail string
	}{
		"now":                    {0, "", ""},
		"5 minutes old":          {5 * time.Minute, "", ""},
		"5 minutes ahead":        {-5 * time.Minute, "", ""},
		"a little too old":       {5*time.Minute + time.Nanosecond, verify.TimestampTooOld, "timestamp is 300 s old"},
		"a little too new":       {-5*time.Minute - time.Nanosecond, verify.TimestampTooNew, "timestamp is 300 s ahead"},
		"312 seconds old":        {312 * time.Second, verify.TimestampTooOld, "timestamp is 312 s old"},
		"301 seconds ahead":      {-301 * time.Second, verify.TimestampTooNew, "timestamp is 301 s ahead"},
		"clock before the epoch": {-60 * 365 * 24 * time.Hour, verify.TimestampTooNew, "s ahead"},
		"clock far ahead":        {280 * 365 * 24 * time.Hour, verify.TimestampTooOld, "s old"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, signedAt.Add(tc.age), secretA)
			h := headers(id, timestamp, good)
			wantReason(t, v, h, payload, tc.want)
			if _, err := v.Head(h); tc.want != "" && !strings.Contains(err.Error(), tc.detail) {
				t.Errorf("got %v, want %q in it", err, tc.detail)
			}
		})
	}
}

func TestClockIsRealByDefault(t *testing.T) {
	v, err := verify.New(verify.Config{Secrets: texts(secretA)})
	if err != nil {
		t.Fatal(err)
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	wantReason(t, v, headers(id, now, sign(secretA, id, now, payload)), payload, "")
	wantReason(t, v, headers(id, timestamp, good), payload, verify.TimestampTooOld)
}

func TestSignatures(t *testing.T) {
	bare := strings.TrimSuffix(good, "=")
	tooManyBits := func(s string) string { return strings.Replace(s, "J1OE", "J1OF", 1) } // same bytes to a lax decoder
	repeat := func(n int, entry string) string { return strings.TrimSuffix(strings.Repeat(entry+" ", n), " ") }
	filled := func(size int) string { return good + " v2," + strings.Repeat("x", size-len(good)-len(" v2,")) }

	for name, tc := range map[string]struct {
		signature string
		want      verify.Reason
	}{
		"padded":                    {good, ""},
		"unpadded":                  {bare, ""},
		"unpadded beside padded":    {bare + " " + good, ""},
		"bad v1, bad v2, good, bad": {bad + " v2,bad " + good + " " + bad, ""},
		"other schemes beside":      {"v1a," + strings.Repeat("A", 88) + " whatever v3 " + good, ""},
		"undecodable v1 only":       {"v1,bad v1, v1,===", verify.SignatureMalformed},
		"undecodable v1 before":     {"v1,bad v1, v1,=== " + good, ""},
		"undecodable v1 after":      {good + " v1,bad v1, v1,===", ""},
		"32 entries":                {repeat(31, bad) + " " + good, ""},
		"8 KiB":                     {filled(8 << 10), ""},

		"well-formed but wrong":                {bad, verify.SignatureMismatch},
		"all wrong":                            {repeat(32, bad), verify.SignatureMismatch},
		"the empty key":                        {"v1," + mac(nil, id+"."+timestamp+"."+payload), verify.SignatureMismatch},
		"another secret":                       {sign(secretB, id, timestamp, payload), verify.SignatureMismatch},
		"trailing bits beside a decodable one": {tooManyBits(good) + " " + bad, verify.SignatureMismatch},
		"too long beside a decodable one":      {good + "AAAA " + bad, verify.SignatureMismatch},
		"over the body only":                   {"v1," + mac([]byte("x"), payload), verify.SignatureMismatch},
		"zeros":                                {"v1," + strings.Repeat("A", 43), verify.SignatureMismatch},
		"first 32 bytes of v1a":                {"v1a," + good[3:], verify.DynamicOff},
		"good under another name":              {"v2," + good[3:], verify.NoV1Signature},
		"V1":                                   {"V1," + good[3:], verify.NoV1Signature},
		"no version":                           {good[3:], verify.NoV1Signature},
		"v1 without comma":                     {"v1", verify.NoV1Signature},
		"a JWT":                                {"eyJhbGciOiJSUzI1NiJ9.eyJ0eXBlIjoieCJ9.c2ln", verify.DynamicOff},

		"33 entries, the first good": {good + " " + repeat(32, bad), verify.TooManySignatures},
		"33 entries, the last good":  {repeat(32, bad) + " " + good, verify.TooManySignatures},
		"33 entries of others":       {repeat(33, "v2,x"), verify.TooManySignatures},
		"8 KiB and one":              {filled(8<<10 + 1), verify.SignatureTooLong},
		"8 KiB and one of spaces":    {good + strings.Repeat(" ", 8<<10+1-len(good)), verify.SignatureTooLong},

		"empty":                    {"", verify.SignatureMalformed},
		"v1, alone":                {"v1,", verify.SignatureMalformed},
		"v1, thrice":               {strings.Repeat("v1, ", 2) + "v1,", verify.SignatureMalformed},
		"space only":               {" ", verify.SignatureMalformed},
		"space before":             {" " + good, verify.SignatureMalformed},
		"space after":              {good + " ", verify.SignatureMalformed},
		"two spaces between":       {bad + "  " + good, verify.SignatureMalformed},
		"tab between":              {bad + "\t" + good, verify.SignatureMalformed},
		"tab after":                {good + "\t", verify.SignatureMalformed},
		"line break inside base64": {good[:20] + "\n" + good[20:], verify.SignatureMalformed},
		"CR inside base64":         {good[:20] + "\r" + good[20:], verify.SignatureMalformed},
		"line break after":         {good + "\n", verify.SignatureMalformed},
		"NUL after":                {good + "\x00", verify.SignatureMalformed},
		"tab beside":               {good + " v2,\tx", verify.SignatureMalformed},
		"control byte beside":      {good + " v2,\x1f", verify.SignatureMalformed},
		"DEL beside":               {good + " v2,\x7f", verify.SignatureMalformed},
		"outside ASCII beside":     {good + " v1,é", verify.SignatureMalformed},
		"trailing bits, padded":    {tooManyBits(good), verify.SignatureMalformed},
		"trailing bits, unpadded":  {tooManyBits(bare), verify.SignatureMalformed},
		"padding twice":            {good + "=", verify.SignatureMalformed},
		"padding before":           {"v1,=" + bare[3:], verify.SignatureMalformed},
		"padding in the middle":    {good[:20] + "=" + good[21:], verify.SignatureMalformed},
		"base64url":                {strings.NewReplacer("+", "-", "/", "_").Replace(good), verify.SignatureMalformed},
		"31 bytes":                 {"v1," + base64.StdEncoding.EncodeToString(make([]byte, 31)), verify.SignatureMalformed},
		"33 bytes":                 {"v1," + base64.StdEncoding.EncodeToString(make([]byte, 33)), verify.SignatureMalformed},
		"hexadecimal":              {"v1," + strings.Repeat("0f", 32), verify.SignatureMalformed},
		"a comma more":             {good + ",", verify.SignatureMalformed},
		"an entry's third part":    {good + ",x", verify.SignatureMalformed},
		"separated by commas":      {bad + "," + good, verify.SignatureMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			wantReason(t, newVerifier(t, signedAt, secretA), headers(id, timestamp, tc.signature), payload, tc.want)
		})
	}
}

// What was signed is what must come: the bytes of id, timestamp and body, and where each of them ends.
func TestSignedContent(t *testing.T) {
	for name, tc := range map[string]struct {
		h    http.Header
		body string
	}{
		"another id":             {headers(id+"x", timestamp, good), payload},
		"another timestamp":      {headers(id, "1614265331", good), payload},
		"another body":           {headers(id, timestamp, good), payload + "."},
		"a byte less":            {headers(id, timestamp, good), payload[:len(payload)-1]},
		"no body":                {headers(id, timestamp, good), ""},
		"body with another form": {headers(id, timestamp, good), `{"test":2432232314}`},
	} {
		t.Run(name, func(t *testing.T) {
			wantReason(t, newVerifier(t, signedAt, secretA), tc.h, tc.body, verify.SignatureMismatch)
		})
	}
}

// The first thing wrong is the reason: in the order of Reasons, each check cheaper than the next.
func TestOrderOfChecks(t *testing.T) {
	v := newVerifier(t, signedAt, secretA)
	h := http.Header{"Webhook-Id": {""}, "Webhook-Timestamp": {"x", "y"}}
	wantReason(t, v, h, "", verify.HeaderRepeated)
	h["Webhook-Timestamp"] = []string{"x"}
	wantReason(t, v, h, "", verify.HeaderMissing)
	h["Webhook-Signature"] = []string{""}
	wantReason(t, v, h, "", verify.IDMalformed)
	h["Webhook-Id"] = []string{"i"}
	wantReason(t, v, h, "", verify.TimestampMalformed)
	h["Webhook-Timestamp"] = []string{"1"}
	wantReason(t, v, h, "", verify.SignatureMalformed)
	h["Webhook-Signature"] = []string{bad}
	wantReason(t, v, h, "", verify.TimestampTooOld)
	h["Webhook-Timestamp"] = []string{timestamp}
	wantReason(t, v, h, "", verify.SignatureMismatch)
}

func TestAttemptNotMadeByHead(t *testing.T) {
	dynamicOnly, err := verify.New(verify.Config{Tokens: texts(tokenA), JWKS: pinned(t, allKeys())})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*verify.Verifier{newVerifier(t, signedAt, secretA), dynamicOnly} {
		_, err := v.Body(verify.Attempt{}, nil)
		wantFailure(t, err, verify.SignatureMismatch)
	}
}

func TestReasons(t *testing.T) {
	reasons := verify.Reasons()
	want := []verify.Reason{
		"token_unknown", "header_missing", "header_repeated", "id_malformed", "timestamp_malformed", "signature_too_long",
		"too_many_signatures", "signature_malformed", "static_off", "dynamic_off", "wrong_path", "no_v1_signature",
		"jwt_malformed", "jwt_audience", "timestamp_too_old", "timestamp_too_new", "signature_mismatch", "body_altered",
		"jwt_algorithm", "jwt_header", "key_unknown", "jwt_expired", "jwt_too_new", "jwt_too_old", "jwt_claims",
		"body_disagrees",
	}
	if !slices.Equal(reasons, want) {
		t.Errorf("got %q, want %q: dashboards rely on these", reasons, want)
	}
	reasons[0] = "changed"
	if verify.Reasons()[0] != want[0] {
		t.Error("Reasons returns the package's own table")
	}
}
