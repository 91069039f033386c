package verify_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

var secretErrors = []error{verify.ErrNoSecret, verify.ErrSecretMalformed, verify.ErrSecretTooShort, verify.ErrSecretTooLong}

func encode(n int) string   { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
func bareOf(n int) string   { return base64.RawStdEncoding.EncodeToString(make([]byte, n)) }
func whsec(s string) string { return "whsec_" + s }

func TestSecretForms(t *testing.T) {
	for name, tc := range map[string]struct {
		secret string
		want   error
	}{
		"as shown by Google":     {secretA, nil},
		"without prefix":         {secretA[len("whsec_"):], nil},
		"24 bytes":               {whsec(encode(24)), nil},
		"25 bytes, padded":       {whsec(encode(25)), nil},
		"25 bytes, unpadded":     {whsec(bareOf(25)), nil},
		"26 bytes, padded":       {whsec(encode(26)), nil},
		"26 bytes, unpadded":     {whsec(bareOf(26)), nil},
		"unpadded, no prefix":    {bareOf(32), nil},
		"longer than a block":    {whsec(encode(65)), nil},
		"1024 bytes":             {whsec(encode(1024)), nil},
		"1025 bytes":             {whsec(encode(1025)), verify.ErrSecretTooLong},
		"23 bytes":               {whsec(encode(23)), verify.ErrSecretTooShort},
		"23 bytes, unpadded":     {bareOf(23), verify.ErrSecretTooShort},
		"one byte":               {whsec("AA=="), verify.ErrSecretTooShort},
		"empty":                  {"", verify.ErrNoSecret},
		"blank":                  {" \t\n", verify.ErrNoSecret},
		"prefix alone":           {"whsec_", verify.ErrNoSecret},
		"prefix and blanks":      {"whsec_  ", verify.ErrNoSecret},
		"prefix twice":           {whsec(secretA), verify.ErrSecretMalformed},
		"prefix in capitals":     {strings.Replace(secretA, "whsec", "WHSEC", 1), verify.ErrSecretMalformed},
		"padding alone":          {whsec("===="), verify.ErrSecretMalformed},
		"padding where none is":  {secretA + "=", verify.ErrSecretMalformed},
		"padding missing a half": {whsec(strings.TrimSuffix(encode(25), "=")), verify.ErrSecretMalformed},
		"padding too long":       {whsec(encode(26) + "="), verify.ErrSecretMalformed},
		"trailing bits":          {whsec(strings.TrimSuffix(encode(26), "A=") + "B="), verify.ErrSecretMalformed},
		"trailing bits unpadded": {whsec(strings.TrimSuffix(bareOf(26), "A") + "B"), verify.ErrSecretMalformed},
		"base64url":              {whsec(strings.Repeat("-_", 20)), verify.ErrSecretMalformed},
		"line break inside":      {secretA[:20] + "\n" + secretA[20:], verify.ErrSecretMalformed},
		"CR inside":              {secretA[:20] + "\r" + secretA[20:], verify.ErrSecretMalformed},
		"line break after":       {secretA + "\n", verify.ErrSecretMalformed},
		"space after":            {secretA + " ", verify.ErrSecretMalformed},
		"space before":           {" " + secretA, verify.ErrSecretMalformed},
		"two in one":             {secretA + "," + secretB, verify.ErrSecretMalformed},
		"as the console shows":   {"whsec_...LaSw", verify.ErrSecretMalformed},
		"invalid UTF-8":          {strings.Repeat("\xff", 40), verify.ErrSecretMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := verify.New(verify.Config{Secrets: texts(tc.secret)})
			_, signErr := verify.Sign(secret.New(tc.secret), id, signedAt, nil)
			var want []error // all that it matches
			if tc.want != nil {
				want = []error{tc.want}
			}
			for _, err := range []error{err, signErr} {
				matched := slices.DeleteFunc(slices.Clone(secretErrors), func(e error) bool { return !errors.Is(err, e) })
				if !slices.Equal(matched, want) {
					t.Errorf("got error %v, want %v", err, want)
				}
			}
			if (v == nil) != (tc.want != nil) {
				t.Errorf("got verifier %v with error %v", v, err)
			}
		})
	}
}

func TestNoSecrets(t *testing.T) {
	for _, none := range [][]secret.Text{nil, {}, {secret.Text{}}} {
		if v, err := verify.New(verify.Config{Secrets: none}); !errors.Is(err, verify.ErrNoSecret) || v != nil {
			t.Errorf("New with %v returned %v, %v, want ErrNoSecret", none, v, err)
		}
	}
}

