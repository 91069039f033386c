package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds nesting: no event needs it, and consumers' parsers have limits of their own.
const maxDepth = 128

// Document is a delivery's body, decoded once: the tree is what the schemas judge, the bytes are what the event
// carries. Registry.Validate makes it.
type Document struct {
	Type  string // as sent
	Known bool   // a type that has a schema, in a version that the schema describes

	root     map[string]any
	original []byte // the body without insignificant white space; nothing else about it is changed
	// Where user_metadata stands in original: at the top level, and in data.
	topMetadata, dataMetadata span
}

type span struct{ from, to int }

// decode is strict where encoding/json is not: duplicate keys, invalid UTF-8 and lone surrogates are errors
// (RFC 7493), for two parsers that read such text differently would see two different events.
func decode(body []byte) (*Document, error) {
	d := decoder{
		in:   jsontext.NewDecoder(bytes.NewBuffer(body)),
		text: string(body),
		doc:  &Document{original: make([]byte, 0, len(body))},
	}
	root, err := d.value(0, "")
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return nil, &InvalidError{Violations: []Violation{syntaxViolation(err)}}
	}
	d.doc.root, _ = root.(map[string]any)
	if d.doc.root == nil {
		return nil, &InvalidError{Violations: []Violation{{Message: "not a JSON object"}}}
	}
	return d.doc, nil
}

type decoder struct {
	in   *jsontext.Decoder
	text string // the body once more: strings of the tree are parts of it, so that they cost nothing
	doc  *Document
}

// value decodes the next value, nested depth deep as the member name of its parent, and appends its bytes.
func (d *decoder) value(depth int, name string) (any, error) {
	switch d.in.PeekKind() {
	case '{':
		return d.object(depth+1, name)
	case '[':
		return d.array(depth + 1)
	}
	raw, err := d.scalar()
	if err != nil {
		return nil, err
	}
	switch raw[0] {
	case '"':
		return unquote(raw)
	case 'n':
		return nil, nil
	case 't':
		return true, nil
	case 'f':
		return false, nil
	}
	return json.Number(raw), nil
}

func (d *decoder) object(depth int, name string) (any, error) {
	if err := d.open('{', depth); err != nil {
		return nil, err
	}
	members := make(map[string]any)
	for d.in.PeekKind() != '}' {
		if len(members) > 0 {
			d.doc.original = append(d.doc.original, ',')
		}
		raw, err := d.scalar()
		if err != nil {
			return nil, err
		}
		member, err := unquote(raw)
		if err != nil {
			return nil, err
		}
		d.doc.original = append(d.doc.original, ':')
		from := len(d.doc.original)
		if members[member], err = d.value(depth, member); err != nil {
			return nil, err
		}
		if member == "user_metadata" {
			switch at := (span{from, len(d.doc.original)}); {
			case depth == 1:
				d.doc.topMetadata = at
			case depth == 2 && name == "data":
				d.doc.dataMetadata = at
			}
		}
	}
	return members, d.close('}')
}

func (d *decoder) array(depth int) (any, error) {
	if err := d.open('[', depth); err != nil {
		return nil, err
	}
	elements := []any{}
	for d.in.PeekKind() != ']' {
		if len(elements) > 0 {
			d.doc.original = append(d.doc.original, ',')
		}
		v, err := d.value(depth, "")
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
	}
	return elements, d.close(']')
}

func (d *decoder) open(delim byte, depth int) error {
	if depth > maxDepth {
		return &jsontext.SyntacticError{
			ByteOffset:  d.in.InputOffset(),
			JSONPointer: d.in.StackPointer(),
			Err:         fmt.Errorf("nested more than %d deep", maxDepth),
		}
	}
	return d.close(delim)
}

func (d *decoder) close(delim byte) error {
	_, err := d.in.ReadToken()
	d.doc.original = append(d.doc.original, delim)
	return err
}

// scalar reads a string, number or literal, appends its bytes, and returns them as a part of text.
func (d *decoder) scalar() (string, error) {
	raw, err := d.in.ReadValue()
	if err != nil {
		return "", err
	}
	d.doc.original = append(d.doc.original, raw...)
	end := int(d.in.InputOffset())
	return d.text[end-len(raw) : end], nil
}

func (d *decoder) end() error {
	_, err := d.in.ReadToken()
	if err == nil {
		return &jsontext.SyntacticError{ByteOffset: d.in.InputOffset(), Err: errors.New("more than one JSON value")}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func unquote(raw string) (string, error) {
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	s, err := jsontext.AppendUnquote(nil, raw)
	return string(s), err
}

func syntaxViolation(err error) Violation {
	if errors.Is(err, io.EOF) {
		return Violation{Message: "empty body"}
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return Violation{
			Pointer: clipPointer(string(syntax.JSONPointer)),
			Message: clip(fmt.Sprintf("not JSON as of RFC 7493: %v (at byte %d)", syntax.Err, syntax.ByteOffset)),
		}
	}
	return Violation{Message: clip(fmt.Sprintf("not JSON as of RFC 7493: %v", err))}
}
