package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/schemas"
)

// data.original holds these bytes as they stand in the body; the judge compares the rest of it.
func TestOriginalKeepsBytes(t *testing.T) {
	r := registry(t, "")
	for _, part := range []string{
		`"n":1e999999`, `"n":-1E-999999`, `"n":123456789012345678901234567890`, `"n":-0`, `"n":-0.0`, `"n":1.0`, `"n":1.50e+07`, `"n":0e0`,
		`"n":0.1000000000000000055511151231257827`, `"n":` + strings.Repeat("9", 4000),
		`"s":"\u00e9"`, `"s":"é"`, `"s":"e` + "\u0301" + `"`, `"s":"\/"`, `"s":"/"`, `"s":"\u002f"`, `"s":"\u0000\u001F\b\f"`, `"s":"\ud83c\udfac🎬"`,
		`"s":"<&>\u003c"`, `"s":"` + "\u2028\u2029\ufeff\u007f\ufffd\uffff" + `"`, `"s":" \t {[ 1 , 2 ]} : , "`, `"s":"\\\" \\\\"`,
		`"z":1,"y":2,"a":3,"m":{"z":1,"a":2}`, `"":""`, `" ":{" ":[]}`, `"\u0061":1,"A":2`, `"a":[],"b":{},"c":[[],{}]`,
		`"__proto__":{"constructor":null}`,
	} {
		for _, form := range []string{`{"type":"x",%s}`, `{%s,"type":"x"}`, `{"type":"x","data":{%s}}`, `{"type":"x","d":[[{%s}]]}`} {
			body := fmt.Sprintf(form, part)
			e := normalize(t, r, body)
			if string(e.Original) != body {
				t.Errorf("original:\n got %.200s\nwant %.200s", e.Original, body)
			}
		}
	}
}