// A refused secret is found by its position and end, all of them at once, and shows no more of itself.
func TestSecretErrorsNameButDoNotTell(t *testing.T) {
	for name, tc := range map[string]struct {
		secrets []string
		want    string
	}{
		"short, but long enough to show its end": {
			[]string{secretA, whsec("c2hvcnQgc2VjcmV0")}, "signing secret 2 of 2 (...cmV0): shorter than 24 bytes",
		},
		"too short to show any of it": {[]string{"hunter2"}, "signing secret 1 of 1: not standard base64"},
		"15 characters":               {[]string{"whsec_AAAAAAAAA"}, "signing secret 1 of 1: not standard base64"},
		"16 characters":               {[]string{"whsec_AAAAAAAAAA"}, "signing secret 1 of 1 (...AAAA): shorter than 24 bytes"},
		"empty":                       {[]string{secretA, "", secretB}, "signing secret 2 of 3: no signing secret"},
		"binary":                      {[]string{strings.Repeat("\x00\n\xff", 20)}, "signing secret 1 of 1: not standard base64"},
		"several": {
			[]string{"", secretA, whsec(encode(1025)), "correct horse battery staple"},
			"signing secret 1 of 4: no signing secret\n" +
				"signing secret 3 of 4 (...AAA=): longer than 1024 bytes\n" +
				"signing secret 4 of 4 (...aple): not standard base64",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify.New(verify.Config{Secrets: texts(tc.secrets...)})
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestSetSecrets(t *testing.T) {
	v := newVerifier(t, signedAt, secretA)
	signedA, signedB := headers(id, timestamp, good), headers(id, timestamp, sign(secretB, id, timestamp, payload))

	accepted := func(when string, wantA, wantB string) {
		t.Helper()
		a, errA := v.Verify(signedA, []byte(payload))
		b, errB := v.Verify(signedB, []byte(payload))
		if a.Key != wantA || b.Key != wantB {
			t.Errorf("%s: keys %q (%v) and %q (%v), want %q and %q", when, a.Key, errA, b.Key, errB, wantA, wantB)
		}
	}
	accepted("at first", "LaSw", "")
	for _, step := range []struct {
		when         string
		secrets      []secret.Text
		wantErr      error
		wantA, wantB string
	}{
		{"rotation begins", texts(secretA, secretB), nil, "LaSw", "b7oD"},
		{"nothing given", nil, verify.ErrNoSecret, "LaSw", "b7oD"},
		{"an empty one among them", texts(secretB, ""), verify.ErrNoSecret, "LaSw", "b7oD"},
		{"a short one among them", texts(secretB, "whsec_AAAA"), verify.ErrSecretTooShort, "LaSw", "b7oD"},
		{"other order", texts(secretB, secretA), nil, "LaSw", "b7oD"},
		{"duplicates", texts(secretB, secretA, secretB, secretA, secretA), nil, "LaSw", "b7oD"},
		{"one of many", texts(slices.Repeat([]string{whsec(encode(32))}, 50)...), nil, "", ""},
		{"rotation ends", texts(secretB), nil, "", "b7oD"},
	} {
		if err := v.SetSecrets(step.secrets); !errors.Is(err, step.wantErr) {
			t.Errorf("%s: got error %v, want %v", step.when, err, step.wantErr)
		}
		accepted(step.when, step.wantA, step.wantB)
	}
}

func TestEitherSignatureOfARotation(t *testing.T) {
	// During a rotation the sender signs with both secrets; a receiver knows one of them, or both.
	both := sign(secretB, id, timestamp, payload) + " " + good
	for _, secrets := range [][]string{{secretA}, {secretB}, {secretA, secretB}, {secretB, secretA}} {
		delivery, err := newVerifier(t, signedAt, secrets...).Verify(headers(id, timestamp, both), []byte(payload))
		if want := secrets[0][len(secrets[0])-4:]; err != nil || delivery.Key != want {
			t.Errorf("got key %q, %v, want %q: the first secret that fits", delivery.Key, err, want)
		}
	}
}

func TestParseSecrets(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		want    []string
	}{
		"empty":            {"", nil},
		"blank":            {"\r\n \n", nil},
		"one":              {"one", []string{"one"}},
		"Windows' editors": {"\ufeffone\r\n\r\n two \r\n", []string{"one", "two"}},
		"commas stay":      {"one,two\n", []string{"one,two"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reveal(verify.ParseSecrets([]byte(tc.content))); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSplitSecrets(t *testing.T) {
	for name, tc := range map[string]struct {
		list string
		want []string
	}{
		"empty":           {"", nil},
		"blank":           {" \n", nil},
		"one":             {"one", []string{"one"}},
		"blanks around":   {" one ,\ttwo\n", []string{"one", "two"}},
		"unset variable":  {"one,", []string{"one", ""}},
		"both unset":      {",", []string{"", ""}},
		"nothing between": {"one, ,two", []string{"one", "", "two"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := verify.SplitSecrets(tc.list)
			if !slices.Equal(reveal(got), tc.want) {
				t.Errorf("got %q, want %q", reveal(got), tc.want)
			}
			if slices.Contains(tc.want, "") {
				if _, err := verify.New(verify.Config{Secrets: got}); !errors.Is(err, verify.ErrNoSecret) {
					t.Errorf("New returned %v, want ErrNoSecret", err)
				}
			}
		})
	}
}

func reveal(secrets []secret.Text) []string {
	var values []string
	for _, s := range secrets {
		values = append(values, s.Reveal())
	}
	return values
}

func TestGenerateSecret(t *testing.T) {
	a, b := verify.GenerateSecret(), verify.GenerateSecret()
	if a == b {
		t.Error("two secrets are the same")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(a.Reveal(), "whsec_"))
	if err != nil || len(raw) != 32 || !strings.HasPrefix(a.Reveal(), "whsec_") {
		t.Errorf("got %d bytes, %v, want 32 bytes of base64 after whsec_", len(raw), err)
	}
	if _, err := verify.New(verify.Config{Secrets: []secret.Text{a, b}}); err != nil {
		t.Error(err)
	}
}

// Nothing that is printed by accident shows a secret.
func TestPrintingShowsNoSecret(t *testing.T) {
	cfg := verify.Config{Secrets: texts(secretA)}
	v, err := verify.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg.Secrets), fmt.Sprintf("%v %+v", v, v)} {
		if strings.Contains(printed, "MfKQ9r8GKYqr") {
			t.Errorf("printed %q", printed)
		}
	}
}
