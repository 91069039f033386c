package verify

import (
	"encoding/base64"
	"iter"
	"strconv"
	"strings"
)

const (
	v1Prefix  = SchemeV1 + ","
	v1aPrefix = SchemeV1A + ","
)

// listForm is what a list has that passed checkList.
type listForm struct {
	v1, v1a  bool // has such entries
	v1Sized  bool // and one of them can be decoded
	v1aSized bool
}

// checkList checks the form of webhook-signature's list, and looks for entries that can be decoded at all, so that the
// body of a delivery that cannot be verified is never read.
func checkList(list string) (listForm, error) {
	var form listForm
	if n := strings.Count(list, " ") + 1; n > maxSignatures {
		return form, fail(TooManySignatures, "webhook-signature has "+strconv.Itoa(n)+" entries, more than 32")
	}
	for entry := range entries(list) {
		if entry == "" {
			return form, fail(SignatureMalformed, "webhook-signature is empty or has entries not separated by single spaces")
		}
		if encoded, ok := strings.CutPrefix(entry, v1Prefix); ok {
			var signature [sizeV1]byte
			form.v1 = true
			form.v1Sized = form.v1Sized || decodeSignature(signature[:], encoded)
		}
		if encoded, ok := strings.CutPrefix(entry, v1aPrefix); ok {
			var signature [sizeV1A]byte
			form.v1a = true
			form.v1aSized = form.v1aSized || decodeSignature(signature[:], encoded)
		}
	}
	return form, nil
}

// checkSignatureHeader bounds the header, whatever is in it. A JWT holds the whole event.
func checkSignatureHeader(value string) error {
	limit := maxList
	if len(value) > maxList && isJWT(value) {
		limit = maxJWT
	}
	if len(value) > limit {
		return fail(SignatureTooLong, "webhook-signature has "+strconv.Itoa(len(value))+" bytes, more than "+strconv.Itoa(limit))
	}
	for i := range len(value) {
		if value[i] < 0x20 || value[i] > 0x7e {
			return fail(SignatureMalformed, "webhook-signature has bytes other than visible ASCII and spaces")
		}
	}
	return nil
}

// entries are the parts of a list. strings.SplitSeq would allocate.
func entries(list string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for entry, rest, more := "", list, true; more; {
			entry, rest, more = strings.Cut(rest, " ")
			if !yield(entry) {
				return
			}
		}
	}
}

// decodeSignature fills signature if encoded is its strict base64, with or without padding. A line break, which Go's
// decoder skips, would take the place of a character and leave fewer bytes.
func decodeSignature(signature []byte, encoded string) bool {
	const longest = (sizeV1A*8 + 5) / 6
	length := base64.RawStdEncoding.EncodedLen(len(signature))
	if len(encoded) == base64.StdEncoding.EncodedLen(len(signature)) && strings.Trim(encoded[length:], "=") == "" {
		encoded = encoded[:length]
	}
	if len(encoded) != length {
		return false
	}
	var source [longest]byte
	n := copy(source[:], encoded)
	n, err := base64.RawStdEncoding.Strict().Decode(signature, source[:n])
	return err == nil && n == len(signature)
}

// isJWT tells a JWT from a list: it has dots and neither a comma nor a blank. What else it must be is for later.
func isJWT(value string) bool {
	return strings.IndexByte(value, '.') >= 0 && strings.IndexByte(value, ',') < 0 && strings.IndexByte(value, ' ') < 0
}
