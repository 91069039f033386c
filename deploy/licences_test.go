package deploy_test

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The image passes on the licence of every module that its binary is made of.
func TestImageHoldsLicences(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(built.root, "THIRD_PARTY"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(filepath.Join(built.root, "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std " + info.GoVersion}
	for _, m := range info.Deps {
		want = append(want, m.Path+" "+m.Version)
	}
	if len(want) < 20 {
		t.Fatalf("the binary names %d modules", len(want))
	}
	for _, m := range want {
		// A heading, then at least some lines of text before the next one.
		if !regexp.MustCompile(`(?mi)^==== ` + regexp.QuoteMeta(m) + ` licen[cs]e\S*\n[^=]{200}`).Match(text) {
			t.Errorf("no licence of %s", m)
		}
	}
}
