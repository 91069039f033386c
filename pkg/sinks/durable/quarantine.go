package durable

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gembridge/bridge/pkg/schema"
)

// setAside writes an event that the sink will never take, not even as a dead letter, into quarantine.
func (d *Journaled) setAside(event *schema.Event, why error) outcome {
	id := digestOf(event.Key())
	file, err := d.quarantine(hex.EncodeToString(id[:])+".json", event.Structured)
	if err != nil {
		return outcome{err: fmt.Errorf("%w, and could not be set aside: %w", noRefusal{why}, err)}
	}
	d.cfg.Log.Error().Err(why).Str(LogKeyDelivery, event.ID).Str(LogKeyFile, file).Msg("an event was set aside: the sink takes neither it nor its dead letter")
	return outcome{result: schema.DeadLettered, final: true}
}

// noRefusal hides from callers that an error is a *sinks.RefusedError: what is refused is buried once.
type noRefusal struct{ error }

// setAsidePayload writes a record that is no event into quarantine.
func (d *Journaled) setAsidePayload(seq uint64, payload []byte, why error) outcome {
	sum := sha256.Sum256(payload)
	file, err := d.quarantine(hex.EncodeToString(sum[:16])+".bin", payload)
	if err != nil {
		return outcome{err: err}
	}
	d.cfg.Log.Error().Err(why).Uint64(LogKeySeq, seq).Str(LogKeyFile, file).Msg("a record of the journal is no event: it was set aside")
	return outcome{final: true}
}

func (d *Journaled) setAsideRecord(seq uint64) error {
	payload, err := d.journal.Get(seq)
	if err != nil {
		return err
	}
	_, why := schema.ReadLabel(payload)
	return d.setAsidePayload(seq, payload, why).err
}

// quarantine writes a file that is there whole or not at all, whatever happens, and counts it.
func (d *Journaled) quarantine(name string, content []byte) (file string, err error) {
	dir := d.cfg.Quarantine
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file = filepath.Join(dir, name)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it fails once the file has its name
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err == nil {
			err = syncDir(path)
		}
	}
	if err != nil {
		return "", err
	}
	d.quarantined.Add(1)
	return file, nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // nothing was written through it
	return dir.Sync()
}
