package files_test

import (
	"slices"
	"testing"

	"github.com/gembridge/bridge/pkg/files"
)

func TestLines(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		want    []string
	}{
		"empty":                    {"", nil},
		"blank lines only":         {"\n \r\n\t\n", nil},
		"byte order mark only":     {"\ufeff", nil},
		"no newline at the end":    {"one\ntwo", []string{"one", "two"}},
		"newline at the end":       {"one\ntwo\n", []string{"one", "two"}},
		"CRLF":                     {"one\r\ntwo\r\n", []string{"one", "two"}},
		"CR alone":                 {"one\rtwo\r", []string{"one", "two"}},
		"blank lines between":      {"\n\none\n \n\r\ntwo\n\n", []string{"one", "two"}},
		"surrounding blanks":       {"  one\t\n\ttwo  \n", []string{"one", "two"}},
		"blanks inside are kept":   {"one two\n", []string{"one two"}},
		"byte order mark":          {"\ufeffone\r\ntwo", []string{"one", "two"}},
		"mark elsewhere is kept":   {"one\n\ufefftwo", []string{"one", "\ufefftwo"}},
		"no comments":              {"# one\n", []string{"# one"}},
		"invalid UTF-8 is content": {"\xff\xfe\n", []string{"\xff\xfe"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := files.Lines([]byte(tc.content)); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
