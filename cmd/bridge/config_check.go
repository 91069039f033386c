package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/gembridge/bridge/pkg/secret"
)

const (
	// geminiRetries is how long Gemini repeats a delivery that got no 2xx
	// (https://ai.google.dev/gemini-api/docs/webhooks).
	geminiRetries = 24 * time.Hour
	minWindow     = 100 * time.Millisecond // JetStream refuses shorter windows and ages
	maxAckTimeout = 30 * time.Second

	minBody = 1 << 10
	maxBody = (64<<20 - 32<<10) / 2 // an event is at most twice its body and 32 KiB, and NATS carries at most 64 MiB
)

// checker collects what is wrong with values that could be parsed.
type checker struct {
	*Config
	given map[string]string
	text  map[string]string // given, and the defaults of all others
	found mistakes
	wrong map[string]bool // variables that have a mistake already: no need to judge them again
}

// check judges each setting, then those that must agree. The mistakes in parsed are not repeated.
func check(c *Config, given map[string]string, parsed mistakes) mistakes {
	k := &checker{Config: c, given: given, text: make(map[string]string), wrong: make(map[string]bool)}
	for _, s := range settings() {
		k.text[s.name] = s.value(given)
	}
	for _, m := range parsed {
		k.wrong[m.Variable] = true
	}
	k.values()
	k.files()
	k.ingress()
	k.publicTLS()
	k.dynamic()
	k.times()
	k.journal()
	if k.uses("nats") {
		k.nats()
	} else {
		k.otherSink("nats", "BRIDGE_NATS_")
	}
	if k.uses("kafka") {
		k.kafka()
	} else {
		k.otherSink("kafka", "BRIDGE_KAFKA_")
	}
	k.listeners()
	return k.found
}

// report adds a mistake unless one of the variables concerned has one. The mistake is told of the first.
func (k *checker) report(message string, variables ...string) {
	if slices.ContainsFunc(variables, func(v string) bool { return k.wrong[v] }) {
		return
	}
	k.found = append(k.found, mistake{variables[0], message})
	k.wrong[variables[0]] = true
}

func (k *checker) reportValue(variable, message string) {
	k.report(quote(k.text[variable])+" "+message, variable)
}

// values checks the settings that take only some words, and that secrets came without the line break of the file
// they stood in.
func (k *checker) values() {
	for _, s := range settings() {
		value, ok := k.given[s.name]
		if ok && s.words != nil && !slices.Contains(s.words, value) {
			k.reportValue(s.name, "is not one of its values: set "+strings.Join(s.words, " or "))
		}
		if s.typ == reflect.TypeFor[secret.Text]() && strings.ContainsFunc(value, unicode.IsControl) {
			k.report("it holds a line break or another control character: remove that", s.name)
		}
	}
}

// files checks that what is named can be read, and that no value is given twice, once itself and once by file.
func (k *checker) files() {
	for _, s := range settings() {
		path, ok := k.given[s.name]
		if s.file == "" || !ok {
			continue
		}
		if value, ok := strings.CutSuffix(s.name, "_FILE"); ok && k.given[value] != "" {
			k.report("both this and "+value+" are set: remove one of them", s.name)
		}
		if err := readable(s, path); err != nil {
			k.report(err.Error(), s.name)
		}
	}
	if info, err := os.Stat(k.DataDir); err == nil && !info.IsDir() {
		k.reportValue("BRIDGE_DATA_DIR", "is no directory: name one; it is made when it is missing")
	}
}

