// Command kafkaconsumer prints every Gemini event once: its type, its id, its job. It reads Kafka.
//
// The broker remembers, in the name of the group, the offsets that were committed. An offset is committed after its
// event was handled, so one that was under way when this process died comes again. One that does not match the schema
// ends the process and stays uncommitted: the bridge publishes no such event.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/examples/go/events"
)

func main() {
	handler, err := events.NewHandler()
	if err != nil {
		log.Fatal(err)
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: strings.Split(cmp.Or(os.Getenv("KAFKA_BROKERS"), "127.0.0.1:9092"), ","),
		Topic:   cmp.Or(os.Getenv("KAFKA_TOPIC"), "gemini.events"),
		GroupID: "example-go", StartOffset: kafka.FirstOffset, MaxWait: 500 * time.Millisecond,
	})
	limit, _ := strconv.Atoi(os.Getenv("EVENTS")) // how many to read; 0: endless
	for read := 0; err == nil && (limit == 0 || read < limit); read++ {
		err = next(context.Background(), reader, handler)
	}
	if err := errors.Join(err, reader.Close()); err != nil { // Close leaves the group
		log.Fatal(err)
	}
}

func next(ctx context.Context, reader *kafka.Reader, handler *events.Handler) error {
	msg, err := reader.FetchMessage(ctx)
	if err != nil {
		return err
	}
	attributes, contentType := map[string]string{}, ""
	for _, header := range msg.Headers {
		if name, found := strings.CutPrefix(header.Key, "ce_"); found {
			attributes[name] = string(header.Value)
		} else if header.Key == "content-type" {
			contentType = string(header.Value)
		}
	}
	if err := handler.Handle(contentType, attributes, msg.Value); err != nil {
		return err
	}
	return reader.CommitMessages(ctx, msg)
}
