// Command chaos lets things go wrong around a bridge under load and proves that nothing which it answered 2xx was lost.
//
//	go run ./internal/chaos [-seed N] [-faults N] [-minutes M] [-only REGEXP] [-kinds REGEXP] [-sink nats|kafka] [-write FILE]
//
// Senders that behave like Gemini post signed webhooks; a ledger outside the bridge's process has every 2xx. Bridge and
// brokers are real processes that are killed, stopped, paused, starved and set back. At the end of each part the brokers
// are read to their ends and compared with the ledger, byte for byte. The seed decides which faults happen, in which
// order, for how long, and what is sent; the rest is time. A part that finds something says how to run it again, and
// leaves the logs, the ledger and the journal.
//
// It runs on Linux and needs strace, the right to mount a small file system (as root, or in a user name space) and, for
// Kafka, what scripts/kafka-local needs. Exit code: 0 when nothing was wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-child" {
		if err := child(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
		return
	}
	code, err := withinMounts()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	os.Exit(code)
}

// child is what this program is instead when it starts itself.
func child(role string, args []string) error {
	switch role {
	case "nats":
		return beNATS(args)
	case "run":
		return command(args)
	}
	return fmt.Errorf("no child %q", role)
}

// withinMounts runs the program itself as a child with mounts of its own, which nobody has to clean up.
func withinMounts() (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command(self, append([]string{"-child", "run"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	withMounts(cmd)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("mounts of its own: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	_ = cmd.Wait()
	if !cmd.ProcessState.Success() {
		return 1, nil // it has said why
	}
	return 0, nil
}

func command(args []string) (err error) {
	r := &run{out: os.Stdout}
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	seed := flags.Uint64("seed", 0, "of the first pass (one of the moment)")
	faults := flags.Int("faults", 320, "in a pass, about")
	minutes := flags.Float64("minutes", 0, "go on with further seeds for so long")
	only := flags.String("only", "", "regular expression of the parts to run")
	kinds := flags.String("kinds", "", "regular expression of the faults in campaigns")
	sink := flags.String("sink", "", "nats or kafka: only parts with it")
	bridge := flags.String("bridge", "", "the program to test (it is built)")
	write := flags.String("write", "", "file to write the table into")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r.options = options{seed: *seed, faults: *faults, minutes: *minutes, sink: *sink, bridge: *bridge, write: *write}
	if r.only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if r.kinds, err = regexp.Compile(*kinds); err != nil {
		return fmt.Errorf("-kinds: %w", err)
	}
	if r.seed == 0 {
		r.seed = 1 + rand.Uint64N(999_999)
	}
	if _, err := exec.LookPath("strace"); err != nil {
		return fmt.Errorf("strace is needed to make system calls fail: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return r.all(ctx)
}

func (r *run) all(ctx context.Context) (err error) {
	begun := time.Now()
	if r.dir, err = os.MkdirTemp("", "bridge-chaos-"); err != nil {
		return err
	}
	defer func() {
		if r.made != nil {
			err = errors.Join(err, r.made.close())
		}
		if err == nil {
			err = os.RemoveAll(r.dir)
		}
	}()
	if r.bridge == "" {
		if err := r.build(ctx); err != nil {
			return err
		}
	}
	for seed := r.seed; seed == r.seed || time.Since(begun).Minutes() < r.minutes; seed++ {
		if err := r.pass(ctx, seed); err != nil {
			return err
		}
	}
	text := r.table.markdown()
	r.logf("\n%s\n%d faults, seed %d, %v", text, r.table.faults(), r.seed, time.Since(begun).Round(time.Second))
	if r.write != "" {
		stamp := fmt.Sprintf("`go run ./internal/chaos -seed %d -faults %d`, %s, in %v:\n\n", r.seed, r.faults, begun.UTC().Format(time.DateOnly), time.Since(begun).Round(time.Second))
		if err := replace(r.write, stamp+text); err != nil {
			return err
		}
	}
	if len(r.wrong) > 0 {
		return fmt.Errorf("things are wrong (%s); what is left is in %s", strings.Join(r.wrong, ", "), r.dir)
	}
	return nil
}

func (r *run) build(ctx context.Context) error {
	r.bridge = filepath.Join(r.dir, "bridge")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", r.bridge, "github.com/gembridge/bridge/cmd/bridge")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the bridge: %w", err)
	}
	return nil
}
