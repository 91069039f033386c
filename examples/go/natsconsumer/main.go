// Command natsconsumer prints every Gemini event once: its type, its id, its job. It reads NATS JetStream.
//
// The server remembers, under the name durable, which events were acknowledged. An event is acknowledged after it was
// handled, so one that was under way when this process died comes again. One that does not match the schema ends the
// process and stays unacknowledged: the bridge publishes no such event.
package main

import (
	"cmp"
	"context"
	"log"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gembridge/bridge/examples/go/events"
)

const durable = "example-go"

func main() {
	ctx := context.Background()
	limit, _ := strconv.Atoi(os.Getenv("EVENTS")) // how many to read; 0: endless
	handler := must(events.NewHandler())
	nc := must(nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL)))
	consumer := must(must(jetstream.New(nc)).CreateOrUpdateConsumer(ctx, cmp.Or(os.Getenv("NATS_STREAM"), "GEMINI"),
		jetstream.ConsumerConfig{Durable: durable, AckPolicy: jetstream.AckExplicitPolicy}))
	messages := must(consumer.Messages(jetstream.PullMaxMessages(1), jetstream.WithMessagesErrOnMissingHeartbeat(false)))
	for read := 0; limit == 0 || read < limit; read++ {
		msg := must(messages.Next())
		attributes := map[string]string{} // of binary mode, percent-encoded as in HTTP
		for header, values := range msg.Headers() {
			if name, found := strings.CutPrefix(header, "ce-"); found {
				attributes[name] = must(url.PathUnescape(values[0]))
			}
		}
		check(handler.Handle(msg.Headers().Get("Content-Type"), attributes, msg.Data()))
		check(msg.DoubleAck(ctx))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
