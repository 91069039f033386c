package deploy_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// loadCompose reads docker-compose.yml as Docker Compose does, with nothing of this machine's environment.
func loadCompose(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../docker-compose.yml"}, cli.WithProfiles(profiles))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestProfiles(t *testing.T) {
	for _, tt := range []struct {
		profiles []string
		want     []string
	}{
		{nil, nil},
		{[]string{"nats"}, []string{"bridge-nats", "nats", "tail-nats"}},
		{[]string{"kafka"}, []string{"bridge-kafka", "kafka", "tail-kafka"}},
		{[]string{"kafka", "nats"}, []string{"bridge-kafka", "bridge-nats", "kafka", "nats", "tail-kafka", "tail-nats"}},
	} {
		project := loadCompose(t, tt.profiles...)
		if got := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(got, tt.want) {
			t.Errorf("profiles %q: got %q, want %q", tt.profiles, got, tt.want)
		}
		var ports []string
		for _, s := range project.Services {
			for _, port := range s.Ports {
				ports = append(ports, port.Published)
			}
		}
		if slices.Sort(ports); len(slices.Compact(ports)) < len(ports) {
			t.Errorf("profiles %q: two services want one port of %q", tt.profiles, ports)
		}
	}
}

// forEachService runs check on every service of both profiles.
func forEachService(t *testing.T, check func(t *testing.T, project *types.Project, s types.ServiceConfig)) {
	project := loadCompose(t, "nats", "kafka")
	for name, s := range project.Services {
		t.Run(name, func(t *testing.T) { check(t, project, s) })
	}
}

// builtHere matches the name of an image that is never pulled: no registry has it.
var builtHere = regexp.MustCompile(`^gembridge/[a-z]+:([0-9.]+-)?local$`)

func TestServicesAreHardened(t *testing.T) {
	forEachService(t, func(t *testing.T, project *types.Project, s types.ServiceConfig) {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("image %q has no tag of one release", s.Image)
		}
		if s.Build != nil && (!builtHere.MatchString(s.Image) || s.PullPolicy != types.PullPolicyBuild) {
			t.Errorf("image %q, policy %q: what is built here must not be pulled", s.Image, s.PullPolicy)
		}
		if !numericUser.MatchString(s.User) {
			t.Errorf("user %q is no number, or root", s.User)
		}
		if !s.ReadOnly {
			t.Error("its root file system can be written to")
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 {
			t.Errorf("drops capabilities %q and adds %q, want all dropped", s.CapDrop, s.CapAdd)
		}
		if !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("security options are %q", s.SecurityOpt)
		}
		if s.Privileged || s.Pid != "" || s.Ipc != "" || s.NetworkMode != "" || s.UserNSMode != "" || len(s.Devices) > 0 || len(s.GroupAdd) > 0 {
			t.Error("it shares what is the host's")
		}
		if s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("restart policy is %q", s.Restart)
		}
		for _, v := range s.Volumes {
			if _, named := project.Volumes[v.Source]; v.Type != types.VolumeTypeVolume || !named {
				t.Errorf("%s is a %s of %q, not a named volume", v.Target, v.Type, v.Source)
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("port %s is published at %q, which other machines reach", port.Published, port.HostIP)
			}
		}
		for _, secret := range s.Secrets {
			// Compose refuses any other kind of secret in a container with a read-only root file system.
			if project.Secrets[secret.Source].File == "" {
				t.Errorf("secret %s is no file", secret.Source)
			}
		}
		for name := range s.Environment {
			if regexp.MustCompile(`(SECRETS?|TOKEN|PASSWORD|KEY)$`).MatchString(name) {
				t.Errorf("%s puts a secret into the environment: name a file", name)
			}
		}
		for dependency, on := range s.DependsOn {
			if check := project.Services[dependency].HealthCheck; on.Condition != types.ServiceConditionHealthy || check == nil || check.Disable {
				t.Errorf("it does not wait until %s is healthy", dependency)
			}
		}
	})
}

func TestBrokersAreOutOfReach(t *testing.T) {
	forEachService(t, func(t *testing.T, project *types.Project, s types.ServiceConfig) {
		receives := strings.HasPrefix(s.Name, "bridge-")
		if receives != (len(s.Ports) == 1) {
			t.Errorf("it publishes %d ports", len(s.Ports))
		}
		for name := range s.Networks {
			if !project.Networks[name].Internal && !receives {
				t.Errorf("network %s leads out", name)
			}
		}
	})
}