func TestOriginalLosesWhiteSpaceOutsideStringsOnly(t *testing.T) {
	r := registry(t, "")
	e := normalize(t, r, "\r\n\t { \"type\" :\t\"a b\" ,\n\"l\" : [ 1 ,\t[ ] , { } , \" 2 , 3 \" ] , \"o\" : { \" k \" : null } } \n")
	if got, want := string(e.Original), `{"type":"a b","l":[1,[],{}," 2 , 3 "],"o":{" k ":null}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The event holds on to nothing of the body: the ingress reads the next one into the same buffer.
func TestEventOutlivesTheBody(t *testing.T) {
	r := registry(t, "")
	good, bad := []byte(known(`{"id":"batches/1","user_metadata":{"a":"b"}}`)), []byte(`{"type":"batch.failed","`+"\xff"+`":1}`)
	doc, invalid := validate(t, r, good)
	if invalid != nil {
		t.Fatal(invalid)
	}
	_, invalid = validate(t, r, bad)
	want := string(bytes.Clone(good))
	clear(good)
	e := schema.Normalize(doc, delivery())
	newJudge().anEvent(t, e, delivery(), []byte(want))
	letter := schema.DeadLetter(delivery(), "", schema.ReasonInvalid, invalid.Violations, bad)
	was := string(letter.Structured)
	clear(bad)
	if string(letter.Structured) != was {
		t.Error("a dead letter changed with the body")
	}
}

type members struct{ data, want string }

func check(t *testing.T, r *schema.Registry, member, body, want string) {
	t.Helper()
	var data map[string]json.RawMessage
	unmarshal(t, normalize(t, r, body).Data, &data)
	if got := string(data[member]); got != want {
		t.Errorf("%.200s: %s: got %.200s, want %.200s", body, member, got, want)
	}
}

func TestMembersOfEveryType(t *testing.T) {
	r := registry(t, "")
	statuses := map[string]string{}
	for _, typ := range schemas.Types() {
		kind, status, _ := strings.Cut(typ, ".")
		statuses[typ] = status
		if typ == "video.generated" {
			status = "succeeded"
		}
		body := func(data string) string {
			return fmt.Sprintf(`{"type":%q,"version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"jobs/1"%s}}`, typ, data)
		}
		none := "null"
		if status == "failed" {
			none = `{"code":"","message":""}`
		}
		e := normalize(t, r, body(""))
		want := `{"kind":"` + kind + `","status":"` + status + `","job":"jobs/1","output":null,"error":` + none +
			`,"user_metadata":null,"original":` + body("") + `}`
		if string(e.Data) != want {
			t.Errorf("data:\n got %s\nwant %s", e.Data, want)
		}
		if e.Subject != "jobs/1" || e.PartitionKey != "jobs/1" || e.Time != "2026-01-22T12:00:00Z" || e.Type != "com.google.gemini."+typ {
			t.Errorf("got %+v", *e)
		}

		for _, tt := range []members{
			{`,"output_file_uri":"gs://b/1"`, `{"uri":"gs://b/1","file_name":null}`},
			{`,"video_uri":"https://v/1"`, `{"uri":"https://v/1","file_name":null}`},
			{`,"video_uri":"https://v/1","output_file_uri":"gs://b/1","file_name":"1.mp4"`, `{"uri":"gs://b/1","file_name":"1.mp4"}`},
			{`,"video_uri":"https://v/1","output_file_uri":""`, `{"uri":"https://v/1","file_name":null}`},
			{`,"video_uri":"https://v/1","output_file_uri":null`, `{"uri":"https://v/1","file_name":null}`},
			{`,"file_name":"1.mp4"`, `{"uri":null,"file_name":"1.mp4"}`},
			{`,"video_uri":null,"output_file_uri":null,"file_name":null`, `null`},
			{`,"video_uri":"","output_file_uri":"","file_name":""`, `null`},
			{`,"output_file_uri":"gs:\/\/b\/\u00e9\u0001\""`, `{"uri":"gs://b/é\u0001\"","file_name":null}`},
			{`,"output":{"uri":"gs://b/1"}`, `null`},
		} {
			check(t, r, "output", body(tt.data), tt.want)
		}
		for _, tt := range []members{
			{`,"error_code":"INTERNAL","error_message":"m\n"`, `{"code":"INTERNAL","message":"m\n"}`},
			{`,"error_code":13`, `{"code":"13","message":""}`},
			{`,"error_code":-1.50E+999999`, `{"code":"-1.50E+999999","message":""}`},
			{`,"error_code":` + strings.Repeat("9", 5000), `{"code":"` + strings.Repeat("9", 5000) + `","message":""}`},
			{`,"error_code":0`, `{"code":"0","message":""}`},
			{`,"error_message":"m"`, `{"code":"","message":"m"}`},
			{`,"error_code":null,"error_message":null`, none},
			{`,"error_code":"","error_message":""`, none},
			{`,"error":{"code":1}`, none},
		} {
			check(t, r, "error", body(tt.data), tt.want)
		}
	}
	if statuses["interaction.requires_action"] != "requires_action" || len(statuses) != 9 {
		t.Errorf("statuses %q", statuses)
	}
}

func TestMembersOfUnknownTypes(t *testing.T) {
	r := registry(t, "")
	for _, tt := range []struct{ member, body, want string }{
		{"kind", `{"type":"ping"}`, `"ping"`},
		{"status", `{"type":"ping"}`, `null`},
		{"kind", `{"type":"a.b.c"}`, `"a"`},
		{"status", `{"type":"a.b.c"}`, `"b.c"`},
		{"kind", `{"type":".b"}`, `""`},
		{"status", `{"type":"a."}`, `null`},
		{"status", `{"type":"video.generated.late"}`, `"generated.late"`},
		{"status", `{"type":"batch.generated"}`, `"generated"`},
		{"status", `{"type":"video.generated","version":"v2"}`, `"succeeded"`},
		{"error", `{"type":"tuning.failed"}`, `{"code":"","message":""}`},
		{"error", `{"type":"tuning.job.failed"}`, `null`},
		{"error", `{"type":"failed"}`, `null`},
		{"error", `{"type":"x","data":{"error_code":{},"error_message":true}}`, `null`},
		{"error", `{"type":"x","data":{"error_code":[1]},"error_code":1,"error_message":"m"}`, `null`},
		{"error", `{"type":"x.failed","data":null}`, `{"code":"","message":""}`},
		{"output", `{"type":"x","output_file_uri":"gs://b/1"}`, `null`},
		{"output", `{"type":"x","data":{"output_file_uri":12,"video_uri":1e999999,"file_name":7}}`, `null`},
		{"output", `{"type":"x","data":{"output_file_uri":["gs://b/1"],"video_uri":{"uri":"x"},"file_name":true}}`, `null`},
		{"output", `{"type":"x","data":{"output_file_uri":12,"video_uri":"https://v/1"}}`, `{"uri":"https://v/1","file_name":null}`},
		{"job", `{"type":"x"}`, `null`},
		{"job", `{"type":"x","id":"batches/1"}`, `null`},
		{"job", `{"type":"x","data":null}`, `null`},
		{"job", `{"type":"x","data":{"id":null}}`, `null`},
		{"job", `{"type":"x","data":{"id":""}}`, `null`},
		{"job", `{"type":"x","data":{"id":"\u0061\/\ud83c\udfac"}}`, `"a/🎬"`},
	} {
		check(t, r, tt.member, tt.body, tt.want)
	}
}

