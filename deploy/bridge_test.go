package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// variable is what docs/configuration.md says of a setting. That file is made from the Config struct.
type variable struct {
	fallback string
	values   []string // all that it takes, when it takes only some words
}

var (
	tableRow   = regexp.MustCompile("(?m)^\\| `(BRIDGE_[A-Z0-9_]+)` \\| (?:`(.*?)`)? \\| (.*) \\|$")
	tableWords = regexp.MustCompile(`Values: (.*)\.$`)
)

func documentedVariables(t *testing.T) map[string]variable {
	t.Helper()
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]variable{}
	for _, row := range tableRow.FindAllStringSubmatch(string(text), -1) {
		v := variable{fallback: row[2]}
		if words := tableWords.FindStringSubmatch(row[3]); words != nil {
			for word := range strings.SplitSeq(words[1], ", ") {
				v.values = append(v.values, strings.Trim(word, "`"))
			}
		}
		all[row[1]] = v
	}
	if len(all) < 30 {
		t.Fatalf("docs/configuration.md has only %d variables, or another form", len(all))
	}
	return all
}

// checkCommand sees that the bridge has the command, and takes its flags: with --help behind them it reads them all
// and does nothing.
func checkCommand(t *testing.T, args []string) {
	t.Helper()
	if slices.Contains(args, "--help") {
		t.Errorf("bridge %q asks for help", args)
	}
	command := exec.Command(filepath.Join(built.root, "bridge"), append(slices.Clone(args), "--help")...)
	command.Env = []string{}
	if out, err := command.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "Usage: bridge "+args[0]) {
		t.Errorf("bridge %q: %v\n%s", args, err, out)
	}
}
