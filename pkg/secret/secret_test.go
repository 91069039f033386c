package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/secret"
)

const value = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestNeverPrinted(t *testing.T) {
	s := secret.New(value)
	holder := struct {
		Name   string
		Secret secret.Text
		List   []secret.Text
		At     *secret.Text
	}{"n", s, []secret.Text{s}, &s}
	var log bytes.Buffer
	logger := zerolog.New(&log)
	logger.Info().Interface("holder", holder).Stringer("secret", s).Any("any", s).Msg("")
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"%v":    fmt.Sprintf("%v %v", s, holder),
		"%+v":   fmt.Sprintf("%+v %+v", s, holder),
		"%#v":   fmt.Sprintf("%#v", s) + fmt.Sprintf("%#v", holder.List),
		"%s":    fmt.Sprintf("%s", []secret.Text{s}),
		"%q":    fmt.Sprintf("%q", s),
		"%x":    fmt.Sprintf("%x", s),
		"error": fmt.Errorf("with %v: %w", s, errors.New("x")).Error(),
		"log":   log.String(),
		"JSON":  string(asJSON),
	} {
		if strings.Contains(text, "MfKQ9r8G") || strings.Contains(text, fmt.Sprintf("%x", "MfKQ9r8G")) {
			t.Errorf("%s: %s", name, text)
		}
		if name != "%x" && name != "%q" && !strings.Contains(text, secret.Redacted) {
			t.Errorf("%s: got %q, want %s in it", name, text, secret.Redacted)
		}
	}
}

func TestReveal(t *testing.T) {
	if got := secret.New(value).Reveal(); got != value {
		t.Errorf("got %q, want %q", got, value)
	}
	var s secret.Text
	if !s.IsZero() || s.String() != "" {
		t.Errorf("zero value: IsZero %v, prints %q", s.IsZero(), s)
	}
	if err := s.UnmarshalText([]byte(value)); err != nil || s.Reveal() != value || s.IsZero() {
		t.Errorf("UnmarshalText: %v, %q", err, s.Reveal())
	}
}
