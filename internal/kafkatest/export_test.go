package kafkatest

import (
	"net"
	"testing"
)

// As returns the cluster as another test sees it.
func (c *Cluster) As(t testing.TB) *Cluster {
	other := *c
	other.t = t
	return &other
}

// StartAt is Start on ports from free.
func StartAt(t testing.TB, free func() (net.Listener, error)) *Cluster {
	b, err := start(Options{}, free)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.end(); err != nil {
			t.Error(err)
		}
	})
	return &Cluster{t: t, brokers: b}
}

// FreePorts is what Start takes its ports from.
var FreePorts = freePorts

// Summary is the line that Main prints after tests of these names.
func Summary(t testing.TB, name string, tests ...testing.TB) string {
	var u usage
	for _, test := range tests {
		u.count(test, &brokers{env: map[string]string{"VERSION": "1.2.3"}})
	}
	return u.summary(name)
}
