package schema_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
)

// directory makes a schema directory of files.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOverlayReplaces(t *testing.T) {
	r := registry(t, directory(t, map[string]string{
		"batch.succeeded.schema.json": `{"$ref":"envelope.schema.json","required":["shard"],"properties":{"shard":{"type":"string"}}}`,
		"README.md":                   "not a schema",
	}))
	body := `{"type":"batch.succeeded","shard":"a"}` // no version, no data: the file says so
	if doc, invalid := validate(t, r, []byte(body)); invalid != nil || !doc.Known {
		t.Errorf("got %+v, %v", doc, invalid)
	}
	normalize(t, r, body)
	for body, want := range map[string]string{
		known(`{"id":"x"}`):                              " missing property 'shard'",
		`{"type":"batch.succeeded","shard":1}`:           "/shard got number, want string",
		`{"type":"batch.succeeded","shard":"","data":1}`: "/data got number, want null or object", // the embedded envelope
		`{"type":"batch.failed"}`:                        " missing properties 'version', 'timestamp', 'data'",
	} {
		_, invalid := validate(t, r, []byte(body))
		if invalid == nil || invalid.Violations[0].Pointer+" "+invalid.Violations[0].Message != want {
			t.Errorf("%s: got %v, want %s", body, invalid, want)
		}
	}
}

func TestOverlayReplacesEnvelope(t *testing.T) {
	r := registry(t, directory(t, map[string]string{
		"envelope.schema.json": `{"type":"object","required":["type","tenant"],"properties":{"type":{"type":"string"}}}`,
	}))
	for _, body := range []string{`{"type":"x"}`, known(`{"id":"x"}`)} {
		if _, invalid := validate(t, r, []byte(body)); invalid == nil || invalid.Violations[0].Message != "missing property 'tenant'" {
			t.Errorf("%s: got %v", body, invalid)
		}
	}
	normalize(t, r, `{"type":"x","tenant":1}`)
}

func TestOverlayAddsTypes(t *testing.T) {
	r := registry(t, directory(t, map[string]string{
		"tuning.done.schema.json":    `{"$ref":"envelope.schema.json","required":["version"],"properties":{"data":{"required":["model"]}}}`,
		"a b>c%2F?d#é.*.schema.json": `{"$ref":"envelope.schema.json"}`,
		"derived.schema.json":        `{"$ref":"tuning.done.schema.json"}`,
		"with-id.schema.json":        `{"$id":"https://example.org/with-id","type":"object"}`,
		"draft-07.schema.json":       `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}`,
		"anything.schema.json":       `true`,
		"nothing.schema.json":        `false`,
	}))
	for _, typ := range []string{"tuning.done", "a b>c%2F?d#é.*", "derived", "with-id", "draft-07", "anything", "nothing"} {
		if !slices.Contains(r.Types(), typ) {
			t.Errorf("types: got %q, want %q too", r.Types(), typ)
		}
	}
	for body, want := range map[string]bool{
		`{"type":"tuning.done","version":"v1","data":{"model":1}}`: true,
		`{"type":"tuning.done","version":"v1","data":{}}`:          false,
		`{"type":"tuning.done","data":{"model":1}}`:                false,
		`{"type":"tuning.done","version":"v2","data":{}}`:          true, // unknown version
		`{"type":"derived","version":"v1","data":{}}`:              false,
		`{"type":"a b>c%2F?d#é.*"}`:                                true,
		`{"type":"anything","data":7}`:                             true,
		`{"type":"nothing"}`:                                       false,
		`{"type":"with-id"}`:                                       true,
		`{"type":"draft-07"}`:                                      true,
	} {
		doc, invalid := validate(t, r, []byte(body))
		if (invalid == nil) != want {
			t.Errorf("%s: got %v, want valid %v", body, invalid, want)
		}
		if invalid == nil {
			if wantKnown := !strings.Contains(body, "v2"); doc.Known != wantKnown {
				t.Errorf("%s: known %v", body, doc.Known)
			}
		}
	}
}

