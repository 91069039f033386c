package journal_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

// script uses all there is: groups, rolls, a full journal, settling, removal, marks, a clean restart.
func (m *model) script() {
	if err := m.open(); err != nil {
		return
	}
	for range 2 {
		m.append(1)
		m.append(3)
		m.settle(0.2)
		m.sync()
		for range 16 {
			m.append(4)
		}
		m.settle(0.7)
		m.append(1)
		m.sync()
		synctest.Wait() // the front is removed
		m.settle(0.1)
		time.Sleep(time.Second) // its marks are written
		m.append(4)
		if m.log.Close() != nil || m.open() != nil {
			return
		}
		m.check(true) // what failed and is there all the same is a record like the others
	}
	m.append(3)
}

// everyOp runs test in a bubble, once for each operation of the script on the file system.
func everyOp(t *testing.T, test func(t *testing.T, op int)) {
	total := 0
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, 1, "no fault")
		m.script()
		m.check(false)
		total, _ = m.fs.counts()
		if m.failures == 0 || m.log.Usage().Bytes > 5*segment {
			t.Errorf("%d appends failed, %d bytes: the script should fill the journal", m.failures, m.log.Usage().Bytes)
		}
		m.crash(nothing)
		_ = m.log.Close()
	})
	if total < 150 {
		t.Fatalf("the script has %d operations only", total)
	}
	for op := 1; op <= total+1; op++ {
		synctest.Test(t, func(t *testing.T) { test(t, op) })
		if t.Failed() {
			return
		}
	}
}

// A crash after every single operation, with nothing, everything, or any part of what was not synced on the disk.
func TestCrashAnywhere(t *testing.T) {
	everyOp(t, func(t *testing.T, op int) {
		for seed := range uint64(4) {
			s := survival(min(seed, uint64(byChance)))
			m := newModel(t, seed, fmt.Sprintf("crash at operation %d, survival %d, seed %d", op, s, seed))
			m.fs.fault = func(n int, call string) error {
				if n == op {
					m.name += " (" + call + ")"
					return errCrashed
				}
				return nil
			}
			m.script()
			m.crash(s)
			m.crash(nothing) // what was found is durable
			m.append(2)
			m.crash(nothing)
			_ = m.log.Close()
		}
	})
}

// The process is killed after every single operation, while the machine goes on. What its successor finds, or appends, is on the
// disk.
func TestKillAnywhere(t *testing.T) {
	everyOp(t, func(t *testing.T, op int) {
		m := newModel(t, 1, fmt.Sprintf("killed at operation %d", op))
		m.fs.fault = func(n int, call string) error {
			if n == op {
				m.name += " (" + call + ")"
				return errCrashed
			}
			return nil
		}
		m.script()
		if m.log != nil {
			_ = m.log.Close()
		}
		m.fs.restart()
		if err := m.open(); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		m.check(true)
		m.append(2)
		m.settle(0.2)
		m.append(2)
		for range 12 {
			m.append(1) // into the next segment
		}
		m.crash(nothing)
		_ = m.log.Close()
	})
}

// An error of every single operation, alone or with those that follow. No append is told to be durable that is not, and the
// journal goes on when the errors are over.
func TestErrorAnywhere(t *testing.T) {
	everyOp(t, func(t *testing.T, op int) {
		for seed, row := range []int{1, 3, 40} {
			m := newModel(t, uint64(seed), fmt.Sprintf("%d errors from operation %d", row, op))
			m.fs.fault = func(n int, call string) error {
				switch {
				case n == op:
					m.name += " (" + call + ")"
					fallthrough
				case n > op && n < op+row:
					return []error{syscall.EIO, syscall.ENOSPC}[n%2]
				}
				return nil
			}
			m.script()
			m.fs.setFault(nil)
			_ = m.heal()
			m.crash(nothing)
			m.append(1)
			m.crash(byChance)
			_ = m.log.Close()
		}
	})
}

// heal expects that the journal takes records again, after a second at most.
func (m *model) heal() error {
	m.t.Helper()
	if m.log == nil {
		if err := m.open(); err != nil {
			m.t.Errorf("%s: does not open: %v", m.name, err)
			return err
		}
		m.check(true)
	}
	time.Sleep(1100 * time.Millisecond)
	m.settle(1)
	_, err := m.log.Append(m.payload())
	if errors.Is(err, journal.ErrClosed) { // the script's restart failed
		if err := m.open(); err != nil {
			m.t.Errorf("%s: does not open: %v", m.name, err)
			return err
		}
		m.check(true)
		m.settle(1)
		_, err = m.log.Append(m.payload())
	}
	if err != nil {
		m.t.Errorf("%s: does not heal: %v", m.name, err)
	}
	return err
}

// Random lives with random deaths.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, seed, fmt.Sprint("seed ", seed))
			if err := m.open(); err != nil {
				t.Fatal(err)
			}
			for range 6 {
				start, _ := m.fs.counts()
				deadline := start + 10 + m.rand.IntN(100)
				m.fs.setFault(func(n int, call string) error {
					switch {
					case n >= deadline:
						return errCrashed
					case seed%3 == 0 && m.fs.rand.IntN(40) == 0:
						return syscall.EIO
					}
					return nil
				})
				for ops, _ := m.fs.counts(); ops < deadline && m.log != nil; ops, _ = m.fs.counts() {
					m.step()
				}
				m.crash(survival(m.rand.IntN(3)))
			}
			_ = m.log.Close()
		})
		if t.Failed() {
			return
		}
	}
}

func (m *model) step() {
	switch m.rand.IntN(8) {
	case 0, 1, 2:
		m.append(1)
	case 3:
		m.append(1 + m.rand.IntN(8))
	case 4:
		m.settle(0.2)
	case 5:
		m.settle(0.9)
		m.sync()
	case 6:
		time.Sleep(time.Second)
	case 7:
		if m.rand.IntN(4) > 0 {
			m.check(false)
			return
		}
		_ = m.log.Close()
		err := m.open()
		for errors.Is(err, syscall.EIO) {
			err = m.open()
		}
		if err == nil {
			m.check(true)
		} else if !errors.Is(err, errCrashed) {
			m.t.Fatalf("%s: does not open: %v", m.name, err)
		}
	}
}
