package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// slow is a delivery whose body has not arrived completely.
type slow struct {
	conn net.Conn
	rest string
}

// begin sends all of a delivery but the end of its body. The bridge has read the head when it returns.
func (b *bridge) begin(t *testing.T, id, body string) *slow {
	t.Helper()
	request, err := signed(b.url, b.secret, id, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Expect", "100-continue") // answered when the body is about to be read
	var head strings.Builder
	fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", request.URL.Path, request.URL.Host, len(body))
	if err := request.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", request.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head.String()+"\r\n"); err != nil {
		t.Fatal(err)
	}
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	answer := make([]byte, len(goOn))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != goOn {
		t.Fatalf("%q, %v, want %q", answer, err, goOn)
	}
	half := len(body) / 2
	if _, err := io.WriteString(conn, body[:half]); err != nil {
		t.Fatal(err)
	}
	return &slow{conn, body[half:]}
}

// end sends what is missing and returns the answer.
func (s *slow) end(t *testing.T) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(s.conn, s.rest); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(s.conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response, readBody(t, response)
}

func TestShutdownOrder(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			environ := local(t, "BRIDGE_DRAIN_DELAY=2s")
			b := launch(t, environ).up(t)
			b.becomes(t, http.StatusOK)
			body := sample(t, "batch.succeeded")
			inFlight := b.begin(t, "msg_in_flight", body)
			host := strings.TrimPrefix(strings.TrimSuffix(b.url, "/webhooks/gemini"), "http://")

			b.signal(signal)
			b.becomes(t, http.StatusServiceUnavailable, "shutting down")
			b.must(t, "published", "msg_while_draining", body)
			eventually(t, func() error {
				conn, err := net.Dial("tcp", host)
				if err != nil {
					return nil
				}
				conn.Close()
				return fmt.Errorf("it still accepts connections")
			})

			b.becomes(t, http.StatusServiceUnavailable, "shutting down", "{Name:nats State:ok")
			response, text := inFlight.end(t)
			if response.StatusCode != http.StatusAccepted || !strings.Contains(text, `"published"`) || !response.Close {
				t.Errorf("the request in flight: %d %s, close %v", response.StatusCode, text, response.Close)
			}
			if code := b.exit(t); code != exitOK {
				t.Errorf("exit code %d\n%s", code, b.log)
			}
			if cut := b.log.lines("were cut"); len(cut) > 0 {
				t.Errorf("cut: %q", cut)
			}
			b.log.line(t, `"stopped"`)
			if _, err := b.ready(); err == nil {
				t.Error("the admin listener is still there")
			}

			again := launch(t, environ).up(t)
			consume(t, connect(t, again.nats), "GEMINI", 2)
		})
	}
}

// TestShutdownCuts: what does not end in time is cut, publishes and all, and named.
func TestShutdownCuts(t *testing.T) {
	t.Parallel()
	b := launch(t, remote(t, startMute(t).url(), "BRIDGE_JOURNAL=off", "BRIDGE_SHUTDOWN_TIMEOUT=500ms")).up(t)
	b.log.line(t, "connected to NATS")
	var posts sync.WaitGroup
	for _, id := range []string{"msg_a", "msg_b"} {
		posts.Go(func() {
			if r, err := b.try(id, sample(t, "batch.failed")); err == nil && r.code != http.StatusServiceUnavailable {
				t.Errorf("%s: %v", id, r)
			}
		})
	}
	eventually(t, func() error {
		if got := b.metrics(t)["bridge_inflight"]; got != 2 {
			return fmt.Errorf("%v deliveries in flight", got)
		}
		return nil
	})
	unfinished := b.begin(t, "msg_c", sample(t, "batch.failed"))
	defer unfinished.conn.Close()

	signalled := time.Now()
	b.signal(syscall.SIGTERM)
	if code := b.exit(t); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	if took := time.Since(signalled); took > 4*closeTimeout {
		t.Errorf("it took %v after 500ms for requests: publishes whose requests are cut were waited for", took)
	}
	posts.Wait()
	lines := b.log.lines("BRIDGE_SHUTDOWN_TIMEOUT were cut")
	if len(lines) != 2 { // and the last one, which says why the exit code is 1
		t.Fatalf("cut: %q", lines)
	}
	for _, want := range []string{"msg_a", "msg_b", `"requests":3`, `"level":"error"`} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %s in %s", want, lines[0])
		}
	}
}

