package kafka

import (
	"errors"
	"testing"

	"github.com/gembridge/bridge/pkg/secret"
)

// Every login shows the password of the moment.
func TestPasswordIsRenewed(t *testing.T) {
	password := "first"
	a := access{
		brokers: []string{"127.0.0.1:9092"}, mechanism: "PLAIN", user: "bridge", password: secret.New("first"),
		renewed: func() secret.Text { return secret.New(password) },
	}
	mechanism, err := a.check()
	if err != nil {
		t.Fatal(err)
	}
	if got := mechanism.Name(); got != "PLAIN" {
		t.Errorf("mechanism %q", got)
	}
	for _, password = range []string{"first", "second"} {
		_, shown, err := mechanism.Start(t.Context())
		if want := "\x00bridge\x00" + password; err != nil || string(shown) != want {
			t.Errorf("shows %q, %v, want %q", shown, err, want)
		}
	}
	password = ""
	if _, _, err := mechanism.Start(t.Context()); err == nil {
		t.Error("a login without a password")
	} else if _, ok := errors.AsType[*settingsError](err); !ok {
		t.Errorf("%T, want a settingsError", err)
	}
}
