package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one line of a Dockerfile, its continuations joined.
type instruction struct {
	name  string
	flags []string // "--from=build"
	args  string
}

// flag returns the value of a flag, or "".
func (i instruction) flag(name string) string {
	for _, f := range i.flags {
		if value, ok := strings.CutPrefix(f, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}

// words are the arguments of instructions that take words, such as COPY, or a JSON array, such as ENTRYPOINT.
func (i instruction) words(t *testing.T) []string {
	t.Helper()
	if !strings.HasPrefix(i.args, "[") {
		return strings.Fields(i.args)
	}
	var words []string
	if err := json.Unmarshal([]byte(i.args), &words); err != nil {
		t.Fatalf("%s %s: %v", i.name, i.args, err)
	}
	return words
}

// stage is what follows one FROM.
type stage struct {
	base, name   string
	instructions []instruction
}

// last returns the last instruction of a name, which is the one that holds.
func (s stage) last(t *testing.T, name string) instruction {
	t.Helper()
	for _, i := range slices.Backward(s.instructions) {
		if i.name == name {
			return i
		}
	}
	t.Fatalf("no %s in stage %q", name, s.name)
	return instruction{}
}

// readDockerfile reads the part of the format that the files here use: comments, continued lines, flags.
func readDockerfile(path string) ([]stage, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var stages []stage
	var joined strings.Builder
	for line := range strings.Lines(string(text)) {
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		head, continues := strings.CutSuffix(strings.TrimRight(line, "\n"), `\`)
		joined.WriteString(head)
		if continues {
			continue
		}
		i := parseInstruction(joined.String())
		joined.Reset()
		if i.name != "FROM" {
			if len(stages) == 0 {
				return nil, fmt.Errorf("%s: %s stands before FROM", path, i.name)
			}
			last := &stages[len(stages)-1]
			last.instructions = append(last.instructions, i)
			continue
		}
		base, name, _ := strings.Cut(i.args, " AS ")
		stages = append(stages, stage{base: base, name: name})
	}
	if joined.Len() > 0 || len(stages) == 0 {
		return nil, fmt.Errorf("%s ends early", path)
	}
	return stages, nil
}

func parseInstruction(line string) instruction {
	name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	i := instruction{name: name, args: strings.TrimSpace(rest)}
	for strings.HasPrefix(i.args, "--") {
		flag, after, _ := strings.Cut(i.args, " ")
		i.flags = append(i.flags, flag)
		i.args = strings.TrimSpace(after)
	}
	return i
}

// pinned matches an image with a tag that names one release.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$`)

// numericUser matches a user that is not root and needs no /etc/passwd; Kubernetes' runAsNonRoot insists on the number.
var numericUser = regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`)

func TestBaseImagesArePinned(t *testing.T) {
	for _, path := range []string{"Dockerfile", "nats/Dockerfile"} {
		stages, err := readDockerfile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stages {
			if s.base != "scratch" && !pinned.MatchString(s.base) {
				t.Errorf("%s: base image %q has no tag of one release", path, s.base)
			}
		}
		if user := stages[len(stages)-1].last(t, "USER").args; !numericUser.MatchString(user) {
			t.Errorf("%s: user %q is no number, or root", path, user)
		}
	}
}

// Versions that stand in go.mod as well must be the same there: what is tested is what is shipped.
func TestVersionsOfGoMod(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, image, pattern string }{
		{"Dockerfile", "golang:%s-alpine", `(?m)^go (\S+)$`},
		{"nats/Dockerfile", "nats:%s-alpine", `(?m)^\s*github.com/nats-io/nats-server/v2 v(\S+)`},
	} {
		version := regexp.MustCompile(tt.pattern).FindSubmatch(mod)
		if version == nil {
			t.Fatalf("go.mod has no %s", tt.pattern)
		}
		stages, err := readDockerfile(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(tt.image, version[1]); stages[0].base != want {
			t.Errorf("%s: got base image %s, want %s, as go.mod says", tt.path, stages[0].base, want)
		}
	}
}

// The image's binary is that of make build: the same flags, and none that brings in where or when it was built.
func TestBuildsAreTheSame(t *testing.T) {
	command := regexp.MustCompile(`CGO_ENABLED=0 go build (.*) -ldflags ['"](.*) -X main\.version=\S+['"] -o \S+ (\S+)\n`)
	var flags [2][]string
	for i, path := range []string{"Dockerfile", "../Makefile"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		match := command.FindSubmatch(text)
		if match == nil {
			t.Fatalf("%s has no go build", path)
		}
		for _, part := range match[1:] {
			flags[i] = append(flags[i], string(part))
		}
	}
	if want := []string{"-trimpath -buildvcs=false", "-s -w", "./cmd/bridge"}; !slices.Equal(flags[0], want) || !slices.Equal(flags[1], want) {
		t.Errorf("got %q and %q, want %q", flags[0], flags[1], want)
	}
}
