package schemas_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/schemas"
)

// edit changes a document: it sets the member at a path of names to a value, or removes it.
type edit struct {
	path  string // names with dots between them
	value any
}

type removed struct{}

func (e edit) apply(t *testing.T, doc map[string]any) {
	t.Helper()
	path := strings.Split(e.path, ".")
	for _, name := range path[:len(path)-1] {
		next, ok := doc[name].(map[string]any)
		if !ok {
			t.Fatalf("%s: no object %q", e.path, name)
		}
		doc = next
	}
	last := path[len(path)-1]
	if _, ok := e.value.(removed); ok {
		if _, ok := doc[last]; !ok {
			t.Fatalf("%s: nothing to remove", e.path)
		}
		delete(doc, last)
		return
	}
	doc[last] = e.value
}

// refusal is a valid document with one fault, and what must be found wrong.
type refusal struct {
	edit
	want []string
}

func text(s ...string) []string { return s }

// Values of a wrong type hold a number that nobody may calculate with.
func object(t *testing.T) any { return decode(t, `{"a":1e999999}`) }
func array(t *testing.T) any  { return decode(t, `[1e999999]`) }
func num(t *testing.T) any    { return decode(t, `1e999999`) }

var controls = []string{"\x00", "\t", "\n", "\r", "\x1f", "\x7f", "\u0080", "\u0085", "\u009f"}

var badTimes = []string{
	"", "now", "1769083200", "2026-01-22", "2026-01-22T12:00:00", "2026-01-22 12:00:00Z", "2026-13-22T12:00:00Z",
	"2026-02-30T12:00:00Z", "2026-01-22T24:00:00Z", "2026-01-22T12:00:00.Z", "2026-01-22T12:00:00+0100", "2026-01-22T12:00:00Z\n",
}

var goodTimes = []string{
	"2026-01-22T12:00:00Z", "2026-01-22T12:00:00.123456789Z", "2026-01-22T12:00:00+01:00", "2024-02-29t12:00:00z",
	"2016-12-31T23:59:60Z",
}

func TestTypesRefuse(t *testing.T) {
	table := []refusal{
		{edit{"type", removed{}}, text(" required")},
		{edit{"type", nil}, text("/type const", "/type type")},
		{edit{"type", num(t)}, text("/type const", "/type type")},
		{edit{"type", "other.type"}, text("/type const")},
		{edit{"type", ""}, text("/type const", "/type minLength")},
		{edit{"version", removed{}}, text(" required")},
		{edit{"version", "v2"}, text("/version const")},
		{edit{"version", nil}, text("/version const", "/version type")},
		{edit{"version", num(t)}, text("/version const", "/version type")},
		{edit{"timestamp", removed{}}, text(" required")},
		{edit{"timestamp", nil}, text("/timestamp type")},
		{edit{"timestamp", num(t)}, text("/timestamp type")},
		{edit{"data", removed{}}, text(" required")},
		{edit{"data", nil}, text("/data type")},
		{edit{"data", array(t)}, text("/data type")},
		{edit{"data", "text"}, text("/data type")},
		{edit{"data.id", removed{}}, text("/data required")},
		{edit{"data.id", nil}, text("/data/id type")},
		{edit{"data.id", ""}, text("/data/id minLength")},
		{edit{"data.id", num(t)}, text("/data/id type")},
		{edit{"data.id", object(t)}, text("/data/id type")},
		{edit{"data.id", strings.Repeat("x", 1025)}, text("/data/id maxLength")},
		{edit{"data.output_file_uri", num(t)}, text("/data/output_file_uri type")},
		{edit{"data.output_file_uri", array(t)}, text("/data/output_file_uri type")},
		{edit{"data.video_uri", num(t)}, text("/data/video_uri type")},
		{edit{"data.video_uri", object(t)}, text("/data/video_uri type")},
		{edit{"data.file_name", num(t)}, text("/data/file_name type")},
		{edit{"data.file_name", true}, text("/data/file_name type")},
		{edit{"data.error_code", object(t)}, text("/data/error_code type")},
		{edit{"data.error_code", false}, text("/data/error_code type")},
		{edit{"data.error_message", num(t)}, text("/data/error_message type")},
		{edit{"data.error_message", array(t)}, text("/data/error_message type")},
		{edit{"data.user_metadata", "text"}, text("/data/user_metadata type")},
		{edit{"data.user_metadata", num(t)}, text("/data/user_metadata type")},
		{edit{"user_metadata", "text"}, text("/user_metadata type")},
		{edit{"user_metadata", array(t)}, text("/user_metadata type")},
	}
	for _, c := range controls {
		table = append(table, refusal{edit{"data.id", "batches/1" + c}, text("/data/id pattern")},
			refusal{edit{"data.id", c + "batches/1"}, text("/data/id pattern")})
	}
	for _, s := range badTimes {
		table = append(table, refusal{edit{"timestamp", s}, text("/timestamp format")})
	}
	for _, typ := range schemas.Types() {
		refuse(t, schemas.File(typ), func() any { return example(t, typ) }, table)
		refuse(t, schemas.File(typ), func() any { return example(t, typ) }, []refusal{
			{edit{"type", typ + "\n"}, text("/type const", "/type pattern")},
			{edit{"type", strings.ToUpper(typ)}, text("/type const")},
		})
	}
}

