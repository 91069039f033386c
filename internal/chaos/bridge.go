package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bridge is one installation: a data directory and addresses that stay, and a process that comes and goes.
type bridge struct {
	program string
	dir     string // data directory
	public  string // host:port
	admin   string
	env     []string
	log     *os.File // what every process wrote

	mu       sync.Mutex
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has ended
	expected bool          // its end was asked for
	crashes  []string      // ends that nobody asked for
	crashed  chan struct{} // closed with the first of them
}

// newBridge is one in a directory of its own. more are its settings beside addresses, secret and data directory.
func newBridge(program, dir string, more ...string) (*bridge, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	b := &bridge{program: program, dir: filepath.Join(dir, "data"), public: addr(ports[0]), admin: addr(ports[1]), crashed: make(chan struct{})}
	b.env = append([]string{
		"BRIDGE_ADDR=" + b.public, "BRIDGE_ADMIN_ADDR=" + b.admin, "BRIDGE_DATA_DIR=" + b.dir,
		"BRIDGE_SIGNING_SECRETS=" + signingSecret, "BRIDGE_LOG_FORMAT=json",
	}, more...)
	if b.log, err = os.OpenFile(filepath.Join(dir, "bridge.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	return b, os.MkdirAll(b.dir, 0o700)
}

func (b *bridge) url() string { return "http://" + b.public + "/webhooks/gemini" }

// start starts a process and does not wait for it.
func (b *bridge) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	cmd := exec.Command(b.program, "serve")
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env, b.log, b.log
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	b.cmd, b.ended, b.expected = cmd, ended, false
	go func() {
		defer close(ended)
		_ = cmd.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.expected {
			if len(b.crashes) == 0 {
				close(b.crashed)
			}
			b.crashes = append(b.crashes, fmt.Sprintf("bridge %d ended by itself: %s", cmd.Process.Pid, cmd.ProcessState))
		}
	}()
	return nil
}

// signal sends a signal that ends the process, and waits for that. It returns the exit code, -1 after SIGKILL.
func (b *bridge) signal(s syscall.Signal) (int, error) {
	b.mu.Lock()
	b.expected = true
	cmd, ended := b.cmd, b.ended
	b.mu.Unlock()
	_ = cmd.Process.Signal(s) // it may have crashed, which is told elsewhere
	select {
	case <-ended:
		return cmd.ProcessState.ExitCode(), nil
	case <-time.After(time.Minute):
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-ended
		return 0, fmt.Errorf("it had not ended a minute after %v", s)
	}
}

func (b *bridge) pid() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cmd.Process.Pid
}

// close ends the process, if one runs, and returns the ends that nobody asked for.
func (b *bridge) close() []string {
	b.mu.Lock()
	runs := b.cmd != nil
	b.mu.Unlock()
	if runs {
		_, _ = b.signal(syscall.SIGKILL) // the error is that it took long
	}
	_ = b.log.Close() // written to by children only
	return b.crashes
}

var inquirer = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// appends waits until readiness no longer says that the journal does not take events. After a failure of the disk that
// lasts up to a second.
func (b *bridge) appends(ctx context.Context) error {
	ctx, cancel := b.within(ctx)
	defer cancel()
	for {
		text, err := b.get("/readyz")
		if err == nil && !bytes.Contains(text, []byte("not take events")) {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the journal does not take events: %s", text), err)
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// get asks the admin listener, whatever its status is.
func (b *bridge) get(path string) ([]byte, error) {
	response, err := inquirer.Get("http://" + b.admin + path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return io.ReadAll(response.Body)
}

// metrics reads the series, by name and labels as they are written.
func (b *bridge) metrics() (map[string]float64, error) {
	text, err := b.get("/metrics")
	if err != nil {
		return nil, err
	}
	series := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		if found {
			name += "}"
		} else {
			name, value, _ = strings.Cut(name, " ")
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			series[name] = n
		}
	}
	if len(series) == 0 {
		return nil, fmt.Errorf("no metrics: %s", text)
	}
	return series, nil
}

// sum adds up the series of a name, whatever their labels.
func sum(series map[string]float64, name string) float64 {
	total := 0.0
	for series, value := range series {
		if series == name || strings.HasPrefix(series, name+"{") {
			total += value
		}
	}
	return total
}

// within is ctx until the bridge ends by itself, or patience has.
func (b *bridge) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	go func() {
		select {
		case <-b.crashed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// up waits until it listens.
func (b *bridge) up(ctx context.Context) error {
	ctx, cancel := b.within(ctx)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", b.public)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// waiting is how many events wait in the journals for their brokers.
func (b *bridge) waiting() (int, error) {
	series, err := b.metrics()
	if err != nil {
		return 0, err
	}
	return int(sum(series, "bridge_journal_waiting")), nil
}
