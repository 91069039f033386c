package docs_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/sinks/jetstream"
)

const patience = 30 * time.Second

func TestNATSMessages(t *testing.T) {
	for i, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			url := startNATS(t)
			sink, err := jetstream.New(jetstream.Config{Conn: jetstream.Conn{URL: url}, ContentMode: jetstream.Mode(i), Log: zerolog.Nop()})
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Close(t.Context())
			conn, err := nats.Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			reader, err := natsjs.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "nats", mode, func(t *testing.T, e *schema.Event) sent {
				ack := publish(t, sink, e)
				name := "GEMINI"
				if e.Dead {
					name = "GEMINI_DEAD"
				}
				stream, err := reader.Stream(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				m, err := stream.GetMsg(t.Context(), ack.Position.Sequence)
				if err != nil {
					t.Fatal(err)
				}
				headers := map[string]string{}
				for name, values := range m.Header {
					headers[name] = values[0]
				}
				for _, name := range []string{natsjs.StreamHeader, natsjs.SequenceHeader, natsjs.TimeStampHeaer, natsjs.SubjectHeader} {
					delete(headers, name) // the server adds them to a message that it is asked for by its number
				}
				return sent{channel: m.Subject, headers: headers, body: m.Data}
			})
		})
	}
}

func startNATS(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server did not start")
	}
	return s.ClientURL()
}
