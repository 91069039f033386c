package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/gembridge/bridge/pkg/schema"
)

// writeLetter writes a dead letter for a person.
func writeLetter(w io.Writer, place string, l *schema.Letter, replayed []schema.Mark) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"id", l.ID},
		{"place", place},
		{"received", l.Received.Format("2006-01-02T15:04:05.999999999Z07:00")},
		{"reason", string(l.Reason)},
		{"type", l.Type},
		{"scheme", l.Scheme},
		{"source", l.Source},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], cell(line[1]))
	}
	for _, m := range replayed {
		fmt.Fprintf(table, "replayed\t%s as %s, %s\n", clock(m.Replayed), cell(m.Event), cell(m.Result))
	}
	for _, e := range l.Errors {
		fmt.Fprintf(table, "error\t%s\n", cell(why([]deadError{deadError(e)})))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		fmt.Fprintf(table, "header\t%s: %s\n", cell(name), cell(l.Headers[name]))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return writeBody(w, l.Body)
}

// writeBody writes a body so that nothing in it can command the terminal.
func writeBody(w io.Writer, body []byte) error {
	var indented bytes.Buffer
	text := ""
	switch {
	case len(body) == 0:
		text = "(empty)"
	case json.Indent(&indented, body, "", "  ") == nil && utf8.Valid(body):
		text = printable(indented.String())
	case utf8.Valid(body):
		text = printable(string(body))
	default:
		text = hex.Dump(body)
	}
	_, err := fmt.Fprintf(w, "\nbody, %d bytes\n%s\n", len(body), strings.TrimSuffix(text, "\n"))
	return err
}

// printable writes what is neither printed nor a line's end or a tab as an escape.
func printable(s string) string {
	if !strings.ContainsFunc(s, isHidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !isHidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func isHidden(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }
