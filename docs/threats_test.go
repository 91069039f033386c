package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	testLink = regexp.MustCompile(`\[((?:Test|Fuzz)\w+)\]\(\.\./([\w/]+_test\.go)\)`)
	testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
)

// Every attack in the threat model names tests that exist, in the files that it links to.
func TestThreatModel(t *testing.T) {
	content, err := os.ReadFile("threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	attacks := 0
	for line := range strings.Lines(string(content)) {
		links := testLink.FindAllStringSubmatch(line, -1)
		for _, link := range links {
			name, file := link[1], link[2]
			source, err := os.ReadFile("../" + file)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !strings.Contains(string(source), "\nfunc "+name+"(") {
				t.Errorf("%s has no %s", file, name)
			}
		}
		if names := testName.FindAllString(line, -1); len(names) != len(links) {
			t.Errorf("%d tests are named and %d linked in %q", len(names), len(links), line)
		}
		// Rows of three columns are attacks, but for their two lines of heading.
		if strings.HasPrefix(line, "| ") && strings.Count(line, " | ") == 2 && !strings.HasPrefix(line, "| attack |") {
			attacks++
			if len(links) == 0 && !strings.HasSuffix(line, "| none: it depends on the day |\n") {
				t.Errorf("nothing shows what becomes of %q", line)
			}
		}
	}
	if attacks < 40 {
		t.Errorf("%d attacks, want at least 40: the tables are not read", attacks)
	}
}
