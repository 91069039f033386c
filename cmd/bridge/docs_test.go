package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

var (
	codeBlock  = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")
	codeSpan   = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`") // a span may be broken by one line's end
	assignment = regexp.MustCompile(`^[A-Z_]+=\S*$`)
)

// commandLines are the lines of code in a Markdown text that run the bridge, as arguments.
func commandLines(markdown string) (all [][]string) {
	var code []string
	for _, block := range codeBlock.FindAllStringSubmatch(markdown, -1) {
		code = append(code, strings.Split(block[1], "\n")...)
	}
	for _, span := range codeSpan.FindAllStringSubmatch(codeBlock.ReplaceAllString(markdown, ""), -1) {
		code = append(code, strings.ReplaceAll(span[1], "\n", " "))
	}
	for _, line := range code {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(strings.TrimPrefix(line, "$ "))
		for len(words) > 0 && assignment.MatchString(words[0]) {
			words = words[1:]
		}
		if len(words) > 2 && words[0] == "go" && words[1] == "run" {
			words = words[2:]
		}
		if len(words) > 0 && (words[0] == "bridge" || strings.HasSuffix(words[0], "/bridge")) {
			all = append(all, words[1:])
		}
	}
	return all
}

// TestDocumentedCommands: every command line that a reader may copy is one that the program takes.
func TestDocumentedCommands(t *testing.T) {
	files := []string{readme, "../../CHANGELOG.md"}
	err := filepath.WalkDir("../../docs", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]bool{}
	for _, file := range files {
		for _, args := range commandLines(readFile(t, file)) {
			if code, _, stderr := invoke(t, nil, "", append(args, "--help")...); code != exitOK {
				t.Errorf("%s: bridge %s: %s", file, strings.Join(args, " "), stderr)
			}
			if len(args) > 0 {
				commands[args[0]] = true
			}
		}
	}
	for _, command := range []string{"demo", "send", "tail", "config"} {
		if !commands[command] {
			t.Errorf("no document shows bridge %s: %v", command, slices.Sorted(maps.Keys(commands)))
		}
	}
}

func TestCommandLinesOfMarkdown(t *testing.T) {
	const text = "The bridge runs. `bridge config`, and `bin/bridge\ntail -n 1` or `bridge.yaml`:\n```sh\n$ A=1 B= bin/bridge send --id x # yes\nbridge\ngo run ./cmd/bridge demo\nmake run\n```\n"
	got := commandLines(text)
	want := [][]string{{"send", "--id", "x"}, {}, {"demo"}, {"config"}, {"tail", "-n", "1"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// exportedKeys are the values of the exported LogKey constants of a package.
func exportedKeys(t *testing.T, dir string) (keys []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, entry.Name()), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "LogKey") {
				key, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				keys = append(keys, key)
			}
			return true
		})
	}
	return keys
}

// section is what a document says between two texts.
func section(t *testing.T, path, from, to string) string {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, path), from)
	text, _, ended := strings.Cut(rest, to)
	if !found || !ended {
		t.Fatalf("%s has nothing between %q and %q", path, from, to)
	}
	return text
}

const operations = "../../docs/operations.md"

func documentedKeys(t *testing.T) (keys []string) {
	t.Helper()
	for _, m := range codeSpan.FindAllStringSubmatch(section(t, operations, "Its keys:", ". Bodies"), -1) {
		keys = append(keys, m[1])
	}
	return keys
}

func TestDocumentedLogKeys(t *testing.T) {
	want := append(exportedKeys(t, "../../pkg/ingress"), zerolog.ErrorFieldName)
	if got := documentedKeys(t); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("%s has the log keys %q, the code %q", operations, got, want)
	}
}

// logged compares the keys of the deliveries' log lines with those that are documented: all of them, and no other.
func logged(t *testing.T, log *output) {
	t.Helper()
	want := append(documentedKeys(t), "level", "time", "message")
	got := map[string]any{}
	for _, line := range log.lines(`"message":"delivery"`) {
		if err := json.Unmarshal([]byte(line), &got); err != nil { // which adds to what is there
			t.Fatal(err)
		}
	}
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, slices.Sorted(slices.Values(want))) {
		t.Errorf("%s has the log keys %q, the log %q", operations, want, keys)
	}
}

var (
	documentedReply = regexp.MustCompile("(?m)^\\| [0-9]{3} \\| `([a-z_-]+)` \\|")
	resultLabel     = regexp.MustCompile(`result="([a-z_-]+)"`)
)

// TestDocumentedReplies: the tokens of replies, as the counter of deliveries has them.
func TestDocumentedReplies(t *testing.T) {
	t.Parallel()
	b := launch(t, remote(t, "nats://"+freeAddr(t))).up(t)
	got, want := map[string]bool{}, map[string]bool{}
	for series := range b.metrics(t) {
		if m := resultLabel.FindStringSubmatch(series); m != nil {
			got[m[1]] = true
		}
	}
	for _, m := range documentedReply.FindAllStringSubmatch(readFile(t, operations), -1) {
		want[m[1]] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s has the replies %v, /metrics %v", operations, want, got)
	}
}

// TestDocumentedReasons: what is told of a refusal is explained, each reason once.
func TestDocumentedReasons(t *testing.T) {
	var got []string
	for line := range strings.Lines(section(t, operations, "## Refused deliveries", "\n## ")) {
		if cells := strings.Split(line, "|"); len(cells) == 4 && len(strings.TrimSpace(cells[2])) > 10 {
			for _, m := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
				got = append(got, m[1])
			}
		}
	}
	var want []string
	for _, reason := range verify.Reasons() {
		want = append(want, string(reason))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has the reasons\n%q, the code\n%q", operations, got, want)
	}
}

// TestDocumentedFiles: every setting whose file is watched is in the steps of a rotation.
func TestDocumentedFiles(t *testing.T) {
	text := section(t, operations, "## Rotation", "\n## ")
	for _, s := range settings() {
		if strings.Contains(s.doc, "again when it changes") && !strings.Contains(text, "`"+s.name+"`") {
			t.Errorf("%s does not say how %s is rotated", operations, s.name)
		}
	}
}
