package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// eventMembers are the claims that are the event, in the order of the event and of its id. All but the last are required.
var eventMembers = [...]string{"type", "version", "timestamp", "data", "user_metadata"}

const optional = len(eventMembers) - 1

// claimNames are all that are read.
var claimNames = append([]string{"aud", "exp", "iat", "nbf"}, eventMembers[:]...)

// maxDepth bounds nesting, as pkg/schema does: putting members in order costs the depth times the length.
const maxDepth = 128

// event is the values of eventMembers, nil when absent.
type event [len(eventMembers)]jsontext.Value

// claims is the payload of a JWT.
type claims struct {
	event         event
	audience      []string
	exp, iat, nbf *float64 // unix seconds
}

// parseClaims is strict where encoding/json is not: duplicate names at any depth and invalid UTF-8 are errors
// (RFC 7493), for two readers that take them differently would see two different events.
func parseClaims(payload []byte) (*claims, error) {
	if tooDeep(payload) {
		return nil, fail(JWTClaims, "the JWT's claims are nested more than 128 deep")
	}
	all, err := object(payload, claimNames)
	if err != nil {
		return nil, fail(JWTClaims, "the JWT's claims are no JSON object of unique names")
	}
	c := &claims{}
	for i, name := range eventMembers {
		c.event[i] = all[name]
		if c.event[i] == nil && i != optional {
			return nil, fail(JWTClaims, "the JWT has no claim "+name)
		}
	}
	for name, to := range map[string]**float64{"exp": &c.exp, "iat": &c.iat, "nbf": &c.nbf} {
		raw, ok := all[name]
		if !ok {
			continue
		}
		seconds, err := strconv.ParseFloat(string(raw), 64)
		if raw.Kind() != '0' || err != nil {
			return nil, fail(JWTClaims, "the JWT's "+name+" is no time")
		}
		*to = &seconds
	}
	if c.exp == nil {
		return nil, fail(JWTClaims, "the JWT has no exp")
	}
	if c.audience, err = audience(all["aud"]); err != nil {
		return nil, fail(JWTClaims, "the JWT's aud is neither a string nor a list of strings")
	}
	return c, nil
}

var (
	errNotObject = errors.New("not an object")
	errNotText   = errors.New("not a string")
)

// tooDeep tells whether a JSON text is nested deeper than maxDepth, in one pass. Of what is no JSON it may tell anything.
func tooDeep(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// object returns the raw values of a JSON object by name, of those that have one of the names.
func object(text []byte, names []string) (map[string]jsontext.Value, error) {
	in := jsontext.NewDecoder(bytes.NewBuffer(text))
	if in.PeekKind() != '{' {
		return nil, errNotObject
	}
	_, _ = in.ReadToken() // it has been seen
	all := make(map[string]jsontext.Value)
	for in.PeekKind() != '}' {
		name, err := in.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := in.ReadValue()
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, key) {
			all[key] = value.Clone()
		}
	}
	_, _ = in.ReadToken() // and that
	if _, err := in.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errNotObject
	}
	return all, nil
}

// audience reads "aud": one string or a list of them (RFC 7519, 4.1.3), or nothing.
func audience(raw jsontext.Value) ([]string, error) {
	if raw == nil {
		return nil, nil
	}
	if raw.Kind() == '"' {
		one, err := jsontext.AppendUnquote(nil, raw)
		return []string{string(one)}, err
	}
	if raw.Kind() != '[' {
		return nil, errNotText
	}
	in := jsontext.NewDecoder(bytes.NewBuffer(raw))
	_, err := in.ReadToken()
	var all []string
	for err == nil && in.PeekKind() == '"' {
		var one jsontext.Token
		one, err = in.ReadToken()
		all = append(all, one.String())
	}
	if err == nil && in.PeekKind() != ']' {
		err = errNotText
	}
	return all, err
}

