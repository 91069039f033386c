package main

import "fmt"

// minJournal has room for some of the largest events.
func (k *checker) minJournal() size { return size(max(64<<20, 8*maxEvent(k.Config))) }

func (k *checker) journal() {
	if k.Journal == "off" {
		for _, variable := range []string{"BRIDGE_JOURNAL_MAX_BYTES", "BRIDGE_JOURNAL_KEEP"} {
			if k.given[variable] != "" {
				k.report("it is of no use without a journal: set BRIDGE_JOURNAL=on, or remove this", variable)
			}
		}
		return
	}
	if least := k.minJournal(); k.JournalMaxBytes < least {
		k.report(fmt.Sprintf("%s is too small: set %v or more", quote(k.text["BRIDGE_JOURNAL_MAX_BYTES"]), least), "BRIDGE_JOURNAL_MAX_BYTES", "BRIDGE_MAX_BODY")
	}
	const keep, window = "BRIDGE_JOURNAL_KEEP", "BRIDGE_DEDUP_WINDOW"
	if k.JournalKeep < 0 || k.given[keep] != "" && k.JournalKeep > k.DedupWindow {
		k.report(fmt.Sprintf("%s is out of bounds: set 0s to %s (%s), after which a broker takes an event that it has for a new one",
			quote(k.text[keep]), window, k.text[window]), keep, window)
	}
}
