package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/pkg/sinks"
)

// Error codes of JetStream's API (nats-server's server/errors.json).
const (
	codeNotEnabled       jetstream.ErrorCode = 10076
	codeNotEnabledForAcc jetstream.ErrorCode = 10039
	codeNameInUse        jetstream.ErrorCode = 10058
	codeStreamNotFound   jetstream.ErrorCode = 10059
	codeNoMessage        jetstream.ErrorCode = 10037
)

// lookTimeout is enough for a cluster of three to create a stream.
const lookTimeout = 5 * time.Second

// stream is one of the two that the sink publishes to.
type stream struct {
	name, prefix string
	maxAge       time.Duration
	newest       atomic.Uint64 // the highest sequence known

	// Guarded by Sink.mu.
	barred  error     // why nothing can be published to it, at the last look
	created time.Time // of the stream that newest and last belong to
	acked   bool      // something was, since it was last known what the broker has forgotten
	last    position  // the highest that was acked
}

func (st *stream) subjects() string { return st.prefix + ".>" }

// saw notes that the stream holds sequence n.
func (st *stream) saw(n uint64) {
	for old := st.newest.Load(); n > old && !st.newest.CompareAndSwap(old, n); old = st.newest.Load() {
	}
}

// wanted is the stream as the sink creates it. It refuses new events rather than discard old ones, and is bounded
// by age only.
func (s *Sink) wanted(st *stream) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: st.name, Subjects: []string{st.subjects()}, Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxAge: st.maxAge, Duplicates: s.cfg.DedupWindow,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1, AllowDirect: true,
	}
}

// view is what a look at both streams saw.
type view struct {
	impossible error    // why nothing can be published to one of them, or nil
	details    []string // what weakens a promise
	texts      []logged // all of it, for the log
}

type logged struct{ stream, text string }

// add notes what was found on a stream, and returns what makes publishing to it impossible.
func (v *view) add(st *stream, found []finding) (barred error) {
	for _, f := range found {
		text := "stream " + st.name + " " + f.text
		v.texts = append(v.texts, logged{st.name, text})
		if f.impossible {
			barred = errors.New(text)
		} else {
			v.details = append(v.details, text)
		}
	}
	v.impossible = cmp.Or(v.impossible, barred)
	return barred
}

// looking is a look under way, which others may join.
type looking struct {
	done  chan struct{}
	found view
	err   error
}

// look sees to it that both streams are there and finds what is wrong with them. The error says why there was
// nothing to see.
func (s *Sink) look(ctx context.Context) (view, error) {
	l := s.startLook()
	select {
	case <-l.done:
		return l.found, l.err
	case <-ctx.Done():
		return view{}, fmt.Errorf("looking at the streams: %w", ctx.Err())
	}
}

// startLook returns the look under way, or a new one: there is never more than one at a time.
func (s *Sink) startLook() *looking {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looking == nil {
		s.looking = &looking{done: make(chan struct{})}
		if s.life.Err() != nil { // Close waits for tasks already
			s.looking.err = sinks.ErrClosed
			close(s.looking.done)
		} else {
			s.tasks.Go(s.lookNow)
		}
	}
	return s.looking
}

