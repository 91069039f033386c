package docs_test

import (
	"bytes"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/gembridge/bridge/schemas"
)

// Nodes keep the order of members, which maps do not.

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// mapping takes names and values in turn.
func mapping(content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: append([]*yaml.Node(nil), content...)}
}

func sequence(content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: content}
}

// reference points to a component.
func reference(to string) *yaml.Node { return mapping(text("$ref"), text("#/components/"+to)) }

func add(m *yaml.Node, name string, value *yaml.Node) {
	m.Content = append(m.Content, text(name), value)
}

// get returns a member, which must be there.
func get(m *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return m.Content[i+1]
		}
	}
	panic("no member " + name)
}

// take removes a member, which must be there, and returns it.
func take(m *yaml.Node, name string) *yaml.Node {
	value := get(m, name)
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			m.Content = append(m.Content[:i:i], m.Content[i+2:]...)
			break
		}
	}
	return value
}

// readSchema reads JSON, which is YAML too.
func readSchema(t *testing.T, file string) *yaml.Node {
	t.Helper()
	content, err := schemas.FS.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		t.Fatal(err)
	}
	return document.Content[0]
}

var lineStart = regexp.MustCompile(`(?m)^(.)`)

// render writes the nodes in block style, indented to stand below "components:".
func render(t *testing.T, n *yaml.Node) string {
	t.Helper()
	plain(n)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(n); err != nil {
		t.Fatal(err)
	}
	return lineStart.ReplaceAllString(b.String(), "  $1")
}

// plain drops how JSON wrote it. Empty collections have no block style.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind != yaml.ScalarNode && len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		plain(c)
	}
}
