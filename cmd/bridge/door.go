package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// A running bridge with an embedded server is the only one that may publish there: whoever connects to the server
// otherwise is a stranger who may not. So it takes the events of a replay itself, at POST /publish of its admin
// listener, from whoever can read the token in its data directory: who can do that could as well change what is there.
const (
	doorFile    = "operator.json"
	doorPath    = "/publish"
	doorTimeout = 20 * time.Second // for the sink's answer and its sync
)

// door is how a command on the same machine gets at the bridge that has the data directory.
type door struct {
	Admin string `json:"admin"` // URL of the admin listener
	NATS  string `json:"nats"`  // URL of the embedded server
	Token string `json:"token"`
}

func newDoor() *door { return &door{Token: rand.Text()} }

// write puts the door into dir, for the bridge's own user alone. The file of an earlier process is replaced.
func (d *door) write(dir string) error {
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, doorFile+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), filepath.Join(dir, doorFile))
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

func removeDoor(dir string) error {
	if err := os.Remove(filepath.Join(dir, doorFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func readDoor(dir string) (*door, error) {
	text, err := os.ReadFile(filepath.Join(dir, doorFile))
	if err != nil {
		return nil, err
	}
	d := &door{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%s: %w", doorFile, err)
	}
	return d, nil
}

// doorAnswer is what a publish through the door came to.
type doorAnswer struct {
	Duplicate bool   `json:"duplicate,omitempty"`
	Refused   string `json:"refused,omitempty"` // why the sink will never take the event
	Error     string `json:"error,omitempty"`   // why not now
}

// handler publishes events that come in their binary form. It answers when they are durable: a sink that does not sync
// what it acknowledges is made to.
func (d *door) handler(sink sinks.Sink, maxBytes int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(token), []byte(d.Token)) != 1 {
			answerDoor(w, http.StatusUnauthorized, doorAnswer{Error: "unauthenticated"})
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(maxBytes)))
		event := &schema.Event{}
		if err == nil {
			err = event.UnmarshalBinary(body)
		}
		if err != nil {
			answerDoor(w, http.StatusBadRequest, doorAnswer{Error: err.Error()})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), doorTimeout)
		defer cancel()
		ack, err := sink.Publish(ctx, event)
		if refused, ok := errors.AsType[*sinks.RefusedError](err); ok {
			answerDoor(w, http.StatusUnprocessableEntity, doorAnswer{Refused: strings.TrimPrefix(refused.Error(), refusedPrefix)})
			return
		}
		if syncer, ok := sink.(sinks.Syncer); ok && err == nil {
			err = syncer.Sync(ctx)
		}
		if err != nil {
			answerDoor(w, http.StatusServiceUnavailable, doorAnswer{Error: err.Error()})
			return
		}
		answerDoor(w, http.StatusOK, doorAnswer{Duplicate: ack.Duplicate})
	})
}

// refusedPrefix is what a RefusedError begins with.
const refusedPrefix = "refused by sink: "

func answerDoor(w http.ResponseWriter, code int, answer doorAnswer) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

// publish implements publisher: the bridge does it.
func (d *door) publish(ctx context.Context, event *schema.Event) (duplicate bool, err error) {
	body, err := event.MarshalBinary()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, doorTimeout+readyTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Admin+doorPath, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	request.Header.Set("Authorization", "Bearer "+d.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, fmt.Errorf("the running bridge: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer doorAnswer
	if err := json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&answer); err != nil {
		return false, fmt.Errorf("the running bridge answered %s: %w", response.Status, err)
	}
	switch {
	case answer.Refused != "":
		return false, &sinks.RefusedError{Reason: answer.Refused}
	case response.StatusCode != http.StatusOK:
		return false, fmt.Errorf("the running bridge answered %s: %s", response.Status, answer.Error)
	}
	return answer.Duplicate, nil
}

func (d *door) close() error { return nil }
