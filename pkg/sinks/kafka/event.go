package kafka

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gembridge/bridge/pkg/sinks"
)

// eventOf returns a record's CloudEvent in the JSON format, whichever content mode it has. The error matches
// sinks.ErrNoEvent.
func eventOf(headers map[string][]string, data []byte) ([]byte, error) {
	contentType := ""
	attributes := make(map[string]string, len(headers))
	for name, values := range headers {
		name = strings.ToLower(name)
		if name == headerContentType {
			contentType = values[0]
		} else if attribute, found := strings.CutPrefix(name, headerAttribute); found {
			attributes[attribute] = values[0]
		}
	}
	if strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents") {
		if !jsontext.Value(data).IsValid() {
			return nil, fmt.Errorf("%w: not JSON", sinks.ErrNoEvent)
		}
		return data, nil
	}
	if attributes["specversion"] == "" {
		return nil, fmt.Errorf("%w: no ce_specversion", sinks.ErrNoEvent)
	}
	if contentType != "" {
		attributes["datacontenttype"] = contentType
	}
	return sinks.JoinEvent(attributes, data)
}
