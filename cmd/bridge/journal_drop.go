package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
)

const journalDropUsage = `Usage: bridge journal drop ID|SEQ … [--sink nats|kafka] --yes
       bridge journal drop --all [--sink nats|kafka] --yes

Gives up events of a journal, by id or number, or all of them: nobody forwards them any more. The bridge must not run.
"bridge journal export" keeps a copy. Where there are journals of two sinks, --sink is needed.

  --all    all events, and records that are none
  --yes    do it; without it, only what would be dropped is printed

Exit code: 0 when they are dropped, 1 when not, 2 when settings or the command line are wrong.
`

func journalDropCommand(args []string, sh shell) int {
	f := newJournalFlags("drop", journalDropUsage)
	all, yes := f.Bool("all", false, ""), f.Bool("yes", false, "")
	names, code, done := f.parseMixed(args, sh)
	if done {
		return code
	}
	if (len(names) > 0) == *all {
		return f.mistake(errors.New("name ids or numbers, or --all for every event"), sh)
	}
	return f.run(sh, func(cfg *Config, sinks []string) (err error) {
		if len(sinks) > 1 {
			return fmt.Errorf("there are journals of %s: choose one with --sink", strings.Join(sinks, " and "))
		}
		unlock, err := tryLockDir(cfg.DataDir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unlock()) }()
		var entries []entry
		var seqs []uint64
		damaged := eachNamed(cfg, sinks, names, func(e entry, _ *schema.Event) error {
			entries, seqs = append(entries, e), append(seqs, e.Seq)
			return nil
		})
		if *all {
			seqs = nil
			_, damaged = journal.Scan(journalDir(cfg, sinks[0]), func(r journal.Record) error {
				if !r.Settled && !r.Damaged {
					seqs = append(seqs, r.Seq)
				}
				return nil
			})
		}
		if damaged != nil {
			return damaged
		}
		if err := writeEntries(sh.out, entries); err != nil {
			return err
		}
		if !*yes {
			return fmt.Errorf("%d would be dropped: add --yes to do it", len(seqs))
		}
		return dropEvents(cfg, sinks[0], seqs)
	})
}

// dropEvents settles them.
func dropEvents(cfg *Config, sink string, seqs []uint64) error {
	log, err := journal.Open(journal.Config{Dir: journalDir(cfg, sink), MaxBytes: int64(cfg.JournalMaxBytes), SegmentBytes: segmentBytes(cfg)})
	if err != nil {
		return err
	}
	log.Settle(seqs...)
	return errors.Join(log.Sync(), log.Close())
}
