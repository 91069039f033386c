package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	benchSecret = "whsec_YmVuY2gtYmVuY2gtYmVuY2gtYmVuY2gtYmVuY2g="
	benchPath   = "/webhooks/gemini"
)

// benchBody is a webhook of some 600 bytes.
var benchBody = []byte(`{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/0yew7pq3l2k9a8s7d6f5g4h3j2k1l0",` +
	`"output_file_uri":"gs://my-bucket/some/longer/prefix/2026/01/22/results-00000-of-00001.jsonl","user_metadata":{"job_group":"nightly-eval",` +
	`"owner":"team-evaluation","note":"` + strings.Repeat("x", 300) + `"}}}`)

// client is one keep-alive connection with one request in flight. It is as cheap as can be, for it runs on the cores of
// what it measures.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	mac  hash.Hash
	out  []byte
	id   string
}

func dial(url string) (*client, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(benchSecret, "whsec_"))
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("msg_%d_%s_", time.Now().UnixNano(), conn.LocalAddr())
	return &client{conn: conn, in: bufio.NewReader(conn), mac: hmac.New(sha256.New, key), id: id}, nil
}

func (c *client) close() { c.conn.Close() }

// post sends delivery n, signed under an id of its own, and returns the status.
func (c *client) post(n int) (int, error) {
	id, now := c.id+strconv.Itoa(n), strconv.FormatInt(time.Now().Unix(), 10)
	c.mac.Reset()
	_, _ = io.WriteString(c.mac, id+"."+now+".")
	_, _ = c.mac.Write(benchBody)
	b := append(c.out[:0], "POST "+benchPath+" HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(benchBody)), 10)
	b = append(b, "\r\nwebhook-id: "+id+"\r\nwebhook-timestamp: "+now+"\r\nwebhook-signature: v1,"...)
	b = base64.StdEncoding.AppendEncode(b, c.mac.Sum(nil))
	b = append(b, "\r\n\r\n"...)
	c.out = append(b, benchBody...)
	return c.send(c.out)
}

// send sends a request as it is, and returns the status of the reply.
func (c *client) send(request []byte) (int, error) {
	if _, err := c.conn.Write(request); err != nil {
		return 0, err
	}
	return c.reply()
}

func (c *client) reply() (code int, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		switch {
		case first:
			code, err = strconv.Atoi(string(line[9:12]))
			if err != nil {
				return 0, err
			}
		case len(line) <= 2:
			_, err = c.in.Discard(length)
			return code, err
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(line[16:])))
			if err != nil {
				return 0, err
			}
		}
	}
}

// load posts from conns connections at once and measures the process meanwhile.
func (b *bench) load(p *process, url string, conns int) (result, error) {
	clients := make([]*client, conns)
	for i := range clients {
		c, err := dial(url)
		if err != nil {
			return result{}, err
		}
		defer c.close()
		clients[i] = c
	}
	if r := closedLoop(conns, b.period/4, post(clients, 1)); r.Err != "" { // warm up
		return r, fmt.Errorf("load: %s", r.Err)
	}
	allocs, cpu := p.allocs(), p.cpu()
	r := closedLoop(conns, b.period, post(clients, 1_000_000))
	cpu, allocs = p.cpu()-cpu, p.allocs()-allocs
	if r.Err != "" {
		return r, fmt.Errorf("load: %s", r.Err)
	}
	r.CPU = float64(cpu.Microseconds()) / float64(r.Count)
	r.Allocs = allocs / float64(r.Count)
	return r, nil
}

func post(clients []*client, from int) func(caller, n int) error {
	return func(caller, n int) error {
		code, err := clients[caller].post(from + n)
		if err == nil && code != http.StatusAccepted {
			err = fmt.Errorf("answered %d", code)
		}
		return err
	}
}

// closedLoop calls do from several goroutines, each one call after the other, for a time.
func closedLoop(callers int, period time.Duration, do func(caller, n int) error) result {
	return loop(callers, 0, period, do)
}

// loop is closedLoop, or, with a rate, so many calls per second of all callers together. A caller that is late goes on
// at once, and its times count from when the call was due.
func loop(callers int, rate float64, period time.Duration, do func(caller, n int) error) result {
	taken := make([][]time.Duration, callers)
	errs := make([]error, callers)
	var running sync.WaitGroup
	begun := time.Now()
	for i := range callers {
		running.Go(func() {
			for n := 0; time.Since(begun) < period; n++ {
				start := time.Now()
				if rate > 0 {
					start = begun.Add(time.Duration(float64(n*callers+i) / rate * float64(time.Second)))
					time.Sleep(time.Until(start))
				}
				if errs[i] = do(i, n); errs[i] != nil {
					return
				}
				taken[i] = append(taken[i], time.Since(start))
			}
		})
	}
	running.Wait()
	elapsed := time.Since(begun)
	all := slices.Concat(taken...)
	slices.Sort(all)
	r := result{Count: len(all), Rate: float64(len(all)) / elapsed.Seconds()}
	for _, err := range errs {
		if err != nil {
			r.Err = err.Error()
		}
	}
	if len(all) > 0 {
		r.P50, r.P99 = millis(all[len(all)/2]), millis(all[len(all)*99/100])
	}
	return r
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