func TestTypesAccept(t *testing.T) {
	table := [][]edit{
		{},
		{{"surprise", decode(t, `{"deep":[{"n":1e999999,"m":-0.0,"big":123456789012345678901234567890}]}`)}},
		{{"data.surprise", num(t)}, {"data.other", array(t)}, {"id", num(t)}},
		{{"user_metadata", object(t)}, {"data.user_metadata", decode(t, `{"n":1e999999,"nested":{"list":[null]}}`)}},
		{{"user_metadata", nil}, {"data.user_metadata", nil}},
		{{"data.output_file_uri", nil}, {"data.video_uri", nil}, {"data.file_name", nil}, {"data.error_code", nil}, {"data.error_message", nil}},
		{{"data.output_file_uri", ""}, {"data.video_uri", ""}, {"data.file_name", ""}, {"data.error_code", ""}, {"data.error_message", ""}},
		{{"data.output_file_uri", "not a URI\n"}, {"data.error_message", "line one\nline two"}},
		{{"data.error_code", num(t)}},
		{{"data", decode(t, `{"id":"x"}`)}},
		{{"data.id", strings.Repeat("x", 1024)}},
		{{"data.id", "v1_ChdOdXRo.. / > * \u00a0 \u2028 \U0001F3AC"}},
	}
	for _, s := range goodTimes {
		table = append(table, []edit{{"timestamp", s}})
	}
	for _, typ := range schemas.Types() {
		accept(t, schemas.File(typ), func() any { return example(t, typ) }, table)
		accept(t, schemas.Envelope, func() any { return example(t, typ) }, table)
	}
}

func TestEnvelopeRefuses(t *testing.T) {
	schema := compile(t, newCompiler(t), schemas.Envelope)
	for _, doc := range []string{`null`, `true`, `"ping"`, `1e999999`, `[]`, `[{"type":"ping"}]`} {
		if got, want := violations(t, schema, decode(t, doc)), text(" type"); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", doc, got, want)
		}
	}
	base := func() any { return decode(t, `{"type":"ping","data":{}}`) }
	table := []refusal{
		{edit{"type", removed{}}, text(" required")},
		{edit{"type", nil}, text("/type type")},
		{edit{"type", num(t)}, text("/type type")},
		{edit{"type", ""}, text("/type minLength")},
		{edit{"type", strings.Repeat("x", 129)}, text("/type maxLength")},
		{edit{"version", nil}, text("/version type")},
		{edit{"version", num(t)}, text("/version type")},
		{edit{"timestamp", nil}, text("/timestamp type")},
		{edit{"timestamp", num(t)}, text("/timestamp type")},
		{edit{"data", "text"}, text("/data type")},
		{edit{"data", array(t)}, text("/data type")},
		{edit{"data.id", num(t)}, text("/data/id type")},
		{edit{"data.id", object(t)}, text("/data/id type")},
		{edit{"data.id", strings.Repeat("x", 1025)}, text("/data/id maxLength")},
	}
	for _, c := range controls {
		table = append(table,
			refusal{edit{"type", "ping" + c}, text("/type pattern")},
			refusal{edit{"type", c + "ping"}, text("/type pattern")},
			refusal{edit{"data.id", "a" + c + "b"}, text("/data/id pattern")})
	}
	for _, s := range badTimes {
		table = append(table, refusal{edit{"timestamp", s}, text("/timestamp format")})
	}
	refuse(t, schemas.Envelope, base, table)
}