func TestUserMetadata(t *testing.T) {
	r := registry(t, "")
	for _, tt := range []struct{ body, want string }{
		{`{"type":"x","user_metadata":{"a": [1.0, "\u00e9"]}}`, `{"a":[1.0,"\u00e9"]}`},
		{`{"type":"x","data":{"user_metadata":{"in":"data"}}}`, `{"in":"data"}`},
		{`{"type":"x","data":{"user_metadata":{"in":"data"}},"user_metadata":{"on":"top"}}`, `{"on":"top"}`},
		{`{"user_metadata":{"on":"top"},"type":"x","data":{"user_metadata":{"in":"data"}}}`, `{"on":"top"}`},
		{`{"type":"x","user_metadata":{},"data":{"user_metadata":{"in":"data"}}}`, `{}`},
		{`{"type":"x","user_metadata":null,"data":{"user_metadata":{"in":"data"}}}`, `{"in":"data"}`},
		{`{"type":"x","user_metadata":["a"],"data":{"user_metadata":{"in":"data"}}}`, `{"in":"data"}`},
		{`{"type":"x","user_metadata":"{}","data":{"user_metadata":1e999999}}`, `null`},
		{`{"type":"x","user_metadata":null,"data":{"user_metadata":null}}`, `null`},
		{`{"type":"x","user_metadata":{"user_metadata":{"a":1}}}`, `{"user_metadata":{"a":1}}`},
		{`{"type":"x","us\u0065r_metadata":{"a":1}}`, `{"a":1}`},
		{`{"type":"x","d\u0061ta":{"us\u0065r_metadata":{"a":1}}}`, `{"a":1}`},
		{`{"type":"x","User_Metadata":{"a":1},"user_metadata ":{"a":1}}`, `null`},
		{`{"type":"x","data":{"data":{"user_metadata":{"a":1}}}}`, `null`},
		{`{"type":"x","data":{"x":{"user_metadata":{"a":1}}}}`, `null`},
		{`{"type":"x","data":{"x":[{"user_metadata":{"a":1}}]}}`, `null`},
		{`{"type":"x","x":{"user_metadata":{"a":1},"data":{"user_metadata":{"a":1}}}}`, `null`},
		{`{"type":"x","x":[{"user_metadata":{"a":1}},{"data":{"user_metadata":{"a":1}}}],"data":{}}`, `null`},
		{`{"type":"x","user_metadata":[{"user_metadata":{"a":1}}]}`, `null`},
		{`{"type":"x","data":{"id":"user_metadata","x":"user_metadata"},"y":["user_metadata",{"a":1}]}`, `null`},
	} {
		check(t, r, "user_metadata", tt.body, tt.want)
	}
}

