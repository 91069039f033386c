package schema

import "time"

// Event is one CloudEvents 1.0 event, complete and ready to be published. Its bytes are never changed once
// it is built, so a sink may hold on to them after the caller of Publish has left.
type Event struct {
	ID           string // the delivery's webhook-id
	Source       string // BRIDGE_SOURCE
	Type         string // "com.google.gemini.batch.succeeded", or TypeDeadLetter
	Subject      string // the job, as in data.id; empty when there is none
	Time         string // RFC 3339, as sent; empty when the sender gave none
	DataSchema   string // URI of the schema that Data follows
	PartitionKey string // what events of one job share; never empty

	// Name is the sender's own type, "batch.succeeded"; sinks make subjects of it. Empty in a dead letter
	// whose body had no readable type.
	Name string
	// Dead marks a dead letter. Dead letters go elsewhere than events, and their ids are a space of their own.
	Dead bool
	// WebhookID and TraceParent travel in the broker's headers in both content modes. TraceParent is empty,
	// or a valid W3C trace context header.
	WebhookID   string
	TraceParent string
	// Scheme is how the delivery was verified, "v1"; Received is when. A dead letter tells both.
	Scheme   string
	Received time.Time

	// Structured is the whole event as JSON (CloudEvents JSON format, structured mode); Data is its "data"
	// member, a part of the same bytes.
	Structured []byte
	Data       []byte
	// Original is the sender's envelope within Data; nil in a dead letter.
	Original []byte
}

// Key tells two events apart that must not be published twice: events by id, dead letters by id.
type Key struct {
	Dead bool
	ID   string
}

// Key returns the event's key.
func (e *Event) Key() Key { return Key{e.Dead, e.ID} }

// Attribute is a CloudEvents context attribute in its string form.
type Attribute struct{ Name, Value string }

// ContentType is the datacontenttype of every event.
const ContentType = "application/json"

// Attributes returns the context attributes that the event has, in the order of the JSON form. Sinks make
// the headers of binary content mode of them.
func (e *Event) Attributes() []Attribute {
	all := [...]Attribute{
		{"specversion", "1.0"},
		{"id", e.ID},
		{"source", e.Source},
		{"type", e.Type},
		{"subject", e.Subject},
		{"time", e.Time},
		{"datacontenttype", ContentType},
		{"dataschema", e.DataSchema},
		{"partitionkey", e.PartitionKey},
	}
	present := make([]Attribute, 0, len(all))
	for _, a := range all {
		if a.Value != "" {
			present = append(present, a)
		}
	}
	return present
}

// Result is what became of a delivery that was made durable. Its String is the "status" of the reply.
type Result int

const (
	// Published: the broker has acknowledged the event.
	Published Result = iota + 1
	// Duplicate: this id had been accepted within the dedup window; nothing was stored.
	Duplicate
	// DeadLettered: the broker has acknowledged the event's dead letter.
	DeadLettered
	// Spooled: the bridge's journal has the event on disk; the broker gets it later, under the same id.
	Spooled
)

func (r Result) String() string {
	switch r {
	case Published:
		return "published"
	case Duplicate:
		return "duplicate"
	case DeadLettered:
		return "dead-lettered"
	case Spooled:
		return "spooled"
	}
	return "none"
}
