//go:build !race

// Under the race detector sync.Pool drops states at random.

package verify_test

import "testing"

func TestGoodDeliveryDoesNotAllocate(t *testing.T) {
	v := newVerifier(t, signedAt, secretB, secretA)
	h, body := headers(id, timestamp, bad+" v2,bad "+good), []byte(payload)
	if allocs := testing.AllocsPerRun(1000, func() {
		if _, err := v.Head(h); err != nil {
			t.Error(err)
		}
	}); allocs != 0 {
		t.Errorf("Head allocates %v times", allocs)
	}
	if allocs := testing.AllocsPerRun(1000, func() {
		if _, err := v.Verify(h, body); err != nil {
			t.Error(err)
		}
	}); allocs != 0 {
		t.Errorf("Verify allocates %v times", allocs)
	}
}
