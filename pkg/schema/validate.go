package schema

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/gembridge/bridge/schemas"
)

const (
	// A schema counts characters; subjects, headers and keys are made of bytes.
	maxTypeBytes = 128
	maxJobBytes  = 1024

	knownVersion = "v1"
	fileSuffix   = ".schema.json"

	maxViolations = 16
	maxWords      = 256 // bytes of a violation's pointer and of its message
)

// Violation is one reason why a body is not a valid event.
type Violation struct {
	Pointer string // JSON Pointer (RFC 6901) to what is wrong; "" is the whole body
	Message string
}

// InvalidError is what Validate returns of a body that is not a valid event.
type InvalidError struct {
	Type       string      // the body's type; empty when it has none that can be used
	Violations []Violation // at least one, at most 16
}

func (e *InvalidError) Error() string {
	first := e.Violations[0]
	return fmt.Sprintf("invalid event: %q: %s (%d violations)", first.Pointer, first.Message, len(e.Violations))
}

// Registry holds the compiled schemas. It is safe for concurrent use and never changes.
type Registry struct {
	envelope *jsonschema.Schema
	types    map[string]*jsonschema.Schema
}

// NewRegistry compiles the embedded schemas, with the files of dir, if it is not empty, in the place of those
// of the same name. A file "<type>.schema.json" of a type without an embedded schema makes that type known.
// The error names the file that cannot be read, or every file that cannot be compiled.
func NewRegistry(dir string) (*Registry, error) {
	files, err := schemaFiles(dir)
	if err != nil {
		return nil, err
	}
	compiled, err := compile(files)
	if err != nil {
		return nil, err
	}
	r := &Registry{envelope: compiled[schemas.Envelope], types: map[string]*jsonschema.Schema{}}
	for name, schema := range compiled {
		switch name {
		case schemas.Envelope, schemas.Event, schemas.DeadLetter: // of no single type
		default:
			r.types[strings.TrimSuffix(name, fileSuffix)] = schema
		}
	}
	return r, nil
}

// compile also names the files that fail only for the fault of one that they refer to: the library does not always
// tell which it is, and it is among them.
func compile(files map[string][]byte) (map[string]*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	compiler.UseLoader(noLoader{})
	names := slices.Sorted(maps.Keys(files))
	uri := func(name string) string { return schemas.BaseURI + url.PathEscape(name) }
	var failed []error
	for _, name := range names {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(files[name]))
		if err == nil {
			err = compiler.AddResource(uri(name), doc)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("schema %s: %w", name, err))
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	compiled := map[string]*jsonschema.Schema{}
	for _, name := range names {
		schema, err := compiler.Compile(uri(name))
		if err != nil {
			failed = append(failed, fmt.Errorf("schema %s: %w", name, err))
		}
		compiled[name] = schema
	}
	return compiled, errors.Join(failed...)
}

// Types returns the known types, sorted.
func (r *Registry) Types() []string { return slices.Sorted(maps.Keys(r.types)) }

// Validate decodes body and judges it by the schema of its type, or by the envelope's when its type or version
// is unknown. The error is always an *InvalidError.
func (r *Registry) Validate(body []byte) (*Document, error) {
	doc, err := decode(body)
	if err != nil {
		return nil, err
	}
	doc.Type, _ = doc.root["type"].(string)
	compiled, known := r.types[doc.Type]
	// A version of a later day is an event of its own; a missing or garbled one is a fault of this one.
	if version, ok := doc.root["version"].(string); ok && version != knownVersion {
		known = false
	}
	doc.Known = known
	if !known {
		compiled = r.envelope
	}
	violations := schemaViolations(compiled.Validate(doc.root))
	if len(violations) == 0 {
		violations = doc.unusable()
	}
	if len(violations) == 0 {
		return doc, nil
	}
	invalid := &InvalidError{Violations: violations[:min(len(violations), maxViolations)]}
	if fault(doc.Type, maxTypeBytes) == "" {
		invalid.Type = doc.Type
	}
	return nil, invalid
}

// unusable finds what cannot be a subject, a header or a key, whatever the schemas say: they count characters where
// these are made of bytes, and a file of the schema directory may let anything pass.
func (d *Document) unusable() []Violation {
	var violations []Violation
	if d.Type == "" {
		violations = append(violations, Violation{"/type", "missing, empty or not a string"})
	}
	if words := fault(d.Type, maxTypeBytes); words != "" {
		violations = append(violations, Violation{"/type", words})
	}
	if words := fault(d.job(), maxJobBytes); words != "" {
		violations = append(violations, Violation{"/data/id", words})
	}
	return violations
}

func fault(s string, limit int) string {
	switch {
	case len(s) > limit:
		return fmt.Sprintf("longer than %d bytes", limit)
	case strings.ContainsFunc(s, unicode.IsControl):
		return "contains a control character"
	}
	return ""
}

// schemaViolations lists the leaves of the library's tree: its inner nodes only say which schema was asked. It sorts
// them, because the library goes through objects in the order of Go's maps.
func schemaViolations(err error) []Violation {
	if err == nil {
		return nil
	}
	root, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []Violation{{Message: clip(err.Error())}}
	}
	printer := message.NewPrinter(language.English)
	var violations []Violation
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			violations = append(violations, Violation{clipPointer(pointer(e.InstanceLocation)), clip(e.ErrorKind.LocalizedString(printer))})
		}
		for _, cause := range e.Causes {
			walk(cause)
		}
	}
	walk(root)
	slices.SortFunc(violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(violations)
}

func pointer(location []string) string {
	var b strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, token := range location {
		b.WriteByte('/')
		_, _ = escape.WriteString(&b, token)
	}
	return b.String()
}

// clip bounds what a hostile body can make of a message. The middle gives way: at the beginning and at the end
// stand the words about it.
func clip(s string) string {
	if len(s) <= maxWords {
		return s
	}
	const cut = "…"
	half := (maxWords - len(cut)) / 2
	return strings.ToValidUTF8(s[:half]+cut+s[len(s)-half:], "")
}

// clipPointer bounds a pointer likewise. It cuts at a slash, and so keeps a pointer, to what is around.
func clipPointer(s string) string {
	if len(s) <= maxWords {
		return s
	}
	return s[:max(0, strings.LastIndexByte(s[:maxWords+1], '/'))]
}

func schemaFiles(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	names, err := fs.Glob(schemas.FS, "*"+fileSuffix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if files[name], err = schemas.FS.ReadFile(name); err != nil {
			return nil, err
		}
	}
	if dir == "" {
		return files, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("schema directory: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasSuffix(name, fileSuffix) {
			continue
		}
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("schema directory: %w", err)
		}
	}
	return files, nil
}

// noLoader keeps the compiler from reading a file or a URL that a schema refers to.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is neither an embedded schema nor in the schema directory", url)
}
