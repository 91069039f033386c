package deploy_test

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// image is what a Dockerfile makes: the tree, whose it is, and the settings.
type image struct {
	root   string
	owners map[string]string // of paths that are not root's: "65532:65532"
	stage  stage             // the final one
	env    map[string]string
}

// buildImage does without Docker what the Dockerfile tells it to: the commands run here, in a copy of the context.
func buildImage(dir, context, dockerfile string, args map[string]string) (*image, error) {
	stages, err := readDockerfile(dockerfile)
	if err != nil {
		return nil, err
	}
	if len(stages) != 2 || stages[1].base != "scratch" {
		return nil, fmt.Errorf("%s: want a build stage and one from scratch", dockerfile)
	}
	img := &image{root: filepath.Join(dir, "root"), owners: map[string]string{}, stage: stages[1], env: map[string]string{}}
	b := builder{src: filepath.Join(dir, "src"), context: context, args: map[string]string{}, given: args}
	for _, i := range stages[0].instructions {
		if err := b.prepare(i); err != nil {
			return nil, fmt.Errorf("%s: %s %s: %w", dockerfile, i.name, i.args, err)
		}
	}
	if err := os.Mkdir(img.root, 0o755); err != nil {
		return nil, err
	}
	for _, i := range stages[1].instructions {
		if err := b.assemble(i, stages[0].name, img); err != nil {
			return nil, fmt.Errorf("%s: %s %s: %w", dockerfile, i.name, i.args, err)
		}
	}
	return img, nil
}

type builder struct {
	src, context string
	args, given  map[string]string
}

const workdir = "/src" // of the build stage

