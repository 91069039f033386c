package journal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/journal"
)

func scan(t *testing.T, dir string) (records []string, report journal.Report) {
	t.Helper()
	report, err := journal.Scan(dir, func(r journal.Record) error {
		s := fmt.Sprintf("%d %s", r.Seq, r.Payload)
		if r.Settled {
			s += " settled"
		}
		if r.Damaged {
			s += " damaged"
		}
		records = append(records, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records, report
}

// Scan sees what is there, beside the process that has it open, and changes nothing.
func TestScan(t *testing.T) {
	dir := t.TempDir()
	l := open(t, journal.Config{Dir: dir, MaxBytes: many, SegmentBytes: segment})
	appends(t, l, "one", "two", "three", "four", "five")
	l.Settle(2)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	got, report := scan(t, dir)
	if want := []string{"1 one", "2 two settled", "3 three", "4 four", "5 five"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if report.Version != 1 || report.Records != 4 || report.Settled != 1 || report.Damaged != 0 || report.TornBytes != 0 || report.Bytes < segment {
		t.Errorf("got %+v", report)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	name := filepath.Join(dir, "00000000000000000001.seg")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[strings.Index(string(b), "three")] = 'T'
	b[strings.Index(string(b), "four")-30] ^= 1
	b[len(b)-1] = 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, report = scan(t, dir)
	if want := []string{"1 one", "2 two settled", "3 Three damaged", "4  damaged", "5 five"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if report.Records != 2 || report.Settled != 1 || report.Damaged != 2 || report.TornBytes == 0 {
		t.Errorf("got %+v", report)
	}
	if after, err := os.ReadFile(name); string(after) != string(b) || err != nil {
		t.Errorf("changed, %v", err)
	}

	stop := errors.New("stop")
	if _, err := journal.Scan(dir, func(journal.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want fn's error", err)
	}
	if _, err := journal.Scan(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}
