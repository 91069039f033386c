package main

import (
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// nats checks the settings of the sink, and that those of an external and of the embedded server are not mixed.
func (k *checker) nats() {
	k.streams()
	k.pair("BRIDGE_NATS_TLS_CERT", "BRIDGE_NATS_TLS_KEY")
	if k.NATS.URL == "" {
		k.embedded()
	} else {
		k.external()
	}
}

var (
	// A stream's name is a directory of the server and a token of its API's subjects.
	streamForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)
	prefixForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$`)
)

const maxPrefix = 64 // bytes; a subject has 255 in all

func (k *checker) streams() {
	if !streamForm.MatchString(k.NATS.Stream) {
		k.reportValue("BRIDGE_NATS_STREAM", "is no name for a stream: use letters, digits, _ and -, at most 128 of them")
	}
	if !prefixForm.MatchString(k.NATS.SubjectPrefix) || len(k.NATS.SubjectPrefix) > maxPrefix {
		k.reportValue("BRIDGE_NATS_SUBJECT_PREFIX", "is no beginning for a subject: use letters, digits, _ and -, with single dots between them, at most 64 in all")
	}
	if n := k.NATS.Replicas; n != 1 && n != 3 && n != 5 {
		k.reportValue("BRIDGE_NATS_REPLICAS", "is no number of copies that keeps a majority: set 1, 3 or 5")
	}
}

// embedded checks for the server inside the bridge.
func (k *checker) embedded() {
	for _, variable := range []string{
		"BRIDGE_NATS_CREDS", "BRIDGE_NATS_NKEY", "BRIDGE_NATS_TOKEN", "BRIDGE_NATS_TOKEN_FILE", "BRIDGE_NATS_USER",
		"BRIDGE_NATS_PASSWORD", "BRIDGE_NATS_PASSWORD_FILE", "BRIDGE_NATS_TLS_CA", "BRIDGE_NATS_TLS_CERT", "BRIDGE_NATS_TLS_KEY",
	} {
		if k.given[variable] != "" {
			k.report("this is for an external server: set BRIDGE_NATS_URL too, or remove this", variable)
		}
	}
	if k.NATS.Replicas > 1 {
		k.reportValue("BRIDGE_NATS_REPLICAS", "is too many for the embedded server, which is only one: set 1, or BRIDGE_NATS_URL to a cluster")
	}
	if isAddress(k.NATS.EmbeddedAddr) && !isLoopback(k.NATS.EmbeddedAddr) && k.NATS.EmbeddedToken.IsZero() && k.NATS.EmbeddedTokenFile == "" {
		k.report(k.NATS.EmbeddedAddr+" can be reached from other machines: set BRIDGE_NATS_EMBEDDED_TOKEN or BRIDGE_NATS_EMBEDDED_TOKEN_FILE, or a loopback address", "BRIDGE_NATS_EMBEDDED_ADDR")
	}
}

func isLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// external checks for the server at BRIDGE_NATS_URL.
func (k *checker) external() {
	for _, variable := range []string{"BRIDGE_NATS_EMBEDDED_ADDR", "BRIDGE_NATS_EMBEDDED_TOKEN", "BRIDGE_NATS_EMBEDDED_TOKEN_FILE"} {
		if k.given[variable] != "" {
			k.report("this is for the embedded server: remove it, or BRIDGE_NATS_URL", variable)
		}
	}
	if message := serversMistake(k.NATS.URL); message != "" {
		k.report(message, "BRIDGE_NATS_URL")
	}

	hasPassword := !k.NATS.Password.IsZero() || k.NATS.PasswordFile != ""
	if k.NATS.User != "" && !hasPassword {
		k.report("there is no password for this user: set BRIDGE_NATS_PASSWORD or BRIDGE_NATS_PASSWORD_FILE", "BRIDGE_NATS_USER")
	}
	if k.NATS.User == "" && hasPassword {
		k.report("there is no user for the password: set this", "BRIDGE_NATS_USER")
	}
	var ways []string
	for _, way := range []struct {
		variable string
		used     bool
	}{
		{"BRIDGE_NATS_CREDS", k.NATS.Creds != ""},
		{"BRIDGE_NATS_NKEY", k.NATS.NKey != ""},
		{"BRIDGE_NATS_TOKEN", !k.NATS.Token.IsZero() || k.NATS.TokenFile != ""},
		{"BRIDGE_NATS_USER", k.NATS.User != "" || hasPassword},
	} {
		if way.used {
			ways = append(ways, way.variable)
		}
	}
	if len(ways) > 1 {
		k.report("there is more than one way to log in ("+strings.Join(ways, ", ")+"): keep one", ways[0])
	}
}

// serversMistake tells what is wrong with BRIDGE_NATS_URL, or "". It does not repeat a URL that may hold a secret.
func serversMistake(urls string) string {
	if strings.Contains(urls, "@") {
		return "credentials in the URL would end up in logs: set BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD, or BRIDGE_NATS_TOKEN, instead"
	}
	websockets := strings.Count(urls, "ws://") + strings.Count(urls, "wss://")
	if websockets > 0 && websockets <= strings.Count(urls, ",") {
		return "websockets and other connections cannot be mixed: use one kind"
	}
	for server := range strings.SplitSeq(urls, ",") {
		server = strings.TrimSpace(server)
		full := server
		if !strings.Contains(full, "://") {
			full = "nats://" + full
		}
		u, err := url.Parse(full)
		if err != nil || u.Hostname() == "" || !isServerScheme(u.Scheme) || !isPort(u.Port()) {
			return quote(server) + " is no address of a NATS server: write nats://host:4222 (or tls, ws, wss), more than one with commas between them"
		}
	}
	return ""
}

func isServerScheme(scheme string) bool {
	return scheme == "nats" || scheme == "tls" || scheme == "ws" || scheme == "wss"
}

// isPort tells whether a URL's port is one; it may be missing.
func isPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// pair checks that two variables are set together.
func (k *checker) pair(one, other string) {
	if k.given[one] != "" && k.given[other] == "" {
		k.report("it is of no use without "+other+": set that too", one)
	}
	if k.given[one] == "" && k.given[other] != "" {
		k.report("it is of no use without "+one+": set that too", other)
	}
}
