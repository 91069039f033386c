package kafka

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrNoEvent appears when a record holds no CloudEvent in either content mode.
var ErrNoEvent = errors.New("record holds no CloudEvent")

// Event returns the record's CloudEvent in the JSON format, whichever content mode it has. The error matches
// ErrNoEvent.
func (r Record) Event() ([]byte, error) {
	contentType := ""
	attributes := make(map[string]string, len(r.Header))
	for name, values := range r.Header {
		name = strings.ToLower(name)
		if name == headerContentType {
			contentType = values[0]
		} else if attribute, found := strings.CutPrefix(name, headerAttribute); found && values[0] != "" {
			attributes[attribute] = values[0]
		}
	}
	if strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents") {
		if !jsontext.Value(r.Data).IsValid() {
			return nil, fmt.Errorf("%w: not JSON", ErrNoEvent)
		}
		return r.Data, nil
	}
	if attributes["specversion"] == "" {
		return nil, fmt.Errorf("%w: no ce_specversion", ErrNoEvent)
	}
	if contentType != "" {
		attributes["datacontenttype"] = contentType
	}
	return appendEvent(attributes, r.Data)
}

// appendEvent writes the JSON form: the attributes in the order of schema.Event, then extensions by name, then data.
func appendEvent(attributes map[string]string, data []byte) ([]byte, error) {
	names := slices.DeleteFunc(attributeOrder(), func(name string) bool { return attributes[name] == "" })
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	b := []byte{'{'}
	for _, name := range names {
		for _, text := range []string{name, attributes[name]} {
			var err error
			if b, err = jsontext.AppendQuote(b, text); err != nil {
				return nil, fmt.Errorf("%w: attribute %q: %w", ErrNoEvent, name, err)
			}
			b = append(b, ':')
		}
		b[len(b)-1] = ','
	}
	if jsontext.Value(data).IsValid() {
		b = append(append(b, `"data":`...), data...)
	} else {
		b = append(append(b, `"data_base64":"`...), base64.StdEncoding.EncodeToString(data)...)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

func attributeOrder() []string {
	return []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "partitionkey"}
}