// Whatever a file of the schema directory lets pass: subjects, headers and keys are made of type and data.id.
func TestOverlayCannotLoosenWhatTheBridgeReliesOn(t *testing.T) {
	r := registry(t, directory(t, map[string]string{"envelope.schema.json": `true`, "loose.schema.json": `true`, ".schema.json": `true`}))
	for body, want := range map[string]string{
		`{}`:                  "/type",
		`{"type":null}`:       "/type",
		`{"type":""}`:         "/type",
		`{"type":7}`:          "/type",
		`{"type":"a\nb"}`:     "/type",
		`{"type":"a\u0085b"}`: "/type",
		`{"type":"` + strings.Repeat("x", 129) + `"}`:                        "/type",
		`{"type":"loose","data":{"id":"a\nb"}}`:                              "/data/id",
		`{"type":"loose","data":{"id":"\u007f"}}`:                            "/data/id",
		`{"type":"loose","data":{"id":"` + strings.Repeat("x", 1025) + `"}}`: "/data/id",
	} {
		_, invalid := validate(t, r, []byte(body))
		if invalid == nil || invalid.Violations[0].Pointer != want {
			t.Errorf("%.60s: got %v, want a violation at %s", body, invalid, want)
		}
	}
	// The rest is read where it can be.
	for _, body := range []string{
		`{"type":"loose","data":[1],"timestamp":7,"version":[],"user_metadata":1}`,
		`{"type":"loose","data":{"id":7,"output_file_uri":[],"error_code":{}},"timestamp":{}}`,
		`{"type":"loose","timestamp":"2026-01-22T12:00:00,5Z"}`,
		`{"type":"loose","timestamp":"2026-01-22T1:00:00Z"}`,
		`{"type":"loose","timestamp":"yesterday"}`,
	} {
		doc, invalid := validate(t, r, []byte(body))
		if invalid != nil {
			t.Errorf("%s: %v", body, invalid)
			continue
		}
		e := schema.Normalize(doc, delivery())
		newJudge().cloudEvent(t, e, delivery(), []byte(body), newJudge().event, newJudge().eventData)
		if e.Subject != "" || e.Time != "" {
			t.Errorf("%s: subject %q, time %q", body, e.Subject, e.Time)
		}
	}
}

// The files of a schema directory may find things that the embedded ones cannot.
func TestOverlayViolations(t *testing.T) {
	r := registry(t, directory(t, map[string]string{
		"x.schema.json": `{"$ref":"envelope.schema.json","properties":{"version":{"type":"string"},"map":{"additionalProperties":{"type":"string"}},` +
			`"list":{"items":{"type":"number"}}},"dependentRequired":{"a":["x"],"b":["y"],"c":["z"]}}`,
	}))
	many := make([]string, 100)
	for i := range many {
		many[i] = `"not a number"`
	}
	long := strings.Repeat("~/", 100)
	for body, want := range map[string][]schema.Violation{
		`{"type":"x","version":1}`: {{Pointer: "/version", Message: "got number, want string"}}, // by two schemas
		`{"type":"x","c":1,"b":1,"a":1}`: {
			{Message: "properties 'x' required, if 'a' exists"}, {Message: "properties 'y' required, if 'b' exists"}, {Message: "properties 'z' required, if 'c' exists"},
		},
		`{"type":"x","map":{"a~/b":1,"":2,"é":"fine"}}`: {
			{Pointer: "/map/", Message: "got number, want string"}, {Pointer: "/map/a~0~1b", Message: "got number, want string"},
		},
		`{"type":"x","map":{"` + long + `":1}}`: {{Pointer: "/map", Message: "got number, want string"}},
	} {
		for range 10 {
			_, invalid := validate(t, r, []byte(body))
			if invalid == nil || !slices.Equal(invalid.Violations, want) {
				t.Errorf("%.60s:\n got %+v\nwant %+v", body, invalid, want)
				break
			}
			d := delivery()
			e := schema.DeadLetter(d, invalid.Type, schema.ReasonInvalid, invalid.Violations, []byte(body))
			newJudge().aDeadLetter(t, e, d, schema.ReasonInvalid, []byte(body))
		}
	}
	_, invalid := validate(t, r, []byte(`{"type":"x","list":[`+strings.Join(many, ",")+`]}`))
	if invalid == nil || len(invalid.Violations) != 16 || invalid.Violations[0].Pointer != "/list/0" {
		t.Errorf("got %+v, want 16 violations", invalid)
	}
}

