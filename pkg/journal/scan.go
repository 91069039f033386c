package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Record is one as Scan finds it.
type Record struct {
	Seq     uint64
	Payload []byte // valid during the call only; of a damaged record what is left, or nil
	Settled bool
	Damaged bool
	File    string // name of the segment
	Offset  int64  // in it; 0 when nothing is left of the record
}

// Report is what Scan counted.
type Report struct {
	Version   int // of the format
	Segments  int
	Bytes     int64 // of all segment files
	Records   int   // not settled and not damaged
	Settled   int
	Damaged   uint64
	TornBytes int64 // see Usage
}

// Scan reads the journal in dir without a lock and without changing anything, also beside a process that has it open. Then
// it sees a moment: what is being written may count as torn, and marks that are not yet written are missing.
// It calls fn with every record, in order, settled and damaged ones too, and returns fn's error at once.
//
// Errors are fn's, ErrNewer and the file system's; fs.ErrNotExist when there is no such directory.
func Scan(dir string, fn func(Record) error) (Report, error) {
	fsys := osFS{}
	names, err := fsys.List(dir)
	if err != nil {
		return Report{}, err
	}
	var x index
	defer func() {
		for _, s := range x.segs {
			_ = s.file.Close()
		}
	}()
	for _, n := range serials(names) {
		s, err := openSegment(fsys, segmentName(dir, n), os.O_RDONLY)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
			continue
		case errors.Is(err, errHeader):
			x.damaged++
			continue
		case err != nil:
			return Report{}, err
		}
		if err := x.add(s); err != nil {
			return Report{}, err
		}
	}
	report := Report{Version: formatVersion, Segments: len(x.segs), Damaged: x.damaged, TornBytes: x.torn}
	for _, s := range x.segs {
		report.Bytes += s.size
		if err := s.scan(&report, fn); err != nil {
			return report, err
		}
	}
	return report, nil
}

func (s *segment) scan(report *Report, fn func(Record) error) error {
	w := window{r: s.file, size: s.size}
	for i, e := range s.entries {
		r := Record{Seq: s.base + uint64(i), File: filepath.Base(s.name), Offset: e.at()}
		if e.where != 0 {
			b, err := w.peek(e.at(), recordSize(int(e.bytes)))
			if err != nil {
				return err
			}
			r.Payload = b[recordHeader:][:e.bytes]
		}
		switch {
		case e.waiting():
			report.Records++
		case e.where&stateSettled != 0:
			r.Settled = true
			report.Settled++
		default:
			r.Damaged = true
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}
