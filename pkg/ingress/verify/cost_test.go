package verify_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// sizeOfBodies is that of the bodies below, or a little less.
const sizeOfBodies = 320 << 10

// nested is an object of this depth that names its members in the wrong order, so that putting them in order moves all
// that is within, once for each level.
func nested(depth int) string {
	fill := strings.Repeat("x", max(0, sizeOfBodies/depth-16))
	return strings.Repeat(`{"b":`, depth) + "1" + strings.Repeat(`,"a":"`+fill+`"}`, depth)
}

// deepest is nested, with nearly everything in the innermost object.
func deepest(depth int) string {
	return strings.Repeat(`{"b":`, depth) + `"` + strings.Repeat("x", sizeOfBodies-16*depth) + `"` + strings.Repeat(`,"a":1}`, depth)
}

func wide() string {
	var b strings.Builder
	b.WriteString("{")
	for i := range sizeOfBodies / 10 {
		fmt.Fprintf(&b, `"%05d":1,`, 99999-i)
	}
	return b.String() + `"x":1}`
}

// What stands beside a genuine JWT costs no more than a small multiple of a body of the same size that is accepted:
// who has captured a JWT may send any body with it.
func TestBodyBesideJWTCostsLittle(t *testing.T) {
	v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
	h := headers("msg_1", "1", goodJWT())
	cost := func(body string, accepted bool) func() time.Duration {
		raw := []byte(body)
		return func() time.Duration {
			began := time.Now()
			if _, err := v.VerifyDynamic(tokenA, h, raw); (err == nil) != accepted {
				t.Fatalf("%.40s…: %v", body, err)
			}
			return time.Since(began)
		}
	}
	const most = 4
	for name, value := range map[string]string{
		"9,900 deep": nested(9900), "128 deep": nested(127), "128 deep, large within": deepest(127), "wide": wide(),
	} {
		t.Run(name, func(t *testing.T) {
			likewise := value
			if name == "9,900 deep" {
				likewise = nested(127)
			}
			accept, refuse := cost(`{"other":`+likewise+"}", true), cost(`{"data":`+value+"}", false)
			accepted, refused := time.Hour, time.Hour
			for range 50 { // what else the machine does makes rounds slower, never quicker
				accepted, refused = min(accepted, accept()), min(refused, refuse())
				if refused < most*accepted {
					return
				}
			}
			t.Errorf("refused in %v, accepted in %v", refused, accepted)
		})
	}
}
