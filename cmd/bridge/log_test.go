package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

func TestLog(t *testing.T) {
	for _, c := range []struct {
		format, level string
		json          bool
	}{{"auto", "info", true}, {"json", "warn", true}, {"console", "info", false}} {
		var out bytes.Buffer
		log := newLog(mustLoad(t, working("BRIDGE_LOG_FORMAT="+c.format, "BRIDGE_LOG_LEVEL="+c.level)), &out)
		log.Debug().Msg("fine print")
		log.Info().Msg("news")
		log.Warn().Msg("trouble")
		text := out.Bytes()
		for line := range bytes.Lines(text) {
			if got := json.Valid(line); got != c.json {
				t.Errorf("%s: JSON %v: %s", c.format, got, line)
			}
		}
		if bytes.Contains(text, []byte("fine print")) || bytes.Contains(text, []byte("news")) != (c.level == "info") || !bytes.Contains(text, []byte("trouble")) {
			t.Errorf("level %s:\n%s", c.level, text)
		}
	}
}

// What is thrown away is no terminal, although it is a device as well.
func TestLogFormat(t *testing.T) {
	for path, want := range map[string]string{os.DevNull: "json", "/dev/ptmx": "console"} {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := logFormat(mustLoad(t, working()), file); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
		if got := logFormat(mustLoad(t, working("BRIDGE_LOG_FORMAT=console")), file); got != "console" {
			t.Errorf("%s, as set: got %s", path, got)
		}
		_ = file.Close()
	}
}
