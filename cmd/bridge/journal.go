package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
)

const journalUsage = `Usage: bridge journal list|show|export|verify|drop

Works with the journals in BRIDGE_DATA_DIR: the events that are on disk because a broker may not have them yet, or not
for certain. All but drop work beside a running bridge too, and change nothing.

  bridge journal list      prints them
  bridge journal show      prints one, whole
  bridge journal export    prints them as JSON lines
  bridge journal verify    reads all there is and tells what is damaged
  bridge journal drop      gives events up for ever; only while the bridge is stopped

bridge journal <command> --help tells more.
`

func journalCommand(args []string, sh shell) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "list":
		return journalListCommand(args, sh)
	case "show":
		return journalShowCommand(args, sh)
	case "export":
		return journalExportCommand(args, sh)
	case "verify":
		return journalVerifyCommand(args, sh)
	case "drop":
		return journalDropCommand(args, sh)
	}
	return groupCommand("journal", command, journalUsage, sh)
}

// journalFlags are those of every command.
type journalFlags struct {
	flags
	sink *string
}

func newJournalFlags(command, usage string) journalFlags {
	f := newFlags("journal "+command, usage)
	return journalFlags{f, f.String("sink", "", "")}
}

// run calls do with the sinks that have a journal, or with the one that was asked for.
func (f journalFlags) run(sh shell, do func(cfg *Config, sinks []string) error) int {
	cfg, found := readConfig(sh.environ)
	if len(found) > 0 {
		fmt.Fprintln(sh.err, found)
		return exitUsage
	}
	sinks, err := journals(cfg, *f.sink)
	if err == nil {
		err = do(cfg, sinks)
	}
	if err != nil {
		fmt.Fprintf(sh.err, "%s: %v\n", f.Name(), err)
		return exitFailure
	}
	return exitOK
}

// journals returns the sinks that have one in the data directory; only the given one, if it is not empty.
func journals(cfg *Config, only string) ([]string, error) {
	dir := journalsDir(cfg)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	var sinks []string
	for _, entry := range entries {
		if entry.IsDir() && (only == "" || only == entry.Name()) {
			sinks = append(sinks, entry.Name())
		}
	}
	if len(sinks) == 0 {
		return nil, fmt.Errorf("there is no journal %s in %s: set BRIDGE_DATA_DIR to the bridge's", only, dir)
	}
	return sinks, nil
}

// entry is an event in a journal.
type entry struct {
	Sink     string    `json:"sink"`
	Seq      uint64    `json:"seq"`
	ID       string    `json:"id"`
	Type     string    `json:"type"` // of the event; bridge.dead_letter of a dead letter
	Key      string    `json:"key"`  // its partition key
	Received time.Time `json:"received"`
	Bytes    int       `json:"bytes"` // of its JSON form
}

// eachEvent calls fn with the events in the sinks' journals that are not settled, in order, and returns what it could not
// read.
func eachEvent(cfg *Config, sinks []string, fn func(entry, *schema.Event) error) error {
	var damaged []error
	for _, sink := range sinks {
		_, err := journal.Scan(journalDir(cfg, sink), func(r journal.Record) error {
			if r.Settled {
				return nil
			}
			event := &schema.Event{}
			var err error
			if r.Damaged {
				err = errors.New("it is damaged")
			} else {
				err = event.UnmarshalBinary(r.Payload)
			}
			if err != nil {
				damaged = append(damaged, fmt.Errorf("journal of %s, record %d: %w", sink, r.Seq, err))
				return nil
			}
			return fn(entry{sink, r.Seq, event.ID, event.Type, event.PartitionKey, event.Received, len(event.Structured)}, event)
		})
		if err != nil {
			return fmt.Errorf("journal of %s: %w", sink, err)
		}
	}
	return errors.Join(damaged...)
}

// eachNamed is eachEvent for those that the names say, ids or sequence numbers; all, if there are no names. A name that
// is an id is no number. The error names those that are neither.
func eachNamed(cfg *Config, sinks, names []string, fn func(entry, *schema.Event) error) error {
	if len(names) == 0 {
		return eachEvent(cfg, sinks, fn)
	}
	ids, numbers := map[string]bool{}, map[uint64]bool{}
	for _, name := range names {
		ids[name] = false
	}
	damaged := eachEvent(cfg, sinks, func(e entry, _ *schema.Event) error {
		if _, named := ids[e.ID]; named {
			ids[e.ID] = true
		}
		return nil
	})
	for name, found := range ids {
		if seq, err := strconv.ParseUint(name, 10, 64); err == nil && !found {
			delete(ids, name)
			numbers[seq] = false
		}
	}
	err := eachEvent(cfg, sinks, func(e entry, event *schema.Event) error {
		_, byID := ids[e.ID]
		_, byNumber := numbers[e.Seq]
		if !byID && !byNumber {
			return nil
		}
		ids[e.ID] = byID
		if byNumber {
			numbers[e.Seq] = true
		}
		return fn(e, event)
	})
	var missing []string
	for name, found := range ids {
		if !found && slices.Contains(names, name) {
			missing = append(missing, strconv.QuoteToASCII(name))
		}
	}
	for seq, found := range numbers {
		if !found {
			missing = append(missing, strconv.FormatUint(seq, 10))
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return errors.Join(fmt.Errorf("no such event: %s", strings.Join(missing, ", ")), damaged)
	}
	return err
}
