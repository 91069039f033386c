package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child: the line that it said first (its address), and for a bridge the time to its first 202.
type process struct {
	cmd   *exec.Cmd
	line  string
	admin string // where its counters are
	first time.Duration
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// child starts this program in another role and waits for its first line.
func (b *bench) child(args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, args...)}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%v: %w", args, err)
	}
	p.line = strings.TrimSpace(p.line)
	p.admin = p.line
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p, nil
}

// patience is how long a child may take beyond the time that it measures.
const patience = time.Minute

// ask runs a child to its end and reads what it printed.
func (b *bench) ask(into any, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*b.period+patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append(args, "-seconds", fmt.Sprint(b.period.Seconds()))...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%v: %w", args, err)
	}
	return json.Unmarshal(out, into)
}

// serve starts a bridge and posts to it until a delivery is answered 202. Its data directory is new, unless env has one.
func (b *bench) serve(env ...string) (*process, error) { return b.serveUnder(nil, env...) }

// serveUnder puts a program in front that becomes the bridge.
func (b *bench) serveUnder(front []string, env ...string) (*process, error) {
	public, admin, broker := freeAddr(), freeAddr(), freeAddr()
	command := slices.Concat(front, []string{b.bridge})
	p := &process{cmd: exec.Command(command[0], command[1:]...), line: "http://" + public, admin: "http://" + admin}
	p.cmd.Env = append([]string{
		"BRIDGE_ADDR=" + public, "BRIDGE_ADMIN_ADDR=" + admin, "BRIDGE_SIGNING_SECRETS=" + benchSecret, "BRIDGE_LOG_LEVEL=info",
		"BRIDGE_DATA_DIR=" + b.store(),
	}, env...)
	if !strings.Contains(strings.Join(env, " "), "BRIDGE_NATS_URL") {
		p.cmd.Env = append(p.cmd.Env, "BRIDGE_NATS_EMBEDDED_ADDR="+broker)
	}
	begun := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := dial(p.line); err == nil {
			code, err := c.post(0)
			c.close()
			if err == nil && code == http.StatusAccepted {
				p.first = time.Since(begun)
				return p, nil
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	p.stop()
	return nil, errors.New("the bridge gave no 202 within ten seconds")
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	return l.Addr().String()
}

// cpu is the user and system time that the process has used.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

// memory is the resident set, in MiB.
func (p *process) memory() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kib / 1024
}

// allocs is how many allocations the process has made, by its own metrics.
func (p *process) allocs() float64 { return p.metric("go_memstats_mallocs_total") }

// metric is one of the process's own, by name and labels.
func (p *process) metric(name string) float64 {
	response, err := http.Get(p.admin + "/metrics")
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, _ := strconv.ParseFloat(value, 64)
			return n
		}
	}
	return 0
}
