package schema_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/schemas"
)

// badBody is a body that is no event, and what must be said of it.
type badBody struct {
	name string
	body string
	typ  string   // InvalidError.Type
	want []string // of every violation the pointer, a space, and a part of the message
	long bool     // too long to be read by people: not in the golden file
}

func nested(depth int) string {
	return `{"type":"x","a":` + strings.Repeat(`[`, depth-1) + strings.Repeat(`]`, depth-1) + `}`
}

func known(data string) string {
	return `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":` + data + `}`
}

func badBodies() []badBody {
	return []badBody{
		{name: "empty", body: "", want: []string{" empty body"}},
		{name: "white space", body: " \t\r\n", want: []string{" empty body"}},
		{name: "not JSON", body: "hello", want: []string{" invalid character 'h'"}},
		{name: "form", body: "type=batch.succeeded", want: []string{" invalid"}},
		{name: "null", body: "null", want: []string{" not a JSON object"}},
		{name: "true", body: "true", want: []string{" not a JSON object"}},
		{name: "number", body: "1e999999", want: []string{" not a JSON object"}},
		{name: "string", body: `"batch.succeeded"`, want: []string{" not a JSON object"}},
		{name: "array", body: `[{"type":"batch.succeeded"}]`, want: []string{" not a JSON object"}},
		{name: "empty array", body: `[]`, want: []string{" not a JSON object"}},
		{name: "BOM", body: "\ufeff" + `{"type":"ping"}`, want: []string{` invalid character '\ufeff'`}},
		{name: "NUL before", body: "\x00" + `{"type":"ping"}`, want: []string{` invalid character '\x00'`}},
		{name: "NUL behind", body: `{"type":"ping"}` + "\x00", want: []string{` invalid character '\x00'`}},
		{name: "NUL in a string", body: "{\"type\":\"pi\x00ng\"}", want: []string{`/type invalid character '\x00'`}},
		{name: "nothing but NULs", body: strings.Repeat("\x00", 64), want: []string{` invalid character '\x00'`}},
		{name: "line break in a string", body: "{\"type\":\"pi\nng\"}", want: []string{`/type invalid character '\n'`}},
		{name: "UTF-16", body: "\xff\xfe{\x00}\x00", want: []string{" invalid"}},
		{name: "invalid UTF-8 in a value", body: "{\"type\":\"ping\",\"a\":{\"b\":[\"x\",\"\xff\"]}}", want: []string{"/a/b/1 invalid UTF-8"}},
		{name: "invalid UTF-8 in a name", body: "{\"type\":\"ping\",\"data\":{\"\xc3\x28\":1}}", want: []string{"/data invalid UTF-8"}},
		{name: "surrogate in UTF-8", body: "{\"type\":\"\xed\xa0\x80\"}", want: []string{"/type invalid UTF-8"}},
		{name: "overlong UTF-8", body: "{\"type\":\"\xc0\xaf\"}", want: []string{"/type invalid UTF-8"}},
		{name: "high surrogate alone", body: `{"type":"ping","a":"\ud83c"}`, want: []string{`/a invalid`}},
		{name: "high surrogate before text", body: `{"type":"ping","a":"\ud83cx"}`, want: []string{`/a invalid`}},
		{name: "two high surrogates", body: `{"type":"ping","a":"\ud83c\ud83c"}`, want: []string{`/a invalid`}},
		{name: "low surrogate alone", body: `{"type":"ping","a":"\udfac"}`, want: []string{`/a invalid`}},
		{name: "surrogates in the wrong order", body: `{"type":"ping","a":"\udfac\ud83c"}`, want: []string{`/a invalid`}},
		{name: "surrogate in a name", body: `{"type":"ping","\ud83c":1}`, want: []string{` invalid`}},
		{name: "duplicate name", body: `{"type":"ping","type":"ping"}`, want: []string{`/type duplicate`}},
		{name: "duplicate name with a null", body: `{"type":"ping","a":null,"a":null}`, want: []string{`/a duplicate`}},
		{name: "duplicate name in other escapes", body: `{"type":"ping","t\u0079pe":"x"}`, want: []string{`/type duplicate`}},
		{name: "duplicate name in data", body: known(`{"id":"a","id":"b"}`), want: []string{`/data/id duplicate`}},
		{name: "duplicate name far below", body: `{"type":"ping","a":[0,{"b":{"c~/":1,"c~/":1}}]}`, want: []string{`/a/1/b/c~0~1 duplicate`}},
		{name: "duplicate empty name", body: `{"type":"ping","":1,"":2}`, want: []string{`/ duplicate`}},
		{name: "trailing object", body: `{"type":"ping"}{"type":"ping"}`, want: []string{" more than one JSON value"}},
		{name: "trailing line", body: "{\"type\":\"ping\"}\n{\"type\":\"ping\"}\n", want: []string{" more than one JSON value"}},
		{name: "trailing text", body: `{"type":"ping"} hello`, want: []string{" invalid character 'h'"}},
		{name: "trailing comma", body: `{"type":"ping"},`, want: []string{" invalid character ','"}},
		{name: "trailing bracket", body: `{"type":"ping"}]`, want: []string{" invalid character ']'"}},
		{name: "comma before the end", body: `{"type":"ping",}`, want: []string{" invalid character"}},
		{name: "comma before the end of an array", body: `{"type":"ping","a":[1,]}`, want: []string{"/a invalid character"}},
		{name: "no comma", body: `{"type":"ping" "a":1}`, want: []string{` invalid character '"'`}},
		{name: "no colon", body: `{"type" "ping"}`, want: []string{`/type invalid character '"'`}},
		{name: "name without quotes", body: `{type:"ping"}`, want: []string{` invalid character 'y'`}},
		{name: "name is an object", body: `{{}:1}`, want: []string{` `}},
		{name: "name is a number", body: `{1:1}`, want: []string{` `}},
		{name: "name is null", body: `{null:1}`, want: []string{` `}},
		{name: "single quotes", body: `{'type':'ping'}`, want: []string{` invalid character '\''`}},
		{name: "comment", body: `{"type":"ping"/**/}`, want: []string{` invalid character '/'`}},
		{name: "NaN", body: `{"type":"ping","a":NaN}`, want: []string{`/a invalid character 'N'`}},
		{name: "Infinity", body: `{"type":"ping","a":-Infinity}`, want: []string{`/a invalid character 'I'`}},
		{name: "leading zero", body: `{"type":"ping","a":01}`, want: []string{` invalid character '1'`}},
		{name: "leading plus", body: `{"type":"ping","a":+1}`, want: []string{`/a invalid character '+'`}},
		{name: "hexadecimal", body: `{"type":"ping","a":0x1}`, want: []string{` invalid character 'x'`}},
		{name: "True", body: `{"type":"ping","a":True}`, want: []string{`/a invalid character 'T'`}},
		{name: "wrong end", body: `{"type":"ping"]`, want: []string{` invalid character ']'`}},
		{name: "unknown escape", body: `{"type":"pi\xng"}`, want: []string{`/type invalid`}},
		{name: "escape cut short", body: `{"type":"\u12"}`, want: []string{`/type invalid`}},
		{name: "unfinished", body: `{"type":"ping"`, want: []string{" unexpected EOF"}},

		{name: "depth 129, arrays", body: nested(129), want: []string{"/a" + strings.Repeat("/0", 126) + " nested more than 128 deep"}, long: true},
		{
			name: "depth 129, objects", body: `{"type":"x","a":` + strings.Repeat(`{"":`, 128) + `1` + strings.Repeat(`}`, 129),
			want: []string{"/a" + strings.Repeat("/", 127) + " nested more than 128 deep"}, long: true,
		},
		{name: "depth 10,000, arrays", body: nested(10_000), want: []string{"/a" + strings.Repeat("/0", 126) + " nested more than 128 deep"}, long: true},
		{name: "depth 10,000, never closed", body: strings.Repeat(`[`, 10_000), want: []string{strings.Repeat("/0", 127) + " nested more than 128 deep"}, long: true},
		{name: "depth 100,000, objects", body: strings.Repeat(`{"a":`, 100_000), want: []string{strings.Repeat("/a", 128) + " nested more than 128 deep"}, long: true},
		{name: "depth 100,000, as a name", body: `{` + strings.Repeat(`[`, 100_000), want: []string{strings.Repeat("/0", 128) + " exceeded max depth"}, long: true},

		{name: "empty object", body: `{}`, want: []string{" missing property 'type'"}},
		{name: "type in another case", body: `{"Type":"ping"}`, want: []string{" missing property 'type'"}},
		{name: "type is a number", body: `{"type":1e999999}`, want: []string{"/type got number, want string"}},
		{name: "type is null", body: `{"type":null}`, want: []string{"/type got null, want string"}},
		{name: "type is an object", body: `{"type":{"type":"ping"}}`, want: []string{"/type got object, want string"}},
		{name: "type is empty", body: `{"type":""}`, want: []string{"/type minLength"}},
		{name: "type of 300 characters", body: `{"type":"` + strings.Repeat("x", 300) + `"}`, want: []string{"/type 128"}},
		{name: "type of 129 bytes", body: `{"type":"` + strings.Repeat("x", 129) + `"}`, want: []string{"/type 128"}},
		{name: "type of 129 bytes, 128 characters", body: `{"type":"` + strings.Repeat("x", 127) + `é"}`, want: []string{"/type longer than 128 bytes"}},
		{name: "type of 130 bytes, 65 characters", body: `{"type":"` + strings.Repeat("é", 65) + `"}`, want: []string{"/type longer than 128 bytes"}},
		{name: "type with a tab", body: `{"type":"a\tb"}`, want: []string{"/type does not match pattern"}},
		{name: "type with an escaped NUL", body: `{"type":"\u0000"}`, want: []string{"/type does not match pattern"}},
		{name: "type with DEL", body: `{"type":"a` + "\x7f" + `"}`, want: []string{"/type does not match pattern"}},
		{name: "type with a C1 control", body: `{"type":"a\u0085"}`, want: []string{"/type does not match pattern"}},
		{name: "version is a number", body: `{"type":"ping","version":1}`, typ: "ping", want: []string{"/version got number, want string"}},
		{name: "timestamp is a number", body: `{"type":"ping","timestamp":1769083200}`, typ: "ping", want: []string{"/timestamp got number, want string"}},
		{name: "timestamp without a zone", body: `{"type":"ping","timestamp":"2026-01-22T12:00:00"}`, typ: "ping", want: []string{"/timestamp is not valid date-time"}},
		{
			name: "timestamp is long and wrong", body: `{"type":"ping","timestamp":"` + strings.Repeat("9", 1000) + `"}`, typ: "ping",
			want: []string{"/timestamp is not valid date-time"},
		},
		{name: "data is a string", body: `{"type":"ping","data":"x"}`, typ: "ping", want: []string{"/data got string, want null or object"}},
		{name: "data is an array", body: `{"type":"ping","data":[{"id":"x"}]}`, typ: "ping", want: []string{"/data got array, want null or object"}},
		{name: "id is a number", body: `{"type":"ping","data":{"id":12}}`, typ: "ping", want: []string{"/data/id got number, want null or string"}},
		{name: "id with a line break", body: `{"type":"ping","data":{"id":"a\nb"}}`, typ: "ping", want: []string{"/data/id does not match pattern"}},
		{name: "id of 1025 characters", body: `{"type":"ping","data":{"id":"` + strings.Repeat("x", 1025) + `"}}`, typ: "ping", want: []string{"/data/id 1,024"}, long: true},
		{
			name: "id of 1025 bytes, 1024 characters", body: `{"type":"ping","data":{"id":"` + strings.Repeat("x", 1023) + `é"}}`, typ: "ping",
			want: []string{"/data/id longer than 1024 bytes"}, long: true,
		},

		{
			name: "known type alone", body: `{"type":"batch.failed"}`, typ: "batch.failed",
			want: []string{" missing properties 'version', 'timestamp', 'data'"},
		},
		{
			name: "known type without a version", body: `{"type":"batch.failed","timestamp":"2026-01-22T12:00:00Z","data":{"id":"x"}}`, typ: "batch.failed",
			want: []string{" missing property 'version'"},
		},
		{
			name: "known type, version is null", body: `{"type":"batch.failed","version":null,"timestamp":"2026-01-22T12:00:00Z","data":{"id":"x"}}`,
			typ: "batch.failed", want: []string{"/version got null, want string", "/version value must be 'v1'"},
		},
		{
			name: "known type without a timestamp", body: `{"type":"batch.failed","version":"v1","data":{"id":"x"}}`, typ: "batch.failed",
			want: []string{" missing property 'timestamp'"},
		},
		{
			name: "known type without data", body: `{"type":"batch.failed","version":"v1","timestamp":"2026-01-22T12:00:00Z"}`, typ: "batch.failed",
			want: []string{" missing property 'data'"},
		},
		{name: "known type, data is null", body: known(`null`), typ: "batch.succeeded", want: []string{"/data got null, want object"}},
		{name: "known type without an id", body: known(`{}`), typ: "batch.succeeded", want: []string{"/data missing property 'id'"}},
		{name: "known type, id is empty", body: known(`{"id":""}`), typ: "batch.succeeded", want: []string{"/data/id minLength"}},
		{
			name: "known type, id is a number", body: known(`{"id":1e999999}`), typ: "batch.succeeded",
			want: []string{"/data/id got number, want null or string", "/data/id got number, want string"},
		},
		{
			name: "known type, URI is a number", body: known(`{"id":"x","output_file_uri":1e999999}`), typ: "batch.succeeded",
			want: []string{"/data/output_file_uri got number, want null or string"},
		},
		{
			name: "known type, metadata is an array", body: known(`{"id":"x","user_metadata":[1e999999]}`), typ: "batch.succeeded",
			want: []string{"/data/user_metadata got array, want null or object"},
		},
		{
			name: "all wrong", body: `{"type":"video.generated","version":1,"timestamp":"now","user_metadata":0,"data":{"id":0,"output_file_uri":0,` +
				`"file_name":0,"video_uri":0,"error_code":{},"error_message":0,"user_metadata":0}}`, typ: "video.generated",
			want: []string{
				"/data/error_code got", "/data/error_message got", "/data/file_name got", "/data/id got", "/data/id got",
				"/data/output_file_uri got", "/data/user_metadata got", "/data/video_uri got", "/timestamp is not valid", "/user_metadata got",
				"/version got", "/version value must be 'v1'",
			},
		},
	}
}

