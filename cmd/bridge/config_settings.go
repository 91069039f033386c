package main

import (
	"cmp"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gembridge/bridge/pkg/secret"
)

const variablePrefix = "BRIDGE_"

// setting is what the tags of one Config field say.
type setting struct {
	name     string // of the variable
	field    string // of the Config field
	fallback string // the default, as one would write it in the environment
	doc      string
	words    []string // all that it takes, when it takes only some words
	file     string   // "", "plain", "secret" or "dir"
	typ      reflect.Type
}

// settings lists the fields of Config in their order.
func settings() []setting { return settingsOf(reflect.TypeFor[Config]()) }

func settingsOf(group reflect.Type) []setting {
	var all []setting
	for field := range group.Fields() {
		name, ok := field.Tag.Lookup("env")
		if !ok {
			all = append(all, settingsOf(field.Type)...)
			continue
		}
		s := setting{
			name: name, field: field.Name, typ: field.Type,
			fallback: field.Tag.Get("envDefault"), doc: field.Tag.Get("doc"), file: field.Tag.Get("file"),
		}
		if words := field.Tag.Get("oneof"); words != "" {
			s.words = strings.Split(words, "|")
		}
		all = append(all, s)
	}
	return all
}

// value is what holds, as text: the given value or the default.
func (s setting) value(given map[string]string) string { return cmp.Or(given[s.name], s.fallback) }

// secret tells whether the value itself must not be shown.
func (s setting) secret() bool {
	return s.typ == reflect.TypeFor[secret.Text]() || s.typ == reflect.TypeFor[[]secret.Text]()
}

// form says what a value looks like, for those that the parser can refuse.
func (s setting) form() string {
	switch s.typ {
	case reflect.TypeFor[size]():
		return "a size: write bytes, or a whole number with KiB, MiB or GiB, such as 384KiB"
	case reflect.TypeFor[time.Duration]():
		return "a duration: write a number with its unit, such as 500ms, 3s, 5m or 25h"
	case reflect.TypeFor[int]():
		return "a whole number"
	}
	return "a value of this variable"
}

// serviceLink matches what Kubernetes puts into the environment of every pod for a Service named bridge, or
// bridge-something, in the pod's namespace (Kubernetes documentation, "Service", "Environment variables").
var serviceLink = regexp.MustCompile(`^BRIDGE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$|^BRIDGE_PORT$`)

// serviceLinkPort matches the one of them whose name another bridge-something could have had by mistake.
var (
	serviceLinkPort  = regexp.MustCompile(`^BRIDGE_[A-Z0-9_]+_PORT$`)
	serviceLinkValue = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

func isServiceLink(name, value string) bool {
	return serviceLink.MatchString(name) || serviceLinkPort.MatchString(name) && serviceLinkValue.MatchString(value)
}

// unknownVariables finds the names that begin like the bridge's and are not: a typo would otherwise pass as "not
// set". Their values are never repeated, since a misspelt name may hold a secret.
func unknownVariables(environ []string) mistakes {
	known := settings()
	var found mistakes
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, variablePrefix) || isServiceLink(name, value) ||
			slices.ContainsFunc(known, func(s setting) bool { return s.name == name }) {
			continue
		}
		// NAME:value instead of NAME=value makes the secret a part of the name.
		if end := strings.IndexFunc(name, notInNames); end >= 0 {
			name = name[:end] + "…"
		}
		if near := nearest(name, known); near != "" {
			found = append(found, mistake{name, "there is no such variable; did you mean " + near + "?"})
		} else {
			found = append(found, mistake{name, "there is no such variable; `bridge config` lists all there are"})
		}
	}
	return found
}

func notInNames(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// nearest is the known name that takes the fewest edits, at most three; of several the first by alphabet.
func nearest(name string, known []setting) string {
	best, fewest := "", 4
	for _, s := range known {
		d := editDistance(name, s.name)
		if d < fewest || d == fewest && fewest < 4 && s.name < best {
			best, fewest = s.name, d
		}
	}
	return best
}

// editDistance is Levenshtein's: the number of bytes to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// mistake is one thing wrong with the environment.
type mistake struct {
	Variable string `json:"variable"`
	Message  string `json:"message"` // what is wrong and what to do; further lines are indented
}

// mistakes is the error of a wrong environment.
type mistakes []mistake

// Error is one mistake per line, each beginning with its variable.
func (m mistakes) Error() string {
	lines := make([]string, len(m))
	for i, one := range m {
		lines[i] = one.Variable + ": " + one.Message
	}
	return strings.Join(lines, "\n")
}

// sorted puts mistakes into the order of Config, unknown variables behind the known ones.
func (m mistakes) sorted() mistakes {
	place := make(map[string]int)
	for i, s := range settings() {
		place[s.name] = i - len(settings())
	}
	slices.SortStableFunc(m, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(place[a.Variable], place[b.Variable]), cmp.Compare(a.Variable, b.Variable))
	})
	return m
}
