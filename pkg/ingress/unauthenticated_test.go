package ingress_test

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// refusals has a request for every reason there is not to believe it. The first two need a verifier that has only the
// other's part.
func refusals() map[verify.Reason]draft {
	seconds := signedAt.Unix()
	now := fmt.Sprint(seconds)
	good := sign("msg_1", now, known)
	claims := func(old, new string) draft { return asJWT(strings.Replace(goodClaims, old, new, 1), draft{}) }
	header := func(header string) draft { return asJWT("", draft{signature: google().jwt(header, goodClaims)}) }
	return map[verify.Reason]draft{
		verify.StaticOff:  {body: known},
		verify.DynamicOff: {body: known, signature: google().v1a("msg_1", now, known)},

		verify.TokenUnknown:       {target: path + "/capability-token-of-another", body: known},
		verify.HeaderMissing:      {signature: "-", body: known},
		verify.HeaderRepeated:     {lines: []string{"webhook-id: msg_1"}, body: known},
		verify.IDMalformed:        {id: strings.Repeat("m", 257), body: known},
		verify.TimestampMalformed: {timestamp: "01769083200", body: known},
		verify.SignatureTooLong:   {signature: "v1," + strings.Repeat("x", 8<<10), body: known},
		verify.TooManySignatures:  {signature: strings.Repeat("v1,x ", 32) + good, body: known},
		verify.SignatureMalformed: {signature: "v1,", body: known},
		verify.WrongPath:          {signature: google().v1a("msg_1", now, known), body: known},
		verify.NoV1Signature:      {signature: "v2," + good[3:], body: known},
		verify.TimestampTooOld:    {timestamp: fmt.Sprint(seconds - 301), body: known},
		verify.TimestampTooNew:    {timestamp: fmt.Sprint(seconds + 301), body: known},
		verify.SignatureMismatch:  {signature: sign("msg_2", now, known), body: known},
		verify.BodyAltered:        {signature: good, body: known + "\n"},
		verify.JWTMalformed:       asJWT("", draft{signature: "a.b"}),
		verify.JWTAudience:        claims(audience, "another"),
		verify.JWTAlgorithm:       header(`{"alg":"none","kid":"rsa-key"}`),
		verify.JWTHeader:          header(`{"alg":"RS256"}`),
		verify.KeyUnknown:         header(`{"alg":"RS256","kid":"another"}`),
		verify.JWTExpired:         claims("1769083500", "1769083199"),
		verify.JWTTooNew:          claims("1769083190", "1769083501"),
		verify.JWTTooOld:          claims("1769083190", "1"),
		verify.JWTClaims:          claims(`"type"`, `"kind"`),
		verify.BodyDisagrees:      asJWT(goodClaims, draft{body: `{"type":"batch.failed"}`}),
	}
}

// refuser makes the verifier that refuses for a reason.
func refuser(reason verify.Reason) func(*ingress.Config) {
	return withKeys(google().set, func(c *verify.Config) {
		switch reason {
		case verify.StaticOff:
			c.Secrets = nil
		case verify.DynamicOff:
			c.Tokens = nil
		}
	})
}

var date = regexp.MustCompile(`Date: [^\r]*\r\n`)

// Nobody learns from a 401 why it is one: replies are the same, byte for byte. The log and a metric tell.
func TestRefusalsAreAlike(t *testing.T) {
	tests := refusals()
	if got, want := len(tests), len(verify.Reasons()); got != want {
		t.Fatalf("%d requests for %d reasons", got, want)
	}
	var first string
	for _, reason := range verify.Reasons() {
		t.Run(string(reason), func(t *testing.T) {
			r := newRig(t, refuser(reason)).serve(t)
			got := r.bytesOf(t, tests[reason])
			first = or(first, got)
			want := "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: " + fmt.Sprint(len(unauthenticated)) + "\r\n\r\n" + unauthenticated
			if got != want || got != first {
				t.Errorf("got %q, want %q", got, want)
			}
			r.wantNothingDelivered(t)
			if got := r.line(t); got["level"] != "warn" || got["result"] != "unauthenticated" {
				t.Errorf("log: got %v", got)
			}
			series := r.series(t)
			maps.DeleteFunc(series, func(name string, _ float64) bool { return !strings.HasPrefix(name, "bridge_verify_failures_total") })
			if want := (counts{"bridge_verify_failures_total{reason=" + string(reason) + "}": 1}); !maps.Equal(series, want) {
				t.Errorf("metrics: got %v, want %v", series, want)
			}
		})
	}
}

// bytesOf sends a draft as the last request of a connection, and returns all that comes back.
func (r *rig) bytesOf(t *testing.T, d draft) string {
	t.Helper()
	c := r.dial(t)
	c.write(t, d.text())
	c.end()
	text, err := io.ReadAll(c.in)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(date.ReplaceAllString(string(text), ""), "HTTP/1.1 100 Continue\r\n\r\n")
}