func TestInvalid(t *testing.T) {
	r := registry(t, "")
	for _, tt := range badBodies() {
		t.Run(tt.name, func(t *testing.T) {
			_, invalid := validate(t, r, []byte(tt.body))
			if invalid == nil {
				t.Fatal("valid")
			}
			if invalid.Type != tt.typ {
				t.Errorf("type: got %q, want %q", invalid.Type, tt.typ)
			}
			ok := len(invalid.Violations) == len(tt.want)
			for i, v := range invalid.Violations {
				if !ok {
					break
				}
				pointer, words, _ := strings.Cut(tt.want[i], " ")
				ok = v.Pointer == pointer && strings.Contains(v.Message, words)
			}
			if !ok {
				t.Errorf("violations:\n got %+v\nwant %q", invalid.Violations, tt.want)
			}
			// What the log and an operator see first.
			if got := invalid.Error(); !strings.Contains(got, invalid.Violations[0].Message) || len(got) > 1024 {
				t.Errorf("error %q", got)
			}
			e := schema.DeadLetter(delivery(), invalid.Type, schema.ReasonInvalid, invalid.Violations, []byte(tt.body))
			newJudge().aDeadLetter(t, e, delivery(), schema.ReasonInvalid, []byte(tt.body))
			if e.Name != tt.typ {
				t.Errorf("name: got %q, want %q", e.Name, tt.typ)
			}
		})
	}
}

