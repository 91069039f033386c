package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// used is what the tests of this process have used. A process has one set of brokers, as it has one TestMain.
var used usage

type usage struct {
	mu       sync.Mutex
	shared   map[string]*brokers
	tests    map[string]bool
	clusters map[*brokers]bool
	version  string
	topics   atomic.Int64
}

// Shared returns a cluster that all tests of the process with like Options use, and starts it for the first of them.
// One of one node has all listeners, whatever Options asks for. It ends in [Main]. Its brokers cannot be stopped,
// killed or paused.
func Shared(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Nodes <= 1 {
		o.TLS, o.SASL, o.MTLS = true, true, true
	}
	b, err := used.share(o)
	if err != nil {
		t.Fatal(err)
	}
	used.count(t, b)
	return &Cluster{t: t, brokers: b, shared: true}
}

func (u *usage) share(o Options) (*brokers, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	key := fmt.Sprint(max(o.Nodes, 1), o.TLS, o.SASL, o.MTLS, o.Set)
	if b := u.shared[key]; b != nil {
		return b, nil
	}
	b, err := start(o, freePorts)
	if err != nil {
		return nil, err
	}
	if u.shared == nil {
		u.shared = map[string]*brokers{}
	}
	u.shared[key] = b
	return b, nil
}

func (u *usage) count(t testing.TB, b *brokers) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tests == nil {
		u.tests, u.clusters = map[string]bool{}, map[*brokers]bool{}
		u.version = b.env["VERSION"]
		t.Logf("Apache Kafka %s", u.version)
	}
	u.tests[t.Name()] = true
	u.clusters[b] = true
}

// Main runs the tests of a package, ends the shared clusters and looks for goroutines that were left, like
// [goleak.VerifyTestMain]. It prints how many tests used Kafka, and adds that line to kafka.out beside go.mod, because
// go test shows nothing of packages that pass.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(run(m.Run), options...)
}

type run func() int

func (r run) Run() int {
	code := r()
	if err := used.end(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

func (u *usage) end() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, b := range u.shared {
		errs = append(errs, b.end())
	}
	u.shared = nil
	if len(u.tests) > 0 {
		errs = append(errs, u.report())
	}
	return errors.Join(errs...)
}

func (u *usage) report() error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	name, err := filepath.Rel(root, dir)
	if err != nil {
		return err
	}
	line := u.summary(filepath.ToSlash(name)) + "\n"
	fmt.Fprint(os.Stdout, line)
	file, err := os.OpenFile(filepath.Join(root, "kafka.out"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(line)
	return errors.Join(err, file.Close())
}

func (u *usage) summary(name string) string {
	return fmt.Sprintf("kafka %s: %d tests on %d clusters in %s", u.version, len(u.tests), len(u.clusters), name)
}