// prepare carries out an instruction of the build stage.
func (b *builder) prepare(i instruction) error {
	switch {
	case i.name == "WORKDIR" && i.args == workdir:
		return os.Mkdir(b.src, 0o755)
	case i.name == "COPY" && i.args == ". .":
		return copyContext(b.context, b.src)
	case i.name == "ARG":
		name, value, _ := strings.Cut(i.args, "=")
		if given, ok := b.given[name]; ok {
			value = given
		}
		b.args[name] = value
		return nil
	case i.name == "RUN":
		command := exec.Command("sh", "-e", "-c", i.args)
		command.Dir, command.Env = b.src, os.Environ()
		for name, value := range b.args {
			command.Env = append(command.Env, name+"="+value)
		}
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	return fmt.Errorf("this test does not know how to do that")
}

// assemble carries out an instruction of the final stage.
func (b *builder) assemble(i instruction, from string, img *image) error {
	switch i.name {
	case "COPY":
		words := strings.Fields(i.args)
		if len(words) != 2 || i.flag("from") != from || !path.IsAbs(words[0]) || !path.IsAbs(words[1]) {
			return fmt.Errorf("want --from=%s and two absolute paths", from)
		}
		source, ours := strings.CutPrefix(words[0], workdir+"/")
		if ours {
			source = filepath.Join(b.src, source)
		} else {
			source = words[0] // of the base image: this machine's stands for it
		}
		if owner := i.flag("chown"); owner != "" {
			img.owners[words[1]] = owner
		}
		return copyTree(source, filepath.Join(img.root, words[1]))
	case "ENV":
		name, value, _ := strings.Cut(i.args, "=")
		img.env[name] = value
		return nil
	case "ARG", "LABEL", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT": // no part of the tree
		return nil
	}
	return fmt.Errorf("this test does not know how to do that")
}

// copyContext copies what .dockerignore lets through. It knows the patterns that stand there: "*", "!name" at the top,
// and "**/pattern" for a name anywhere.
func copyContext(from, to string) error {
	ignore, err := os.ReadFile(filepath.Join(from, ".dockerignore"))
	if err != nil {
		return err
	}
	var kept, dropped []string
	for line := range strings.Lines(string(ignore)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "!"); ok {
			kept = append(kept, name)
		} else if pattern, ok := strings.CutPrefix(line, "**/"); ok {
			dropped = append(dropped, pattern)
		} else if line != "" && line[0] != '#' && line != "*" {
			return fmt.Errorf(".dockerignore: this test does not know the pattern %q", line)
		}
	}
	for _, name := range kept {
		err := filepath.WalkDir(filepath.Join(from, name), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if slices.ContainsFunc(dropped, func(pattern string) bool { ok, _ := path.Match(pattern, d.Name()); return ok }) {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			rel, err := filepath.Rel(from, p)
			if err != nil || d.IsDir() {
				return err
			}
			return copyFile(p, filepath.Join(to, rel))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies a file, or an empty directory.
func copyTree(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return copyFile(from, to)
	}
	if err := os.MkdirAll(to, info.Mode().Perm()); err != nil {
		return err
	}
	inside, err := os.ReadDir(from)
	if err == nil && len(inside) > 0 {
		return fmt.Errorf("%s is not empty", from)
	}
	return err
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

func TestImageHoldsOnly(t *testing.T) {
	want := []string{
		"/LICENSE -rw-r--r-- root",
		"/THIRD_PARTY -rw-r--r-- root",
		"/bridge -rwxr-xr-x root",
		"/data drwx------ 65532:65532",
		"/etc/ssl/certs/ca-certificates.crt -rw-r--r-- root",
		"/tmp drwx------ 65532:65532",
	}
	var got []string
	err := filepath.WalkDir(built.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, owner := strings.TrimPrefix(p, built.root), "root"
		if o, ok := built.owners[name]; ok {
			owner = o
		}
		if inside, _ := os.ReadDir(p); len(inside) == 0 { // not the directories above others
			got = append(got, fmt.Sprintf("%s %v %s", name, info.Mode(), owner))
		}
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got\n%s, %v, want\n%s", strings.Join(got, "\n"), err, strings.Join(want, "\n"))
	}
}

func TestBinaryNeedsNothing(t *testing.T) {
	binary := filepath.Join(built.root, "bridge")
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary has a %v segment: it is not static", segment.Type)
		}
	}
	for _, section := range file.Sections {
		if section.Name == ".symtab" || strings.HasPrefix(section.Name, ".debug_") || strings.HasPrefix(section.Name, ".zdebug_") {
			t.Errorf("the binary has a section %s: it is not stripped", section.Name)
		}
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" {
		t.Errorf("built with CGO_ENABLED=%s -trimpath=%s, want 0 and true", settings["CGO_ENABLED"], settings["-trimpath"])
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if dir := filepath.Dir(built.root); bytes.Contains(content, []byte(dir)) {
		t.Errorf("the binary tells that it was built in %s", dir)
	}
	out, err := exec.Command(binary, "version").Output()
	if want := "bridge " + testVersion + "\n"; string(out) != want || err != nil {
		t.Errorf("got %q, %v, want %q: VERSION must reach the linker", out, err, want)
	}
}

// The demo is the whole bridge. Where this test may, it runs it as the image's user with the image's tree for a root,
// so that nothing of this machine's can help.
func TestImageRuns(t *testing.T) {
	command := exec.Command(filepath.Join(built.root, "bridge"), "demo")
	command.Dir, command.Env = "/", []string{"TMPDIR=" + t.TempDir()}
	if os.Geteuid() == 0 {
		for name, owner := range built.owners {
			var uid, gid int
			if _, err := fmt.Sscanf(owner, "%d:%d", &uid, &gid); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(filepath.Join(built.root, name), uid, gid); err != nil {
				t.Fatal(err)
			}
		}
		var user syscall.Credential
		if _, err := fmt.Sscanf(built.stage.last(t, "USER").args, "%d:%d", &user.Uid, &user.Gid); err != nil {
			t.Fatal(err)
		}
		command.Path, command.Env = "/bridge", []string{}
		command.SysProcAttr = &syscall.SysProcAttr{Chroot: built.root, Credential: &user}
	}
	out, err := command.CombinedOutput()
	if err != nil || !bytes.HasSuffix(out, []byte("9 of 9 events received.\n")) {
		t.Errorf("got %v\n%s", err, out)
	}
}

func TestImageSettings(t *testing.T) {
	s := built.stage
	if got := s.last(t, "ENTRYPOINT").words(t); !slices.Equal(got, []string{"/bridge"}) {
		t.Errorf("got entrypoint %q", got)
	}
	known := documentedVariables(t)
	for name, value := range built.env {
		if _, ok := known[name]; !ok {
			t.Errorf("ENV %s: docs/configuration.md has no such variable", name)
		}
		if owner := built.owners[value]; name == "BRIDGE_DATA_DIR" && owner != s.last(t, "USER").args {
			t.Errorf("%s=%s is %q's, not the user's", name, value, owner)
		}
	}
	if built.env["BRIDGE_DATA_DIR"] == "" {
		t.Error("no BRIDGE_DATA_DIR")
	}
	if got, want := ":"+s.last(t, "EXPOSE").args, known["BRIDGE_ADDR"].fallback; got != want {
		t.Errorf("exposes %s, but BRIDGE_ADDR is %s", got, want)
	}
	// Docker runs a health check as it runs the program, without the entrypoint before it.
	health := parseInstruction(s.last(t, "HEALTHCHECK").args)
	if health.name != "CMD" {
		t.Fatalf("got HEALTHCHECK %s %s, want a command", health.name, health.args)
	}
	words := health.words(t)
	if words[0] != "/bridge" {
		t.Errorf("the health check runs %q, which the image has not", words[0])
	}
	checkCommand(t, words[1:])
}
