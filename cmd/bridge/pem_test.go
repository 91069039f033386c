package main

import (
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCertificates(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t), newAuthority(t)
	cut := func(text string, n int) string { return text[:len(text)-n] }
	damaged := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("not ASN.1")}))
	_, key := a.server("key")
	for name, c := range map[string]struct {
		content string
		count   int    // of certificates
		err     string // instead
	}{
		"one":                          {a.pem, 1, ""},
		"two":                          {a.pem + b.pem, 2, ""},
		"no line break at the end":     {strings.TrimSpace(a.pem), 1, ""},
		"CRLF":                         {strings.ReplaceAll(a.pem+b.pem, "\n", "\r\n"), 2, ""},
		"text of openssl":              {"Certificate:\n    Data:\n        Version: 3 (0x2)\n" + a.pem + "\nsubject=CN = b\n" + b.pem + "end", 2, ""},
		"a bundle's headings":          {"# CA\nTest Root\n=========\n" + a.pem + "\nOther\n---------\n" + b.pem, 2, ""},
		"commented out":                {a.pem + "# " + strings.ReplaceAll(strings.TrimSpace(b.pem), "\n", "\n# ") + "\n", 1, ""},
		"with its key":                 {key + a.pem, 1, ""},
		"nothing":                      {"", 0, errNoCertificate.Error()},
		"text":                         {"certificate", 0, errNoCertificate.Error()},
		"a key":                        {key, 0, errNoCertificate.Error()},
		"no end":                       {a.pem + strings.Split(b.pem, "-----END")[0], 0, errUnfinished.Error()},
		"cut in the middle":            {a.pem + b.pem[:len(b.pem)/2], 0, errUnfinished.Error()},
		"cut in the last line":         {a.pem + cut(b.pem, 4), 0, errUnfinished.Error()},
		"cut in the first line":        {a.pem + b.pem[:12], 0, errUnfinished.Error()},
		"the first is cut":             {cut(a.pem, 60) + "\n" + b.pem, 0, errUnfinished.Error()},
		"the beginning is gone":        {a.pem[20:] + b.pem, 0, errUnfinished.Error()},
		"letters that are not base64":  {a.pem + strings.Replace(b.pem, "MII", "M*I", 1), 0, errUnfinished.Error()},
		"indented, which nobody reads": {a.pem + "  " + strings.ReplaceAll(b.pem, "\n", "\n  "), 0, errUnfinished.Error()},
		"behind a byte order mark":     {"\ufeff" + a.pem + b.pem, 0, errUnfinished.Error()},
		"no certificate in the block":  {a.pem + damaged, 0, "certificate 2 cannot be read"},
		"a key that is cut":            {a.pem + cut(key, 40), 0, errUnfinished.Error()},
	} {
		all, err := parseCertificates([]byte(c.content))
		if len(all) != c.count || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %d, %v, want %d %s", name, len(all), err, c.count, c.err)
		}
		if _, caErr := parseCA([]byte(c.content)); fmt.Sprint(caErr) != fmt.Sprint(err) {
			t.Errorf("%s: as authorities %v", name, caErr)
		}
	}
}

func TestChain(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t), newAuthority(t)
	cert, key := a.server("leaf")
	for name, c := range map[string]struct {
		chain string
		works bool
	}{
		"alone":                   {cert, true},
		"with its authority":      {cert + a.pem, true},
		"with another":            {cert + b.pem, false},
		"a stranger at the end":   {cert + a.pem + b.pem, false},
		"in the wrong order":      {a.pem + cert, false},
		"half an authority":       {cert + a.pem[:len(a.pem)/2], false},
		"the end of an authority": {cert + a.pem[:len(a.pem)-10], false},
	} {
		if _, err := parsePair([]byte(c.chain), []byte(key), time.Now()); (err == nil) != c.works {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is not valid yet takes the place of nothing, and the metric tells when what is in use ends.
func TestCertificateNotYetValid(t *testing.T) {
	t.Parallel()
	s := launchSecure(t, local(t))
	end := time.Now().Add(48 * time.Hour).Truncate(time.Second)
	wantEnd := func(want int64) {
		t.Helper()
		eventually(t, func() error {
			if got := s.metrics(t)["bridge_tls_certificate_expires_seconds"]; got != float64(want) {
				return fmt.Errorf("ends at %v, want %v", got, want)
			}
			return nil
		})
	}
	cert, key := s.sign("second", end)
	s.put("cert", cert)
	s.put("key", key)
	wantEnd(end.Unix())
	s.wantShown("second")

	early, earlyKey := s.signFrom("early", time.Now().Add(time.Hour), end.Add(time.Hour))
	s.put("key", earlyKey)
	s.put("cert", early)
	s.log.line(t, `"level":"error"`, tlsCert, "the certificate is valid from", "write it again then")
	s.wantShown("second")
	wantEnd(end.Unix())

	if _, err := parsePair([]byte(early), []byte(earlyKey), time.Now().Add(90*time.Minute)); err != nil {
		t.Errorf("then: %v", err)
	}
	code, _, stderr := invoke(t, local(t, "BRIDGE_TLS_CERT="+s.path("cert"), "BRIDGE_TLS_KEY="+s.path("key")), "", "serve")
	if code != exitUsage || !strings.Contains(stderr, "BRIDGE_TLS_CERT: the certificate is valid from") {
		t.Errorf("at the start: %d %q", code, stderr)
	}
}

func TestNoCertificateNoEnd(t *testing.T) {
	t.Parallel()
	b := launch(t, local(t)).up(t)
	if got, found := b.metrics(t)["bridge_tls_certificate_expires_seconds"]; got != 0 || !found {
		t.Errorf("%v, %v", got, found)
	}
}
