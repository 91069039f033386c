package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// asBridge makes the test binary the program itself, for tests that need a process: one that can be killed.
const asBridge = "TEST_BINARY_IS_BRIDGE"

func TestMain(m *testing.M) {
	if os.Getenv(asBridge) != "" {
		main()
	}
	kafkatest.Main(m,
		// A nats-server that is shut down while it creates a stream, as when a start fails, forgets to stop that one.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}
