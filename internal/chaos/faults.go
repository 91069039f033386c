package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// kind is a kind of fault.
type kind struct {
	name  string
	share int // of all faults where it fits
	fits  func(*world) bool
	// accepts tells that the bridge answers 2xx all the while.
	accepts bool
	// wrongs is what it takes away for good, if anything.
	wrongs wrongs
	// do does it and returns when it is over: what was stopped has been started again, what was cut is whole.
	do func(ctx context.Context, w *world, rng *rand.Rand) error
}

// wrongs is a copy of events that a fault destroys. What is answered 2xx has two as a rule, and survives the loss of one.
type wrongs int

const (
	neither   wrongs = iota
	inJournal        // or lets events do without: their 2xx is then as durable as the broker's ack
	inBroker
)

func kinds() []kind {
	anywhere := func(*world) bool { return true }
	journaled := func(w *world) bool { return w.journaled() }
	embedded := func(w *world) bool { return w.nats == nil && w.kafka == nil && !w.small }
	ownBroker := func(w *world) bool { return embedded(w) && w.journaled() }
	small := func(w *world) bool { return w.small }
	ofSize := func(n int) func(*world) bool {
		return func(w *world) bool {
			return w.nats != nil && len(w.nats.nodes) == n || w.kafka != nil && len(w.kafka.addrs) == n
		}
	}
	proxied := func(w *world) bool { return len(w.networks()) > 0 }
	single, cluster := ofSize(1), ofSize(3)
	separate := func(w *world) bool { return w.nats != nil || w.kafka != nil }
	besideJournal := func(w *world) bool { return separate(w) && w.journaled() }
	return []kind{
		{"bridge killed", 30, anywhere, false, neither, killBridge},
		{"bridge stopped", 12, anywhere, false, neither, stopBridge},
		{"second process on the data directory", 3, anywhere, true, neither, secondProcess},
		{"senders' clocks jump", 3, anywhere, false, neither, jumpClocks},
		{"journal's last record torn", 8, journaled, false, neither, tearJournal},
		{"journal's bit flipped", 6, journaled, false, inJournal, flipJournal},
		{"journal's fsync fails", 6, journaled, false, inJournal, failing("fdatasync", "EIO")},
		{"journal's write fails", 6, besideJournal, false, inJournal, failing("pwrite64", "ENOSPC")},
		{"every write to the disk fails", 4, embedded, false, neither, failing("pwrite64", "EIO")},
		{"broker store's fsync fails", 4, embedded, false, neither, failing("fsync", "EIO")},
		{"store set back to before its last sync", 8, ownBroker, false, inBroker, loseUnsynced},
		{"disk full", 12, small, false, neither, fillDisk},
		{"broker killed", 12, single, true, neither, endBroker(syscall.SIGKILL)},
		{"broker stopped", 6, single, true, neither, endBroker(syscall.SIGTERM)},
		{"broker paused", 8, single, true, neither, pauseBroker},
		{"bridge and broker killed", 8, separate, false, neither, killBoth},
		{"network slow", 6, proxied, true, neither, slowNetwork},
		{"network cut", 8, proxied, true, neither, cutNetwork},
		{"stream or topic deleted", 6, separate, true, inBroker, deleteLog},
		{"broker's store set back", 6, single, true, inBroker, setBack},
		{"leader killed", 12, cluster, true, neither, leaderGone("kill")},
		{"leader paused", 8, cluster, true, neither, leaderGone("pause")},
	}
}

// up to max, and seldom near it.
func soon(rng *rand.Rand, maximum time.Duration) time.Duration {
	f := rng.Float64()
	return time.Duration(f * f * float64(maximum))
}

func killBridge(ctx context.Context, w *world, rng *rand.Rand) error {
	_, err := w.bridge.signal(syscall.SIGKILL)
	pause(ctx, soon(rng, 50*time.Millisecond))
	return errors.Join(err, w.bridge.start())
}

func stopBridge(ctx context.Context, w *world, rng *rand.Rand) error {
	return endBridge([]syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[rng.IntN(2)])(ctx, w, rng)
}

func endBridge(signal syscall.Signal) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, _ *rand.Rand) error {
		if err := w.bridge.appends(ctx); err != nil { // a journal that fails at the end is exit code 1
			return err
		}
		code, err := w.bridge.signal(signal)
		if err == nil && code != 0 {
			err = violation(fmt.Sprintf("exit code %d after %v", code, signal))
		}
		return errors.Join(err, w.bridge.start())
	}
}

// violation is a promise that was broken, as against a harness that did not get its way.
type violation string

func (v violation) Error() string { return string(v) }

// secondProcess must not get anywhere.
func secondProcess(ctx context.Context, w *world, _ *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	second := exec.CommandContext(ctx, w.bridge.program, "serve")
	second.Env = append(append(second.Env, w.bridge.env...), "BRIDGE_ADDR=127.0.0.1:0", "BRIDGE_ADMIN_ADDR=127.0.0.1:0", "BRIDGE_SHUTDOWN_TIMEOUT=300ms")
	dieWithParent(second)
	out, _ := second.CombinedOutput() // judged by its exit code
	if code := second.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), fmt.Sprint(w.bridge.pid())) {
		return violation(fmt.Sprintf("a second process ended with exit code %d and did not name the first one, %d: %s", code, w.bridge.pid(), out))
	}
	return nil
}

// jumpClocks makes the senders' clocks wrong: by minutes, which a bridge tolerates, then by an hour, which it does not.
// The bridge's own clock cannot be set without setting this machine's.
func jumpClocks(ctx context.Context, w *world, rng *rand.Rand) error {
	sign := time.Duration(1 - 2*rng.IntN(2))
	for _, skew := range []time.Duration{sign * 4 * time.Minute, sign * time.Hour, -sign * time.Hour} {
		w.load.skew.Store(int64(skew))
		pause(ctx, 100*time.Millisecond)
	}
	w.load.skew.Store(0)
	return nil
}

// failing makes system calls of the bridge fail for a while, at least one. Only the journal uses fdatasync; the embedded
// broker uses fsync.
func failing(calls, with string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		trace := filepath.Join(w.dir, "strace.log")
		strace := exec.Command("strace", "-f", "-qq", "-o", trace, "-p", fmt.Sprint(w.bridge.pid()), "-e", "trace="+calls, "-e", "inject="+calls+":error="+with)
		dieWithParent(strace)
		var said strings.Builder
		strace.Stderr = &said
		if err := strace.Start(); err != nil {
			return err
		}
		pause(ctx, 150*time.Millisecond+soon(rng, 500*time.Millisecond))
		failed := func() bool {
			text, err := os.ReadFile(trace)
			return err == nil && strings.Contains(string(text), "(INJECTED)")
		}
		for begun := time.Now(); !failed() && time.Since(begun) < 10*time.Second; {
			pause(ctx, 20*time.Millisecond)
		}
		_ = strace.Process.Signal(syscall.SIGINT) // it detaches; its exit status says what the signal did
		_ = strace.Wait()
		if !failed() {
			return fmt.Errorf("strace made no %s fail: %s", calls, said.String())
		}
		return nil
	}
}

// fillDisk takes all space of the data directory's file system, and gives it back.
func fillDisk(ctx context.Context, w *world, rng *rand.Rand) error {
	path := filepath.Join(w.bridge.dir, "ballast")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	for n := 1 << 20; err == nil || n > 512; {
		if _, err = file.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("ballast: %w", err)
	}
	pause(ctx, 300*time.Millisecond+soon(rng, 1500*time.Millisecond))
	return errors.Join(file.Close(), os.Remove(path))
}
