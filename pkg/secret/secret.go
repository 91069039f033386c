// Package secret holds text that must never be seen. It refuses to print itself; whoever needs the
// value says so with Reveal.
package secret

// Redacted is what a secret prints.
const Redacted = "[redacted]"

// Text is a secret string. Its zero value is "no secret".
type Text struct{ value string }

// New makes a secret of value.
func New(value string) Text { return Text{value} }

// Reveal returns the value, for the one place that needs it.
func (t Text) Reveal() string { return t.value }

// IsZero tells whether there is no secret.
func (t Text) IsZero() bool { return t.value == "" }

// String returns "[redacted]", or "" when there is no secret.
func (t Text) String() string {
	if t.value == "" {
		return ""
	}
	return Redacted
}

// GoString is String, for %#v.
func (t Text) GoString() string { return t.String() }

// MarshalText is String, for JSON and loggers.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText takes the value from an environment variable or a file.
func (t *Text) UnmarshalText(b []byte) error {
	t.value = string(b)
	return nil
}