// TestShutdownOfLeftPublish: a publish whose sender has left gets no more time than a request.
func TestShutdownOfLeftPublish(t *testing.T) {
	t.Parallel()
	b := launch(t, remote(t, startMute(t).url(), "BRIDGE_JOURNAL=off", "BRIDGE_SHUTDOWN_TIMEOUT=500ms")).up(t)
	b.log.line(t, "connected to NATS")
	request, err := signed(b.url, b.secret, "msg_left", sample(t, "batch.failed"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	var post sync.WaitGroup
	post.Go(func() {
		if r, err := ask(b.client, request.WithContext(ctx)); err == nil {
			t.Errorf("%v", r)
		}
	})
	eventually(t, func() error {
		if b.metrics(t)["bridge_inflight"] != 1 {
			return errNotYet
		}
		return nil
	})
	leave()
	post.Wait()
	b.log.line(t, `"delivery":"msg_left"`)
	if got := b.metrics(t)["bridge_inflight"]; got != 1 {
		t.Errorf("%v in flight after the sender left, want 1", got)
	}

	signalled := time.Now()
	if code := b.stop(t); code != exitFailure || len(b.log.lines(`"level":"error"`, "1 publishes under way")) != 1 {
		t.Errorf("exit code %d\n%s", code, b.log)
	}
	if took := time.Since(signalled); took > 4*closeTimeout {
		t.Errorf("it took %v", took)
	}
}

// TestShutdownWithSpooled: what the journal has needs no broker to end well, whether its sender has heard of it or left
// before; the number is told once.
func TestShutdownWithSpooled(t *testing.T) {
	t.Parallel()
	environ := append(remote(t, startMute(t).url(), "BRIDGE_SHUTDOWN_TIMEOUT=1s"), "BRIDGE_ACK_TIMEOUT=3s")
	b := launch(t, environ).up(t)
	b.log.line(t, "connected to NATS")
	b.must(t, "spooled", "msg_1", sample(t, "batch.failed"))
	request, err := signed(b.url, b.secret, "msg_left", sample(t, "batch.succeeded"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	var post sync.WaitGroup
	post.Go(func() { _, _ = ask(b.client, request.WithContext(ctx)) })
	eventually(t, func() error {
		if n := b.waiting(t); n != 2 {
			return fmt.Errorf("%d events in the journal", n)
		}
		return nil
	})
	leave()
	post.Wait()

	signalled := time.Now()
	if code := b.stop(t); code != exitOK || len(b.log.lines("events wait in the journal for the next start", `"events":2`)) != 1 {
		t.Errorf("exit code %d\n%s", code, b.log)
	}
	if took := time.Since(signalled); took > 4*closeTimeout {
		t.Errorf("it took %v", took)
	}
	if got := inJournal(t, environ); !slices.Equal(got, []string{"msg_1", "msg_left"}) {
		t.Errorf("the journal has %v", got)
	}
}

// TestShutdownWithUnusedConnection: a connection on which nothing was sent is no request. Load balancers and Go's
// own client open such connections.
func TestShutdownWithUnusedConnection(t *testing.T) {
	t.Parallel()
	b := launch(t, local(t, "BRIDGE_SHUTDOWN_TIMEOUT=500ms")).up(t)
	host, _, _ := strings.Cut(strings.TrimPrefix(b.url, "http://"), "/")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.must(t, "published", "msg_1", sample(t, "batch.failed")) // it has been accepted then
	if code := b.stop(t); code != exitOK || len(b.log.lines("were cut")) > 0 {
		t.Errorf("exit code %d\n%s", code, b.log)
	}
}

func TestSecondSignal(t *testing.T) {
	t.Run("while it stops", func(t *testing.T) {
		t.Parallel()
		b := spawn(t, remote(t, startMute(t).url(), "BRIDGE_DRAIN_DELAY=1h")).up(t)
		b.signal(syscall.SIGINT)
		b.log.line(t, "shutting down")
		b.becomes(t, http.StatusServiceUnavailable, "shutting down")
		b.signal(syscall.SIGTERM)
		if code := b.exit(t); code != exitFailure || len(b.log.lines("second signal")) != 1 {
			t.Errorf("exit code %d\n%s", code, b.log)
		}
	})
	// A file system that does not answer holds up the start for good.
	t.Run("while it starts", func(t *testing.T) {
		t.Parallel()
		schemas := t.TempDir()
		if err := syscall.Mkfifo(filepath.Join(schemas, "batch.failed.schema.json"), 0o600); err != nil {
			t.Fatal(err)
		}
		admin := freeAddr(t)
		b := spawn(t, local(t, "BRIDGE_ADMIN_ADDR="+admin, "BRIDGE_SCHEMA_DIR="+schemas))
		b.admin = "http://" + admin
		b.becomes(t, http.StatusServiceUnavailable, "starting")
		b.signal(os.Interrupt)
		b.signal(os.Interrupt)
		eventually(t, func() error { // two signals of a kind are one while it has not taken the first
			select {
			case <-b.gone:
				return nil
			default:
				b.signal(os.Interrupt)
				return errNotYet
			}
		})
		if code := b.exit(t); code != exitFailure {
			t.Errorf("exit code %d\n%s", code, b.log)
		}
	})
}

// TestShutdownUnderLoad: every request that the bridge took was answered, and what was answered 202 is stored.
func TestShutdownUnderLoad(t *testing.T) {
	const senders = 8
	body := sample(t, "interaction.completed")
	external := startBroker(t)
	data := "BRIDGE_DATA_DIR=" + t.TempDir()
	for round := range 6 {
		environ := local(t, data)
		if round%2 == 1 {
			environ = remote(t, external.url())
		}
		b := launch(t, environ).up(t)
		b.becomes(t, http.StatusOK)
		var accepted sync.Map
		var answers, enough atomic.Int64
		var load sync.WaitGroup
		for sender := range senders {
			load.Go(func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("msg_%d_%d_%d", round, sender, n)
					r, err := b.try(id, body)
					if err != nil {
						return // the listener is closed, or the kernel's queue for it
					}
					answers.Add(1)
					if r.code != http.StatusAccepted {
						t.Errorf("%s: %v", id, r)
						return
					}
					accepted.Store(id, true)
					if enough.Add(1) == 60 {
						b.signal(syscall.SIGTERM)
					}
				}
			})
		}
		load.Wait()
		if code := b.exit(t); code != exitOK {
			t.Errorf("exit code %d\n%s", code, strings.Join(b.log.lines(`"level":"error"`), "\n"))
		}
		if got, want := int64(len(b.log.lines(`"message":"delivery"`))), answers.Load(); got != want {
			t.Errorf("round %d: the bridge answered %d deliveries, the senders heard of %d", round, got, want)
		}

		url := external.url()
		if round%2 == 0 {
			b = launch(t, environ).up(t)
			url = b.nats
		}
		ids := stored(t, connect(t, url), "GEMINI")
		if round%2 == 0 {
			b.stop(t)
		}
		accepted.Range(func(id, _ any) bool {
			if n := ids[id.(string)]; n != 1 {
				t.Errorf("%s was answered 202 and is stored %d times", id, n)
			}
			return true
		})
	}
}
