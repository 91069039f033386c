package schema_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/schemas"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type example struct {
	name string // of its file's type
	body []byte // as it stands in the file
}

// examples are the deliveries that the embedded schemas show: those of every type, and of the envelope.
func examples(tb testing.TB) []example {
	tb.Helper()
	var all []example
	for _, name := range append(schemas.Types(), "envelope") {
		text, err := fs.ReadFile(schemas.FS, schemas.File(name))
		if err != nil {
			tb.Fatal(err)
		}
		var doc struct{ Examples []json.RawMessage }
		unmarshal(tb, text, &doc)
		if len(doc.Examples) == 0 {
			tb.Fatalf("%s has no examples", name)
		}
		for _, body := range doc.Examples {
			all = append(all, example{name, body})
		}
	}
	return all
}

// oddBodies are valid, but not as anybody would write them.
func oddBodies() []example {
	bodies := []string{
		`{"type":"ping"}`,
		`{"type":"webhook.ping","version":"v1","timestamp":"2026-01-22T12:00:00.123456789+01:00","data":{}}`,
		`{"type":"ping","data":null,"user_metadata":null}`,
		`{"type":"batch.succeeded","version":"v2","timestamp":"2027-01-22T12:00:00Z","data":{"id":"batches/1","results":[{"uri":"gs://b/1"}]}}`,
		`{"type":"tuning.job.failed","data":{"id":"tunedModels/1","error_code":1e999999}}`,
		`{"type":"tuning.failed","data":{"id":"tunedModels/1"}}`,
		`{"type":"a b.c>d.*.é\/\"\\","data":{"id":"v1_ChdOdXRo..VHJ5Q.. > * é \" \\"}}`,
		`{"type":"file.ready","data":{"output_file_uri":12,"video_uri":["x"],"file_name":{"a":1},"error_code":{},"error_message":true,"user_metadata":"x"},"user_metadata":[1]}`,
		`{"data":{"user_metadata":{"in":"data"},"id":"batches/2"},"timestamp":"2016-12-31t23:59:60z","version":"v1","type":"batch.expired"}`,
		" {\n\t\"b\" : [ 1.0 , -0 , 1e999999 , 123456789012345678901234567890 , \"\\u00e9 é \\/ / \\ud83c\\udfac \\t : , \" ] ,\r\n \"a\" : { } , \"type\" : \"ping\" } \n",
	}
	all := make([]example, len(bodies))
	for i, body := range bodies {
		all[i] = example{"odd", []byte(body)}
	}
	return all
}

// TestGolden shows what consumers receive; the files are for reading as much as for comparing.
func TestGolden(t *testing.T) {
	r := registry(t, "")
	golden := map[string]*bytes.Buffer{}
	write := func(file, title string, body []byte, e *schema.Event) {
		if golden[file] == nil {
			golden[file] = &bytes.Buffer{}
		}
		b := golden[file]
		fmt.Fprintf(b, "=== %s\n%#q\n", title, body)
		if file == "invalid" { // as short as it can be: there are many
			b.Write(e.Data)
		} else if err := json.Indent(b, e.Structured, "", "  "); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	count := map[string]int{}
	for _, ex := range append(examples(t), oddBodies()...) {
		count[ex.name]++
		write(ex.name, fmt.Sprintf("%s %d", ex.name, count[ex.name]), compact(t, ex.body), normalize(t, r, string(ex.body)))
	}
	for _, tt := range badBodies() {
		if tt.long {
			continue
		}
		_, invalid := validate(t, r, []byte(tt.body))
		if invalid == nil {
			t.Fatalf("%s: valid", tt.name)
		}
		write("invalid", tt.name, []byte(tt.body), schema.DeadLetter(delivery(), invalid.Type, schema.ReasonInvalid, invalid.Violations, []byte(tt.body)))
	}
	for _, ex := range oddBodies()[:1] {
		violations := []schema.Violation{{Pointer: "/type", Message: "no schema knows this type and version"}}
		write("policy", "unknown", ex.body, schema.DeadLetter(delivery(), "ping", schema.ReasonUnknown, violations, ex.body))
		write("policy", "refused", ex.body, normalize(t, r, string(ex.body)).Refused("refused by sink: message size exceeds maximum allowed"))
	}

	var files []string
	for name, got := range golden {
		file := filepath.Join("testdata", "golden", name+".txt")
		files = append(files, file)
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, file, got.Bytes(), want)
	}
	found, err := filepath.Glob(filepath.Join("testdata", "golden", "*"))
	slices.Sort(files)
	if err != nil || !slices.Equal(found, files) {
		t.Errorf("files: got %q, %v, want %q", found, err, files)
	}
}

// diff names the first line that differs.
func diff(t *testing.T, file string, got, want []byte) {
	t.Helper()
	gots, wants := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(gots), len(wants)) {
		if !bytes.Equal(gots[i], wants[i]) {
			t.Errorf("%s:%d: (go test -run TestGolden -update rewrites it)\n got %s\nwant %s", file, i+1, gots[i], wants[i])
			return
		}
	}
	if len(gots) != len(wants) {
		t.Errorf("%s: got %d lines, want %d (go test -run TestGolden -update rewrites it)", file, len(gots), len(wants))
	}
}
