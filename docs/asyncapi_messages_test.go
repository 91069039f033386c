package docs_test

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/gembridge/bridge/pkg/schema"
)

// document is what these tests read of asyncapi.yaml.
type document struct {
	Channels map[string]struct {
		Address  string
		Messages map[string]ref
		Bindings struct{ Kafka map[string]any }
	}
	Operations map[string]struct {
		Action   string
		Channel  ref
		Messages []ref
	}
	Components struct{ Messages map[string]message }
}

type message struct {
	Headers, Payload ref
	Examples         []example
}

type example struct {
	Headers map[string]string
	Payload map[string]any
}

type ref struct {
	To string `json:"$ref"`
}

// readDocument returns the document, and the same as JSON values.
func readDocument(t *testing.T) (document, any) {
	t.Helper()
	content, err := os.ReadFile(asyncAPI)
	if err != nil {
		t.Fatal(err)
	}
	var values any
	if err := yaml.Unmarshal(content, &values); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(asJSON, &doc); err != nil {
		t.Fatal(err)
	}
	if values, err = jsonschema.UnmarshalJSON(strings.NewReader(string(asJSON))); err != nil {
		t.Fatal(err)
	}
	return doc, values
}

// validator checks values against what a $ref points to, by the rules of AsyncAPI's dialect.
type validator struct{ compiler *jsonschema.Compiler }

func newValidator(t *testing.T, values any) validator {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft7)
	compiler.AssertFormat()
	if err := compiler.AddResource("https://example.com/asyncapi.json", values); err != nil {
		t.Fatal(err)
	}
	return validator{compiler}
}

func (v validator) check(t *testing.T, what string, to ref, value any) {
	t.Helper()
	compiled, err := v.compiler.Compile("https://example.com/asyncapi.json" + to.To)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if value, err = jsonschema.UnmarshalJSON(strings.NewReader(string(text))); err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// The official parser does not look at the examples of AsyncAPI 3.
func TestExamplesAreValid(t *testing.T) {
	doc, values := readDocument(t)
	v := newValidator(t, values)
	if len(doc.Components.Messages) != 8 {
		t.Errorf("got %d messages, want those of 2 brokers, 2 kinds and 2 modes", len(doc.Components.Messages))
	}
	for name, m := range doc.Components.Messages {
		if len(m.Examples) < 2 {
			t.Errorf("%s: got %d examples", name, len(m.Examples))
		}
		for _, e := range m.Examples {
			v.check(t, name+" headers", m.Headers, e.Headers)
			v.check(t, name+" payload", m.Payload, e.Payload)
		}
	}
}

// Every channel has an operation, which has both modes.
func TestOperations(t *testing.T) {
	doc, _ := readDocument(t)
	var sent []string
	for name, o := range doc.Operations {
		sent = append(sent, strings.TrimPrefix(o.Channel.To, "#/channels/"))
		want := []ref{{o.Channel.To + "/messages/structured"}, {o.Channel.To + "/messages/binary"}}
		if o.Action != "send" || !slices.Equal(o.Messages, want) {
			t.Errorf("%s: got %s of %v, want send of %v", name, o.Action, o.Messages, want)
		}
	}
	slices.Sort(sent)
	if want := slices.Sorted(maps.Keys(doc.Channels)); !slices.Equal(sent, want) {
		t.Errorf("operations send to %q, channels are %q", sent, want)
	}
}

// sent is one message as a broker has it.
type sent struct {
	channel string // subject or topic
	key     string // on Kafka
	headers map[string]string
	body    []byte
}

// modes are the names of a channel's messages.
var modes = []string{"structured", "binary"}

// compare publishes every example, as the event that it is of, and sees that what the broker has then is the example.
func compare(t *testing.T, broker, mode string, publish func(t *testing.T, e *schema.Event) sent) {
	doc, _ := readDocument(t)
	for _, kind := range []struct {
		channel string
		dead    bool
	}{{"Events", false}, {"DeadLetters", true}} {
		channel := doc.Channels[broker+kind.channel]
		whole, shown := doc.message(t, channel.Messages["structured"]), doc.message(t, channel.Messages[mode])
		for i, e := range whole.Examples {
			event := eventOf(t, e.Payload, kind.dead)
			got, want := publish(t, event), shown.Examples[i]
			name := event.Name
			if name == "" {
				name = "unreadable"
			}
			if want := strings.ReplaceAll(channel.Address, "{type}", name); got.channel != want {
				t.Errorf("%s is at %s, want %s", event.ID, got.channel, want)
			}
			if broker == "kafka" && got.key != event.PartitionKey {
				t.Errorf("%s has key %q, want %q", event.ID, got.key, event.PartitionKey)
			}
			if !maps.Equal(got.headers, want.Headers) {
				t.Errorf("%s has headers\n%v, want\n%v", event.ID, got.headers, want.Headers)
			}
			var body map[string]any
			if err := json.Unmarshal(got.body, &body); err != nil || !reflect.DeepEqual(body, want.Payload) {
				t.Errorf("%s has body\n%s, %v, want\n%v", event.ID, got.body, err, want.Payload)
			}
		}
	}
}

func (d document) message(t *testing.T, to ref) message {
	t.Helper()
	m, ok := d.Components.Messages[strings.TrimPrefix(to.To, "#/components/messages/")]
	if !ok {
		t.Fatalf("no message %s", to.To)
	}
	return m
}

// eventOf makes the event that a structured example shows.
func eventOf(t *testing.T, payload map[string]any, dead bool) *schema.Event {
	t.Helper()
	attribute := func(name string) string { s, _ := payload[name].(string); return s }
	e := &schema.Event{
		ID: attribute("id"), Source: attribute("source"), Type: attribute("type"), Subject: attribute("subject"), Time: attribute("time"),
		DataSchema: attribute("dataschema"), PartitionKey: attribute("partitionkey"), WebhookID: attribute("id"),
		TraceParent: traceParent, Dead: dead, Name: strings.TrimPrefix(attribute("type"), "com.google.gemini."),
	}
	var err error
	if e.Structured, err = json.Marshal(payload); err != nil {
		t.Fatal(err)
	}
	if e.Data, err = json.Marshal(payload["data"]); err != nil {
		t.Fatal(err)
	}
	if dead {
		e.Name = ""
		var body struct{ Type string }
		text, _ := payload["data"].(map[string]any)["body"].(string)
		if json.Unmarshal([]byte(text), &body) == nil {
			e.Name = body.Type
		}
	}
	return e
}
