// Package events is what both consumers do with a record, whichever broker it came from.
package events

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Handler prints every event once.
type Handler struct {
	schema *jsonschema.Schema
	// Ids of handled events. A real one is a table in your database, written in the transaction of what Handle does.
	seen map[string]bool
}

// NewHandler reads the schema at $SCHEMA; without it that of this repository, as seen from the module's folder.
func NewHandler() (*Handler, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(cmp.Or(os.Getenv("SCHEMA"), "../../schemas/event.schema.json"))
	return &Handler{schema, map[string]bool{}}, err
}

// Handle takes a record in either content mode. attributes come from the headers of binary mode.
func (h *Handler) Handle(contentType string, attributes map[string]string, value []byte) (err error) {
	e := event.New()
	if strings.HasPrefix(contentType, event.ApplicationCloudEventsJSON) {
		err = json.Unmarshal(value, &e)
	} else {
		attributes["datacontenttype"], e.DataEncoded = contentType, value
		for name, text := range attributes {
			err = errors.Join(err, spec.V1.SetAttribute(e.Context, name, text))
		}
	}
	whole, err2 := json.Marshal(e)
	instance, err3 := jsonschema.UnmarshalJSON(bytes.NewReader(whole))
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	if err := h.schema.Validate(instance); err != nil || h.seen[e.ID()] {
		return err
	}
	var data struct{ Job string }
	if err := e.DataAs(&data); err != nil {
		return err
	}
	h.seen[e.ID()] = true
	_, err = fmt.Println(e.Type(), e.ID(), cmp.Or(data.Job, "-"))
	return err
}
