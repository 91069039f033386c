package ingress_test

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress"
	"github.com/gembridge/bridge/pkg/ingress/verify"
)

const jwtID = "jwt_" // begins the id of an event that came as a JWT

func TestDynamicDeliveries(t *testing.T) {
	r := newDynamicRig(t).serve(t)
	for _, target := range []string{"", "?a=b"} {
		d := asV1A(draft{target: dynamic + target, body: known})
		r.forget()
		r.send(t, d).want(t, 202, accepted("published", "msg_1"))
		if e := r.one(t); e.ID != "msg_1" || e.Scheme != "v1a" || e.Subject != "batches/1" || string(e.Original) != known {
			t.Errorf("got %+v", e)
		}
		if got := r.line(t); got["scheme"] != "v1a" || got["key"] != "-key" || got["delivery"] != "msg_1" || got["job"] != "batches/1" {
			t.Errorf("log: got %v", got)
		}
	}
	want := counts{"bridge_verified_total{key=-key,scheme=v1a}": 2}
	if got := verified(r.series(t)); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func verified(series map[string]float64) counts {
	maps.DeleteFunc(series, func(name string, _ float64) bool { return !strings.HasPrefix(name, "bridge_verified_total") })
	return series
}

// A JWT's event is its claims, under an id of their own, whatever stands in the body and the headers beside.
func TestJWTDeliveries(t *testing.T) {
	r := newDynamicRig(t).serve(t)
	var ids []string
	for _, d := range []draft{
		{}, {body: goodClaims}, {body: `{"x":1}`}, {id: "msg_2"}, {timestamp: "1"}, {body: "{" + goodEvent + "}", chunked: true},
	} {
		r.forget()
		got := r.send(t, asJWT(goodClaims, d))
		e := r.one(t)
		got.want(t, 202, accepted("published", e.ID))
		if e.Scheme != "jwt" || e.WebhookID != e.ID || !strings.HasPrefix(e.ID, jwtID) || string(e.Original) != "{"+goodEvent+"}" || e.Subject != "batches/1" {
			t.Errorf("got %+v", e)
		}
		if got := r.line(t); got["delivery"] != e.ID || got["scheme"] != "jwt" || got["key"] != "-key" || got["type"] != "batch.succeeded" {
			t.Errorf("log: got %v", got)
		}
		ids = append(ids, e.ID)
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("one event under the ids %v", ids)
	}
	if got, want := verified(r.series(t)), (counts{"bridge_verified_total{key=-key,scheme=jwt}": 6}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The claims of a JWT, in a header of more than 8 KiB, are an event like any other.
func TestLongJWT(t *testing.T) {
	r := newDynamicRig(t).serve(t)
	metadata := `"user_metadata":{"note":"` + strings.Repeat("x", 6<<10) + `"}`
	d := asJWT("{"+goodTimes+goodEvent+","+metadata+"}", draft{})
	if len(d.signature) <= 8<<10 {
		t.Fatalf("it has %d bytes", len(d.signature))
	}
	got := r.send(t, d)
	e := r.one(t)
	got.want(t, 202, accepted("published", e.ID))
	if want := "{" + goodEvent + "," + metadata + "}"; string(e.Original) != want || e.Dead {
		t.Errorf("got %s", e.Original)
	}
}

// Authentic claims that are no event become a dead letter, of the claims.
func TestInvalidClaims(t *testing.T) {
	r := newDynamicRig(t)
	claims := strings.Replace(goodClaims, `{"id":"batches/1"}`, `{}`, 1)
	got := r.do(t, asJWT(claims, draft{body: `{"other":1}`}))
	e := r.one(t)
	got.want(t, 202, accepted("dead-lettered", e.ID))
	if !e.Dead || !strings.HasPrefix(e.ID, jwtID) || strings.Contains(string(e.Data), "other") || !strings.Contains(string(e.Data), `"scheme":"jwt"`) {
		t.Errorf("got %s", e.Data)
	}
}

// Without keys dynamic deliveries are told to come again, what is wrong for certain is not, and static ones go on.
func TestNoKeysYet(t *testing.T) {
	for name, tt := range map[string]struct {
		draft draft
		code  int
	}{
		"v1":              {draft{body: known}, 202},
		"v1a":             {asV1A(draft{body: known}), 503},
		"JWT":             {asJWT(goodClaims, draft{}), 503},
		"v1a, malformed":  {asV1A(draft{body: known, signature: "v1a,x"}), 401},
		"v1a, stale":      {asV1A(draft{body: known, timestamp: "1"}), 401},
		"wrong token":     {asV1A(draft{body: known, target: dynamic + "x"}), 401},
		"JWT by none":     {asJWT("", draft{signature: google().jwt(`{"alg":"none","kid":"rsa-key"}`, goodClaims)}), 401},
		"JWT for another": {asJWT(strings.Replace(goodClaims, audience, "another", 1), draft{}), 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withKeys(nil)).serve(t)
			got := r.send(t, tt.draft)
			want := map[int]string{202: accepted("published", "msg_1"), 401: unauthenticated, 503: unavailable}[tt.code]
			got.want(t, tt.code, want)
			if tt.code != 202 {
				r.wantNothingDelivered(t)
			}
			failures := 0.0
			for series, n := range r.series(t) {
				if strings.HasPrefix(series, "bridge_verify_failures_total") {
					failures += n
				}
			}
			if failures != map[int]float64{401: 1}[tt.code] {
				t.Errorf("%v failures are counted with %d", failures, tt.code)
			}
			if line := r.line(t); tt.code == 503 && line["error"] != verify.ErrNoKeys.Error() {
				t.Errorf("log: got %v", line)
			}
		})
	}
}

// The path with a token is compared as it was sent.
func TestDynamicPaths(t *testing.T) {
	r := newDynamicRig(t).serve(t)
	for target, code := range map[string]int{
		dynamic: 202, dynamic + "?x": 202, dynamic + "?": 202, dynamic + "#f": 401, // a fragment is not for a server: a part of the path
		dynamic + "/": 404, path + "//" + capability: 404, path + "/": 404, path + "/x/" + capability: 404, "/" + capability: 404,
		path + "/%63" + capability[1:]: 401, path + "/" + strings.ToUpper(capability): 401, path + "/" + capability[1:]: 401,
		path + "%2F" + capability: 404, dynamic + "%20": 401, dynamic + ";a": 401, path + "/..%2f" + capability: 401, "/x/.." + dynamic: 404,
	} {
		got := r.send(t, asV1A(draft{target: target, body: known}))
		if strings.HasSuffix(target, "#f") && got.code == 400 {
			continue // net/http may refuse it itself
		}
		if got.code != code {
			t.Errorf("%s: got %d, want %d", strings.ReplaceAll(target, capability, "…"), got.code, code)
		}
	}
	if strings.Contains(r.log.String(), capability) {
		t.Error("the log holds the token")
	}
}

// Of a delivery whose timestamp alone is wrong, the operator hears whether the signature was right: the sender hears
// nothing of it, and the delivery stays refused.
func TestStaleIsExplained(t *testing.T) {
	stale := fmt.Sprint(signedAt.Unix() - 312)
	for name, tt := range map[string]struct {
		draft draft
		error string
	}{
		"v1":                  {draft{timestamp: stale, body: known}, "secret …LaSw was right, timestamp 312 s old"},
		"v1 of nobody":        {draft{timestamp: stale, body: known, signature: sign("msg_2", stale, known)}, "timestamp is 312 s old, and the signature fits no key"},
		"v1a":                 {asV1A(draft{timestamp: stale, body: known}), "key …-key was right, timestamp 312 s old"},
		"v1a at a wrong path": {asV1A(draft{timestamp: stale, body: known, target: dynamic + "x"}), "the last part of the path is no token"},
		"chunked":             {draft{timestamp: stale, body: known, chunked: true}, "timestamp is 312 s old"},
		"large":               {draft{timestamp: stale, body: sized(64<<10 + 1)}, "timestamp is 312 s old"},
		"asking first":        {draft{timestamp: stale, body: known, lines: []string{"Expect: 100-continue"}}, "timestamp is 312 s old"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newDynamicRig(t).serve(t)
			r.send(t, tt.draft).want(t, 401, unauthenticated)
			r.wantNothingDelivered(t)
			if got := r.line(t)["error"]; got != "unauthenticated: "+tt.error {
				t.Errorf("log: got %q, want %q", got, tt.error)
			}
		})
	}
	t.Run("a body that ends early", func(t *testing.T) {
		r := newDynamicRig(t).serve(t)
		c := r.dial(t)
		c.write(t, draft{timestamp: stale, body: known, length: "999"}.text())
		c.end()
		c.receive(t, "POST").want(t, 401, unauthenticated)
	})
	t.Run("large, which is not even read", func(t *testing.T) {
		r := newDynamicRig(t)
		request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(draft{timestamp: stale, body: sized(64<<10 + 1)}.text())))
		if err != nil {
			t.Fatal(err)
		}
		request.Body = unread{t}
		r.handler.ServeHTTP(httptest.NewRecorder(), request)
	})
	t.Run("a flood", func(t *testing.T) {
		r := newDynamicRig(t)
		for range 20 {
			r.do(t, draft{timestamp: stale, body: known}).want(t, 401, unauthenticated)
		}
		if got := strings.Count(r.log.String(), "was right"); got != 5 {
			t.Errorf("%d of 20 are explained", got)
		}
	})
}

