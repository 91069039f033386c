// Package kafkatest runs real Apache Kafka for tests, on loopback, by the script scripts/kafka-local.
//
// A test that stops, kills or pauses brokers has a cluster of its own, from [Start]. All others share one, from
// [Shared], and keep apart by their topics ([Cluster.Topic]). A package that uses either hands its tests over to [Main]:
//
//	func TestMain(m *testing.M) { kafkatest.Main(m) }
//
// Nothing here skips: without Java, Maven or openssl a test fails and says what to install. Clusters end with the test
// process, however it ends.
package kafkatest

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Options say what a cluster is like. The zero value is one node with a plaintext listener.
type Options struct {
	// Nodes is 1 (also when 0) or 3.
	Nodes int
	// TLS, SASL and MTLS open further listeners; TLS and SASL together also open one that has both.
	TLS, SASL, MTLS bool
	// Set holds broker settings, such as message.max.bytes.
	Set map[string]string
}

// Cluster is a running cluster, as one test sees it. Its methods end the test when they fail, so they belong on the
// test's own goroutine; those that change nothing but brokers may be called while others publish.
type Cluster struct {
	t       testing.TB
	brokers *brokers
	shared  bool
}

// Start starts a cluster for one test and ends it with the test. The session of a crashed node lasts 2 s in it, not
// Kafka's 9 s, unless Set says otherwise.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	quick := map[string]string{"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}
	maps.Copy(quick, o.Set)
	o.Set = quick
	b, err := start(o, freePorts)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, brokers: b}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("what the nodes wrote last:\n" + b.logs())
		}
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	used.count(t, b)
	return c
}

// Bootstrap returns the plaintext addresses of all nodes, that of node n at n-1.
func (c *Cluster) Bootstrap() []string { c.t.Helper(); return c.list("PLAIN") }

// BootstrapTLS returns the addresses of the TLS listeners, which ask for no client certificate.
func (c *Cluster) BootstrapTLS() []string { c.t.Helper(); return c.list("TLS") }

// BootstrapSASL returns the addresses of the SASL listeners without TLS.
func (c *Cluster) BootstrapSASL() []string { c.t.Helper(); return c.list("SASL") }

// BootstrapSASLTLS returns the addresses of the listeners with SASL over TLS.
func (c *Cluster) BootstrapSASLTLS() []string { c.t.Helper(); return c.list("SASLTLS") }

// BootstrapMTLS returns the addresses of the TLS listeners that demand a client certificate.
func (c *Cluster) BootstrapMTLS() []string { c.t.Helper(); return c.list("MTLS") }

// User returns the user of the SASL listeners, good for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
func (c *Cluster) User() string { c.t.Helper(); return c.get("USER") }

// Password returns the password of [Cluster.User].
func (c *Cluster) Password() string { c.t.Helper(); return c.get("PASSWORD") }

// CA returns the path of the PEM file that holds the authority of the brokers' certificates.
func (c *Cluster) CA() string { c.t.Helper(); return c.file("CA", "ca.pem") }

// ClientCert returns the path of the PEM file of a client certificate, by the same authority.
func (c *Cluster) ClientCert() string { c.t.Helper(); return c.file("CERT", "client.pem") }

// ClientKey returns the path of the PEM file of the client certificate's key.
func (c *Cluster) ClientKey() string { c.t.Helper(); return c.file("KEY", "client.key") }

// TLSConfig returns what a client needs for the TLS listeners: the authority and the client certificate.
func (c *Cluster) TLSConfig() *tls.Config {
	c.t.Helper()
	ca, err := os.ReadFile(c.CA())
	if err != nil {
		c.t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(c.ClientCert(), c.ClientKey())
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// Version returns the version of Apache Kafka, such as 4.3.1.
func (c *Cluster) Version() string { c.t.Helper(); return c.get("VERSION") }

// Data returns the directory that holds all that a node has stored. It may be changed while the node does not run.
func (c *Cluster) Data(node int) string {
	return filepath.Join(c.brokers.dir, "node-"+strconv.Itoa(node))
}

// Stop stops nodes (1 to 3) in good order. It returns when they have ended.
func (c *Cluster) Stop(nodes ...int) { c.t.Helper(); c.change("stop", nodes) }

// Kill kills nodes with SIGKILL. It returns when they have ended.
func (c *Cluster) Kill(nodes ...int) { c.t.Helper(); c.change("kill9", nodes) }

// Pause makes nodes hang with SIGSTOP: their connections stay open, and nothing is answered.
func (c *Cluster) Pause(nodes ...int) { c.t.Helper(); c.change("pause", nodes) }

// Resume ends a Pause with SIGCONT.
func (c *Cluster) Resume(nodes ...int) { c.t.Helper(); c.change("resume", nodes) }

// Restart starts nodes again, at the same addresses and with their data; those that run are stopped first. It returns
// when they serve and see each other. They may then still be catching up: see [Cluster.AwaitInSync]. When two of three
// nodes are down, one alone cannot serve: restart both at once.
func (c *Cluster) Restart(nodes ...int) {
	c.t.Helper()
	c.change("stop", nodes)
	c.change("start", nodes)
}

func (c *Cluster) change(command string, nodes []int) {
	c.t.Helper()
	if c.shared {
		c.t.Fatalf("kafkatest: %s of brokers that other tests use: take a cluster from Start", command)
	}
	if len(nodes) == 0 {
		c.t.Fatalf("kafkatest: %s of no node", command)
	}
	var args []string
	for _, n := range nodes {
		args = append(args, strconv.Itoa(n))
	}
	if _, err := c.brokers.script(command, args...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *Cluster) list(listener string) []string {
	c.t.Helper()
	return strings.Split(c.get(listener), ",")
}

func (c *Cluster) get(name string) string {
	c.t.Helper()
	v, ok := c.brokers.env[name]
	if !ok {
		c.t.Fatalf("kafkatest: no %s: the Options did not ask for it", name)
	}
	return v
}

func (c *Cluster) file(name, file string) string {
	c.t.Helper()
	c.get(name)
	return filepath.Join(c.brokers.dir, "tls", file)
}

func (o Options) args() []string {
	args := []string{"--nodes", strconv.Itoa(max(o.Nodes, 1))}
	for flag, on := range map[string]bool{"--tls": o.TLS, "--sasl": o.SASL, "--mtls": o.MTLS} {
		if on {
			args = append(args, flag)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Set)) {
		args = append(args, "--set", key+"="+o.Set[key])
	}
	return args
}
