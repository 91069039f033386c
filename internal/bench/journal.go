package main

import (
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// slowSync is what the delay below makes of an fsync, whatever the disk is.
const slowSync = 5 * time.Millisecond

// slowly goes before a program whose syncs are to take longer. -D leaves the program the process that was started, and
// --seccomp-bpf all other system calls as fast as they are.
func slowly() []string {
	const calls = "fsync,fdatasync,syncfs"
	return []string{
		"strace", "-D", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", "trace=" + calls,
		"-e", fmt.Sprintf("inject=%s:delay_exit=%d", calls, slowSync.Microseconds()),
	}
}

// journal compares the bridge with its journal to the bridge without, on its own broker, which then fsyncs every message.
func (b *bench) journal() error {
	slow := slowly()
	if said, err := exec.Command(slow[0], append(slow[1:], "true")...).CombinedOutput(); err != nil {
		return fmt.Errorf("strace is needed to make fsync slow: %w %s", err, said)
	}
	if err := b.onAndOff("Journal on against off, embedded server", nil, 0, map[int]float64{64: 5, 256: 5}); err != nil {
		return err
	}
	return b.onAndOff(fmt.Sprintf("Journal on against off, embedded server, each fsync %v slower", slowSync), slow, slowSync, map[int]float64{64: 40, 256: 90})
}

// onAndOff measures both in turns. No request may be faster than one sync.
func (b *bench) onAndOff(title string, front []string, sync time.Duration, aims map[int]float64) error {
	fmt.Printf("## %s\n\n", title)
	fmt.Println("| connections | on requests/s | p50 / p99 ms | off requests/s | p50 / p99 ms | rate on ÷ off | p99 off ÷ on |\n|---|---|---|---|---|---|---|")
	for _, conns := range []int{1, 64, 256} {
		var on, off series
		for round := range b.rounds {
			turns := []struct {
				setting string
				into    *series
			}{{"on", &on}, {"off", &off}}
			if round%2 == 1 {
				slices.Reverse(turns) // nobody is always the first
			}
			for _, v := range turns {
				// Without a journal, with slow syncs, a second and more is what the last in the row waits for the broker.
				s, err := b.serveUnder(front, "BRIDGE_JOURNAL="+v.setting, "BRIDGE_ACK_TIMEOUT=20s")
				if err != nil {
					return err
				}
				r, err := b.load(s, s.line, conns)
				s.stop()
				if err != nil {
					return err
				}
				if r.P50 < millis(sync) {
					return fmt.Errorf("half of the requests took less than %.1f ms: strace made no sync slower", r.P50)
				}
				v.into.add(r)
			}
		}
		fmt.Printf("| %d | %.0f | %.2f / %.1f | %.0f | %.2f / %.1f | %s | %.1f× |\n", conns, on.rate(), on.p50(), on.p99(),
			off.rate(), off.p50(), off.p99(), withAim(on.rate()/off.rate(), aims[conns]), off.p99()/on.p99())
	}
	fmt.Println()
	return nil
}

// withAim prints a ratio, and what it is to be at least, if anything.
func withAim(ratio, aim float64) string {
	if aim == 0 {
		return fmt.Sprintf("%.2f×", ratio)
	}
	return fmt.Sprintf("%.2f× (aim ≥ %g)", ratio, aim)
}
