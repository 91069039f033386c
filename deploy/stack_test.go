package deploy_test

import (
	"bufio"
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
)

const patience = 60 * time.Second

// A broker with the settings of docker-compose.yml runs, and the bridge and its consumer do what they do there, each
// with its command and its environment; only addresses and paths are this machine's.
func TestStack(t *testing.T) {
	for _, tt := range []struct {
		profile string
		address string // the broker's in docker-compose.yml
		start   func(t *testing.T, s types.ServiceConfig) (address string)
	}{
		{"nats", "nats:4222", startNATS},
		{"kafka", "kafka:9092", startKafka},
	} {
		t.Run(tt.profile, func(t *testing.T) {
			project := loadCompose(t, tt.profile)
			broker := tt.start(t, project.Services[tt.profile])
			dir, webhooks := t.TempDir(), freeAddress(t)
			here := func(s types.ServiceConfig) []string {
				env := environment(t, s, dir)
				for i, line := range env {
					env[i] = strings.ReplaceAll(line, tt.address, broker)
				}
				return append(env, "BRIDGE_ADDR="+webhooks, "BRIDGE_ADMIN_ADDR="+freeAddress(t))
			}
			bridge := project.Services["bridge-"+tt.profile]
			env := here(bridge)
			serving := run(t, env, bridge.Command)
			waitHealthy(t, env, bridge.HealthCheck.Test[2:])
			printer := project.Services["tail-"+tt.profile]
			printing := run(t, here(printer), printer.Command)

			send := []string{"send", "--url", "http://" + webhooks + "/webhooks/gemini", "--id", "msg_stack"}
			for _, want := range []string{`202 {"status":"published","id":"msg_stack"}`, `202 {"status":"duplicate","id":"msg_stack"}`} {
				command := bridgeCommand(t.Context(), env, send)
				if out, err := command.CombinedOutput(); strings.TrimSpace(string(out)) != want {
					t.Errorf("got %s, %v, want %s", out, err, want)
				}
			}
			select {
			case line := <-printing.lines:
				if !strings.Contains(line, `"id":"msg_stack"`) {
					t.Errorf("the consumer printed %q", line)
				}
			case <-time.After(patience):
				t.Error("the consumer printed nothing")
			}
			printing.stop(t)
			serving.stop(t)
			if line, more := <-printing.lines; more {
				t.Errorf("the consumer printed the event twice, or %q", line)
			}
		})
	}
}

// startNATS runs the server of nats/nats-server.conf, at other ports and in another directory.
func startNATS(t *testing.T, s types.ServiceConfig) string {
	options := natsOptions(t)
	health, err := url.Parse(s.HealthCheck.Test[len(s.HealthCheck.Test)-1])
	if err != nil || health.Host != net.JoinHostPort(options.HTTPHost, strconv.Itoa(options.HTTPPort)) {
		t.Fatalf("the health check asks %v, and the server answers at %s:%d", health, options.HTTPHost, options.HTTPPort)
	}
	options.Host, options.Port, options.HTTPPort = "127.0.0.1", server.RANDOM_PORT, server.RANDOM_PORT
	options.StoreDir, options.NoSigs = t.TempDir(), true
	nats, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	t.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })
	if !nats.ReadyForConnections(patience) {
		t.Fatal("the NATS server did not start")
	}
	response, err := http.Get("http://" + nats.MonitorAddr().String() + health.Path)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the health check got %s", response.Status)
	}
	return nats.Addr().String()
}

func natsOptions(t *testing.T) *server.Options {
	t.Helper()
	options, err := server.ProcessConfigFile("nats/nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	return options
}

func TestNATSServer(t *testing.T) {
	options := natsOptions(t)
	s := loadCompose(t, "nats").Services["nats"]
	stages, err := readDockerfile("nats/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	image := stages[0]
	if !options.JetStream || !options.SyncAlways {
		t.Errorf("JetStream is %t, sync always %t: 202 would not mean durable", options.JetStream, options.SyncAlways)
	}
	if copied, config := image.last(t, "COPY").words(t), image.last(t, "ENTRYPOINT").words(t); copied[0] != "nats-server.conf" || !slices.Contains(config, copied[1]) {
		t.Errorf("runs %q, with the settings in %q", config, copied)
	}
	// A volume takes the owner of the directory in the image.
	if made := image.last(t, "RUN").args; !strings.HasSuffix(made, "mkdir -m 0700 "+options.StoreDir+" && chown "+s.User+" "+options.StoreDir) {
		t.Errorf("%q does not make %s a directory of %s", made, options.StoreDir, s.User)
	}
	if user := image.last(t, "USER").args; user != s.User {
		t.Errorf("user is %s, the image's %s", s.User, user)
	}
	if len(s.Volumes) != 1 || s.Volumes[0].Target != options.StoreDir {
		t.Errorf("volumes are %+v, want one at %s", s.Volumes, options.StoreDir)
	}
	if context, err := filepath.Abs("nats"); err != nil || s.Build == nil || s.Build.Context != context || s.Build.Dockerfile != "Dockerfile" {
		t.Errorf("is built from %+v, %v", s.Build, err)
	}
}

// notBroker are variables of the Kafka image that are no settings of the broker.
var notBroker = []string{"KAFKA_HEAP_OPTS", "LOG_DIR"}

// property is the setting that the image makes of a variable.
func property(variable string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(variable, "KAFKA_")), "_", ".")
}