// judge checks what the claims say of the JWT itself. From the first moment that it is accepted to the last is maxAge at
// most, however far ahead the sender's clock is: as long as its id is remembered.
func (v *Verifier) judge(c *claims) error {
	now := float64(v.now().UnixNano()) / 1e9
	if !slices.Contains(c.audience, v.audience) {
		return fail(JWTAudience, "the JWT is not for the configured audience")
	}
	if now >= *c.exp {
		return fail(JWTExpired, "the JWT expired "+inSeconds(span(now-*c.exp))+" ago")
	}
	issued := c.iat
	if issued == nil {
		t, err := c.time()
		if err != nil {
			return fail(JWTClaims, "the JWT has no iat, and its timestamp is no time")
		}
		issued = &t
	}
	ahead := min(Tolerance, v.maxAge/2)
	for _, t := range []*float64{issued, c.nbf} {
		if t != nil && *t-now > ahead.Seconds() {
			return fail(JWTTooNew, "the JWT is valid from "+inSeconds(span(*t-now))+" ahead of this machine's clock")
		}
	}
	if age := now - *issued; age > (v.maxAge - ahead).Seconds() {
		return fail(JWTTooOld, "the JWT was issued "+inSeconds(span(age))+" ago, longer than ids are remembered")
	}
	return nil
}

// span is a time in seconds that may be any number of the sender's.
func span(seconds float64) time.Duration {
	return time.Duration(min(seconds, 1e9)) * time.Second
}

// time is when the event says that it happened.
func (c *claims) time() (seconds float64, err error) {
	text, err := jsontext.AppendUnquote(nil, c.event[2])
	if err != nil {
		return 0, err
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	return float64(t.UnixMilli()) / 1e3, err
}

// canonical is the event in the form that its id is made of, in the manner of RFC 8785: without white space, names in
// order, one form of strings and of fractions. Whole numbers keep all their digits, which that RFC would round.
func (e event) canonical() event {
	for i, raw := range e {
		e[i] = reordered(compacted(raw.Clone()))
	}
	return e
}

// id is a digest of a canonical event, each member preceded by its length: the same event has the same id, whatever the
// headers say, which nobody signed, and however the sender writes the claims when it repeats them.
func (e event) id() string {
	h := sha256.New()
	for _, canonical := range e {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(canonical))))
		h.Write(canonical)
	}
	return "jwt_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// envelope is the event as a body would hold it.
func (e event) envelope() string {
	b := []byte{'{'}
	for i, raw := range e {
		if raw == nil {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, eventMembers[i]...)
		b = append(b, `":`...)
		b = append(b, raw...)
	}
	return string(append(b, '}'))
}

// agree checks the body beside a JWT against the canonical event: nothing, or a JSON object whose members of the event's
// names are the claims, white space, escapes, the order of names and the forms of fractions aside. Its cost grows with
// the length of the body alone.
func (e event) agree(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if tooDeep(body) {
		return fail(BodyDisagrees, "the body beside the JWT is nested more than 128 deep")
	}
	all, err := object(body, eventMembers[:])
	if err != nil {
		return fail(BodyDisagrees, "the body beside the JWT is no JSON object of unique names")
	}
	for i, name := range eventMembers {
		if raw, ok := all[name]; ok && !same(raw, e[i]) {
			return fail(BodyDisagrees, "the body's "+name+" is not the JWT's")
		}
	}
	return nil
}

// same compares a value, which it spoils, with a canonical one, which may be absent. Only what has the same length, and
// is no longer than claims can be, is put in order.
func same(raw, canonical jsontext.Value) bool {
	raw = compacted(raw)
	return len(raw) == len(canonical) && bytes.Equal(reordered(raw), canonical)
}

// compacted and reordered change a value that has been read before, so that nothing can fail.
func compacted(v jsontext.Value) jsontext.Value {
	_ = v.Format(jsontext.PreserveRawStrings(false), jsontext.CanonicalizeRawFloats(true))
	return v
}

func reordered(v jsontext.Value) jsontext.Value {
	_ = v.Format(jsontext.ReorderRawObjects(true))
	return v
}
