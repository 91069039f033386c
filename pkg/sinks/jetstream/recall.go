package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// compareAll returns what is forgotten, "" if nothing is. The error says why that is not known.
func (s *Sink) compareAll() (found string, err error) {
	ctx, cancel := context.WithTimeout(s.life, recallTimeout)
	defer cancel()
	for _, st := range []*stream{s.events, s.dead} {
		s.mu.Lock()
		nc, acked, last, created := s.nc, st.acked, st.last, st.created
		s.mu.Unlock()
		if !acked {
			continue
		}
		found, err = s.compare(ctx, st, last, created)
		if found != "" && err == nil && nc.ConnectedClusterName() != "" {
			select {
			case <-time.After(confirmAfter):
				found, err = s.compare(ctx, st, last, created)
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if found != "" || err != nil {
			break
		}
	}
	return found, err
}

// compare returns what a stream has forgotten.
func (s *Sink) compare(ctx context.Context, st *stream, last position, created time.Time) (found string, err error) {
	asks := "$JS.API.STREAM.INFO." + st.name
	info, err := s.ask(ctx, asks, nil)
	switch {
	case isCode(err, codeStreamNotFound):
		return "stream " + st.name + " is missing", nil
	case errors.Is(err, nats.ErrPermissionViolation):
		return "it cannot be asked: allow the user to publish to " + asks, nil
	case err != nil:
		return "", err
	case !created.IsZero() && !info.Created.Equal(created):
		return "stream " + st.name + " was deleted and made anew", nil
	case info.State.LastSeq < last.sequence:
		return fmt.Sprintf("stream %s ends at %d, and had acknowledged %d", st.name, info.State.LastSeq, last.sequence), nil
	case last.sequence == 0:
		return "", nil
	}
	asks = "$JS.API.STREAM.MSG.GET." + st.name
	body, err := json.Marshal(map[string]uint64{"seq": last.sequence})
	if err != nil {
		return "", err
	}
	data, err := s.request(ctx, asks, body)
	switch {
	case isCode(err, codeStreamNotFound):
		return "stream " + st.name + " is missing", nil
	case isCode(err, codeNoMessage):
		if s.mayLack(info, last) {
			return "", nil
		}
		return fmt.Sprintf("stream %s no longer has %s at %d", st.name, last.id, last.sequence), nil
	case errors.Is(err, nats.ErrPermissionViolation):
		return "it cannot be asked: allow the user to publish to " + asks, nil
	case err != nil:
		return "", err
	}
	var answer struct {
		Message struct {
			Header []byte `json:"hdrs"`
		} `json:"message"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", fmt.Errorf("answer of JetStream: %w", err)
	}
	header, err := nats.DecodeHeadersMsg(answer.Message.Header)
	if err != nil || header.Get(headerMsgID) != last.id {
		return fmt.Sprintf("stream %s has another event than %s at %d", st.name, last.id, last.sequence), nil //nolint:nilerr // that header is not ours
	}
	return "", nil
}

// mayLack tells whether a record may be absent although nothing was lost. After a power failure a server may go on
// counting where it had been although the records are gone, so it looks as after a purge.
func (s *Sink) mayLack(info *jetstream.StreamInfo, last position) bool {
	s.mu.Lock()
	nc, server := s.nc, s.server
	s.mu.Unlock()
	c := info.Config
	switch {
	case nc.ConnectedClusterName() == "" && server == last.server: // it never stopped
	case c.MaxAge > 0 && time.Since(last.at) > c.MaxAge-clockSlack:
	case c.Retention != jetstream.LimitsPolicy:
	case c.MaxMsgsPerSubject > 0:
	case c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0):
	default:
		return false
	}
	return true
}