// startKafka runs a broker with the settings of the service, but for what says where it is, and sees that a broker has
// all of them: it would ignore a misspelt one.
func startKafka(t *testing.T, s types.ServiceConfig) string {
	set := map[string]string{}
	for name, value := range s.Environment {
		set[property(name)] = *value
	}
	for _, name := range notBroker {
		delete(set, property(name))
	}
	all := slices.Collect(maps.Keys(set))
	for _, place := range []string{
		"node.id", "process.roles", "listeners", "advertised.listeners", "listener.security.protocol.map",
		"inter.broker.listener.name", "controller.listener.names", "controller.quorum.voters", "log.dirs",
	} {
		if set[place] == "" {
			t.Errorf("%s is not set", place)
		}
		delete(set, place)
	}
	cluster := kafkatest.Start(t, kafkatest.Options{Set: set})
	broker := cluster.Bootstrap()[0]

	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(broker), Timeout: patience, Transport: transport}
	described, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeBroker, ResourceName: "1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, resource := range described.Resources {
		for _, entry := range resource.ConfigEntries {
			got[entry.ConfigName] = entry.ConfigValue
		}
	}
	for _, name := range all {
		if value, ok := got[name]; !ok {
			t.Errorf("Kafka has no setting %s", name)
		} else if want, ok := set[name]; ok && value != want {
			t.Errorf("%s is %s, want %s", name, value, want)
		}
	}
	return broker
}

func TestKafkaServer(t *testing.T) {
	s := loadCompose(t, "kafka").Services["kafka"]
	pom, err := os.ReadFile("../scripts/kafka/pom.xml")
	if err != nil {
		t.Fatal(err)
	}
	version, ok := strings.CutPrefix(s.Image, "apache/kafka:")
	if !ok || !strings.Contains(string(pom), "<kafka.version>"+version+"</kafka.version>") {
		t.Errorf("image %s is not of the version in scripts/kafka/pom.xml, which all tests run", s.Image)
	}
	// The image's own directory for data, which belongs to its user.
	if len(s.Volumes) != 1 || s.Volumes[0].Target != "/var/lib/kafka/data" || *s.Environment["KAFKA_LOG_DIRS"] != s.Volumes[0].Target {
		t.Errorf("volumes are %+v, and data goes to %s", s.Volumes, *s.Environment["KAFKA_LOG_DIRS"])
	}
	// What the image writes at start, and native code of snappy and zstd, which Docker's default of noexec would refuse.
	for mount, options := range map[string][]string{"/opt/kafka/config": {"uid=1000", "gid=1000"}, "/tmp": {"exec", "mode=1777"}} {
		if !slices.ContainsFunc(s.Tmpfs, func(entry string) bool {
			target, given, _ := strings.Cut(entry, ":")
			return target == mount && !slices.ContainsFunc(options, func(o string) bool { return !slices.Contains(strings.Split(given, ","), o) })
		}) {
			t.Errorf("tmpfs are %q, want %s with %q", s.Tmpfs, mount, options)
		}
	}
}

// process is a bridge command that runs.
type process struct {
	*exec.Cmd
	lines  chan string // of its output; closed at its end
	log    *strings.Builder
	exited chan struct{} // closed when err is set
	err    error
}

func bridgeCommand(ctx context.Context, env, args []string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(built.root, "bridge"), args...)
	command.Env = env
	return command
}

func run(t *testing.T, env, args []string) *process {
	t.Helper()
	p := &process{Cmd: bridgeCommand(t.Context(), env, args), lines: make(chan string, 100), log: &strings.Builder{}, exited: make(chan struct{})}
	p.Stderr = p.log
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
		close(p.lines)
		p.err = p.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("bridge %s wrote\n%s", args[0], p.log)
		}
	})
	return p
}

// stop does what Docker does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
		if p.err != nil {
			t.Errorf("%q ended with %v", p.Args[1:], p.err)
		}
	case <-time.After(patience):
		t.Errorf("%q did not end", p.Args[1:])
	}
}

// waitHealthy runs the health check until it succeeds.
func waitHealthy(t *testing.T, env, args []string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, err := bridgeCommand(t.Context(), env, args).CombinedOutput()
		if err == nil {
			return
		}
		wrong, isExit := errors.AsType[*exec.ExitError](err)
		if isExit && wrong.ExitCode() == 2 || time.Now().After(deadline) { // 2: no waiting will mend it
			t.Fatalf("not healthy: %v\n%s", err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