func TestTime(t *testing.T) {
	r := registry(t, "")
	for _, tt := range []struct{ sent, want string }{
		{"2026-01-22T12:00:00Z", "2026-01-22T12:00:00Z"},
		{"2026-01-22T12:00:00.5+01:00", "2026-01-22T12:00:00.5+01:00"},
		{"2026-01-22T12:00:00-00:00", "2026-01-22T12:00:00-00:00"},
		{"2024-02-29T23:59:59.123456789-11:30", "2024-02-29T23:59:59.123456789-11:30"},
		{"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
		{"2026-01-22t12:00:00z", ""},
		{"2026-01-22t12:00:00Z", ""},
		{"2026-01-22T12:00:00z", ""},
		{"2016-12-31T23:59:60Z", ""},
		{"2026-01-22T+1:00:00Z", ""},                                      // the schema library lets it pass
		{"2026-01-22T12:00:00.1234567890Z", ""},                           // Java's parser takes nine digits
		{"2026-01-22T12:00:00." + strings.Repeat("0", 300_000) + "Z", ""}, // a header of 300 kB in binary mode
	} {
		e := normalize(t, r, `{"type":"x","timestamp":"`+tt.sent+`"}`)
		if e.Time != tt.want {
			t.Errorf("%.50s: got %.50s, want %q", tt.sent, e.Time, tt.want)
		}
		normalize(t, r, strings.Replace(known(`{"id":"x"}`), "2026-01-22T12:00:00Z", tt.sent, 1))
	}
	if e := normalize(t, r, `{"type":"x"}`); e.Time != "" {
		t.Errorf("got %q of no timestamp", e.Time)
	}
}

func TestJob(t *testing.T) {
	r := registry(t, "")
	for _, job := range []string{
		"batches/1", "v1_ChdOdXRo..VHJ5Q..", "models/veo/operations/x", "a b", " a ", "é", "\U0001F3AC", `"\`, strings.Repeat("x", 1024), strings.Repeat("é", 512),
		strings.Repeat(`"`, 1024),
	} {
		id, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{known(`{"id":` + string(id) + `}`), `{"type":"x","data":{"id":` + string(id) + `}}`} {
			if e := normalize(t, r, body); e.Subject != job || e.PartitionKey != job {
				t.Errorf("%q: subject %q, partition key %q", job, e.Subject, e.PartitionKey)
			}
		}
	}
	// The CloudEvents specification wants subjects that are not empty, and its SDK takes white space for empty.
	for _, job := range []string{" ", "   ", "\u00a0", "\u2028\u3000"} {
		for _, body := range []string{known(`{"id":"` + job + `"}`), `{"type":"x","data":{"id":"` + job + `"}}`} {
			if e := normalize(t, r, body); e.Subject != "" || e.PartitionKey != delivery().ID {
				t.Errorf("%q: subject %q, partition key %q", job, e.Subject, e.PartitionKey)
			}
		}
	}
}

func TestAttributes(t *testing.T) {
	r := registry(t, "")
	want := []schema.Attribute{
		{Name: "specversion", Value: "1.0"},
		{Name: "id", Value: "msg_2f9a6c1e"},
		{Name: "source", Value: "//generativelanguage.googleapis.com"},
		{Name: "type", Value: "com.google.gemini.batch.succeeded"},
		{Name: "subject", Value: "batches/1"},
		{Name: "time", Value: "2026-01-22T12:00:00Z"},
		{Name: "datacontenttype", Value: "application/json"},
		{Name: "dataschema", Value: schemas.EventURI},
		{Name: "partitionkey", Value: "batches/1"},
	}
	e := normalize(t, r, known(`{"id":"batches/1"}`))
	if got := fmt.Sprint(e.Attributes()); got != fmt.Sprint(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	// The members of the JSON form stand in the same order.
	last := 0
	for _, a := range want {
		at := bytes.Index(e.Structured, []byte(`"`+a.Name+`":`))
		if at < last {
			t.Errorf("%s at %d, behind %d", a.Name, at, last)
		}
		last = at
	}
	if e.Key() == normalize(t, r, known(`{"id":"batches/1"}`)).Refused("").Key() {
		t.Error("an event and its dead letter have the same key")
	}
}

func TestConcurrentUse(t *testing.T) {
	r := registry(t, "")
	bodies := [][]byte{}
	for _, ex := range append(examples(t), oddBodies()...) {
		bodies = append(bodies, ex.body)
	}
	for _, tt := range badBodies() {
		bodies = append(bodies, []byte(tt.body))
	}
	what := func(body []byte) string {
		doc, err := r.Validate(body)
		if invalid, ok := errors.AsType[*schema.InvalidError](err); ok {
			return string(schema.DeadLetter(delivery(), invalid.Type, schema.ReasonInvalid, invalid.Violations, body).Structured)
		}
		return string(schema.Normalize(doc, delivery()).Structured)
	}
	want := make([]string, len(bodies))
	for i, body := range bodies {
		want[i] = what(body)
	}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range bodies {
				i = (i + g*7) % len(bodies)
				if got := what(bodies[i]); got != want[i] {
					t.Errorf("%.100q:\n got %.300s\nwant %.300s", bodies[i], got, want[i])
				}
			}
		})
	}
	wg.Wait()
}
