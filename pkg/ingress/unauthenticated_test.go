package ingress_test

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// refusals has a request for every reason there is not to believe it.
func refusals() map[verify.Reason]draft {
	seconds := signedAt.Unix()
	return map[verify.Reason]draft{
		verify.TokenUnknown:       {target: path + "/capability-token-of-an-operator", body: known},
		verify.HeaderMissing:      {signature: "-", body: known},
		verify.HeaderRepeated:     {lines: []string{"webhook-id: msg_1"}, body: known},
		verify.IDMalformed:        {id: strings.Repeat("m", 257), body: known},
		verify.TimestampMalformed: {timestamp: "01769083200", body: known},
		verify.SignatureTooLong:   {signature: "v1," + strings.Repeat("x", 8<<10), body: known},
		verify.TooManySignatures:  {signature: strings.Repeat("v1,x ", 32) + sign("msg_1", fmt.Sprint(seconds), known), body: known},
		verify.SignatureMalformed: {signature: "v1,", body: known},
		verify.NoV1Signature:      {signature: "v1a," + sign("msg_1", fmt.Sprint(seconds), known)[3:], body: known},
		verify.TimestampTooOld:    {timestamp: fmt.Sprint(seconds - 301), body: known},
		verify.TimestampTooNew:    {timestamp: fmt.Sprint(seconds + 301), body: known},
		verify.SignatureMismatch:  {signature: sign("msg_2", fmt.Sprint(seconds), known), body: known},
	}
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
			r := newRig(t).serve(t)
			c := r.dial(t)
			c.write(t, tests[reason].text())
			c.end()
			text, err := io.ReadAll(c.in)
			if err != nil {
				t.Fatal(err)
			}
			got := date.ReplaceAllString(string(text), "")
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
	r := newRig(t).serve(t)
	drafts := slices.Collect(maps.Values(refusals()))
	for _, method := range methods {
		drafts = append(drafts, draft{method: method, body: known})
	}
	for _, tt := range oddBodies {
		drafts = append(drafts, draft{body: tt.body})
	}
	drafts = append(drafts, draft{body: known, broken: true}, draft{target: "/capability-token", body: known})
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