// The same body has the same violations every time, although the schema library walks Go maps.
func TestViolationsAreStable(t *testing.T) {
	r := registry(t, "")
	for _, tt := range badBodies() {
		_, want := validate(t, r, []byte(tt.body))
		for range 20 {
			if _, got := validate(t, r, []byte(tt.body)); !slices.Equal(got.Violations, want.Violations) {
				t.Errorf("%s:\n got %+v\nthen %+v", tt.name, want.Violations, got.Violations)
				break
			}
		}
	}
}

func TestTruncated(t *testing.T) {
	r := registry(t, "")
	sample := []byte(" " + `{"type":"batch.failed","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"batches/\u00e9🎬\ud83c\udfac",` +
		`"error_code":-1.5e+3,"a":[true,false,null,{}],"error_message":"\n\"\\"}}`)
	normalize(t, r, string(sample))
	for n := range sample {
		body := sample[:n]
		_, invalid := validate(t, r, body)
		if invalid == nil {
			t.Fatalf("valid: %q", body)
		}
		e := schema.DeadLetter(delivery(), invalid.Type, schema.ReasonInvalid, invalid.Violations, body)
		newJudge().aDeadLetter(t, e, delivery(), schema.ReasonInvalid, body)
	}
}

// Every byte of a sample replaced by every kind of troublemaker: whatever comes of it, it is judged.
func TestGarbled(t *testing.T) {
	r := registry(t, "")
	sample := []byte(`{"type":"batch.failed","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"b\u00e9\ud83c\udfac","error_code":1}}`)
	for n := range sample {
		for _, c := range []byte("\x00\x1f\"\\{}[],:0-eu~ \x7f\x80\xc3\xff") {
			body := bytes.Clone(sample)
			body[n] = c
			judgeAny(t, r, body)
		}
	}
}