func TestEnvelopeAccepts(t *testing.T) {
	table := [][]edit{
		{},
		{{"type", strings.Repeat("x", 128)}},
		{{"type", "a.b c>d.*.é"}},
		{{"version", "v7"}},
		{{"version", ""}},
		{{"data", nil}},
		{{"data", decode(t, `{}`)}},
		{{"data", decode(t, `{"id":null}`)}},
		{{"data", decode(t, `{"id":""}`)}},
		{{"data", decode(t, `{"id":"x","output_file_uri":1e999999,"error_code":{},"n":[1e999999]}`)}},
		{{"surprise", num(t)}},
	}
	for _, value := range []string{`null`, `true`, `"text"`, `1e999999`, `[1e999999]`, `{"n":1e999999}`} {
		table = append(table, []edit{{"user_metadata", decode(t, value)}})
		table = append(table, []edit{{"data", map[string]any{"user_metadata": decode(t, value)}}})
	}
	for _, s := range goodTimes {
		table = append(table, []edit{{"timestamp", s}})
	}
	accept(t, schemas.Envelope, func() any { return decode(t, `{"type":"ping"}`) }, table)
}

func TestEventRefuses(t *testing.T) {
	refuse(t, schemas.Event, func() any { return read(t, schemas.Event)["examples"].([]any)[0] }, []refusal{
		{edit{"specversion", removed{}}, text(" required")},
		{edit{"specversion", "0.3"}, text("/specversion const")},
		{edit{"specversion", num(t)}, text("/specversion const")},
		{edit{"id", removed{}}, text(" required")},
		{edit{"id", ""}, text("/id minLength")},
		{edit{"source", removed{}}, text(" required")},
		{edit{"source", ""}, text("/source minLength")},
		{edit{"source", `back\slash`}, text("/source format")},
		{edit{"type", removed{}}, text(" required")},
		{edit{"type", "batch.succeeded"}, text("/type pattern")},
		{edit{"type", "comXgoogle.gemini.batch.succeeded"}, text("/type pattern")},
		{edit{"type", "x.com.google.gemini.batch.succeeded"}, text("/type pattern")},
		{edit{"subject", ""}, text("/subject minLength")},
		{edit{"subject", nil}, text("/subject type")},
		{edit{"time", nil}, text("/time type")},
		{edit{"time", "2026-01-22"}, text("/time format")},
		{edit{"datacontenttype", removed{}}, text(" required")},
		{edit{"datacontenttype", "text/json"}, text("/datacontenttype const")},
		{edit{"dataschema", removed{}}, text(" required")},
		{edit{"dataschema", "event.schema.json"}, text("/dataschema format")},
		{edit{"partitionkey", removed{}}, text(" required")},
		{edit{"partitionkey", ""}, text("/partitionkey minLength")},
		{edit{"data", removed{}}, text(" required")},
		{edit{"data", nil}, text("/data type")},
		{edit{"data.kind", removed{}}, text("/data required")},
		{edit{"data.kind", nil}, text("/data/kind type")},
		{edit{"data.status", removed{}}, text("/data required")},
		{edit{"data.status", num(t)}, text("/data/status type")},
		{edit{"data.job", removed{}}, text("/data required")},
		{edit{"data.job", ""}, text("/data/job minLength")},
		{edit{"data.job", num(t)}, text("/data/job type")},
		{edit{"data.output", removed{}}, text("/data required")},
		{edit{"data.output", "gs://bucket"}, text("/data/output type")},
		{edit{"data.output.uri", removed{}}, text("/data/output required")},
		{edit{"data.output.file_name", removed{}}, text("/data/output required")},
		{edit{"data.output.uri", num(t)}, text("/data/output/file_name type", "/data/output/uri type")},
		{edit{"data.output.uri", nil}, text("/data/output/file_name type", "/data/output/uri type")},
		{edit{"data.error", removed{}}, text("/data required")},
		{edit{"data.error", decode(t, `{"message":""}`)}, text("/data/error required")},
		{edit{"data.error", decode(t, `{"code":""}`)}, text("/data/error required")},
		{edit{"data.error", decode(t, `{"code":1e999999,"message":""}`)}, text("/data/error/code type")},
		{edit{"data.error", decode(t, `{"code":"","message":null}`)}, text("/data/error/message type")},
		{edit{"data.user_metadata", removed{}}, text("/data required")},
		{edit{"data.user_metadata", "text"}, text("/data/user_metadata type")},
		{edit{"data.original", removed{}}, text("/data required")},
		{edit{"data.original", nil}, text("/data/original type")},
		{edit{"data.original", "{}"}, text("/data/original type")},
	})
}

