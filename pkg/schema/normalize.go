package schema

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gembridge/bridge/schemas"
)

const typePrefix = "com.google.gemini."

// Delivery is what the bridge knows of a delivery beside its body.
type Delivery struct {
	ID          string      // webhook-id: the event's id
	Source      string      // the event's source
	Scheme      string      // how it was verified: "v1"
	Received    time.Time   // when it arrived
	TraceParent string      // valid, or empty
	Header      http.Header // of the request; a dead letter keeps those of an allow-list
}

// Normalize makes the CloudEvent of a valid document. The envelope's bytes become data.original as they were
// signed, insignificant white space aside; every other member of data is null where it does not apply.
func Normalize(doc *Document, d Delivery) *Event {
	job := doc.job()
	e := &Event{
		ID: d.ID, Source: d.Source, Type: typePrefix + doc.Type, Subject: job, Time: doc.time(),
		DataSchema: schemas.EventURI, PartitionKey: job,
		Name: doc.Type, WebhookID: d.ID, TraceParent: d.TraceParent, Scheme: d.Scheme, Received: d.Received,
	}
	if job == "" {
		e.PartitionKey = d.ID
	}
	metadata := doc.metadata()
	b := openEvent(make([]byte, 0, 512+len(e.Type)+3*len(job)+2*len(metadata)+len(doc.original)), e)

	from := len(b)
	kind, status := kindAndStatus(doc.Type)
	data, _ := doc.root["data"].(map[string]any)
	b = quoteMember(b, `{"kind":`, kind)
	b = quoteOrNull(b, `,"status":`, status)
	b = quoteOrNull(b, `,"job":`, job)
	b = appendOutput(b, data)
	b = appendError(b, data, status == "failed")
	b = append(b, `,"user_metadata":`...)
	b = append(b, metadata...)
	b = append(b, `,"original":`...)
	b = append(b, doc.original...)
	b = append(b, '}')
	to := len(b)
	e.Structured = append(b, '}')
	e.Data = e.Structured[from:to:to]
	e.Original = e.Structured[to-1-len(doc.original) : to-1 : to-1]
	return e
}

// openEvent appends the envelope up to the value of "data".
func openEvent(b []byte, e *Event) []byte {
	open := byte('{')
	for _, a := range e.Attributes() {
		b = append(b, open, '"')
		b = append(b, a.Name...)
		b = quoteMember(b, `":`, a.Value)
		open = ','
	}
	return append(b, `,"data":`...)
}

// kindAndStatus splits a type at its first dot. Videos are "generated" where everything else succeeds.
func kindAndStatus(typ string) (kind, status string) {
	kind, status, _ = strings.Cut(typ, ".")
	if typ == "video.generated" {
		status = "succeeded"
	}
	return kind, status
}

// appendOutput unifies the guide's output_file_uri and the cookbook's video_uri.
func appendOutput(b []byte, data map[string]any) []byte {
	uri, _ := data["output_file_uri"].(string)
	if uri == "" {
		uri, _ = data["video_uri"].(string)
	}
	name, _ := data["file_name"].(string)
	if uri == "" && name == "" {
		return append(b, `,"output":null`...)
	}
	b = quoteOrNull(b, `,"output":{"uri":`, uri)
	b = quoteOrNull(b, `,"file_name":`, name)
	return append(b, '}')
}

func appendError(b []byte, data map[string]any, failed bool) []byte {
	code, msg := text(data["error_code"]), text(data["error_message"])
	if !failed && code == "" && msg == "" {
		return append(b, `,"error":null`...)
	}
	b = quoteMember(b, `,"error":{"code":`, code)
	b = quoteMember(b, `,"message":`, msg)
	return append(b, '}')
}

// text is a string as it is, a number in its own digits, and nothing else.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return string(v)
	}
	return ""
}

func quoteMember(b []byte, name, value string) []byte {
	// Quoting fails on invalid UTF-8 only, which a header may hold, and goes on with U+FFFD.
	b, _ = jsontext.AppendQuote(append(b, name...), value)
	return b
}

func quoteOrNull(b []byte, name, value string) []byte {
	if value == "" {
		return append(append(b, name...), "null"...)
	}
	return quoteMember(b, name, value)
}

// job is data.id, or "" when there is none that can be used: the CloudEvents SDKs take blanks for no subject.
func (d *Document) job() string {
	data, _ := d.root["data"].(map[string]any)
	id, _ := data["id"].(string)
	if strings.TrimSpace(id) == "" {
		return ""
	}
	return id
}

// time is the sender's timestamp when every consumer can read it. The schemas admit leap seconds, a lower-case "t"
// and any number of digits; Go's CloudEvents SDK takes neither of the former, Java's at most nine digits.
func (d *Document) time() string {
	t, _ := d.root["timestamp"].(string)
	if _, err := time.Parse(time.RFC3339Nano, t); err != nil {
		return ""
	}
	// Parse also takes an hour of one digit and a comma (https://go.dev/issue/54580).
	const whole = len("2006-01-02T15:04:05")
	if t[len("2006-01-02T15")] != ':' || t[whole] == ',' {
		return ""
	}
	fraction := strings.TrimPrefix(t[whole:], ".")
	if len(fraction)-len(strings.TrimLeft(fraction, "0123456789")) > 9 {
		return ""
	}
	return t
}

// metadata is the bytes of user_metadata. Google does not say where it stands: the top level is looked at first.
func (d *Document) metadata() []byte {
	for _, at := range []span{d.topMetadata, d.dataMetadata} {
		if at.to > at.from && d.original[at.from] == '{' {
			return d.original[at.from:at.to]
		}
	}
	return []byte("null")
}
