package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/gembridge/bridge/pkg/sinks"
)

const (
	// lookEvery is how often the topics are looked at while all is well; a publish that fails makes it sooner.
	lookEvery = 5 * time.Second
	// Bounds of the wait after a look that found something missing.
	minLookPause, maxLookPause = 100 * time.Millisecond, time.Second

	resourceTopic int8 = 2
)

// looking is a look at the topics under way, which others may join.
type looking struct {
	done    chan struct{}
	details []string // what weakens a promise
	err     error    // why nothing can be published
}

type logged struct{ topic, text string }

// errPending is a topic that will be there in a moment.
var errPending = errors.New("is being created")

// keep looks at the topics for as long as the sink lives.
func (s *Sink) keep() {
	pause := minLookPause
	for s.life.Err() == nil {
		wait := lookEvery
		if _, err := s.look(s.life); err != nil {
			wait, pause = pause, min(2*pause, maxLookPause)
		} else {
			pause = minLookPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
			s.sleep(minLookPause)
		case <-s.life.Done():
		}
		timer.Stop()
	}
}

// lookSoon makes keep look before its time.
func (s *Sink) lookSoon() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// down returns why the brokers cannot be asked, or nil.
func (s *Sink) down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return nil
	}
	return s.why.err
}

// look sees to it that both topics are there and finds what is wrong with them. The error says why nothing can be
// published to one of them.
func (s *Sink) look(ctx context.Context) (details []string, err error) {
	l := s.startLook()
	select {
	case <-l.done:
		return l.details, l.err
	case <-ctx.Done():
		return nil, cmp.Or(s.down(), fmt.Errorf("looking at the topics: %w", ctx.Err()))
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
	ctx, cancel := context.WithTimeout(s.life, askTimeout)
	defer cancel()
	found, err := s.inspect(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.looking
	s.looking = nil
	switch {
	case s.life.Err() != nil:
		l.err = sinks.ErrClosed
	case err != nil:
		s.isDown(err)
		l.err = s.why.err
	default:
		s.isUp()
		s.report(found)
		for _, f := range found {
			if f.barred != nil {
				l.err = cmp.Or(l.err, f.barred)
			}
			l.details = append(l.details, f.text)
		}
	}
	close(l.done)
}

// isUp notes that the brokers answer. The caller holds mu.
func (s *Sink) isUp() {
	if !s.up {
		s.up = true
		s.said = [troubleKinds]bool{}
		s.cfg.Log.Info().Msg("connected to " + s.conn.name())
	}
}

// isDown notes that the brokers do not answer, and why. It says so once for each kind of reason in an outage. The
// caller holds mu.
func (s *Sink) isDown(err error) {
	s.why = s.conn.explain(err, s.up)
	s.up = false
	if s.said[s.why.kind] {
		return
	}
	s.said[s.why.kind] = true
	s.cfg.Log.Error().Msg(s.why.err.Error())
}

// report logs what was not there at the last look. The caller holds mu.
func (s *Sink) report(found []finding) {
	var texts []logged
	for _, f := range found {
		if errors.Is(f.barred, errPending) {
			continue
		}
		t := logged{f.topic, f.text}
		texts = append(texts, t)
		if !slices.Contains(s.found, t) {
			s.cfg.Log.Warn().Str(LogKeyTopic, f.topic).Msg(f.text)
		}
	}
	if len(texts) == 0 && len(s.found) > 0 {
		s.cfg.Log.Info().Msg("the topics are as they should be")
	}
	s.found = texts
}

// inspect looks at both topics. The error says why there was nothing to see.
func (s *Sink) inspect(ctx context.Context) ([]finding, error) {
	seen, err := s.conn.metadata(ctx, s.events.name, s.dead.name)
	if err != nil {
		return nil, err
	}
	var found []finding
	for i, t := range s.topics() {
		if barred := s.ensure(ctx, t, seen.Topics[i]); barred != nil {
			found = append(found, finding{topic: t.name, text: barred.Error(), barred: barred})
		}
	}
	configs, err := s.conn.configs(ctx, s.events.name, s.dead.name) // also shows whether the brokers are there at all
	if err != nil {
		return nil, err
	}
	for i, t := range s.topics() {
		if len(seen.Topics[i].Partitions) > 0 {
			found = append(found, s.findings(t, seen.Topics[i], len(seen.Brokers), configs[t.name])...)
		}
	}
	return found, nil
}

// ensure notes what metadata says of a topic, and creates it when it is missing. The error says why nothing can be
// published to it.
func (s *Sink) ensure(ctx context.Context, t *topic, seen metadata.ResponseTopic) error {
	code := kafka.Error(seen.ErrorCode)
	gone := len(seen.Partitions) == 0 && code == kafka.UnknownTopicOrPartition
	var barred error
	switch {
	case len(seen.Partitions) > 0:
	case gone:
		if t.vanished() {
			t.lose()
		}
		barred = s.supply(ctx, t)
	case code == kafka.TopicAuthorizationFailed:
		barred = &sinks.RefusedError{Reason: "the user may not see topic " + t.name + ": " + t.grant("Describe"), Err: code}
	default:
		barred = fmt.Errorf("topic %s has no partitions: %w", t.name, code)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.barred = barred
	if !gone {
		t.missing = time.Time{}
	} else if t.missing.IsZero() {
		t.missing = time.Now()
	}
	if n := len(seen.Partitions); n > 0 && n != len(t.partitions) {
		t.partitions = make([]int, n)
		for i := range n {
			t.partitions[i] = i
		}
	}
	return barred
}

// supply creates a topic, if that is allowed. It returns why the topic cannot be used now.
func (s *Sink) supply(ctx context.Context, t *topic) error {
	if !s.cfg.CreateTopics {
		return fmt.Errorf("topic %s is missing: set BRIDGE_KAFKA_CREATE_TOPICS=on, or run: %s", t.name, s.createCommand(t))
	}
	err := s.create(ctx, t)
	code, _ := errors.AsType[kafka.Error](err)
	switch {
	case err == nil:
		s.cfg.Log.Info().Str(LogKeyTopic, t.name).Msg("created topic " + t.name)
		return fmt.Errorf("topic %s %w", t.name, errPending)
	case code == kafka.TopicAlreadyExists: // this broker has not heard of it, or somebody else was quicker
		return fmt.Errorf("topic %s %w", t.name, errPending)
	case code == kafka.TopicAuthorizationFailed || code == kafka.ClusterAuthorizationFailed:
		return fmt.Errorf("topic %s is missing: %s, or run: %s: %w", t.name, t.grant("Create"), s.createCommand(t), err)
	}
	return fmt.Errorf("topic %s is missing and cannot be created; settings are BRIDGE_KAFKA_PARTITIONS, BRIDGE_KAFKA_REPLICATION, "+
		"BRIDGE_KAFKA_MAX_AGE and BRIDGE_DEAD_MAX_AGE, by hand: %s: %w", t.name, s.createCommand(t), err)
}

// configs returns the settings of topics that the sink minds, by topic. A topic whose settings cannot be read is not
// among them, or has an error.
func (c *conn) configs(ctx context.Context, topics ...string) (map[string]topicConfigs, error) {
	req := &describeconfigs.Request{}
	for _, t := range topics {
		req.Resources = append(req.Resources, describeconfigs.RequestResource{ResourceType: resourceTopic, ResourceName: t, ConfigNames: configNames()})
	}
	res, err := c.ask(ctx, askTimeout, req)
	if err != nil {
		return nil, err
	}
	all := map[string]topicConfigs{}
	for _, r := range res.(*describeconfigs.Response).Resources {
		configs := topicConfigs{values: map[string]string{}}
		if r.ErrorCode != 0 {
			configs.err = kafka.Error(r.ErrorCode)
		}
		for _, e := range r.ConfigEntries {
			configs.values[e.ConfigName] = e.ConfigValue
		}
		all[r.ResourceName] = configs
	}
	return all, nil
}