func TestEventAccepts(t *testing.T) {
	accept(t, schemas.Event, func() any { return read(t, schemas.Event)["examples"].([]any)[0] }, [][]edit{
		{{"subject", removed{}}, {"time", removed{}}, {"data.job", nil}, {"partitionkey", "msg_1"}},
		{{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {"sequence", num(t)}},
		{{"data.surprise", num(t)}, {"data.output.surprise", num(t)}},
		{{"data.kind", ""}, {"data.status", nil}},
		{{"data.output", nil}},
		{{"data.output.uri", nil}, {"data.output.file_name", "a.mp4"}},
		{{"data.error", decode(t, `{"code":"","message":""}`)}},
		{{"data.original", decode(t, `{"type":"ping","n":1e999999}`)}},
		{{"data.user_metadata", nil}},
		{{"dataschema", schemas.BaseURI + "another.json"}},
	})
}

func TestDeadLetterRefuses(t *testing.T) {
	refuse(t, schemas.DeadLetter, func() any { return read(t, schemas.DeadLetter)["examples"].([]any)[0] }, []refusal{
		{edit{"specversion", removed{}}, text(" required")},
		{edit{"id", ""}, text("/id minLength")},
		{edit{"source", ""}, text("/source minLength")},
		{edit{"source", removed{}}, text(" required")},
		{edit{"type", removed{}}, text(" required")},
		{edit{"type", "com.google.gemini.batch.succeeded"}, text("/type const")},
		{edit{"time", "now"}, text("/time format")},
		{edit{"datacontenttype", removed{}}, text(" required")},
		{edit{"dataschema", removed{}}, text(" required")},
		{edit{"partitionkey", removed{}}, text(" required")},
		{edit{"partitionkey", ""}, text("/partitionkey minLength")},
		{edit{"data", removed{}}, text(" required")},
		{edit{"data.reason", removed{}}, text("/data required")},
		{edit{"data.reason", "other"}, text("/data/reason enum")},
		{edit{"data.errors", removed{}}, text("/data required")},
		{edit{"data.errors", nil}, text("/data/errors type")},
		{edit{"data.errors", decode(t, `["text"]`)}, text("/data/errors/0 type")},
		{edit{"data.errors", decode(t, `[{"message":""}]`)}, text("/data/errors/0 required")},
		{edit{"data.errors", decode(t, `[{"pointer":""}]`)}, text("/data/errors/0 required")},
		{edit{"data.errors", decode(t, `[{"pointer":"data/id","message":""}]`)}, text("/data/errors/0/pointer format")},
		{edit{"data.errors", decode(t, `[{"pointer":"","message":null}]`)}, text("/data/errors/0/message type")},
		{edit{"data.headers", removed{}}, text("/data required")},
		{edit{"data.headers", array(t)}, text("/data/headers type")},
		{edit{"data.headers.webhook-id", num(t)}, text("/data/headers/webhook-id type")},
		{edit{"data.headers.webhook-signature", "v1,g0hM9SsE"}, text("/data/headers additionalProperties")},
		{edit{"data.headers.authorization", "Bearer x"}, text("/data/headers additionalProperties")},
		{edit{"data.body", removed{}}, text("/data required")},
		{edit{"data.body_base64", ""}, text("/data oneOf")},
		{edit{"data.body", nil}, text("/data/body type")},
		{edit{"data.received", removed{}}, text("/data required")},
		{edit{"data.received", "2026-01-22"}, text("/data/received format")},
		{edit{"data.scheme", removed{}}, text("/data required")},
		{edit{"data.scheme", "v2"}, text("/data/scheme enum")},
		{edit{"data.scheme", num(t)}, text("/data/scheme enum")},
	})
}

func TestDeadLetterAccepts(t *testing.T) {
	accept(t, schemas.DeadLetter, func() any { return read(t, schemas.DeadLetter)["examples"].([]any)[0] }, [][]edit{
		{{"data.reason", "unknown_type"}, {"data.scheme", "v1a"}},
		{{"data.reason", "refused_by_sink"}, {"data.scheme", "jwt"}},
		{{"time", removed{}}, {"subject", "batches/1"}},
		{{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {"data.surprise", num(t)}},
		{{"data.errors", []any{}}, {"data.headers", map[string]any{}}},
		{{"data.errors", decode(t, `[{"pointer":"/a~1b/0","message":"m","keyword":"type"}]`)}},
		{{"data.body", ""}},
		{{"data.body", removed{}}, {"data.body_base64", ""}},
		{{"data.body", removed{}}, {"data.body_base64", "/w=="}},
	})
}

func TestDeadLetterBodyIsBase64(t *testing.T) {
	compiler := newCompiler(t)
	compiler.AssertContent()
	schema := compile(t, compiler, schemas.DeadLetter)
	doc := read(t, schemas.DeadLetter)["examples"].([]any)[0].(map[string]any)
	edit{"data.body", removed{}}.apply(t, doc)
	edit{"data.body_base64", "not base64"}.apply(t, doc)
	if got, want := violations(t, schema, doc), text("/data/body_base64 contentEncoding"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// In binary mode a consumer has the data alone, and judges it by the schema's anchor.
func TestDataAnchor(t *testing.T) {
	for _, name := range []string{schemas.Event, schemas.DeadLetter} {
		schema := compile(t, newCompiler(t), name+"#data")
		for i, example := range read(t, name)["examples"].([]any) {
			if got := violations(t, schema, example.(map[string]any)["data"]); len(got) > 0 {
				t.Errorf("%s: data of example %d: %q", name, i, got)
			}
			if got := violations(t, schema, example); !slices.Contains(got, " required") {
				t.Errorf("%s: example %d as a whole: got %q, want a missing member", name, i, got)
			}
		}
	}
}

func example(t *testing.T, typ string) any {
	t.Helper()
	body, err := schemas.Example(typ)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, string(body))
}

func refuse(t *testing.T, name string, base func() any, table []refusal) {
	t.Helper()
	schema := compile(t, newCompiler(t), name)
	for _, tt := range table {
		doc := base().(map[string]any)
		tt.apply(t, doc)
		if got := violations(t, schema, doc); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %s = %.40q: got %q, want %q", name, tt.path, fmt.Sprint(tt.value), got, tt.want)
		}
	}
}

func accept(t *testing.T, name string, base func() any, table [][]edit) {
	t.Helper()
	schema := compile(t, newCompiler(t), name)
	for i, edits := range table {
		doc := base().(map[string]any)
		for _, e := range edits {
			e.apply(t, doc)
		}
		if got := violations(t, schema, doc); len(got) > 0 {
			t.Errorf("%s: row %d: %q", name, i, got)
		}
	}
}