// readable opens the file or directory of a setting. A secret put in the place of a path must not be shown, so a
// path is named in the error only when it exists or nothing secret is expected there.
func readable(s setting, path string) error {
	_, err := os.Stat(path)
	if err != nil && s.file == "secret" {
		return errors.New("there is no such file: set the path of a file, not what stands in it")
	}
	if err != nil {
		return fmt.Errorf("%s cannot be found: name one that exists", quote(path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would block
	if err != nil {
		return fmt.Errorf("%s cannot be read: give the bridge's user the right to", quote(path))
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if s.file == "dir" && (err != nil || !info.IsDir()) {
		return fmt.Errorf("%s is no directory: name one", quote(path))
	}
	if s.file != "dir" && (err != nil || !info.Mode().IsRegular()) {
		return fmt.Errorf("%s is no file: name one", quote(path))
	}
	return nil
}

var pathForm = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

func (k *checker) ingress() {
	if !pathForm.MatchString(k.Path) || slices.ContainsFunc(strings.Split(k.Path, "/"), isDots) {
		k.reportValue("BRIDGE_PATH", "is no path for the endpoint: begin with a slash, end without one, and use only letters, digits and . _ ~ - between single slashes")
	}
	if k.MaxBody < minBody || k.MaxBody > maxBody {
		k.reportValue("BRIDGE_MAX_BODY", fmt.Sprintf("is out of bounds: set %v to %v", size(minBody), size(maxBody)))
	}
	if k.MaxInflight < 1 {
		k.reportValue("BRIDGE_MAX_INFLIGHT", "is too small: set 1 or more")
	}
	if _, err := url.Parse(k.Source); err != nil || strings.ContainsFunc(k.Source, notInURIs) {
		k.reportValue("BRIDGE_SOURCE", "is no URI reference: write something like //generativelanguage.googleapis.com or urn:example:bridge")
	}
}

// isDots finds the path segments that clients resolve before they send.
func isDots(segment string) bool { return segment == "." || segment == ".." }

// notInURIs finds what RFC 3986 lets no URI hold.
func notInURIs(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) }

func (k *checker) times() {
	if k.AckTimeout <= 0 || k.AckTimeout > maxAckTimeout {
		k.reportValue("BRIDGE_ACK_TIMEOUT", fmt.Sprintf("is out of bounds: set more than 0s and at most %v, for Gemini waits only some seconds", maxAckTimeout))
	}
	if k.DrainDelay < 0 {
		k.reportValue("BRIDGE_DRAIN_DELAY", "is negative: set 0s or more")
	}
	if k.ShutdownTimeout <= 0 {
		k.reportValue("BRIDGE_SHUTDOWN_TIMEOUT", "leaves requests no time to finish: set more than 0s")
	}
	if k.DedupWindow < minWindow {
		k.reportValue("BRIDGE_DEDUP_WINDOW", "is too short: set 25h, which is more than the 24 hours for which Gemini repeats deliveries")
	}
	k.outlives("BRIDGE_DEAD_MAX_AGE", k.DeadMaxAge)
	if k.uses("nats") {
		k.outlives("BRIDGE_NATS_MAX_AGE", k.NATS.MaxAge)
	}
	if k.uses("kafka") {
		k.outlives("BRIDGE_KAFKA_MAX_AGE", k.Kafka.KafkaMaxAge)
	}
}

// outlives checks that a stream does not forget an event while its id still counts as known: JetStream refuses
// that (error 10052).
func (k *checker) outlives(variable string, age time.Duration) {
	if age < k.DedupWindow {
		const window = "BRIDGE_DEDUP_WINDOW"
		k.report(fmt.Sprintf("%s is shorter than %s (%s): set at least that", k.text[variable], window, k.text[window]), variable, window)
	}
}

// listeners checks the addresses, and that no two of them are the same.
func (k *checker) listeners() {
	type listener struct{ variable, addr string }
	all := []listener{{"BRIDGE_ADDR", k.Addr}, {"BRIDGE_ADMIN_ADDR", k.AdminAddr}}
	if k.uses("nats") && k.NATS.URL == "" {
		all = append(all, listener{"BRIDGE_NATS_EMBEDDED_ADDR", k.NATS.EmbeddedAddr})
	}
	for i, one := range all {
		if !isAddress(one.addr) {
			k.reportValue(one.variable, "is no address: write host:port, or :port for every interface")
			continue
		}
		for _, other := range all[:i] {
			if collide(one.addr, other.addr) {
				k.report(fmt.Sprintf("%s takes the port of %s (%s): set another port", one.addr, other.variable, other.addr), one.variable, other.variable)
			}
		}
	}
}

var hostForm = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

func isAddress(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false
	}
	bare, _, _ := strings.Cut(host, "%") // fe80::1%eth0
	return host == "" || net.ParseIP(bare) != nil || hostForm.MatchString(host)
}

// collide tells whether two listeners surely want the same port of one interface. Port 0 is any free one.
func collide(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	return portA == portB && portA != "0" && (hostA == hostB || isWildcard(hostA) || isWildcard(hostB))
}

// warnings are settings that are allowed and seldom meant.
func (c *Config) warnings() []string {
	var all []string
	if c.DedupWindow < geminiRetries {
		all = append(all, "BRIDGE_DEDUP_WINDOW is below 24h: Gemini repeats deliveries for that long, and a late one would be published twice")
	}
	all = append(all, c.Dynamic.warnings()...)
	if c.ShutdownTimeout < c.AckTimeout {
		all = append(all, "BRIDGE_SHUTDOWN_TIMEOUT is below BRIDGE_ACK_TIMEOUT: a delivery that waits for the broker may be cut at shutdown")
	}
	return all
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// quote shows a value in a message, in part when it is long.
func quote(value string) string {
	const most = 80
	if len(value) > most {
		return strconv.QuoteToASCII(value[:most]) + "…"
	}
	return strconv.Quote(value)
}
