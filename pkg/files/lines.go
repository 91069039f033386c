package files

import "strings"

// Lines returns the lines of a text file that say something: surrounding blanks, blank lines, the CR of CRLF
// and a UTF-8 byte order mark, all of which editors leave behind unasked, are dropped. Nil when nothing is left.
func Lines(content []byte) []string {
	text := strings.TrimPrefix(string(content), "\ufeff")
	var lines []string
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