func TestOverlayRefused(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.schema.json")
	if err := os.WriteFile(outside, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]struct{ name, text string }{
		"broken JSON":              {"batch.failed.schema.json", `{"type":`},
		"empty":                    {"batch.failed.schema.json", ``},
		"two values":               {"batch.failed.schema.json", `{} {}`},
		"not a schema":             {"batch.failed.schema.json", `[]`},
		"broken schema":            {"batch.failed.schema.json", `{"type":"text"}`},
		"broken pattern":           {"batch.failed.schema.json", `{"properties":{"type":{"pattern":"("}}}`},
		"broken envelope":          {"envelope.schema.json", `{"required":"type"}`},
		"unreadable envelope":      {"envelope.schema.json", `nothing`},
		"broken event":             {"event.schema.json", `{"type":1}`},
		"broken dead letter":       {"dead-letter.schema.json", `{"type":1}`},
		"unknown dialect":          {"batch.failed.schema.json", `{"$schema":"https://example.org/dialect"}`},
		"missing file":             {"batch.failed.schema.json", `{"$ref":"missing.schema.json"}`},
		"missing file, envelope":   {"envelope.schema.json", `{"$ref":"missing.schema.json"}`},
		"missing anchor":           {"batch.failed.schema.json", `{"$ref":"envelope.schema.json#missing"}`},
		"missing anchor, envelope": {"envelope.schema.json", `{"$ref":"#missing"}`},
		"missing member":           {"envelope.schema.json", `{"$ref":"#/$defs/missing"}`},
		"file":                     {"batch.failed.schema.json", `{"$ref":"file://` + outside + `"}`},
		"file, envelope":           {"envelope.schema.json", `{"$ref":"file://` + outside + `"}`},
		"file beside it":           {"batch.failed.schema.json", `{"$ref":"../` + filepath.Base(outside) + `"}`},
		"URL":                      {"batch.failed.schema.json", `{"$ref":"https://127.0.0.1:1/x.json"}`},
		"URL, added type":          {"tuning.done.schema.json", `{"allOf":[{"$dynamicRef":"http://127.0.0.1:1/x.json"}]}`},
		"URL as id":                {"batch.failed.schema.json", `{"$id":"http://127.0.0.1:1/a.json","$ref":"b.json"}`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := schema.NewRegistry(directory(t, map[string]string{file.name: file.text}))
			if r != nil || err == nil || !strings.Contains(err.Error(), file.name) {
				t.Fatalf("got %v, %v, want an error that names %s", r, err, file.name)
			}
		})
	}
}

func TestOverlayNamesEveryBrokenFile(t *testing.T) {
	for _, files := range []map[string]string{
		{"batch.failed.schema.json": `{`, "tuning.done.schema.json": ``},
		{"batch.failed.schema.json": `{"type":1}`, "tuning.done.schema.json": `{"type":2}`, "video.generated.schema.json": `{"$ref":"x"}`},
	} {
		dir := directory(t, files)
		_, err := schema.NewRegistry(dir)
		for name := range files {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want an error that names %s", err, name)
			}
		}
		for range 5 {
			if _, again := schema.NewRegistry(dir); again == nil || again.Error() != err.Error() {
				t.Errorf("got %v\nthen %v", err, again)
			}
		}
	}
}

func TestOverlayUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "batch.failed.schema.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(directory(t, map[string]string{"file": ""}), "file")
	dangling := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dangling, "x.schema.json")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		filepath.Join(dir, "missing"): filepath.Join(dir, "missing"), file: file, dir: "batch.failed.schema.json", dangling: "x.schema.json",
	} {
		if r, err := schema.NewRegistry(dir); r != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want an error that names %s", dir, r, err, want)
		}
	}
}

// A ConfigMap's files are links to links.
func TestOverlayFollowsLinks(t *testing.T) {
	target := directory(t, map[string]string{"tuning.done.schema.json": `true`})
	dir := t.TempDir()
	for from, to := range map[string]string{"..data": target, "tuning.done.schema.json": filepath.Join("..data", "tuning.done.schema.json")} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	if r := registry(t, dir); !slices.Contains(r.Types(), "tuning.done") {
		t.Errorf("types %q", r.Types())
	}
}
