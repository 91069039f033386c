package schema_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/schemas"
)

// delivery is the same in every test, so that golden files stay as they are.
func delivery() schema.Delivery {
	header := http.Header{}
	header.Set("Webhook-Id", "msg_2f9a6c1e")
	header.Set("Webhook-Timestamp", "1769083201")
	header.Set("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	header.Set("Authorization", "Bearer nobody's business")
	header.Set("Content-Type", "application/json")
	header.Set("User-Agent", "Google-Webhooks/1.0")
	header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	return schema.Delivery{
		ID: "msg_2f9a6c1e", Source: "//generativelanguage.googleapis.com", Scheme: "v1",
		Received:    time.Date(2026, 1, 22, 13, 0, 1, 234_500_000, time.FixedZone("", 3600)),
		TraceParent: header.Get("Traceparent"), Header: header,
	}
}

// judge holds what consumers are promised against what they get.
type judge struct{ event, eventData, dead, deadData *jsonschema.Schema }

var newJudge = sync.OnceValue(func() judge {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	compiler.AssertContent()
	for _, name := range []string{schemas.Event, schemas.DeadLetter} {
		text, err := schemas.FS.ReadFile(name)
		if err != nil {
			panic(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			panic(err)
		}
		if err := compiler.AddResource(schemas.BaseURI+name, doc); err != nil {
			panic(err)
		}
	}
	return judge{
		compiler.MustCompile(schemas.BaseURI + schemas.Event), compiler.MustCompile(schemas.EventURI + "#data"),
		compiler.MustCompile(schemas.BaseURI + schemas.DeadLetter), compiler.MustCompile(schemas.DeadLetterURI + "#data"),
	}
})

// validate is Registry.Validate; it fails the test if the error is not what its documentation says.
func validate(tb testing.TB, r *schema.Registry, body []byte) (*schema.Document, *schema.InvalidError) {
	tb.Helper()
	doc, err := r.Validate(body)
	if err == nil {
		return doc, nil
	}
	invalid, ok := errors.AsType[*schema.InvalidError](err)
	if !ok || doc != nil {
		tb.Fatalf("got %v, %T %v, want no document and an *InvalidError", doc, err, err)
	}
	if n := len(invalid.Violations); n < 1 || n > 16 {
		tb.Errorf("%d violations, want 1 to 16", n)
	}
	for _, v := range invalid.Violations {
		if len(v.Pointer) > 256 || len(v.Message) > 256 || v.Message == "" {
			tb.Errorf("violation of %d and %d bytes, want at most 256 and a message: %+v", len(v.Pointer), len(v.Message), v)
		}
	}
	if len(invalid.Type) > 128 || strings.ContainsFunc(invalid.Type, control) {
		tb.Errorf("type %.200q is not usable", invalid.Type)
	}
	return nil, invalid
}

func control(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f }

// anEvent fails the test unless e is the event of body.
func (j judge) anEvent(tb testing.TB, e *schema.Event, d schema.Delivery, body []byte) {
	tb.Helper()
	j.cloudEvent(tb, e, d, body, j.event, j.eventData)
	if tb.Failed() {
		return
	}
	if e.Dead {
		tb.Error("dead")
	}
	want := compact(tb, body)
	if !bytes.Equal(e.Original, want) {
		tb.Errorf("original:\n got %.300s\nwant %.300s", e.Original, want)
	}
	if !reflect.DeepEqual(decode(tb, e.Original), decode(tb, body)) {
		tb.Error("original means something else than the body")
	}
	var data map[string]json.RawMessage
	unmarshal(tb, e.Data, &data)
	if !bytes.Equal(data["original"], want) {
		tb.Errorf("data.original:\n got %.300s\nwant %.300s", data["original"], want)
	}
	if cap(e.Original) != len(e.Original) {
		tb.Error("appending to Original would change Structured")
	}
	members := normalized(tb, body)
	delete(data, "original")
	for name, want := range members {
		if got := string(data[name]); got != want {
			tb.Errorf("data.%s: got %.300s, want %.300s", name, got, want)
		}
	}
	if len(data) != len(members) {
		tb.Errorf("members of data: got %q, want %q", slices.Sorted(maps.Keys(data)), slices.Sorted(maps.Keys(members)))
	}
	name := decode(tb, body).(map[string]any)["type"].(string)
	if e.Name != name || e.Type != "com.google.gemini."+name {
		tb.Errorf("name %q, type %q, want those of %q", e.Name, e.Type, name)
	}
	if e.DataSchema != schemas.EventURI {
		tb.Errorf("dataschema %q", e.DataSchema)
	}
	subject, key := "", d.ID
	if members["job"] != "null" {
		unmarshal(tb, []byte(members["job"]), &subject)
		key = subject
	}
	if e.Subject != subject || e.PartitionKey != key {
		tb.Errorf("subject %q, partition key %q, want %q, %q", e.Subject, e.PartitionKey, subject, key)
	}
}

// aDeadLetter fails the test unless e is a dead letter of body.
func (j judge) aDeadLetter(tb testing.TB, e *schema.Event, d schema.Delivery, reason schema.Reason, body []byte) {
	tb.Helper()
	j.cloudEvent(tb, e, d, body, j.dead, j.deadData)
	if tb.Failed() {
		return
	}
	received := d.Received.UTC().Format(time.RFC3339Nano)
	if !e.Dead || e.Type != "bridge.dead_letter" || e.Subject != "" || e.Original != nil || e.Time != received ||
		e.PartitionKey != d.ID || e.DataSchema != schemas.DeadLetterURI {
		tb.Errorf("got %+v", *e)
	}
	var data struct {
		Reason     schema.Reason
		Headers    json.RawMessage
		Body       *string
		BodyBase64 *string `json:"body_base64"`
		Received   string
		Scheme     string
	}
	unmarshal(tb, e.Data, &data)
	if data.Reason != reason || data.Received != received || data.Scheme != d.Scheme {
		tb.Errorf("reason %q, received %q, scheme %q, want %q, %q, %q", data.Reason, data.Received, data.Scheme, reason, received, d.Scheme)
	}
	if got := len(data.Headers) - len("{}"); got > 8<<10 {
		tb.Errorf("headers of %d bytes, want at most 8 KiB", got)
	}
	switch {
	case data.Body != nil && data.BodyBase64 == nil:
		if *data.Body != string(body) {
			tb.Errorf("body:\n got %.300q\nwant %.300q", *data.Body, body)
		}
	case data.Body == nil && data.BodyBase64 != nil:
		if got, err := base64.StdEncoding.DecodeString(*data.BodyBase64); err != nil || !bytes.Equal(got, body) {
			tb.Errorf("body_base64:\n got %.300q, %v\nwant %.300q", got, err, body)
		}
		if quoted, err := jsontext.AppendQuote(nil, body); err == nil && len(quoted) < len(*data.BodyBase64)+len(`"_base64"`) {
			tb.Errorf("body is text and shorter so: %.300q", body)
		}
	default:
		tb.Errorf("body %v, body_base64 %v, want one of them", data.Body, data.BodyBase64)
	}
}

func (j judge) cloudEvent(tb testing.TB, e *schema.Event, d schema.Delivery, body []byte, whole, data *jsonschema.Schema) {
	tb.Helper()
	if got, limit := len(e.Structured), 2*len(body)+32<<10; got > limit {
		tb.Errorf("%d bytes of %d, want at most %d", got, len(body), limit)
	}
	if e.ID != d.ID || e.WebhookID != d.ID || e.Source != d.Source || e.TraceParent != d.TraceParent || e.Scheme != d.Scheme || !e.Received.Equal(d.Received) {
		tb.Errorf("got %+v of %+v", *e, d)
	}
	if !utf8.Valid(e.Structured) || !jsontext.Value(e.Structured).IsValid() || !bytes.Equal(compact(tb, e.Structured), e.Structured) {
		tb.Fatalf("not strict, compact JSON: %.300s", e.Structured)
	}

	// Data is a part of the same bytes, and appending to it spoils nothing.
	from := len(e.Structured) - 1 - len(e.Data)
	if from < 0 || len(e.Data) == 0 || &e.Data[0] != &e.Structured[from] || cap(e.Data) != len(e.Data) {
		tb.Fatalf("data is not the end of the structured bytes: %.300s", e.Data)
	}
	var members map[string]json.RawMessage
	unmarshal(tb, e.Structured, &members)
	if !bytes.Equal(members["data"], e.Data) {
		tb.Errorf("data:\n got %.300s\nwant %.300s", e.Data, members["data"])
	}
	for _, a := range e.Attributes() {
		var got string
		unmarshal(tb, members[a.Name], &got)
		if got != a.Value || a.Value == "" {
			tb.Errorf("attribute %s: got %q in JSON, want %q", a.Name, got, a.Value)
		}
	}
	if got, want := len(members), len(e.Attributes())+1; got != want {
		tb.Errorf("%d members, want %d", got, want)
	}

	// Version 2.16.2 of the SDK may stumble over what follows a number that no float64 can hold, because json-iterator
	// 1.1.12 does: it then judges the attributes alone.
	text, inside := e.Structured, e.Data
	if !inFloat64(decode(tb, e.Data)) {
		inside = []byte("{}")
		text = slices.Concat(e.Structured[:from], inside, []byte("}"))
	}
	var ce event.Event
	if err := ce.UnmarshalJSON(text); err != nil {
		tb.Fatalf("CloudEvents SDK: %v: %.300s", err, e.Structured)
	}
	if err := ce.Validate(); err != nil {
		tb.Errorf("CloudEvents SDK: %v: %.300s", err, e.Structured)
	}
	for name, value := range map[string][2]string{
		"specversion": {ce.SpecVersion(), "1.0"}, "id": {ce.ID(), e.ID}, "source": {ce.Source(), e.Source}, "type": {ce.Type(), e.Type},
		"subject": {ce.Subject(), e.Subject}, "datacontenttype": {ce.DataContentType(), "application/json"},
		"dataschema": {ce.DataSchema(), e.DataSchema}, "partitionkey": {fmt.Sprint(ce.Extensions()["partitionkey"]), e.PartitionKey},
		"data": {string(ce.Data()), string(inside)},
	} {
		if value[0] != value[1] {
			tb.Errorf("CloudEvents SDK: %s: got %.300q, want %.300q", name, value[0], value[1])
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, e.Time); !ce.Time().Equal(at) || err != nil && e.Time != "" {
		tb.Errorf("CloudEvents SDK: time: got %v, want %q", ce.Time(), e.Time)
	}
	if len(ce.Extensions()) != 1 {
		tb.Errorf("CloudEvents SDK: extensions %v", ce.Extensions())
	}

	for schema, text := range map[*jsonschema.Schema][]byte{whole: e.Structured, data: e.Data} {
		if err := schema.Validate(decode(tb, text)); err != nil {
			tb.Errorf("%v: %.300s", err, text)
		}
	}
}

// inFloat64 tells whether float64 has room for every number in doc.
func inFloat64(doc any) bool {
	switch doc := doc.(type) {
	case map[string]any:
		for _, v := range doc {
			if !inFloat64(v) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(doc, func(v any) bool { return !inFloat64(v) })
	case json.Number:
		_, err := doc.Float64()
		return err == nil
	}
	return true
}

// normalized is the second opinion on the members of data, "original" aside: by encoding/json, each as JSON text.
func normalized(tb testing.TB, body []byte) map[string]string {
	tb.Helper()
	var envelope, data map[string]json.RawMessage
	unmarshal(tb, body, &envelope)
	if raw := envelope["data"]; raw != nil {
		unmarshal(tb, raw, &data)
	}
	str := func(raw json.RawMessage) string {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return ""
		}
		return s
	}
	orNull := func(s string) string {
		if s == "" {
			return "null"
		}
		return quote(tb, s)
	}
	digits := func(raw json.RawMessage) string {
		if len(raw) > 0 && strings.IndexByte("-0123456789", raw[0]) >= 0 {
			return string(raw)
		}
		return str(raw)
	}
	typ := str(envelope["type"])
	kind, status, _ := strings.Cut(typ, ".")
	if typ == "video.generated" {
		status = "succeeded"
	}
	job := str(data["id"])
	if strings.TrimSpace(job) == "" {
		job = ""
	}
	members := map[string]string{
		"kind": quote(tb, kind), "status": orNull(status), "job": orNull(job),
		"output": "null", "error": "null", "user_metadata": "null",
	}
	uri, file := str(data["output_file_uri"]), str(data["file_name"])
	if uri == "" {
		uri = str(data["video_uri"])
	}
	if uri != "" || file != "" {
		members["output"] = `{"uri":` + orNull(uri) + `,"file_name":` + orNull(file) + `}`
	}
	code, words := digits(data["error_code"]), digits(data["error_message"])
	if code != "" || words != "" || status == "failed" {
		members["error"] = `{"code":` + quote(tb, code) + `,"message":` + quote(tb, words) + `}`
	}
	for _, raw := range []json.RawMessage{data["user_metadata"], envelope["user_metadata"]} {
		if len(raw) > 0 && raw[0] == '{' {
			members["user_metadata"] = string(compact(tb, raw))
		}
	}
	return members
}

func quote(tb testing.TB, s string) string {
	tb.Helper()
	quoted, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		tb.Fatal(err)
	}
	return string(quoted)
}

func compact(tb testing.TB, text []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		tb.Fatalf("encoding/json: %v: %.300q", err, text)
	}
	return b.Bytes()
}

func decode(tb testing.TB, text []byte) any {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		tb.Fatalf("encoding/json: %v: %.300q", err, text)
	}
	return doc
}

func unmarshal(tb testing.TB, text []byte, into any) {
	tb.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		tb.Fatalf("encoding/json: %v: %.300q", err, text)
	}
}

func registry(tb testing.TB, dir string) *schema.Registry {
	tb.Helper()
	r, err := schema.NewRegistry(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// normalize is the event of a body that must be valid, judged.
func normalize(tb testing.TB, r *schema.Registry, body string) *schema.Event {
	tb.Helper()
	doc, invalid := validate(tb, r, []byte(body))
	if invalid != nil {
		tb.Fatalf("%.300s: %v", body, invalid)
	}
	e := schema.Normalize(doc, delivery())
	newJudge().anEvent(tb, e, delivery(), []byte(body))
	return e
}
