package main

import (
	"bytes"
	"encoding/json"
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
