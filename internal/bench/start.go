package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

// idle reports what a bridge costs that does nothing.
func (b *bench) idle() error {
	info, err := os.Stat(b.bridge)
	if err != nil {
		return err
	}
	nats, err := b.child("-child", "nats", "-dir", b.store())
	if err != nil {
		return err
	}
	defer nats.stop()
	fmt.Printf("## Idle\n\nStripped binary: %.1f MiB\n\n| | start to first 202, ms | idle memory, MiB |\n|---|---|---|\n", float64(info.Size())/(1<<20))
	for _, v := range []struct {
		name string
		env  []string
	}{
		{"embedded broker, empty store", nil},
		{"external broker", []string{"BRIDGE_NATS_URL=" + nats.line}},
	} {
		var first, memory []float64
		for range b.rounds {
			s, err := b.serve(v.env...)
			if err != nil {
				return err
			}
			first = append(first, millis(s.first))
			time.Sleep(time.Second)
			memory = append(memory, s.memory())
			s.stop()
		}
		fmt.Printf("| %s | %.1f | %.1f |\n", v.name, median(first), median(memory))
	}
	fmt.Println()
	return nil
}

const (
	waitingEvents = 100_000
	waitingAim    = 150 // milliseconds
)

// start compares a start with a full journal to one with nothing, on the embedded broker: there the forwarding, too, is
// at once on the cores of the one that starts.
func (b *bench) start() error {
	var empty, full []float64
	for round := range b.rounds {
		turns := []struct {
			events int
			into   *[]float64
		}{{0, &empty}, {waitingEvents, &full}}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, v := range turns {
			first, err := b.startWith(v.events)
			if err != nil {
				return err
			}
			*v.into = append(*v.into, millis(first))
		}
	}
	fmt.Printf("## Start with a full journal, embedded server\n\n| events that wait | start to first 202, ms |\n|---|---|\n")
	fmt.Printf("| 0 | %.1f |\n| %d | %.1f |\n", median(empty), waitingEvents, median(full))
	fmt.Printf("\n%+.0f ms (aim ≤ %d)\n\n", median(full)-median(empty), waitingAim)
	return nil
}

// startWith returns the time from the start to the first 202 of a bridge in whose journal so many events wait.
func (b *bench) startWith(events int) (time.Duration, error) {
	dir := b.store()
	defer os.RemoveAll(dir)
	if events > 0 {
		if err := fillJournal(filepath.Join(dir, "journal", "nats"), events); err != nil {
			return 0, err
		}
	}
	s, err := b.serve("BRIDGE_DATA_DIR=" + dir)
	if err != nil {
		return 0, err
	}
	waiting := s.metric(`bridge_journal_waiting{sink="nats"}`)
	s.stop() // it forwards what waits
	if events > 0 && waiting == 0 {
		return 0, errors.New("nothing waits in the journal that was filled")
	}
	return s.first, nil
}

// fillJournal makes a journal in which so many events wait, each of another job.
func fillJournal(dir string, events int) error {
	event, err := benchEvent()
	if err != nil {
		return err
	}
	event.Received = time.Now()
	payloads := make([][]byte, events)
	for i := range payloads {
		if payloads[i], err = fresh(event, "waits-"+strconv.Itoa(i)).MarshalBinary(); err != nil {
			return err
		}
	}
	log, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 1 << 30})
	if err != nil {
		return err
	}
	return errors.Join(appendAll(log, 256, payloads), log.Close())
}
