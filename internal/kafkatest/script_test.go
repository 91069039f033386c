package kafkatest_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// A start that fails leaves nothing, and says why in words and by its exit status.
func TestScriptRefuses(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	l, err := kafkatest.FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free := strconv.Itoa(l.Addr().(*net.TCPAddr).Port + 1)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		dir  string // made up when empty
		code int
		want string
	}{
		{args: "start --port " + port, code: 3, want: "port " + port + " is taken"},
		{args: "start --port " + free + " --set process.roles=none", code: 1, want: "process.roles"},
		{args: "start --port " + free, dir: full, code: 1, want: "is not empty"},
		{args: "clean", dir: full, code: 1, want: "nothing was started"},
		{args: "kill9 1", code: 1, want: "nothing was started"},
		{args: "status", code: 1, want: "nothing was started"},
		{args: "clean"},
		{args: "stop"},
		{args: "start --nodes 2", code: 2, want: "--nodes is 1 or 3"},
		{args: "start --port 70000", code: 2, want: "--port"},
		{args: "start --set x", code: 2, want: "KEY=VALUE"},
		{args: "start --port", code: 2, want: "--port needs a value"},
		{args: "start --fast", code: 2, want: "--fast"},
		{args: "stop --tls", code: 2, want: "--tls belongs to start"},
		{args: "kill9", code: 2, want: "which node"},
		{args: "restart", code: 2, want: "unknown command restart"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			temp := t.TempDir()
			dir := tt.dir
			if dir == "" {
				dir = filepath.Join(temp, "kafka")
			}
			cmd := exec.Command("../../scripts/kafka-local", append(strings.Fields(tt.args), "--dir", dir)...)
			if strings.HasSuffix(tt.args, "--port") {
				cmd.Args = cmd.Args[:3]
			}
			out, err := cmd.CombinedOutput()
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tt.code || !strings.Contains(string(out), tt.want) {
				t.Errorf("exit status %d, want %d; it said %q, want %q", code, tt.code, out, tt.want)
			}
			if left, _ := os.ReadDir(temp); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(full, "mine")); err != nil {
		t.Error(err)
	}
}

func TestTools(t *testing.T) {
	version := kafkatest.Shared(t, kafkatest.Options{}).Version()
	for _, tool := range []string{"topics", "configs", "groups", "consume", "produce", "acls"} {
		out, err := exec.Command("../../scripts/kafka-local", "tool", tool, "--version").Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != version {
			t.Errorf("tool %s --version: %q, %v, want %s", tool, got, err, version)
		}
	}
}
