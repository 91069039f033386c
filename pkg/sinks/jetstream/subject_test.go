package jetstream_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

func TestSubject(t *testing.T) {
	long := strings.Repeat("x", 128)
	for _, c := range []struct{ name, want string }{
		{"batch.succeeded", "gemini.batch.succeeded"},
		{"batch.cancelled", "gemini.batch.cancelled"},
		{"batch.expired", "gemini.batch.expired"},
		{"batch.failed", "gemini.batch.failed"},
		{"interaction.completed", "gemini.interaction.completed"},
		{"interaction.requires_action", "gemini.interaction.requires_action"},
		{"interaction.failed", "gemini.interaction.failed"},
		{"interaction.cancelled", "gemini.interaction.cancelled"},
		{"video.generated", "gemini.video.generated"},
		{"ping", "gemini.ping"},
		{"Some-Thing_2.x", "gemini.Some-Thing_2.x"},
		{"a b", "gemini.a-20b"},
		{"a>.*", "gemini.a-3e.-2a"},
		{"é", "gemini.-c3-a9"},
		{"a..b.", "gemini.a.-.b.-"},
		{"", "gemini.-"},
		{".", "gemini.-.-"},
		{"a\r\nPUB x", "gemini.a-0d-0aPUB-20x"},
		{"1.2.3.4.5.6.7.8", "gemini.1.2.3.4.5.6.7.8"},
		{"1.2.3.4.5.6.7.8.9", "gemini.1.2.3.4.5.6.7.8.44d0d423f550e428"},
		{long + "." + long, "gemini." + long + ".37b5bd09cdefb949"},
		{strings.Repeat(" ", 128), "gemini.c49613f3a24dd871"},
		{strings.Repeat("x", 248), "gemini." + strings.Repeat("x", 248)},
		{strings.Repeat("x", 249), "gemini.e1c28f9cebdaad58"},
	} {
		got := jetstream.Subject("gemini", c.name)
		if got != c.want {
			t.Errorf("%.40q: got %s, want %s", c.name, got, c.want)
		}
	}
	// Two long types differ in the part that is cut.
	if a, b := jetstream.Subject("gemini", long+"."+long+"a"), jetstream.Subject("gemini", long+"."+long+"b"); a == b {
		t.Errorf("two types have subject %s", a)
	}
}

func FuzzSubject(f *testing.F) {
	for _, name := range []string{
		"batch.succeeded", "", ".", "a b.>.*", "\x00\xff", strings.Repeat("a.", 64), strings.Repeat("é", 64), strings.Repeat("x", 300),
	} {
		f.Add("gemini", name)
		f.Add(strings.Repeat("p", 128), name)
	}
	f.Fuzz(func(t *testing.T, prefix, name string) {
		if len(prefix) > 128 || !server.IsValidPublishSubject(prefix) || !server.IsValidLiteralSubject(prefix) {
			prefix = "gemini"
		}
		got := jetstream.Subject(prefix, name)
		switch rest, ok := strings.CutPrefix(got, prefix+"."); {
		case !ok:
			t.Errorf("%q does not begin with the prefix", got)
		case len(got) > 255:
			t.Errorf("%q has %d bytes", got, len(got))
		case !server.IsValidPublishSubject(got) || !server.IsValidLiteralSubject(got):
			t.Errorf("%q is no subject to publish to", got)
		case strings.Count(rest, ".") > 8:
			t.Errorf("%q has too many tokens", got)
		case strings.Trim(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "":
			t.Errorf("%q has other characters", got)
		case got != jetstream.Subject(prefix, name):
			t.Errorf("%q: not the same twice", got)
		}
	})
}
