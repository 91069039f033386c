package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
)

const (
	appendPayload = 1 << 10
	appendTurn    = 256 // appends of each caller, then as many bare syncs
	rawBytes      = 64 << 20
)

// appends compares the journal to its disk: to one write and one sync of as many records as there are callers.
func (b *bench) appends() error {
	fmt.Printf("## Journal: appends of 1 KiB against one write and fdatasync of as many as there are callers\n\n")
	fmt.Println("| callers | appends/s | bare records/s | bare syncs/s | ratio |\n|---|---|---|---|---|")
	for _, v := range []struct {
		callers int
		aim     float64
	}{{1, 0.95}, {64, 0.85}, {256, 0.75}} {
		var appended, raw series
		for range b.rounds {
			if err := b.appendRound(v.callers, &appended, &raw); err != nil {
				return err
			}
		}
		fmt.Printf("| %d | %.0f | %.0f | %.0f | %s |\n", v.callers, appended.rate(), raw.rate(), raw.rate()/float64(v.callers),
			withAim(appended.rate()/raw.rate(), v.aim))
	}
	fmt.Println()
	return nil
}

// appendRound lets the journal and the disk take turns, for the disk is not the same from one second to the next.
func (b *bench) appendRound(callers int, appended, raw *series) error {
	dir := b.store()
	defer os.RemoveAll(dir) // what nobody settles grows fast
	log, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 16 << 30})
	if err != nil {
		return err
	}
	defer log.Close()
	disk, err := newRawDisk(b.store())
	if err != nil {
		return err
	}
	defer disk.close()
	payloads := slices.Repeat([][]byte{make([]byte, appendPayload)}, callers*appendTurn)
	var took, rawTook time.Duration
	turns := 0
	for ; took < b.period; turns++ {
		begun := time.Now()
		if err := appendAll(log, callers, payloads); err != nil {
			return err
		}
		took += time.Since(begun)
		begun = time.Now()
		if err := disk.syncs(callers, appendTurn); err != nil {
			return err
		}
		rawTook += time.Since(begun)
	}
	records := float64(turns * len(payloads))
	appended.add(result{Rate: records / took.Seconds()})
	raw.add(result{Rate: records / rawTook.Seconds()})
	return nil
}

// appendAll appends the payloads from so many callers at once, each one after the other.
func appendAll(log *journal.Log, callers int, payloads [][]byte) error {
	errs := make([]error, callers)
	var running sync.WaitGroup
	for c := range callers {
		running.Go(func() {
			for i := c; i < len(payloads) && errs[c] == nil; i += callers {
				_, errs[c] = log.Append(payloads[i])
			}
		})
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// rawDisk is a file of zeros, as the journal's segments are.
type rawDisk struct {
	file *os.File
	at   int64
}

func newRawDisk(name string) (*rawDisk, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	d := &rawDisk{file: f}
	if _, err = f.Write(make([]byte, rawBytes)); err == nil {
		err = f.Sync()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *rawDisk) close() {
	d.file.Close()
	_ = os.Remove(d.file.Name())
}

// syncs writes groups of so many records and syncs each.
func (d *rawDisk) syncs(records, syncs int) error {
	group := make([]byte, records*appendPayload)
	for i := range syncs {
		if d.at+int64(len(group)) > rawBytes {
			d.at = 0
		}
		group[0] = byte(i)
		if _, err := d.file.WriteAt(group, d.at); err != nil {
			return err
		}
		if err := datasync(int(d.file.Fd())); err != nil {
			return err
		}
		d.at += int64(len(group))
	}
	return nil
}
