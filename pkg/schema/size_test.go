package schema_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
)

const maxBody = 384 << 10 // the default of BRIDGE_MAX_BODY

// fill repeats unit in the place of %s until the body has size bytes; spaces make up the rest.
func fill(size int, form, unit string) string {
	n := max(0, size-len(form)+len("%s")) / len(unit)
	body := fmt.Sprintf(form, strings.Repeat(unit, n))
	return body + strings.Repeat(" ", max(0, size-len(body)))
}

// greedy is a delivery whose headers take all that they can get, in bytes that grow when they are written as JSON.
func greedy(value string) schema.Delivery {
	d := delivery()
	d.ID = strings.Repeat(`"`, 256)
	d.Header = http.Header{}
	for _, name := range []string{"webhook-id", "webhook-timestamp", "content-type", "user-agent", "traceparent"} {
		d.Header.Set(name, strings.Repeat(value, 8<<10/len(value)))
	}
	d.Header.Set("webhook-id", d.ID)
	return d
}

func greedyDeliveries() []schema.Delivery {
	small := greedy("\xff")
	for name := range small.Header {
		small.Header.Set(name, strings.Repeat("\xff", 510)) // together just below the bound
	}
	return []schema.Delivery{greedy(`"`), greedy("\xff"), small}
}

// adversaries are bodies of about size bytes, each of which makes a part of the event as large as can be.
func adversaries(size int) (valid, invalid map[string]string) {
	names := func(n int) string { // distinct names, so that nothing is a duplicate
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"%d":"\""`, i)
		}
		return b.String()
	}
	job := strings.Repeat(`\"`, 1024)
	valid = map[string]string{
		"nothing":              `{"type":"x"}`,
		"long names":           `{"type":"` + strings.Repeat(`\"`, 128) + `","data":{"id":"` + job + `"}}`,
		"long names, dotted":   `{"type":".` + strings.Repeat(`\\`, 127) + `","timestamp":"2026-01-22T12:00:00.123456789+01:00","data":{"id":"` + job + `"}}`,
		"letters":              fill(size, `{"type":"x","a":"%s"}`, "a"),
		"escaped quotes":       fill(size, `{"type":"x","a":"%s"}`, `\"`),
		"escaped controls":     fill(size, `{"type":"x","a":"%s"}`, `\u0001`),
		"short controls":       fill(size, `{"type":"x","a":"%s"}`, `\b`),
		"empty strings":        fill(size, `{"type":"x","a":[%s1]}`, `"",`),
		"objects":              fill(size, `{"type":"x","a":[%s1]}`, `{"":{}},`),
		"white space":          fill(size, `{"type":"x","a":[%s1]}`, " "),
		"number":               fill(size, `{"type":"x","a":1%s}`, "0"),
		"names":                `{"type":"x"` + names(size/16) + `}`,
		"metadata":             fill(size, `{"type":"x","user_metadata":{"a":"%s"}}`, `\"`),
		"metadata in data":     fill(size, `{"type":"x","data":{"user_metadata":{"a":"%s"}}}`, `\u0001`),
		"metadata of controls": fill(size, `{"type":"x","user_metadata":{"a":[%s1]}}`, `"\u0000",`),
		"URI":                  fill(size, known(`{"id":"x","output_file_uri":"%s"}`), `\u001f`),
		"URI of quotes":        fill(size, known(`{"id":"x","video_uri":"%s"}`), `\"`),
		"file name":            fill(size, known(`{"id":"x","file_name":"%s"}`), `\u0001`),
		"error message":        fill(size, known(`{"id":"x","error_message":"%s"}`), `\\`),
		"error code":           fill(size, known(`{"id":"x","error_code":1%s}`), `9`),
		"time":                 fill(size, `{"type":"x","timestamp":"2026-01-22T12:00:00.%sZ"}`, "0"),
		"everything at once": fill(size, `{"type":"batch.failed","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"`+job+`","output_file_uri":"`+
			strings.Repeat(`\u0001`, size/48)+`","file_name":"`+strings.Repeat(`\u0001`, size/48)+`","error_code":"`+strings.Repeat(`\u0001`, size/48)+
			`","error_message":"`+strings.Repeat(`\u0001`, size/48)+`"},"user_metadata":{"a":"%s"}}`, `\u0001`),
	}
	invalid = map[string]string{
		"empty":              "",
		"quotes":             strings.Repeat(`"`, size),
		"controls":           strings.Repeat("\x01", size),
		"NULs":               strings.Repeat("\x00", size),
		"invalid UTF-8":      strings.Repeat("\xff", size),
		"one invalid byte":   fill(size, `{"type":"x","a":"%s`+"\xff"+`"}`, "a"),
		"replacements":       strings.Repeat("\ufffd", size/3),
		"opening brackets":   strings.Repeat("[", size),
		"opening braces":     fill(size, `%s`, `{"":`),
		"long name, no end":  fill(size, `{"%s`, `\u0001`),
		"long name, invalid": fill(size, `{"type":"x","%s":"`+"\x01"+`"}`, `~`),
		"long type":          fill(size, `{"type":"%s"}`, `\u0001`),
		"long version":       fill(size, `{"type":"batch.failed","version":["%s"]}`, `\u0001`),
		"long timestamp":     fill(size, `{"type":"x","timestamp":"%s"}`, `\u0001`),
		"long id":            fill(size, `{"type":"x","data":{"id":"%s"}}`, `\u0001`),
		"all wrong": `{"type":"video.generated","version":"` + strings.Repeat(`\u0001`, 300) + `","timestamp":"` + strings.Repeat(`\u0001`, 300) +
			`","data":{"id":"` + strings.Repeat(`\u0001`, 300) + `","output_file_uri":0,"file_name":0,"video_uri":0,"error_code":{},"error_message":0}}`,
	}
	return valid, invalid
}

// An event, and each dead letter that may come of it, is at most twice the body and 32 KiB.
func TestSizeBound(t *testing.T) {
	r, j := registry(t, ""), newJudge()
	valid, bad := adversaries(4 << 10)
	for name, body := range valid {
		t.Run(name, func(t *testing.T) {
			judgeAny(t, r, []byte(body))
			for _, d := range greedyDeliveries() {
				doc, invalid := validate(t, r, []byte(body))
				if invalid != nil {
					t.Fatal(invalid)
				}
				e := schema.Normalize(doc, d)
				j.anEvent(t, e, d, []byte(body))
				j.aDeadLetter(t, e.Refused(strings.Repeat("\x01", 1000)), d, schema.ReasonRefused, e.Original)
			}
		})
	}
	for name, body := range bad {
		t.Run(name, func(t *testing.T) {
			for _, d := range greedyDeliveries() {
				_, invalid := validate(t, r, []byte(body))
				if invalid == nil {
					t.Fatal("valid")
				}
				e := schema.DeadLetter(d, invalid.Type, schema.ReasonInvalid, invalid.Violations, []byte(body))
				j.aDeadLetter(t, e, d, schema.ReasonInvalid, []byte(body))
			}
		})
	}

	// As many and as long violations as there may be, and then some.
	var violations []schema.Violation
	for range 16 {
		violations = append(violations, schema.Violation{Pointer: "/" + strings.Repeat("\x01", 255), Message: strings.Repeat("\x01", 256)})
	}
	for _, d := range greedyDeliveries() {
		e := schema.DeadLetter(d, "", schema.ReasonInvalid, violations, nil)
		j.aDeadLetter(t, e, d, schema.ReasonInvalid, nil)
		var data struct{ Errors []any }
		unmarshal(t, e.Data, &data)
		if len(data.Errors) == 0 {
			t.Error("no room for any error")
		}
	}
}

// At the default limit of a body the bytes are counted only: judging them takes long.
func TestSizeBoundOfLargeBodies(t *testing.T) {
	r := registry(t, "")
	bodies, bad := adversaries(maxBody)
	maps.Copy(bodies, bad)
	for name, body := range bodies {
		for _, d := range greedyDeliveries() {
			var events []*schema.Event
			if doc, invalid := validate(t, r, []byte(body)); invalid != nil {
				events = append(events, schema.DeadLetter(d, invalid.Type, schema.ReasonInvalid, invalid.Violations, []byte(body)))
			} else {
				e := schema.Normalize(doc, d)
				unknown := schema.DeadLetter(d, doc.Type, schema.ReasonUnknown, nil, []byte(body))
				events = append(events, e, unknown, e.Refused(strings.Repeat("\x01", 1000)))
			}
			for _, e := range events {
				if got, limit := len(e.Structured), 2*len(body)+32<<10; got > limit || got > 1<<20 {
					t.Errorf("%s: dead %v: %d bytes of %d, want at most %d and 1 MiB", name, e.Dead, got, len(body), limit)
				}
			}
		}
	}
}

// A pointer that is cut short is still a pointer, to something around what is wrong.
func TestLongPointers(t *testing.T) {
	r, j := registry(t, ""), newJudge()
	for n := 100; n < 300; n++ {
		for _, unit := range []string{"~", "/", "é", "\U0001F3AC", "\x7f"} {
			body := []byte(`{"type":"x","` + strings.Repeat(unit, n) + `":[` + "\x01" + `]}`)
			_, invalid := validate(t, r, body)
			if invalid == nil {
				t.Fatal("valid")
			}
			full := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(strings.Repeat(unit, n)) + "/0"
			got := invalid.Violations[0].Pointer
			if !strings.HasPrefix(full, got) || got != "" && full != got && full[len(got)] != '/' {
				t.Fatalf("pointer: got %s of %s", got, full)
			}
			if len(full) <= 256 && got != full {
				t.Fatalf("pointer: got %s, want %s", got, full)
			}
			j.aDeadLetter(t, schema.DeadLetter(delivery(), "x", schema.ReasonInvalid, invalid.Violations, body), delivery(), schema.ReasonInvalid, body)
		}
	}
}
