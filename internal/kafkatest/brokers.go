package kafkatest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Exit status of the script when a port is taken.
const portTaken = 3

// brokers is a cluster in a directory of its own.
type brokers struct {
	path string // of the script
	dir  string
	env  map[string]string
	port net.Listener // holds the ports, see freePorts

	// keeper runs the script's hold: it ends the cluster when owner is closed, by us or by the death of this process.
	keeper *exec.Cmd
	owner  *os.File
}

// start starts a cluster on ports from free, and tries others when one of them turns out to be taken.
func start(o Options, free func() (net.Listener, error)) (*brokers, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, "scripts", "kafka-local")
	for range 10 {
		b := &brokers{path: path}
		if err := b.hold(); err != nil {
			return nil, err
		}
		var out string
		if b.port, err = free(); err == nil {
			first := b.port.Addr().(*net.TCPAddr).Port + 1
			out, err = b.script("start", append(o.args(), "--port", strconv.Itoa(first))...)
		}
		if err == nil {
			b.env = assignments(out)
			return b, nil
		}
		err = errors.Join(err, b.end())
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != portTaken {
			return nil, err
		}
	}
	return nil, err
}

// hold makes the directory and starts the keeper.
func (b *brokers) hold() error {
	var err error
	if b.dir, err = os.MkdirTemp("", "kafkatest-"); err != nil {
		return err
	}
	stdin, owner, err := os.Pipe()
	if err != nil {
		return errors.Join(err, os.RemoveAll(b.dir))
	}
	b.owner = owner
	b.keeper = exec.Command(b.path, "hold", "--dir", b.dir)
	b.keeper.Stdin = stdin
	// Ctrl-C for the tests is not for the keeper.
	b.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err = errors.Join(b.keeper.Start(), stdin.Close()); err != nil {
		return errors.Join(err, owner.Close(), os.RemoveAll(b.dir))
	}
	return nil
}

// end kills the brokers and deletes what they left.
func (b *brokers) end() error {
	err := errors.Join(b.owner.Close(), b.keeper.Wait())
	if b.port != nil {
		err = errors.Join(err, b.port.Close())
	}
	if err != nil {
		return fmt.Errorf("kafkatest: end of the cluster in %s: %w", b.dir, err)
	}
	return nil
}

// script runs a command of the script and returns what it printed.
func (b *brokers) script(command string, args ...string) (string, error) {
	cmd := exec.Command(b.path, append([]string{command, "--dir", b.dir}, args...)...)
	// The brokers of a test live for seconds: the compiler that takes longest is not worth its time.
	cmd.Env = append(cmd.Environ(), "JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kafka-local %s: %w\n%s", command, err, stderr.Bytes())
	}
	return string(out), nil
}

// logs returns the last lines that the nodes wrote.
func (b *brokers) logs() string {
	var s strings.Builder
	files, _ := filepath.Glob(filepath.Join(b.dir, "node-*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		fmt.Fprintf(&s, "%s:\n%s\n", filepath.Base(file), text[max(0, len(text)-4096):])
	}
	return s.String()
}

// assignments reads NAME=value lines, less the KAFKA_ before the names.
func assignments(text string) map[string]string {
	env := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[strings.TrimPrefix(name, "KAFKA_")] = value
	}
	return env
}

// freePorts returns a listener on the port before those of a cluster. All test processes take that one first, so while
// it is open no other cluster comes to the ports behind it. They are below those that the system gives to connections
// and to whoever listens on port 0, so they stay free while a broker is down.
func freePorts() (net.Listener, error) {
	const low, high, block = 10_000, 32_000, 50
	var err error
	for range 20 {
		port := low + block*rand.IntN((high-low)/block)
		var l net.Listener
		if l, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("kafkatest: no free ports: %w", err)
}

// moduleRoot finds the directory of go.mod above the working directory, which in a test is its package's.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("kafkatest: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
