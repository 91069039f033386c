package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/gembridge/bridge/pkg/secret"
)

const configUsage = `Usage: bridge config [--json]

Prints every setting with its value and where that comes from, then what is worth a thought and every mistake.
Secrets are shown as [redacted].

The bridge has no configuration file: each setting is an environment variable, and an empty one counts as not
set. Run this where the bridge will run, with the same environment, before you start it.

  --json    print one JSON object: settings, ignored, warnings, mistakes

Exit code: 0 when there is no mistake, else 2.
`

// configReport is what the command prints, as JSON with --json.
type configReport struct {
	Settings []effective `json:"settings"`
	Ignored  []string    `json:"ignored"` // variables that Kubernetes sets
	Warnings []string    `json:"warnings"`
	Mistakes mistakes    `json:"mistakes"`
}

// effective is a setting as it holds.
type effective struct {
	Variable string `json:"variable"`
	Value    string `json:"value"`  // no secrets
	Source   string `json:"source"` // default, environment, or file and its path
}

// configCommand is "bridge config".
func configCommand(args, environ []string, stdout, stderr io.Writer) int {
	f := newFlags("config", configUsage)
	asJSON := f.Bool("json", false, "")
	if code, done := f.parse(args, shell{out: stdout, err: stderr}); done {
		return code
	}
	report := newConfigReport(environ)
	var err error
	if *asJSON {
		err = report.writeJSON(stdout)
	} else {
		err = report.writeText(stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bridge config:", err)
		return exitFailure
	}
	if len(report.Mistakes) > 0 {
		return exitUsage
	}
	return exitOK
}

func newConfigReport(environ []string) configReport {
	c, found := readConfig(environ)
	given := givenVariables(environ)
	report := configReport{
		Settings: []effective{}, Ignored: []string{}, Warnings: []string{},
		Mistakes: append(mistakes{}, append(found, c.verifyingMistakes()...).sorted()...),
	}
	for _, s := range settings() {
		report.Settings = append(report.Settings, s.effective(given))
	}
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); isServiceLink(name, value) {
			report.Ignored = append(report.Ignored, name)
		}
	}
	if len(found) == 0 {
		report.Warnings = append(report.Warnings, c.warnings()...)
	}
	return report
}

// effective is the setting as given holds it, fit to be shown.
func (s setting) effective(given map[string]string) effective {
	e := effective{Variable: s.name, Value: s.redact(s.value(given)), Source: "default"}
	if given[s.name] != "" {
		e.Source = "environment"
	} else if path := given[s.name+"_FILE"]; s.secret() && path != "" {
		e.Value = secret.Redacted
		e.Source = "file " + setting{file: "secret"}.redact(path)
	}
	return e
}

// redact hides what must not be seen of a value.
func (s setting) redact(value string) string {
	switch {
	case value == "":
		return ""
	case s.secret():
		return secret.Redacted
	case s.file == "secret":
		// A secret put in the place of its file's path.
		if _, err := os.Stat(value); err != nil {
			return secret.Redacted
		}
	case s.name == "BRIDGE_NATS_URL":
		if at := strings.LastIndex(value, "@"); at >= 0 {
			return secret.Redacted + value[at:]
		}
	}
	return value
}

func (r configReport) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r configReport) writeText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VARIABLE\tVALUE\tSOURCE")
	for _, s := range r.Settings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Variable, cell(s.Value), cell(s.Source))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(r.Ignored) > 0 {
		fmt.Fprintf(w, "\nIgnored, because Kubernetes sets them for a Service of this name: %s\n", strings.Join(r.Ignored, ", "))
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "\nWarning: %s\n", warning)
	}
	if len(r.Mistakes) > 0 {
		fmt.Fprintf(w, "\nMistakes:\n%v\n", r.Mistakes)
	}
	return nil
}

// cell is a value on one line of the table.
func cell(value string) string {
	if value == "" {
		return "-"
	}
	if quoted := strconv.Quote(value); quoted != `"`+value+`"` {
		return quoted
	}
	return value
}
