package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

// What is in BRIDGE_DATA_DIR.

// natsDir is where the embedded server has its store.
func natsDir(cfg *Config) string { return filepath.Join(cfg.DataDir, "nats") }

// journalsDir holds a journal for each sink, in a directory of the sink's name.
func journalsDir(cfg *Config) string { return filepath.Join(cfg.DataDir, "journal") }

func journalDir(cfg *Config, sink string) string { return filepath.Join(journalsDir(cfg), sink) }

// quarantineDir is where events are set aside that a sink takes neither as they are nor as dead letters.
func quarantineDir(cfg *Config, sink string) string {
	return filepath.Join(cfg.DataDir, "quarantine", sink)
}

// segmentBytes has room for the largest event, with its attributes.
func segmentBytes(cfg *Config) int64 {
	return max(journal.DefaultSegmentBytes, 2*int64(maxEvent(cfg)))
}

// embeds tells whether the NATS server is the bridge's own.
func (c *Config) embeds() bool { return c.uses(jetstream.Name) && c.NATS.URL == "" }

// takeData makes the data directory this process's own, if anything in it is to be used, and looks whether events
// would be left behind in it.
func (d *daemon) takeData(ctx context.Context) error {
	if d.cfg.Journal == "on" || d.cfg.embeds() {
		if err := d.lockData(ctx); err != nil {
			return err
		}
	}
	return stranded(d.cfg)
}

// lockData waits until the data directory is this process's own.
func (d *daemon) lockData(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, d.cfg.ShutdownTimeout)
	defer cancel()
	said := false
	unlock, err := lockDir(waiting, d.cfg.DataDir, func(held error) {
		d.phase.set(fmt.Errorf("%w: %w", errStarting, held))
		if !said {
			d.log.Warn().Err(held).Msg("waiting for the data directory")
		}
		said = true
	})
	if err != nil {
		if !errors.Is(err, errHeld) && !d.cfg.embeds() {
			err = fmt.Errorf("%w: the journal needs it; give the bridge a directory that it can write to, or set BRIDGE_JOURNAL=off", err)
		}
		return err
	}
	d.phase.set(errStarting)
	d.onStop("data directory", func(ctx context.Context) error {
		if d.embedded != nil && d.embedded.Close(ctx) != nil {
			return nil //nolint:nilerr // its store is open still: the lock ends with the process
		}
		return unlock()
	})
	return nil
}

// stranded is an error when events are in a journal that nobody would forward: that of a sink which is not used any
// more, or any while the journal is off.
func stranded(cfg *Config) error {
	entries, err := os.ReadDir(journalsDir(cfg))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	var all []error
	for _, entry := range entries {
		sink := entry.Name()
		if !entry.IsDir() || cfg.Journal == "on" && cfg.uses(sink) {
			continue
		}
		report, err := journal.Scan(journalDir(cfg, sink), func(journal.Record) error { return nil })
		switch {
		case err != nil:
			all = append(all, fmt.Errorf("BRIDGE_DATA_DIR: journal of %s: %w", sink, err))
		case report.Records > 0 && cfg.uses(sink):
			all = append(all, fmt.Errorf("BRIDGE_JOURNAL is off while the journal has %d events that %s may not have: set it to on until they are forwarded, or see bridge journal list and drop", report.Records, sink))
		case report.Records > 0:
			all = append(all, fmt.Errorf("the journal has %d events for the sink %s, which BRIDGE_SINK does not name: name it until they are forwarded, or see bridge journal list, export and drop with --sink %s", report.Records, sink, sink))
		}
	}
	return errors.Join(all...)
}

// openDoor lets commands publish to the embedded server.
func (d *daemon) openDoor(pages *http.ServeMux, all destinations) error {
	if d.embedded == nil {
		return nil
	}
	door := newDoor()
	door.Admin, door.NATS = "http://"+reachable(d.adminAddr.String()), d.natsURL
	for _, one := range all {
		if one.name == jetstream.Name {
			pages.Handle("POST "+doorPath, door.handler(one.sink, 2*maxEvent(d.cfg)))
		}
	}
	if err := door.write(d.cfg.DataDir); err != nil {
		return fmt.Errorf("BRIDGE_DATA_DIR: %w", err)
	}
	d.onStop(doorFile, func(context.Context) error { return removeDoor(d.cfg.DataDir) })
	return nil
}
