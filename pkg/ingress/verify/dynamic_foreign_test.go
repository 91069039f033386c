package verify_test

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

type dynamicVectors struct {
	SignedBy string `json:"signed_by"`
	JWKS     json.RawMessage
	V1A, JWT []struct {
		Name, ID, Timestamp, Signature string
		Claims                         map[string]any
		Body                           []byte
	}
}

// foreign are deliveries and key sets made by other libraries. Their generators are in testdata.
func foreign(tb testing.TB) (all []dynamicVectors) {
	tb.Helper()
	for _, name := range []string{"python", "javascript", "go"} {
		raw, err := os.ReadFile("testdata/dynamic_" + name + ".json")
		if err != nil {
			tb.Fatal(err)
		}
		var v dynamicVectors
		if err := json.Unmarshal(raw, &v); err != nil {
			tb.Fatal(err)
		}
		if len(v.V1A) < 15 || len(v.JWT) < 11 {
			tb.Fatalf("%s: %d and %d deliveries", name, len(v.V1A), len(v.JWT))
		}
		all = append(all, v)
	}
	return all
}

func TestV1ASignedElsewhere(t *testing.T) {
	for _, file := range foreign(t) {
		for _, c := range file.V1A {
			t.Run(file.SignedBy+"/"+c.Name, func(t *testing.T) {
				at := vector{Timestamp: c.Timestamp}.time(t)
				v := newDynamic(t, at, pinned(t, file.JWKS))
				delivery, err := v.VerifyDynamic(tokenB, headers(c.ID, c.Timestamp, c.Signature), c.Body)
				if err != nil {
					t.Fatal(err)
				}
				if delivery.ID != c.ID || delivery.Timestamp != c.Timestamp || delivery.Scheme != "v1a" || len(delivery.Key) != 4 {
					t.Errorf("got %+v", delivery)
				}
				if got := delivery.Event(c.Body); string(got) != string(c.Body) {
					t.Errorf("got event %q", got)
				}
				wantDynamic(t, v, tokenB, c.ID, c.Timestamp, c.Signature, string(c.Body)+"\x00", verify.SignatureMismatch)
			})
		}
	}
}

// The published example of Standard Webhooks for v1a.
func TestPublishedV1AVector(t *testing.T) {
	const good = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
	v := newDynamic(t, signedAt, pinned(t, allKeys()))
	delivery := wantDynamic(t, v, tokenA, id, timestamp, good, payload, "")
	if delivery.Key != "0001" {
		t.Errorf("got key %q", delivery.Key)
	}
	if got := signV1A(edPrivate(edKey), id, timestamp, payload); got != good {
		t.Errorf("the tests sign %s, want %s", got, good)
	}
	for _, v1a := range []string{strings.TrimRight(good, "="), "v1,x v1a,x " + good + " v2,x"} {
		wantDynamic(t, v, tokenA, id, timestamp, v1a, payload, "")
	}
}

func TestJWTSignedElsewhere(t *testing.T) {
	members := []string{"type", "version", "timestamp", "data", "user_metadata"}
	for _, file := range foreign(t) {
		ids := map[string]string{}
		for _, c := range file.JWT {
			t.Run(file.SignedBy+"/"+c.Name, func(t *testing.T) {
				v := newDynamic(t, dynamicAt, pinned(t, file.JWKS))
				delivery := wantDynamic(t, v, tokenA, "msg_1", "", c.Signature, string(c.Body), "")
				if delivery.Scheme != "jwt" || !strings.HasPrefix(delivery.ID, "jwt_") || len(delivery.ID) != 36 || len(delivery.Key) != 4 {
					t.Errorf("got %+v", delivery)
				}
				var event map[string]any
				if err := json.Unmarshal(delivery.Event(c.Body), &event); err != nil {
					t.Fatal(err)
				}
				want := map[string]any{}
				for _, name := range members {
					if value, ok := c.Claims[name]; ok {
						want[name] = value
					}
				}
				if !reflect.DeepEqual(event, want) {
					t.Errorf("got event %v, want %v", event, want)
				}
				ids[string(toJSON(want))] = delivery.ID
				signature := c.Signature[:len(c.Signature)-6] + "AAAAAA"
				wantDynamic(t, v, tokenA, "msg_1", "", signature, string(c.Body), verify.SignatureMismatch)
			})
		}
		distinct := map[string]bool{}
		for _, id := range ids {
			distinct[id] = true
		}
		if len(distinct) != len(ids) || len(ids) < 4 {
			t.Errorf("%s: %d ids of %d events", file.SignedBy, len(distinct), len(ids))
		}
	}
}