// What a proxy has done to a body is told.
func TestAlteredIsExplained(t *testing.T) {
	r := newRig(t)
	r.do(t, draft{body: known + "\n", signature: sign("msg_1", fmt.Sprint(signedAt.Unix()), known)}).want(t, 401, unauthenticated)
	r.wantNothingDelivered(t)
	want := "unauthenticated: signature matches after trimming whitespace: a proxy re-serialised the body"
	if got := r.line(t)["error"]; got != want {
		t.Errorf("log: got %q, want %q", got, want)
	}
}

// Overload is judged behind the signature with all three forms.
func TestDynamicOverload(t *testing.T) {
	for _, d := range []draft{asV1A(draft{body: known}), asJWT(goodClaims, draft{})} {
		r := newRig(t, withKeys(google().set), func(c *ingress.Config) { c.MaxInflight = 0 })
		r.do(t, d).want(t, 503, unavailable)
		r.wantNothingDelivered(t)
	}
}

// A JWT that the sender repeats under other headers, or writes anew, is a duplicate, since its event has the same id.
func TestReplayedJWT(t *testing.T) {
	r := newDynamicRig(t)
	seen := map[string]bool{}
	for i := range 3 {
		claims := strings.Replace(goodClaims, `"data":`, strings.Repeat(" ", i)+`"data": `, 1)
		r.do(t, asJWT(claims, draft{id: fmt.Sprint("msg_", i), body: strings.Repeat(" ", i) + "{}"}))
	}
	for _, e := range r.delivered() {
		seen[e.ID] = true
	}
	if len(seen) != 1 || len(r.delivered()) != 3 {
		t.Errorf("one event under %d ids, in %d deliveries", len(seen), len(r.delivered()))
	}
}
