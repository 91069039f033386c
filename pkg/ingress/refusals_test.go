package ingress_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A flood of refusals costs a handful of lines, and one that tells how many there were; metrics count them all.
func TestRefusalsAreLoggedAtABoundedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		said := 0
		// since returns the log lines that are new.
		since := func() []string {
			synctest.Wait()
			lines := strings.Split(strings.TrimSuffix(r.log.String(), "\n"), "\n")
			lines, said = lines[said:], len(lines)
			return lines
		}
		post := func(n int, d draft) {
			t.Helper()
			for range n {
				request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.text())))
				if err != nil {
					t.Fatal(err)
				}
				r.handler.ServeHTTP(httptest.NewRecorder(), request)
			}
		}
		forged, lost, good := draft{body: known, signature: "v1,bm90IHRoZSBzaWduYXR1cmUgdGhhdCBpdCBzaG91bGQ="}, draft{target: "/"}, draft{body: known}
		post(1000, forged)
		post(6, lost)
		post(20, good)
		lines := since()
		if len(lines) != 5+5+20 {
			t.Fatalf("%d lines, want 5 of each kind of refusal and all of what is authentic:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		time.Sleep(time.Second)
		lines = since()
		if len(lines) != 1 || !strings.Contains(lines[0], `"refusals":{"not_found":1,"signature_mismatch":995},"seconds":1,`) {
			t.Fatalf("a second later: %q", lines)
		}

		post(7, forged)
		time.Sleep(9 * time.Second)
		post(1, forged)
		if lines = since(); len(lines) != 5 {
			t.Errorf("in the second window: %q", lines)
		}
		time.Sleep(time.Second)
		if lines = since(); len(lines) != 1 || !strings.Contains(lines[0], `"refusals":{"signature_mismatch":3},"seconds":10,`) {
			t.Errorf("behind the second window: %q", lines)
		}

		post(5, forged) // which is no flood
		time.Sleep(10 * time.Second)
		synctest.Wait() // until the window has ended, at this very moment
		post(6, forged)
		time.Sleep(time.Second)
		if lines = since(); len(lines) != 11 || !strings.Contains(lines[10], `"refusals":{"signature_mismatch":1},"seconds":1,`) {
			t.Errorf("behind the flood: %q", lines)
		}
		if got := r.series(t)["bridge_verify_failures_total{reason=signature_mismatch}"]; got != 1000+8+11 {
			t.Errorf("%v failures counted", got)
		}

		// What a window owes is told at the end of the program, once.
		post(8, forged)
		time.Sleep(250 * time.Millisecond)
		since()
		for range 2 {
			r.handler.Close()
		}
		if lines = since(); len(lines) != 1 || !strings.Contains(lines[0], `"refusals":{"signature_mismatch":3},"seconds":0.25,`) {
			t.Errorf("at the end: %q", lines)
		}
		time.Sleep(time.Minute)
		if lines = since(); len(lines) > 0 {
			t.Errorf("behind the end: %q", lines)
		}
	})
	newRig(t).handler.Close() // when there was none
}
