// Package docs_test keeps the documents that machines read true to the code.
package docs_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/gembridge/bridge/schemas"
)

var update = flag.Bool("update", false, "write what is generated into the documents")

const (
	asyncAPI  = "asyncapi.yaml"
	generated = "  # Generated\n" // what follows this line is
)

// TestAsyncAPI sees that the generated part is what the schemas say.
func TestAsyncAPI(t *testing.T) {
	content, err := os.ReadFile(asyncAPI)
	if err != nil {
		t.Fatal(err)
	}
	head, got, found := strings.Cut(string(content), generated)
	if !found {
		t.Fatalf("%s has no line %q", asyncAPI, generated)
	}
	want := render(t, components(t))
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what schemas/ says: run go test ./docs -update", asyncAPI)
	}
	if err := os.WriteFile(asyncAPI, []byte(head+generated+want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// broker is how one of them carries a CloudEvent in message headers.
type broker struct {
	name, title string
	contentType string // name of the header
	structured  string // its value for a whole event
	prefix      string // of the headers of attributes
	// mapsContentType: the attribute datacontenttype is the content-type header and has no other.
	mapsContentType bool
	dedup           string // a further header that holds the event's id, or ""
	attributes      string // what to know of the headers of attributes
}

var brokers = []broker{
	{
		name: "nats", title: "NATS", contentType: "Content-Type", structured: "application/cloudevents+json", prefix: "ce-", dedup: "Nats-Msg-Id",
		attributes: "The event's attributes are headers. A space, a quotation mark, a percent sign and whatever is not ASCII are percent-encoded in their values.",
	},
	{
		name: "kafka", title: "Kafka", contentType: "content-type", structured: "application/cloudevents+json; charset=UTF-8", prefix: "ce_", mapsContentType: true,
		attributes: "The event's attributes are headers, their values in UTF-8.",
	},
}

// kind is one sort of events.
type kind struct{ name, title, what, file, schema string }

var kinds = []kind{
	{"Event", "Event", "An event of the Gemini API", schemas.Event, "event"},
	{"DeadLetter", "Dead letter", "A genuine delivery that could not become an event, and why", schemas.DeadLetter, "deadLetter"},
}

const traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" // of the examples

// components are the parts that follow from the schemas. Schemas lose what AsyncAPI's dialect, JSON Schema draft 7,
// does not have: $schema, $id and anchors. Their examples go to the messages.
func components(t *testing.T) *yaml.Node {
	messages, all := mapping(), mapping()
	for _, b := range brokers {
		add(all, b.name+"Headers", b.headers("", b.structured, mapping(), sequence()))
	}
	for _, kind := range kinds {
		schema := readSchema(t, kind.file)
		examples := take(schema, "examples")
		take(schema, "$schema")
		take(schema, "$id")
		data := take(get(schema, "properties"), "data")
		take(data, "$anchor")
		for _, b := range brokers {
			name := b.name + kind.name
			add(all, name+"BinaryHeaders", b.binaryHeaders(get(schema, "properties"), get(schema, "required")))
			add(messages, name, b.message(kind, false, b.name+"Headers", kind.schema, b.examples(examples, false)))
			add(messages, name+"Binary", b.message(kind, true, name+"BinaryHeaders", kind.schema+"Data", b.examples(examples, true)))
		}
		add(get(schema, "properties"), "data", reference("schemas/"+kind.schema+"Data"))
		add(all, kind.schema, schema)
		add(all, kind.schema+"Data", data)
	}
	types := sequence()
	for _, typ := range schemas.Types() {
		types.Content = append(types.Content, text(typ))
	}
	parameter := mapping(
		text("description"), text("The sender's own type. The list is open: a type that is new to the bridge is published as well."),
		text("examples"), types,
	)
	return mapping(text("parameters"), mapping(text("type"), parameter), text("messages"), messages, text("schemas"), all)
}

func (b broker) message(k kind, binary bool, headers, payload string, examples *yaml.Node) *yaml.Node {
	mode, body, contentType := "structured", "all of it as JSON", "application/cloudevents+json"
	if binary {
		mode, body, contentType = "binary", "its data alone", "application/json"
	}
	message := mapping(
		text("title"), text(k.title+" on "+b.title+", "+mode+" mode"),
		text("summary"), text(k.what+"; the body is "+body+"."),
		text("contentType"), text(contentType),
		text("correlationId"), reference("correlationIds/webhookId"),
		text("headers"), reference("schemas/"+headers),
		text("payload"), reference("schemas/"+payload),
	)
	if b.name == "kafka" {
		key := mapping(text("key"), reference("schemas/"+k.schema+"/properties/partitionkey"), text("bindingVersion"), text("0.5.0"))
		add(message, "bindings", mapping(text("kafka"), key))
	}
	add(message, "examples", examples)
	return message
}

// headers is the schema of the headers that a message has in either mode, and those of attributes.
func (b broker) headers(description, contentType string, attributes, required *yaml.Node) *yaml.Node {
	properties := mapping()
	describe := func(name, words, constant string) {
		property := mapping(text("description"), text(words), text("type"), text("string"))
		if constant != "" {
			add(property, "const", text(constant))
		}
		add(properties, name, property)
	}
	describe(b.contentType, "Tells the content mode; always this value.", contentType)
	always := sequence(text(b.contentType))
	if b.dedup != "" {
		describe(b.dedup, "The event's id, by which the broker knows a duplicate.", "")
		always.Content = append(always.Content, text(b.dedup))
	}
	describe("webhook-id", "The sender's id of the delivery, which is the event's id too.", "")
	always.Content = append(always.Content, text("webhook-id"))
	describe("traceparent", "W3C trace context of the request that brought the delivery. Absent when it had none.", "")
	properties.Content = append(properties.Content, attributes.Content...)
	always.Content = append(always.Content, required.Content...)

	schema := mapping(text("type"), text("object"))
	if description != "" {
		schema = mapping(text("description"), text(description), text("type"), text("object"))
	}
	add(schema, "required", always)
	add(schema, "properties", properties)
	return schema
}

// binaryHeaders is the schema of the headers in binary mode, made of the attributes' own.
func (b broker) binaryHeaders(attributes, required *yaml.Node) *yaml.Node {
	named, always := mapping(), sequence()
	contentType := get(get(attributes, "datacontenttype"), "const").Value
	for i := 0; i < len(attributes.Content); i += 2 {
		name := attributes.Content[i].Value
		if name == "datacontenttype" && b.mapsContentType {
			continue
		}
		add(named, b.prefix+name, attributes.Content[i+1])
		for _, r := range required.Content {
			if r.Value == name {
				always.Content = append(always.Content, text(b.prefix+name))
			}
		}
	}
	return b.headers(b.attributes, contentType, named, always)
}

// examples are messages that carry the examples of a schema.
func (b broker) examples(events *yaml.Node, binary bool) *yaml.Node {
	messages := sequence()
	for _, event := range events.Content {
		id := get(event, "id")
		headers, payload := mapping(), event
		if binary {
			payload = get(event, "data")
			add(headers, b.contentType, get(event, "datacontenttype"))
		} else {
			add(headers, b.contentType, text(b.structured))
		}
		if b.dedup != "" {
			add(headers, b.dedup, id)
		}
		add(headers, "webhook-id", id)
		add(headers, "traceparent", text(traceParent))
		for i := 0; binary && i < len(event.Content); i += 2 {
			if name := event.Content[i].Value; name != "data" && (name != "datacontenttype" || !b.mapsContentType) {
				add(headers, b.prefix+name, event.Content[i+1])
			}
		}
		messages.Content = append(messages.Content, mapping(text("headers"), headers, text("payload"), payload))
	}
	return messages
}
