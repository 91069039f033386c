package durable

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks"
)

// publish is the sink's. A panic in it costs this event its turn, not the process and with it all the others. The
// stack is in the error, for nobody else will tell.
func (c Config) publish(ctx context.Context, sink sinks.Sink, event *schema.Event) (ack sinks.Ack, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the sink panicked: %v\n%s", sinks.ErrUnknown, p, debug.Stack())
		}
		if c.Seconds != nil {
			c.Seconds.Observe(time.Since(start).Seconds())
		}
	}()
	return sink.Publish(ctx, event)
}

// resultOf is what became of an event that the sink acknowledged.
func resultOf(event *schema.Event, ack sinks.Ack) schema.Result {
	switch {
	case ack.Duplicate:
		return schema.Duplicate
	case event.Dead:
		return schema.DeadLettered
	}
	return schema.Published
}

// forWaiter is what one hears who waited for the first one's result.
func forWaiter(result schema.Result) schema.Result {
	if result == schema.Published || result == schema.DeadLettered {
		return schema.Duplicate
	}
	return result
}
