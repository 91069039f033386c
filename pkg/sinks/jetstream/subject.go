package jetstream

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	maxSubject = 255 // bytes; a much longer one closes the connection (max_control_line)
	maxTokens  = 8   // of the type; JetStream indexes subjects by token
	hashDigits = 16
)

// Subject returns the subject of an event: the prefix, a dot, and the sender's type. Types of letters, digits, "_"
// and "-" in up to 8 tokens stay as they are, so all known ones do. In every other token a byte outside of that set
// becomes "-" and two hexadecimal digits, an empty token becomes "-". What exceeds 8 tokens, or 255 bytes with the
// prefix, is replaced by one token: the first 16 hexadecimal digits of the SHA-256 of the whole type.
//
// The result is fit for publishing if prefix is. Different types may share a subject; the event says its type.
func Subject(prefix, name string) string {
	var b strings.Builder
	b.Grow(len(prefix) + 1 + len(name))
	b.WriteString(prefix)
	more := true
	for rest, tokens := name, 0; more; tokens++ {
		var token string
		token, rest, more = strings.Cut(rest, ".")
		token = encodeToken(token)
		need := 1 + len(token)
		if more {
			need += 1 + hashDigits // which may have to follow
		}
		b.WriteByte('.')
		if tokens == maxTokens || b.Len()-1+need > maxSubject {
			sum := sha256.Sum256([]byte(name))
			b.WriteString(hex.EncodeToString(sum[:hashDigits/2]))
			break
		}
		b.WriteString(token)
	}
	return b.String()
}

func encodeToken(token string) string {
	if token == "" {
		return "-"
	}
	plain := true
	for i := range len(token) {
		plain = plain && isPlain(token[i])
	}
	if plain {
		return token
	}
	b := make([]byte, 0, 3*len(token))
	for i := range len(token) {
		if c := token[i]; isPlain(c) {
			b = append(b, c)
		} else {
			b = hex.AppendEncode(append(b, '-'), []byte{c})
		}
	}
	return string(b)
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// isPlainName tells whether s may be a stream's name, and dotted whether it may be a subject's prefix.
func isPlainName(s string) bool {
	for i := range len(s) {
		if !isPlain(s[i]) {
			return false
		}
	}
	return s != ""
}

// covers tells whether every subject that pattern b matches is matched by pattern a too.
func covers(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i, token := range x {
		switch {
		case token == ">":
			return len(y) > i
		case i >= len(y) || y[i] == ">":
			return false
		case token != "*" && token != y[i]:
			return false
		}
	}
	return len(x) == len(y)
}

// overlap tells whether a subject exists that both patterns match.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		switch {
		case x[i] == ">" || y[i] == ">":
			return true
		case x[i] != "*" && y[i] != "*" && x[i] != y[i]:
			return false
		}
	}
	return len(x) == len(y)
}
