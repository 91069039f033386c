// Package schemas holds the JSON Schemas (draft 2020-12) of what the bridge receives and of what it hands on:
// the envelope that every Gemini webhook delivery has, one schema for each of the nine documented event types,
// the normalized event that consumers receive, and the dead letter.
//
// It only holds them. Compiling and validating is the affair of pkg/schema, so this package needs nothing but the
// standard library.
//
// No schema uses integer, multipleOf, minimum, maximum, uniqueItems or a number in const or enum: validators
// compare such numbers exactly, and one like 1e999999 would become an integer of a million digits.
package schemas

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"slices"
)

// FS holds all schemas, in its root directory, by file name.
//
//go:embed *.schema.json
var FS embed.FS

// BaseURI and a file's name make the file's "$id". The references between the files are relative to it. It
// carries the version of the formats.
const BaseURI = "https://github.com/gembridge/bridge/schemas/v1/"

// Names of the files that describe no single event type. Those that do are named by [File].
const (
	Envelope   = "envelope.schema.json"    // any delivery, of a known type or not
	Event      = "event.schema.json"       // the normalized CloudEvent
	DeadLetter = "dead-letter.schema.json" // the CloudEvent of a delivery that could not become an event
)

// The dataschema attributes of what consumers receive: the schemas' own URIs. Each describes the whole event; with
// "#data" behind it, the "data" member alone, which is all that a message body holds in binary mode. The attribute
// itself may have no fragment (CloudEvents 1.0: an absolute URI, RFC 3986 section 4.3).
const (
	EventURI      = BaseURI + Event
	DeadLetterURI = BaseURI + DeadLetter
)

// Types returns the event types that have a schema, in the order of Google's catalogue
// (https://ai.google.dev/gemini-api/docs/webhooks). The caller may change the slice.
func Types() []string {
	return []string{
		"batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled",
		"interaction.completed", "interaction.requires_action", "interaction.failed", "interaction.cancelled",
		"video.generated",
	}
}

// File returns the name of an event type's schema, whether there is such a file or not.
func File(typ string) string { return typ + ".schema.json" }

// Example returns the first example of an event type's schema: the body of a delivery as Gemini would send it,
// as compact JSON with its members in the order of the file. The caller may change the bytes. The error says
// that typ is none of [Types].
func Example(typ string) ([]byte, error) {
	if !slices.Contains(Types(), typ) {
		return nil, fmt.Errorf("no schema for event type %q", typ)
	}
	text, err := FS.ReadFile(File(typ))
	if err != nil {
		return nil, err
	}
	var doc struct {
		Examples []json.RawMessage `json:"examples"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("schema %s: %w", File(typ), err)
	}
	if len(doc.Examples) == 0 {
		return nil, fmt.Errorf("schema %s: no examples", File(typ))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, doc.Examples[0]); err != nil {
		return nil, fmt.Errorf("schema %s: %w", File(typ), err)
	}
	return compact.Bytes(), nil
}
