package verify

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"strconv"
	"strings"
	"sync"
)

const sizeV1 = sha256.Size

// key is one secret, ready to verify with.
type key struct {
	tail   string    // for Delivery.Key
	states sync.Pool // of *state
}

// state is a keyed HMAC. Keying one costs half as much as using it, and eleven allocations.
type state struct {
	mac     hash.Hash
	scratch []byte // strings go into mac through it: converting them would allocate
}

func newKey(raw []byte, tail string) *key {
	return &key{tail: tail, states: sync.Pool{New: func() any {
		return &state{mac: hmac.New(sha256.New, raw), scratch: make([]byte, 0, maxID+maxTimestamp+2)}
	}}}
}

// sum computes the signature of a delivery into out.
func (k *key) sum(out *[sizeV1]byte, id, timestamp string, body []byte) {
	s := k.states.Get().(*state)
	s.mac.Reset()
	s.scratch = appendHead(s.scratch[:0], id, timestamp)
	s.mac.Write(s.scratch)
	s.mac.Write(body)
	s.scratch = s.mac.Sum(s.scratch[:0])
	copy(out[:], s.scratch)
	k.states.Put(s)
}

// appendHead appends what is signed before the body.
func appendHead(b []byte, id, timestamp string) []byte {
	b = append(b, id...)
	b = append(b, '.')
	b = append(b, timestamp...)
	return append(b, '.')
}

// staticForm checks that the list has a v1 entry that could fit.
func (v *Verifier) staticForm(list string) error {
	form, err := checkList(list)
	switch {
	case err != nil:
		return err
	case form.v1 && v.keys.Load() == nil:
		return fail(StaticOff, "v1 but no signing secret is configured")
	case !form.v1 && form.v1a:
		return v.notStatic("v1a")
	case !form.v1:
		return fail(NoV1Signature, "webhook-signature has no v1 entry")
	case !form.v1Sized:
		return fail(SignatureMalformed, "no v1 entry of webhook-signature is the base64 of 32 bytes")
	}
	return nil
}

// notStatic refuses a dynamic delivery at the path without a token.
func (v *Verifier) notStatic(scheme string) error {
	if v.tokens.Load() == nil {
		return fail(DynamicOff, scheme+" but no dynamic token is configured")
	}
	return fail(WrongPath, scheme+" at the path without a token")
}

// static checks a v1 signature. Every secret is tried against every entry, so the time does not tell which one fits.
func (v *Verifier) static(a Attempt, body []byte) (Delivery, error) {
	matched, tried, keys := v.matchStatic(a, body)
	if matched == nil {
		return Delivery{}, fail(SignatureMismatch, "none of "+strconv.Itoa(tried)+" v1 signatures fits any of "+
			strconv.Itoa(keys)+" secrets")
	}
	return Delivery{ID: a.id, Timestamp: a.timestamp, Scheme: SchemeV1, Key: matched.tail}, nil
}

func (v *Verifier) matchStatic(a Attempt, body []byte) (matched *key, tried, secrets int) {
	var decoded [maxSignatures][sizeV1]byte
	for entry := range entries(a.signature) {
		encoded, ok := strings.CutPrefix(entry, v1Prefix)
		if ok && tried < len(decoded) && decodeSignature(decoded[tried][:], encoded) {
			tried++
		}
	}
	keys := v.keys.Load()
	if keys == nil {
		return nil, tried, 0
	}
	var want [sizeV1]byte
	for _, k := range *keys {
		k.sum(&want, a.id, a.timestamp, body)
		for i := range tried {
			if hmac.Equal(want[:], decoded[i][:]) && matched == nil {
				matched = k
			}
		}
	}
	return matched, tried, len(*keys)
}
