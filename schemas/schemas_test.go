package schemas_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gembridge/bridge/schemas"
)

func TestFS(t *testing.T) {
	want := []string{schemas.Envelope, schemas.Event, schemas.DeadLetter}
	for _, typ := range schemas.Types() {
		want = append(want, schemas.File(typ))
	}
	slices.Sort(want)
	if got := names(t); !slices.Equal(got, want) {
		t.Errorf("files:\n got %q\nwant %q", got, want)
	}
}

func TestTypes(t *testing.T) {
	want := []string{
		"batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled",
		"interaction.completed", "interaction.requires_action", "interaction.failed", "interaction.cancelled",
		"video.generated",
	}
	got := schemas.Types()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	got[0] = "changed"
	if got := schemas.Types()[0]; got != want[0] {
		t.Errorf("after a caller changed its slice: got %q, want %q", got, want[0])
	}
}

func TestURIs(t *testing.T) {
	for got, want := range map[string]string{
		schemas.EventURI:      "https://github.com/gembridge/bridge/schemas/v1/event.schema.json",
		schemas.DeadLetterURI: "https://github.com/gembridge/bridge/schemas/v1/dead-letter.schema.json",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFilesDescribeThemselves(t *testing.T) {
	for _, name := range names(t) {
		t.Run(name, func(t *testing.T) {
			doc := read(t, name)
			if got, want := doc["$schema"], "https://json-schema.org/draft/2020-12/schema"; got != want {
				t.Errorf("$schema: got %v, want %v", got, want)
			}
			if got, want := doc["$id"], schemas.BaseURI+name; got != want {
				t.Errorf("$id: got %v, want %v", got, want)
			}
			for _, keyword := range []string{"title", "description"} {
				if s, _ := doc[keyword].(string); s == "" {
					t.Errorf("no %s", keyword)
				}
			}
			if examples, _ := doc["examples"].([]any); len(examples) == 0 {
				t.Error("no examples")
			}
			walk(t, "", doc, func(at string, schema map[string]any) {
				properties, _ := schema["properties"].(map[string]any)
				if strings.Contains(at, "/anyOf/") { // conditions on properties that are described elsewhere
					return
				}
				for property, of := range properties {
					of, _ := of.(map[string]any)
					if s, _ := of["description"].(string); s == "" {
						t.Errorf("%s/properties/%s: no description", at, property)
					}
				}
			})
		})
	}
}

// A validator makes exact fractions of numbers that it compares, and a delivery's numbers may be as large as
// their senders like. So only keywords that compare nothing but strings and lengths are allowed.
func TestKeywords(t *testing.T) {
	allowed := []string{
		"$schema", "$id", "$ref", "$anchor", "title", "description", "examples",
		"type", "const", "enum", "required", "properties", "additionalProperties", "items", "anyOf", "oneOf",
		"minLength", "maxLength", "pattern", "format", "contentEncoding",
	}
	for _, name := range names(t) {
		walk(t, name+"#", read(t, name), func(at string, schema map[string]any) {
			for keyword := range schema {
				if !slices.Contains(allowed, keyword) {
					t.Errorf("%s: keyword %q is not allowed", at, keyword)
				}
			}
			types, ok := schema["type"].([]any)
			if !ok {
				types = []any{schema["type"]}
			}
			if slices.Contains(types, any("integer")) {
				t.Errorf("%s: type integer is not allowed", at)
			}
			values, _ := schema["enum"].([]any)
			if value, ok := schema["const"]; ok {
				values = append(values, value)
			}
			for _, value := range values {
				if _, ok := value.(string); !ok {
					t.Errorf("%s: const or enum of %v is not allowed", at, value)
				}
			}
		})
	}
}

func TestExamplesAreValid(t *testing.T) {
	compiler := newCompiler(t)
	compiler.AssertContent()
	envelope := compile(t, compiler, schemas.Envelope)
	for _, name := range names(t) {
		schema := compile(t, compiler, name)
		typ := strings.TrimSuffix(name, ".schema.json")
		for i, example := range read(t, name)["examples"].([]any) {
			if got := violations(t, schema, example); len(got) > 0 {
				t.Errorf("%s: example %d: %q", name, i, got)
			}
			if !slices.Contains(schemas.Types(), typ) {
				continue
			}
			if got := violations(t, envelope, example); len(got) > 0 {
				t.Errorf("%s: example %d against the envelope: %q", name, i, got)
			}
		}
	}
}

func TestEventExamplesHoldValidDeliveries(t *testing.T) {
	compiler := newCompiler(t)
	for i, example := range read(t, schemas.Event)["examples"].([]any) {
		event := example.(map[string]any)
		data := event["data"].(map[string]any)
		original := data["original"].(map[string]any)
		typ := original["type"].(string)
		if got, want := event["type"], "com.google.gemini."+typ; got != want {
			t.Errorf("example %d: type: got %v, want %v", i, got, want)
		}
		if got, want := event["dataschema"], schemas.EventURI; got != want {
			t.Errorf("example %d: dataschema: got %v, want %v", i, got, want)
		}
		name := schemas.Envelope
		if slices.Contains(schemas.Types(), typ) {
			name = schemas.File(typ)
			if got, want := data["job"], original["data"].(map[string]any)["id"]; got != want || event["subject"] != want {
				t.Errorf("example %d: job %v, subject %v, want %v", i, got, event["subject"], want)
			}
		}
		if got := violations(t, compile(t, compiler, name), original); len(got) > 0 {
			t.Errorf("example %d: original: %q", i, got)
		}
	}
}

func TestExample(t *testing.T) {
	compiler := newCompiler(t)
	jobs := map[any]string{}
	for _, typ := range schemas.Types() {
		got, err := schemas.Example(typ)
		if err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		if want := `{"type":"` + typ + `","version":"v1","timestamp":"`; !bytes.HasPrefix(got, []byte(want)) {
			t.Errorf("%s: got %s, want it to begin with %s", typ, got, want)
		}
		doc := decode(t, string(got)).(map[string]any)
		if found := violations(t, compile(t, compiler, schemas.File(typ)), doc); len(found) > 0 {
			t.Errorf("%s: %q", typ, found)
		}
		first := read(t, schemas.File(typ))["examples"].([]any)[0]
		if got, want := encode(t, doc), encode(t, first); got != want {
			t.Errorf("%s: got %s, want %s", typ, got, want)
		}
		job := doc["data"].(map[string]any)["id"]
		if other, ok := jobs[job]; ok {
			t.Errorf("%s and %s are about the same job %v", typ, other, job)
		}
		jobs[job] = typ
	}

	got, err := schemas.Example("batch.succeeded")
	want := `{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z",` +
		`"data":{"id":"batches/0yew7pk2x8mzq4f1c9v3rt6hnw5jd2sa7ubl","output_file_uri":"gs://my-bucket/results.jsonl"},` +
		`"user_metadata":{"job_group":"nightly-eval"}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestExampleOfUnknownType(t *testing.T) {
	for _, typ := range []string{"", "ping", "envelope", "event", "batch", "batch.succeeded.schema.json", "../batch.succeeded"} {
		got, err := schemas.Example(typ)
		if err == nil || !strings.Contains(err.Error(), "no schema for event type") {
			t.Errorf("%q: got %s, %v, want an error that says so", typ, got, err)
		}
	}
}

// walk visits schema and every schema within it; at is its JSON Pointer.
func walk(t *testing.T, at string, schema any, visit func(at string, schema map[string]any)) {
	t.Helper()
	switch schema := schema.(type) {
	case bool:
	case map[string]any:
		visit(at, schema)
		for _, keyword := range slices.Sorted(maps.Keys(schema)) {
			value, below := schema[keyword], at+"/"+keyword
			switch keyword {
			case "properties":
				for name, schema := range value.(map[string]any) {
					walk(t, below+"/"+name, schema, visit)
				}
			case "anyOf", "oneOf":
				for _, schema := range value.([]any) {
					walk(t, below+"/", schema, visit)
				}
			case "items", "additionalProperties":
				walk(t, below, value, visit)
			}
		}
	default:
		t.Errorf("%s: %v is not a schema", at, schema)
	}
}

func names(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(schemas.FS, "*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := schemas.FS.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, string(text)).(map[string]any)
}

func decode(t *testing.T, text string) any {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return doc
}

func encode(t *testing.T, doc any) string {
	t.Helper()
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// newCompiler knows the embedded files and reads nothing else.
func newCompiler(t *testing.T) *jsonschema.Compiler {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiler.UseLoader(jsonschema.SchemeURLLoader{})
	for _, name := range names(t) {
		if err := compiler.AddResource(schemas.BaseURI+name, read(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return compiler
}

func compile(t *testing.T, compiler *jsonschema.Compiler, name string) *jsonschema.Schema {
	t.Helper()
	schema, err := compiler.Compile(schemas.BaseURI + name)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// violations lists what schema finds wrong with doc, each as "<JSON Pointer> <keyword>", sorted, none twice.
func violations(t *testing.T, schema *jsonschema.Schema, doc any) []string {
	t.Helper()
	err := schema.Validate(doc)
	if err == nil {
		return nil
	}
	root, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		t.Fatalf("got %T, want a ValidationError: %v", err, err)
	}
	var found []string
	var leaves func(*jsonschema.ValidationError)
	leaves = func(e *jsonschema.ValidationError) {
		if path := e.ErrorKind.KeywordPath(); len(e.Causes) == 0 && len(path) > 0 {
			at := ""
			for _, token := range e.InstanceLocation {
				at += "/" + token
			}
			found = append(found, at+" "+path[0])
		}
		for _, cause := range e.Causes {
			leaves(cause)
		}
	}
	leaves(root)
	if len(found) == 0 {
		t.Fatalf("an error without a violation: %v", err)
	}
	slices.Sort(found)
	return slices.Compact(found)
}
