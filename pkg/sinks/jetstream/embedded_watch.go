package jetstream

import (
	"cmp"
	"fmt"
	"time"
)

const (
	// Of a server that was started anew and fell ill again within a minute the next start waits, longer each time.
	wellFor = time.Minute
	minRest = time.Second
	maxRest = 30 * time.Second
	// lookAgain is how often the disk is asked whether there is room.
	lookAgain = 250 * time.Millisecond
	// maxRoom is what must be free before a server is started that fell ill, or an eighth of a small disk: one
	// that fills it again at once would only disconnect its consumers.
	maxRoom int64 = 32 << 20
)

// wake has the watch look at the server.
func (e *Embedded) wake() {
	select {
	case e.suspect <- struct{}{}:
	default:
	}
}

// watch starts the server anew whenever it fell ill.
func (e *Embedded) watch() {
	var last time.Time
	rest := time.Duration(0)
	for {
		select {
		case <-e.suspect:
		case <-e.life.Done():
			return
		}
		err := e.ill()
		if err == nil {
			continue
		}
		e.fail(err)
		e.cfg.Log.Error().Msgf("embedded NATS server: %v; it is started anew when its disk has room", err)
		began := time.Now()
		if began.Sub(last) > wellFor {
			rest = 0
		}
		if !e.revive(rest) {
			return
		}
		last = time.Now()
		rest = longer(rest)
		e.cfg.Log.Info().Msgf("embedded NATS server: started anew after %s", last.Sub(began).Round(time.Millisecond))
	}
}

func longer(rest time.Duration) time.Duration { return min(max(2*rest, minRest), maxRest) }

// ill returns what is wrong with the server, if it lasts: while a stream is made or removed the server may say for a
// moment that it cannot find it.
func (e *Embedded) ill() (err error) {
	for range 3 {
		e.mu.Lock()
		node, trouble := e.node, e.trouble
		e.mu.Unlock()
		if trouble != nil {
			return trouble
		}
		if err = node.healthy(); err == nil || !e.sleep(50*time.Millisecond) {
			return nil
		}
	}
	return err
}

// fail notes that nothing can be stored until the server is started anew.
func (e *Embedded) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trouble = cmp.Or(e.trouble, err)
	e.sicken()
}

// sicken has the sink ask for the health before its next publish. The caller holds mu.
func (e *Embedded) sicken() {
	if e.sink != nil {
		e.sink.sick.Store(true)
	}
}

// revive starts the server anew after a rest, once there is room. It returns false when the server is to be closed.
func (e *Embedded) revive(rest time.Duration) bool {
	said := ""
	for e.sleep(rest) {
		if !e.hasRoom() {
			rest = lookAgain
			continue
		}
		err := e.restart()
		if err == nil {
			return true
		}
		e.mu.Lock()
		e.trouble = fmt.Errorf("embedded NATS server: %w", err)
		e.mu.Unlock()
		if text := err.Error(); text != said {
			said = text
			e.cfg.Log.Error().Msgf("embedded NATS server: not started anew: %v", err)
		}
		rest = longer(rest)
	}
	return false
}

func (e *Embedded) hasRoom() bool {
	free, all, err := space(e.cfg.Dir)
	return err == nil && free >= min(maxRoom, all/8)
}

// restart replaces the server by another one on the same store and address. Between the two, what may not have
// reached the disk is written once more: after a failed fsync the operating system counts it as written. So some of
// what was acknowledged may be gone, wherever it stood, and the sink's user has to know.
func (e *Embedded) restart() error {
	e.mu.Lock()
	old, sink := e.node, e.sink
	e.node = nil
	e.mu.Unlock()
	if old != nil {
		old.close()
	}
	if e.cfg.Lazy {
		if err := e.store.rewrite(); err != nil {
			return err
		}
		if sink != nil {
			sink.forgot("the store was mended after a failed write or sync")
		}
	}
	node, err := startNode(e.cfg, e.password)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.node, e.trouble, e.late = node, nil, nil
	return nil
}

func (e *Embedded) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-e.life.Done():
		return false
	}
}