// Every setting of the bridge exists, has a value that it takes, and is right with the others: the binary says so.
func TestSettings(t *testing.T) {
	known := documentedVariables(t)
	forEachService(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		if !runsBridge(s) {
			for name := range s.Environment {
				if strings.HasPrefix(name, "BRIDGE_") {
					t.Errorf("%s is not for this image", name)
				}
			}
			return
		}
		for name, value := range s.Environment {
			v, ok := known[name]
			if !ok {
				t.Errorf("docs/configuration.md has no %s", name)
			}
			if value == nil || v.values != nil && !slices.Contains(v.values, *value) {
				t.Errorf("%s takes %q only", name, v.values)
			}
		}
		command := exec.Command(filepath.Join(built.root, "bridge"), "config", "--json")
		command.Env = environment(t, s, t.TempDir())
		out, err := command.Output()
		var report struct {
			Warnings []string
			Mistakes []struct{ Variable, Message string }
		}
		if jsonErr := json.Unmarshal(out, &report); jsonErr != nil {
			t.Fatalf("bridge config: %v, %v\n%s", err, jsonErr, out)
		}
		for _, m := range report.Mistakes {
			// Who only reads needs no signing secret.
			if s.Command[0] != "tail" || m.Variable != "BRIDGE_SIGNING_SECRETS" {
				t.Errorf("%s: %s", m.Variable, m.Message)
			}
		}
		if len(report.Warnings) > 0 {
			t.Errorf("bridge config warns: %q", report.Warnings)
		}
	})
}

func runsBridge(s types.ServiceConfig) bool { return s.Image == "gembridge/bridge:local" }

const secretsDir = "/run/secrets/" // where Docker mounts the files

// environment is that of the container on this machine: the image's and the service's, with files of secrets, and the
// data, in dir.
func environment(t *testing.T, s types.ServiceConfig, dir string) []string {
	t.Helper()
	for _, secret := range s.Secrets {
		if err := os.WriteFile(filepath.Join(dir, secret.Source), []byte(verify.GenerateSecret().Reveal()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := maps.Clone(built.env)
	for name, value := range s.Environment {
		all[name] = *value
	}
	all["BRIDGE_DATA_DIR"] = filepath.Join(dir, "data")
	var lines []string
	for name, value := range all {
		if file, ok := strings.CutPrefix(value, secretsDir); ok {
			value = filepath.Join(dir, file)
		}
		lines = append(lines, name+"="+value)
	}
	return lines
}

func TestCommands(t *testing.T) {
	commands := map[string]string{"bridge-": "serve", "tail-": "tail"}
	forEachService(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		if !runsBridge(s) {
			return
		}
		checkCommand(t, s.Command)
		if kind, _, _ := strings.Cut(s.Name, "-"); s.Command[0] != commands[kind+"-"] {
			t.Errorf("runs %q", s.Command)
		}
		if len(s.Entrypoint) > 0 {
			t.Errorf("entrypoint %q is not the image's", s.Entrypoint)
		}
		if s.Command[0] == "tail" {
			if s.HealthCheck == nil || !s.HealthCheck.Disable {
				t.Error("the image's health check asks for a bridge, which this is not")
			}
			return
		}
		// The same as the image's, for builders that write images of OCI's format, which has no health checks.
		health := parseInstruction(built.stage.last(t, "HEALTHCHECK").args).words(t)
		if s.HealthCheck == nil || !slices.Equal(s.HealthCheck.Test, append([]string{"CMD"}, health...)) {
			t.Errorf("health check %+v is not the image's, %q", s.HealthCheck, health)
		}
	})
}

// The bridge's image is built as the Dockerfile's own test builds it, and runs as its user, with its data on a volume.
func TestBridgeFitsItsImage(t *testing.T) {
	forEachService(t, func(t *testing.T, _ *types.Project, s types.ServiceConfig) {
		if !runsBridge(s) {
			return
		}
		root, err := filepath.Abs("..")
		if err != nil {
			t.Fatal(err)
		}
		if s.Build == nil || s.Build.Context != root || s.Build.Dockerfile != "deploy/Dockerfile" || s.Build.Target != "" {
			t.Errorf("is built from %+v", s.Build)
		}
		for name := range s.Build.Args {
			if !slices.ContainsFunc(built.stage.instructions, func(i instruction) bool {
				return i.name == "ARG" && strings.HasPrefix(i.args, name+"=")
			}) {
				t.Errorf("the Dockerfile has no ARG %s", name)
			}
		}
		if want := built.stage.last(t, "USER").args; s.User != want {
			t.Errorf("user is %s, want the image's, %s", s.User, want)
		}
		if s.Command[0] == "tail" {
			if len(s.Volumes) > 0 || len(s.Secrets) > 0 {
				t.Error("a reader needs neither data nor secrets")
			}
			return
		}
		if len(s.Volumes) != 1 || s.Volumes[0].Target != built.env["BRIDGE_DATA_DIR"] || s.Volumes[0].ReadOnly {
			t.Errorf("volumes are %+v, want one at %s", s.Volumes, built.env["BRIDGE_DATA_DIR"])
		}
		// Requests get the shutdown timeout, then each thing that is open closeTimeout, 5 seconds, in cmd/bridge.
		shutdown, err := time.ParseDuration(documentedVariables(t)["BRIDGE_SHUTDOWN_TIMEOUT"].fallback)
		if err != nil {
			t.Fatal(err)
		}
		if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < shutdown+20*time.Second {
			t.Errorf("is killed after %v, before it has stopped", s.StopGracePeriod)
		}
	})
}
