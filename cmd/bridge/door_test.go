package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

var tokenOption = nats.Token(natsToken)

// TestDoor: the file is for the bridge's user alone, names the bridge that runs, and goes with it; without the token
// nobody publishes.
func TestDoor(t *testing.T) {
	t.Parallel()
	environ := local(t)
	dir := of(environ, "BRIDGE_DATA_DIR")
	b := launch(t, environ).up(t)
	b.becomes(t, 200, "{Name:nats State:ok")
	info, err := os.Stat(filepath.Join(dir, doorFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v, want mode 0600", info, err)
	}
	d, err := readDoor(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d.Admin != b.admin || d.NATS != b.nats || len(d.Token) < 26 {
		t.Errorf("got %s, %s, a token of %d characters", d.Admin, d.NATS, len(d.Token))
	}
	event := sinkstest.Event(1)
	for _, token := range []string{"", "x", d.Token + "x", d.Token[1:]} {
		stranger := &door{Admin: b.admin, Token: token}
		if _, err := stranger.publish(soon(t), event); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("with the token %q: %v", token, err)
		}
	}
	for want, duplicate := range []bool{false, true} {
		got, err := d.publish(soon(t), event)
		if err != nil || got != duplicate {
			t.Errorf("publish %d: %v, %v, want %v", want, got, err, duplicate)
		}
	}
	request, err := http.NewRequest(http.MethodPost, b.admin+doorPath, strings.NewReader("no event"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+d.Token)
	if r, err := ask(b.client, request); err != nil || r.code != http.StatusBadRequest {
		t.Errorf("no event: %v, %v", r, err)
	}
	if ids := stored(t, connect(t, b.nats), "GEMINI"); len(ids) != 1 || ids[event.ID] != 1 {
		t.Errorf("stored: %v", ids)
	}
	if strings.Contains(b.log.String()+b.out.String(), d.Token) {
		t.Error("the token is in the log")
	}
	if code := b.stop(t); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, b.log)
	}
	if _, err := os.Stat(filepath.Join(dir, doorFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
}

// lazy is a sink whose acknowledgements count only after a Sync.
type lazy struct {
	sinks.Sink
	ack    sinks.Ack
	err    error
	sync   error
	synced int
}

func (s *lazy) Publish(context.Context, *schema.Event) (sinks.Ack, error) { return s.ack, s.err }

func (s *lazy) Sync(context.Context) error {
	s.synced++
	return s.sync
}

// TestDoorAnswers: nothing is called published that is not on disk, and a refusal stays one.
func TestDoorAnswers(t *testing.T) {
	broken := errors.New("the disk broke")
	refused := &sinks.RefusedError{Reason: "too large", Err: errors.New("maximum 200")}
	for name, c := range map[string]struct {
		sink      lazy
		duplicate bool
		refused   bool
		err       string
		synced    int
	}{
		"published": {sink: lazy{}, synced: 1},
		"duplicate": {sink: lazy{ack: sinks.Ack{Duplicate: true}}, duplicate: true, synced: 1},
		"refused":   {sink: lazy{err: refused}, refused: true, err: "refused by sink: too large: maximum 200"},
		"not now":   {sink: lazy{err: broken}, err: "503 Service Unavailable: the disk broke"},
		"no sync":   {sink: lazy{sync: broken}, err: "503 Service Unavailable: the disk broke", synced: 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor()
			server := httptest.NewServer(d.handler(&c.sink, 1<<20))
			defer server.Close()
			d.Admin = server.URL
			duplicate, err := d.publish(soon(t), sinkstest.Event(1))
			_, isRefused := errors.AsType[*sinks.RefusedError](err)
			if duplicate != c.duplicate || isRefused != c.refused || c.sink.synced != c.synced {
				t.Errorf("got %v, %v, %d syncs, want %v, %v, %d", duplicate, err, c.sink.synced, c.duplicate, c.refused, c.synced)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.HasSuffix(err.Error(), c.err) {
				t.Errorf("got %v, want %s", err, c.err)
			}
		})
	}
	d := newDoor()
	server := httptest.NewServer(d.handler(&lazy{}, 100))
	defer server.Close()
	d.Admin = server.URL
	if _, err := d.publish(soon(t), sinkstest.Event(1)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large body: %v", err)
	}
}

// TestDoorFile: a file that is no door is told as such.
func TestDoorFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := readDoor(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	want := newDoor()
	want.Admin, want.NATS = "http://a", "nats://b"
	for range 2 { // it replaces an earlier one
		if err := want.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := readDoor(dir); err != nil || *got != *want {
		t.Errorf("got %v, %v", got, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files are left: %v", entries)
	}
	if err := os.WriteFile(filepath.Join(dir, doorFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readDoor(dir); err == nil || !strings.Contains(err.Error(), doorFile) {
		t.Errorf("no JSON: %v", err)
	}
	if text, _ := json.Marshal(doorAnswer{}); !bytes.Equal(text, []byte("{}")) {
		t.Errorf("an answer: %s", text)
	}
	for range 2 {
		if err := removeDoor(dir); err != nil {
			t.Fatal(err)
		}
	}
}