func TestDepth(t *testing.T) {
	r := registry(t, "")
	for name, body := range map[string]string{
		"arrays":  nested(128),
		"objects": `{"type":"x","a":` + strings.Repeat(`{"":`, 126) + `{}` + strings.Repeat(`}`, 127),
		"twice":   `{"type":"x","a":` + strings.Repeat(`[`, 127) + strings.Repeat(`]`, 127) + `,"b":` + strings.Repeat(`[`, 127) + strings.Repeat(`]`, 127) + `}`,
	} {
		t.Run(name, func(t *testing.T) { normalize(t, r, body) })
	}
}

func TestTypeBounds(t *testing.T) {
	r := registry(t, "")
	for _, typ := range []string{
		"x", ".", "..", "a.", ".a", "a..b", " ", "a b", "a.b c>d", ">", "*", "gemini.>", strings.Repeat("x", 128), strings.Repeat("é", 64),
		strings.Repeat(`\"`, 128), `\u00e9`, `\/`, "\u00a0", "\ufffd", "\ufeff", "\U0010ffff", `\ud83c\udfac`,
		"envelope", "event", "dead-letter", "BATCH.succeeded", "batch.succeeded ", "batch", "batch.succeeded.schema.json", "__proto__", "$schema",
	} {
		body := fmt.Sprintf(`{"type":"%s"}`, typ)
		doc, invalid := validate(t, r, []byte(body))
		if invalid != nil || doc.Known {
			t.Errorf("%q: got %v, %v, want an unknown type", typ, doc, invalid)
			continue
		}
		if e := normalize(t, r, body); doc.Type != e.Name {
			t.Errorf("type: got %q, want %q", doc.Type, e.Name)
		}
	}
}

func TestKnown(t *testing.T) {
	r := registry(t, "")
	if got, want := r.Types(), slices.Sorted(slices.Values(schemas.Types())); !slices.Equal(got, want) {
		t.Errorf("types:\n got %q\nwant %q", got, want)
	}
	for _, typ := range schemas.Types() {
		v1, err := schemas.Example(typ)
		if err != nil {
			t.Fatal(err)
		}
		if doc, invalid := validate(t, r, v1); invalid != nil || !doc.Known || doc.Type != typ {
			t.Errorf("%s: got %+v, %v, want a known type", typ, doc, invalid)
		}
		// A later version may have other members: only the envelope binds it.
		v2 := fmt.Sprintf(`{"type":%q,"version":"v2","data":{"output_file_uri":[]}}`, typ)
		if doc, invalid := validate(t, r, []byte(v2)); invalid != nil || doc.Known || doc.Type != typ {
			t.Errorf("%s, v2: got %+v, %v, want an unknown version", typ, doc, invalid)
		}
		normalize(t, r, v2)
	}
}