func (s *Sink) lookNow() {
	ctx, cancel := context.WithTimeout(s.life, lookTimeout)
	defer cancel()
	var found view
	var errs [2]error
	var barred [2]error
	streams := [2]*stream{s.events, s.dead}
	for i, st := range streams {
		s.mu.Lock()
		acked := st.last.sequence
		s.mu.Unlock()
		info, findings, err := s.ensure(ctx, st)
		if err != nil {
			errs[i] = fmt.Errorf("stream %s: %w", st.name, err)
			continue
		}
		if info != nil {
			s.saw(st, info, acked)
			findings = s.inspect(st, info)
		}
		barred[i] = found.add(st, findings)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.looking
	s.looking = nil
	l.found, l.err = found, cmp.Or(errs[0], errs[1])
	for i, st := range streams {
		if errs[i] == nil {
			st.barred = barred[i]
		}
	}
	s.report(l)
	close(l.done)
}

// report logs what was not there at the last look.
func (s *Sink) report(l *looking) {
	if l.err != nil {
		if s.up && s.life.Err() == nil && !isUnsent(l.err) { // else the loss of the connection is told by itself
			s.sayOnce(l.err)
		}
		return
	}
	s.spoken = "" // the same trouble later is another outage
	for _, t := range l.found.texts {
		if !slices.Contains(s.found, t) {
			s.cfg.Log.Warn().Str(LogKeyStream, t.stream).Msg(t.text)
		}
	}
	if len(l.found.texts) == 0 && len(s.found) > 0 {
		s.cfg.Log.Info().Msg("the streams are as they should be")
	}
	s.found = l.found.texts
}

// ensure returns the stream's info, and creates it when there is none. A finding is returned instead when the user
// may not do that.
func (s *Sink) ensure(ctx context.Context, st *stream) (*jetstream.StreamInfo, []finding, error) {
	get, create := "$JS.API.STREAM.INFO."+st.name, "$JS.API.STREAM.CREATE."+st.name
	info, err := s.ask(ctx, get, nil)
	if !isCode(err, codeStreamNotFound) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			return nil, []finding{{text: "cannot be looked at: allow the user to publish to " + get}}, nil
		}
		return info, nil, err
	}
	s.misses(st)
	wanted := s.wanted(st)
	body, err := json.Marshal(wanted)
	if err != nil {
		return nil, nil, err
	}
	info, err = s.ask(ctx, create, body)
	switch {
	case err == nil:
		s.cfg.Log.Info().Str(LogKeyStream, st.name).Msg("created stream " + st.name)
	case isCode(err, codeNameInUse): // somebody else was quicker
		info, err = s.ask(ctx, get, nil)
	case errors.Is(err, nats.ErrPermissionViolation):
		text := fmt.Sprintf("is missing: allow the user to publish to %s, or run: %s", create, addCommand(wanted))
		return nil, []finding{{text: text, impossible: true}}, nil
	case apiError(err) != nil && apiError(err).Code < 500 || isCode(err, 10047, 10052, 10074):
		text := fmt.Sprintf("is missing and the server refuses to create it: %s; settings are BRIDGE_NATS_STREAM, "+
			"BRIDGE_NATS_SUBJECT_PREFIX, BRIDGE_NATS_REPLICAS, BRIDGE_NATS_MAX_AGE and BRIDGE_DEDUP_WINDOW, by hand: %s", apiError(err).Description, addCommand(wanted))
		return nil, []finding{{text: text, impossible: true}}, nil
	}
	return info, nil, err
}

// ask makes a request of JetStream's API that is answered by a stream's info.
func (s *Sink) ask(ctx context.Context, subject string, body []byte) (*jetstream.StreamInfo, error) {
	data, err := s.request(ctx, subject, body)
	if err != nil {
		return nil, err
	}
	var info jetstream.StreamInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return nil, fmt.Errorf("answer of JetStream: %w", err)
	}
	return &info, nil
}

// request makes a request of JetStream's API. The error is the API's, a permission violation, ctx's, or says that
// there is no JetStream or no connection.
func (s *Sink) request(ctx context.Context, subject string, body []byte) ([]byte, error) {
	s.mu.Lock()
	nc, up, changed, why := s.nc, s.up, s.changed, s.why
	s.mu.Unlock()
	if !up {
		return nil, why.err
	}
	x := s.inbox.open(subject)
	defer s.inbox.shut(x)
	if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: x.reply, Data: body}); err != nil {
		return nil, err
	}
	select {
	case a := <-x.answers:
		if errors.Is(a.err, nats.ErrNoResponders) {
			return nil, errors.New("there is no JetStream on this server: enable it there")
		} else if a.err != nil {
			return nil, a.err
		}
		var reply struct {
			Error *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(a.data, &reply); err != nil {
			return nil, fmt.Errorf("answer of JetStream: %w", err)
		}
		switch {
		case reply.Error == nil:
			return a.data, nil
		case isCode(reply.Error, codeNotEnabled, codeNotEnabledForAcc):
			return nil, fmt.Errorf("enable JetStream for this account: %w", reply.Error)
		}
		return nil, reply.Error
	case <-changed:
		return nil, errors.New("connection to NATS lost")
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer from JetStream: %w", ctx.Err())
	}
}

func apiError(err error) *jetstream.APIError {
	e, _ := errors.AsType[*jetstream.APIError](err)
	return e
}

func isCode(err error, codes ...jetstream.ErrorCode) bool {
	e := apiError(err)
	return e != nil && slices.Contains(codes, e.ErrorCode)
}

// addCommand is how to create the stream by hand.
func addCommand(c jetstream.StreamConfig) string {
	return fmt.Sprintf("nats stream add %s --subjects='%s' --storage=file --retention=limits --discard=new --max-age=%s --dupe-window=%s --replicas=%d --defaults",
		c.Name, strings.Join(c.Subjects, ","), hours(c.MaxAge), hours(c.Duplicates), c.Replicas)
}

// hours writes a duration as the nats command reads it and people do: 25h, not 25h0m0s.
func hours(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
