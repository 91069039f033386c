package jetstream

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// finding is something about a stream that is not as it should be: the rest of a sentence that begins with its
// name, and holds the command that mends it.
type finding struct {
	text       string
	impossible bool // nothing can be published while it is so
}

// inspect finds what is wrong with a stream that somebody may have made otherwise.
func (s *Sink) inspect(st *stream, info *jetstream.StreamInfo) []finding {
	c := info.Config
	edit := "nats stream edit " + st.name
	anew := fmt.Sprintf("this cannot be edited: empty it, remove it (nats stream rm %s) and the bridge creates it anew", st.name)
	if found, done := barred(c, st, edit, anew); done {
		return found
	}
	var found []finding
	add := func(format string, args ...any) { found = append(found, finding{text: fmt.Sprintf(format, args...)}) }

	if !slices.ContainsFunc(c.Subjects, func(subject string) bool { return covers(subject, st.subjects()) }) {
		f := finding{text: fmt.Sprintf("does not take all of %s: %s --subjects='%s'", st.subjects(), edit, subjectsWith(c.Subjects, st.subjects()))}
		f.impossible = !slices.ContainsFunc(c.Subjects, func(subject string) bool { return overlap(subject, st.subjects()) })
		found = append(found, f)
	}
	// Before the window: the server wants the age to be at least as long.
	if c.MaxAge > 0 && c.MaxAge < s.cfg.DedupWindow {
		add("keeps messages for %s, less than BRIDGE_DEDUP_WINDOW: %s --max-age=%s", hours(c.MaxAge), edit, hours(st.maxAge))
	}
	if c.Duplicates < s.cfg.DedupWindow {
		add("remembers ids for %s, less than BRIDGE_DEDUP_WINDOW: %s --dupe-window=%s", hours(c.Duplicates), edit, hours(s.cfg.DedupWindow))
	}
	if c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0) {
		add("silently discards old messages when it is full: %s --discard=new", edit)
	}
	if c.MaxMsgsPerSubject > 0 && !c.DiscardNewPerSubject {
		add("silently discards all but the last %d messages of a subject: %s --max-msgs-per-subject=-1", c.MaxMsgsPerSubject, edit)
	}
	if c.MaxMsgSize > 0 && int(c.MaxMsgSize) < s.cfg.MaxEvent {
		add("takes messages of up to %d bytes, an event may have %d: %s --max-msg-size=-1, or lower BRIDGE_MAX_BODY", c.MaxMsgSize, s.cfg.MaxEvent, edit)
	}
	switch c.Retention {
	case jetstream.LimitsPolicy:
	case jetstream.InterestPolicy:
		add("forgets ids with the messages that were consumed (interest retention): %s --retention=limits", edit)
	default:
		add("forgets ids with the messages that were consumed (work queue retention): %s", anew)
	}
	if c.Storage == jetstream.MemoryStorage {
		add("keeps messages in memory only: %s", anew)
	}
	if c.PersistMode == jetstream.AsyncPersistMode {
		add("acknowledges messages before they are written (persist mode async): %s", anew)
	}
	if c.Replicas <= 1 && s.isClustered(info) {
		add("has one replica in a cluster: %s --replicas=%d", edit, max(3, s.cfg.Replicas))
	} else if c.Replicas < s.cfg.Replicas {
		add("has %d of the %d replicas of BRIDGE_NATS_REPLICAS: %s --replicas=%d, or lower the setting", c.Replicas, s.cfg.Replicas, edit, s.cfg.Replicas)
	}
	return found
}

// barred finds what makes a stream unfit altogether; nothing else matters then.
func barred(c jetstream.StreamConfig, st *stream, edit, anew string) (found []finding, done bool) {
	var text string
	switch {
	case c.Mirror != nil:
		text = fmt.Sprintf("mirrors another and takes no messages: %s --no-mirror --subjects='%s'", edit, st.subjects())
	case c.Sealed:
		text = "is sealed and takes no messages: " + anew
	case c.NoAck:
		text = "does not acknowledge messages: " + edit + " --ack"
	case c.AllowMsgCounter:
		text = "is a counter and takes no events: " + anew
	default:
		return nil, false
	}
	return []finding{{text: text, impossible: true}}, true
}

// isClustered tells whether the stream could have more than one replica. A single server names itself as its
// stream's leader, but no cluster.
func (s *Sink) isClustered(info *jetstream.StreamInfo) bool {
	s.mu.Lock()
	nc := s.nc
	s.mu.Unlock()
	return nc.ConnectedClusterName() != "" || info.Cluster != nil && info.Cluster.Name != ""
}

// subjectsWith is the list that a stream needs to take wanted as well, without what wanted includes: subjects of a
// stream must not overlap.
func subjectsWith(subjects []string, wanted string) string {
	kept := slices.DeleteFunc(slices.Clone(subjects), func(s string) bool { return covers(wanted, s) })
	return strings.Join(append(kept, wanted), ",")
}