// So they are when net/http would end the connection behind one that is told by the head, since more of the body would
// have to be read than it likes: then all end it.
func TestRefusalsOfLargeBodiesAreAlike(t *testing.T) {
	now := fmt.Sprint(signedAt.Unix())
	claims := strings.Replace(goodClaims, "1769083500", "1769083199", 1)
	for name, shape := range map[string]struct {
		draft draft
		ends  bool
	}{
		"under 256 KiB":  {draft{body: strings.Repeat("x", 256<<10-1)}, false},
		"256 KiB":        {draft{body: strings.Repeat("x", 256<<10)}, true},
		"300 KiB":        {draft{body: strings.Repeat("x", 300<<10)}, true},
		"chunks":         {draft{body: known, chunked: true}, true},
		"chunks, large":  {draft{body: strings.Repeat("x", 300<<10), chunked: true}, true},
		"100-continue":   {draft{body: known, lines: []string{"Expect: 100-continue"}}, true},
		"both":           {draft{body: known, chunked: true, lines: []string{"Expect: 100-continue"}}, true},
		"expects, empty": {draft{lines: []string{"Expect: 100-continue"}}, true},
	} {
		d := shape.draft
		for reason, change := range map[string]func(*draft){
			"token_unknown":       func(d *draft) { d.target = path + "/x" },
			"header_missing":      func(d *draft) { d.signature = "-" },
			"signature_malformed": func(d *draft) { d.signature = "v1,x" },
			"timestamp_too_old":   func(d *draft) { d.timestamp = "1" },
			"signature_mismatch":  func(d *draft) { d.signature = sign("msg_2", now, "") },
			"signature_mismatch with a token": func(d *draft) {
				d.target, d.signature = dynamic, google().v1a("msg_2", now, "")
			},
			"jwt_expired": func(d *draft) { d.target, d.signature = dynamic, google().jwt(goodHeader, claims) },
		} {
			t.Run(name+"/"+reason, func(t *testing.T) {
				t.Parallel() // net/http waits before it ends a connection
				r := newDynamicRig(t).serve(t)
				d := d
				change(&d)
				closes := ""
				if shape.ends {
					closes = "Connection: close\r\n"
				}
				want := "HTTP/1.1 401 Unauthorized\r\n" + closes + "Content-Type: application/json\r\nContent-Length: " + fmt.Sprint(len(unauthenticated)) + "\r\n\r\n" + unauthenticated
				if got := r.bytesOf(t, d); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if got := r.series(t)["bridge_verify_failures_total{reason="+strings.Fields(reason)[0]+"}"]; got != 1 {
					t.Errorf("log: %s", r.log.String())
				}
			})
		}
	}
}

// Five minutes either way are still believed.
func TestTolerance(t *testing.T) {
	r := newRig(t).serve(t)
	for _, seconds := range []int64{-300, -1, 0, 1, 299, 300} {
		timestamp := fmt.Sprint(signedAt.Unix() + seconds)
		r.send(t, draft{timestamp: timestamp, body: known}).want(t, 202, accepted("published", "msg_1"))
	}
}

// wantNoSecret looks for any eight characters of the signing secret.
func wantNoSecret(t *testing.T, where, text string) {
	t.Helper()
	encoded := strings.TrimPrefix(signingSecret, "whsec_")
	for i := range len(encoded) - 7 {
		if at := strings.Index(text, encoded[i:i+8]); at >= 0 {
			t.Errorf("%s shows the secret: %.200q", where, text[max(0, at-100):])
			return
		}
	}
	if strings.Contains(text, "whsec_") || strings.Contains(text, "capability-token") {
		t.Errorf("%s shows a secret: %.200q", where, text)
	}
}

// Neither the log nor a reply nor a metric shows more of a secret than its last four characters, whatever comes.
func TestSecretsAreNotShown(t *testing.T) {
	r := newDynamicRig(t, func(c *ingress.Config) { c.RefusalLines = 1000 }).serve(t)
	drafts := slices.Collect(maps.Values(refusals()))
	for _, method := range methods {
		drafts = append(drafts, draft{method: method, body: known})
	}
	for _, tt := range oddBodies {
		drafts = append(drafts, draft{body: tt.body})
	}
	drafts = append(drafts, draft{body: known, broken: true}, draft{target: "/capability-token", body: known},
		asV1A(draft{body: known}), asJWT(goodClaims, draft{}), asV1A(draft{method: "GET"}), asV1A(draft{body: "?"}), asV1A(draft{target: dynamic + "/"}))
	for i, d := range drafts {
		c := r.dial(t)
		c.write(t, d.text())
		c.end()
		text, err := io.ReadAll(c.in)
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 ") {
			t.Errorf("request %d: got %q, %v", i, text, err)
		}
		wantNoSecret(t, "a reply", string(text))
	}
	for _, e := range r.delivered() {
		wantNoSecret(t, "an event", string(e.Structured))
	}
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		wantNoSecret(t, "a metric", family.String())
	}
	log := r.log.String()
	wantNoSecret(t, "the log", log)
	if got := strings.Count(log, "\n"); got != len(drafts) {
		t.Errorf("%d log lines of %d requests", got, len(drafts))
	}
	if !strings.Contains(log, `"key":"`+secretTail+`"`) {
		t.Error("the log does not tell which secret it was")
	}
}
