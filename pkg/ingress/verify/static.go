package verify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strconv"
	"strings"
	"sync"
)

const v1Prefix = SchemeV1 + ","

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
func (k *key) sum(out *[sha256.Size]byte, id, timestamp string, body []byte) {
	s := k.states.Get().(*state)
	s.mac.Reset()
	s.scratch = append(s.scratch[:0], id...)
	s.scratch = append(s.scratch, '.')
	s.scratch = append(s.scratch, timestamp...)
	s.scratch = append(s.scratch, '.')
	s.mac.Write(s.scratch)
	s.mac.Write(body)
	s.scratch = s.mac.Sum(s.scratch[:0])
	copy(out[:], s.scratch)
	k.states.Put(s)
}

// Body checks the signature of a delivery, body being the bytes as received. One v1 entry that fits one secret
// is enough, whatever the other entries are; the first such secret is reported. Every secret is tried against
// every entry, so the time does not tell which one fits. The error is a *Failure.
func (v *Verifier) Body(a Attempt, body []byte) (Delivery, error) {
	var decoded [maxSignatures][sha256.Size]byte
	signatures := decoded[:0]
	for entry, rest, more := "", a.signature, true; more && len(signatures) < maxSignatures; {
		entry, rest, more = strings.Cut(rest, " ")
		if signature, _, ok := decodeEntry(entry); ok {
			signatures = append(signatures, signature)
		}
	}

	keys := *v.keys.Load()
	var matched *key
	var want [sha256.Size]byte
	for _, k := range keys {
		k.sum(&want, a.id, a.timestamp, body)
		for i := range signatures {
			if hmac.Equal(want[:], signatures[i][:]) && matched == nil {
				matched = k
			}
		}
	}
	if matched == nil {
		return Delivery{}, &Failure{SignatureMismatch, "none of " + strconv.Itoa(len(signatures)) +
			" v1 signatures fits any of " + strconv.Itoa(len(keys)) + " secrets"}
	}
	return Delivery{ID: a.id, Timestamp: a.timestamp, Scheme: SchemeV1, Key: matched.tail}, nil
}

// checkSignatures checks the form of the list, and that it has a v1 entry that can be decoded at all, so that
// the body of a delivery that cannot be verified is never read.
func checkSignatures(list string) error {
	if len(list) > maxSignature {
		return &Failure{SignatureTooLong, "webhook-signature has " + strconv.Itoa(len(list)) + " bytes, more than 8192"}
	}
	if n := strings.Count(list, " ") + 1; n > maxSignatures {
		return &Failure{TooManySignatures, "webhook-signature has " + strconv.Itoa(n) + " entries, more than 32"}
	}
	for i := range len(list) {
		if list[i] < 0x20 || list[i] > 0x7e {
			return &Failure{SignatureMalformed, "webhook-signature has bytes other than visible ASCII and spaces"}
		}
	}
	anyV1, decodable := false, false
	for entry, rest, more := "", list, true; more; {
		entry, rest, more = strings.Cut(rest, " ")
		if entry == "" {
			return &Failure{SignatureMalformed, "webhook-signature is empty or has entries not separated by single spaces"}
		}
		_, v1, ok := decodeEntry(entry)
		anyV1 = anyV1 || v1
		decodable = decodable || ok
	}
	if !anyV1 {
		return &Failure{NoV1Signature, "webhook-signature has no v1 entry"}
	}
	if !decodable {
		return &Failure{SignatureMalformed, "no v1 entry of webhook-signature is the base64 of 32 bytes"}
	}
	return nil
}

// decodeEntry tells whether an entry of the list is of version v1, and whether it is the base64 of 32 bytes, 43
// characters with or without the one of padding. A line break, which Go's decoder skips, would take the place
// of one of the 43 and leave fewer bytes.
func decodeEntry(entry string) (signature [sha256.Size]byte, v1, ok bool) {
	encoded, v1 := strings.CutPrefix(entry, v1Prefix)
	if !v1 {
		return signature, false, false
	}
	const length = 43
	if len(encoded) == length+1 && encoded[length] == '=' {
		encoded = encoded[:length]
	}
	if len(encoded) != length {
		return signature, true, false
	}
	var source [length]byte
	copy(source[:], encoded)
	n, err := base64.RawStdEncoding.Strict().Decode(signature[:], source[:])
	return signature, true, err == nil && n == sha256.Size
}
