package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/internal/chaos/ledger"
	"github.com/gembridge/bridge/pkg/journal"
	"github.com/gembridge/bridge/pkg/schema"
)

// TestBodies: what is called valid is valid, and its bytes are such that the bridge keeps them; the rest is not.
func TestBodies(t *testing.T) {
	b, err := newBodies()
	if err != nil {
		t.Fatal(err)
	}
	registry, err := schema.NewRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	valid, invalid := 0, 0
	for n := range 500 {
		body, dead := b.next(rng, "batches/k", n)
		if _, err := registry.Validate(body); dead != (err != nil) {
			t.Fatalf("dead letter %t, %v: %s", dead, err, body)
		}
		if dead {
			invalid++
			continue
		}
		valid++
		if !bytes.Contains(body, []byte(`"id":"batches/k"`)) || !bytes.Contains(body, fmt.Appendf(nil, `"n":%d}`, n)) {
			t.Fatalf("%s", body)
		}
	}
	if valid < 300 || invalid < 10 {
		t.Errorf("%d valid, %d not", valid, invalid)
	}
}

// TestSchedule: the seed decides, and every kind has its turn.
func TestSchedule(t *testing.T) {
	names := func(seed uint64) (names []string) {
		for _, k := range schedule(rand.New(rand.NewPCG(seed, 1)), kinds(), 200) {
			names = append(names, k.name)
		}
		return names
	}
	if a, b := names(1), names(1); !slices.Equal(a, b) {
		t.Errorf("one seed, two schedules:\n%q\n%q", a, b)
	}
	if a, b := names(1), names(2); slices.Equal(a, b) {
		t.Error("two seeds, one schedule")
	}
	journal := 0
	for _, k := range schedule(rand.New(rand.NewPCG(1, 1)), kinds(), 200) {
		if k.wrongs == inJournal {
			journal++
		}
		if k.wrongs == inBroker && journal > 0 {
			t.Errorf("%q after a loss in the journal: both copies of an event may be gone", k.name)
		}
	}
	if journal < 3 {
		t.Errorf("%d losses in the journal, want some", journal)
	}
	got := names(1)
	for _, k := range kinds() {
		if !slices.Contains(got, k.name) {
			t.Errorf("no %q in 200", k.name)
		}
	}
	if len(got) < 200 {
		t.Errorf("%d of 200", len(got))
	}
}

func TestAttribute(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	past := []happened{{published: at(10)}, {published: at(20)}, {published: at(30)}}
	got := attribute(past, []time.Time{at(1), at(9), at(10), at(25), at(31), at(99)})
	if want := []int{2, 1, 3}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTable(t *testing.T) {
	table := &table{}
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	past := []happened{
		{kind: "a", begun: at(0), ended: at(10), published: at(30), forwarded: 25 * time.Millisecond, refused: 3},
		{kind: "b", begun: at(40), ended: at(50), published: at(60), forwarded: 10 * time.Millisecond},
		{kind: "a", begun: at(70), ended: at(80), published: at(90), forwarded: 15 * time.Millisecond},
	}
	rows := table.enter("T", past, []int{5, 6, 7})
	report := ledger.Report{
		Missing:   []ledger.Event{{Answered: at(45)}},
		Reordered: []ledger.Reversal{{After: ledger.Event{Answered: at(5)}}},
	}
	rows.blame(past, report, struct{ altered, doubled []time.Time }{altered: []time.Time{at(85)}, doubled: []time.Time{at(55), at(56)}})
	text := table.markdown()
	for _, want := range []string{
		"| T | a | 2 | 12 | 0 | 1 | 0 | 1 | 3 | 20 / 20 | 25 / 25 |\n",
		"| T | b | 1 | 6 | 1 | 0 | 2 | 0 | 0 | 10 / 10 | 10 / 10 |\n",
		"| **all** | | **3** | **18** | **1** | **1** | **2** | **1** | **3** | | |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}

	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := replace(path, text); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if want := "before\n" + tableBegins + text + tableEnds + "after\n"; err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if replace(path, text) == nil {
		t.Error("no error without a place for the table")
	}
}

// TestRecordsIn: what is damaged are records as pkg/journal writes them.
func TestRecordsIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal", "nats")
	log, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const n = 70
	for i := range n {
		if _, err := log.Append(fmt.Appendf(nil, "payload %d %s", i, strings.Repeat("x", i))); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			log.Settle(uint64(i))
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	w := &world{bridge: &bridge{dir: filepath.Dir(filepath.Dir(dir))}}
	files, err := w.segments()
	if err != nil || len(files) == 0 || !w.journaled() {
		t.Fatal(files, err)
	}
	var payloads []string
	for _, file := range files {
		segment, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recordsIn(segment) {
			payloads = append(payloads, string(segment[r.begin+recordPayload:r.end]))
		}
	}
	if len(payloads) != n {
		t.Fatalf("%d records, want %d", len(payloads), n)
	}
	for i, payload := range payloads {
		if want := fmt.Sprintf("payload %d %s", i, strings.Repeat("x", i)); payload != want {
			t.Errorf("%q, want %q", payload, want)
		}
	}
}

func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	p, err := startProxy(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	conn, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(text string, within time.Duration) error {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if string(got) != text {
			t.Fatalf("%q, want %q", got, text)
		}
		return nil
	}
	say("whole")
	if err := hear("whole", patience); err != nil {
		t.Fatal(err)
	}
	p.slow(50 * time.Millisecond)
	begun := time.Now()
	say("slow")
	if err := hear("slow", patience); err != nil || time.Since(begun) < 100*time.Millisecond {
		t.Fatalf("%v after %v, want two delays of 50ms", err, time.Since(begun))
	}
	p.slow(0)
	p.cut()
	say("held back")
	if err := hear("held back", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("while it is cut: %v", err)
	}
	p.heal(false)
	if err := hear("held back", patience); err != nil {
		t.Fatal(err)
	}
	p.cut()
	say("lost")
	p.heal(true)
	if err := hear("lost", patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a reset: %v", err)
	}
}

// TestUnheard: a request that the bridge answered, and whose sender heard nothing, is found.
func TestUnheard(t *testing.T) {
	w := &world{dir: t.TempDir(), book: ledger.New(io.Discard)}
	var log strings.Builder
	for _, id := range []string{"a", "b", "b", "c"} {
		fmt.Fprintf(&log, `{"message":"delivery","delivery":%q}`+"\n", id)
	}
	log.WriteString("{\"message\":\"stopped\"}\nnot JSON\n")
	if err := os.WriteFile(filepath.Join(w.dir, "bridge.log"), []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, a := range []ledger.Answer{{ID: "a", Code: 202}, {ID: "b", Code: 503}, {ID: "b", Result: connBroken}, {ID: "c", Code: 202}, {ID: "d", Result: nobodyThere}} {
		w.book.Answered(a)
	}
	wrong, err := unheard(w)
	if err != nil || len(wrong) != 1 || !strings.HasPrefix(wrong[0], "b: ") {
		t.Errorf("%q, %v, want b alone", wrong, err)
	}
}
