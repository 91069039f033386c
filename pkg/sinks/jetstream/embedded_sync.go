package jetstream

import (
	"context"
	"fmt"
)

// checkpoint is one run over the store, which several callers of Sync may share.
type checkpoint struct {
	done chan struct{} // closed when err is set
	err  error
}

// Sync returns nil once every event that was acknowledged before the call is on disk. Unless the server is lazy that
// is so at any time.
//
// Any error says that this is not known, and the server then counts as unhealthy. After a time-out, ctx's error, that
// lasts until the disk has answered. After another one the server is started anew, for the operating system takes
// pages for written whose fsync failed: what was stored since the last good Sync is written once more, and the sink
// tells its user that some of it may be lost.
func (e *Embedded) Sync(ctx context.Context) error {
	if !e.cfg.Lazy {
		return nil
	}
	c, err := e.begin()
	if err != nil {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	default:
	}
	e.late = fmt.Errorf("embedded NATS server: no answer from the disk: %w", ctx.Err())
	e.sicken()
	return e.late
}

// begin returns a checkpoint that has not begun yet: one under way may have passed what was stored meanwhile.
func (e *Embedded) begin() (*checkpoint, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.life.Err() != nil {
		return nil, errClosed
	}
	if e.trouble != nil {
		return nil, e.trouble
	}
	if e.next == nil {
		e.next = &checkpoint{done: make(chan struct{})}
		if !e.running {
			e.running = true
			e.tasks.Go(e.checkpoints)
		}
	}
	return e.next, nil
}

// checkpoints runs until no more is asked for.
func (e *Embedded) checkpoints() {
	for {
		e.mu.Lock()
		c := e.next
		e.next = nil
		if c == nil {
			e.running = false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()

		err := e.store.flush()
		if err == nil {
			// Who syncs first after a failed write is told of it, and that may have been the server itself.
			err = e.ill()
		}

		e.mu.Lock()
		switch {
		case e.trouble != nil:
			err = e.trouble
		case err != nil:
			err = fmt.Errorf("embedded NATS server: sync: %w", err)
			e.trouble = err
			e.sicken()
			e.wake()
		default:
			e.late = nil
		}
		c.err = err
		close(c.done)
		e.mu.Unlock()
	}
}
