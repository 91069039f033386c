package kafkatest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/gembridge/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) { kafkatest.Main(m) }

// client is a client of its own for addresses, which leaves nothing behind.
func client(t testing.TB, addrs []string, transport *kafka.Transport) *kafka.Client {
	t.Helper()
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(addrs...), Transport: transport, Timeout: 30 * time.Second}
}

func scrammed(t *testing.T, algorithm scram.Algorithm, user, password string) sasl.Mechanism {
	t.Helper()
	m, err := scram.Mechanism(algorithm, user, password)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// put goes on while the brokers agree on a new leader: a client of this kind dials the dead one until it has heard.
func put(t testing.TB, c *kafkatest.Cluster, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		res, err := client(t, c.Bootstrap(), &kafka.Transport{}).Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(value))}),
		})
		if err == nil {
			err = res.Error
		}
		dial, _ := errors.AsType[*net.OpError](err)
		leaderless := slices.ContainsFunc([]error{
			protocol.ErrNoLeader, kafka.BrokerNotAvailable, kafka.NotLeaderForPartition, kafka.LeaderNotAvailable,
		}, func(known error) bool { return errors.Is(err, known) })
		switch {
		case err == nil:
			return
		case ctx.Err() != nil || (dial == nil || dial.Op != "dial") && !leaderless:
			t.Fatalf("produce %s: %v", value, err)
		}
	}
}

// values reads all of partition 0.
func values(t testing.TB, c *kafkatest.Cluster, topic string) []string {
	t.Helper()
	res, err := client(t, c.Bootstrap(), &kafka.Transport{}).Fetch(t.Context(), &kafka.FetchRequest{
		Topic: topic, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second,
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	var all []string
	for {
		record, err := res.Records.ReadRecord()
		if err != nil {
			return all
		}
		value, err := kafka.ReadAll(record.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(value))
	}
}

func TestListeners(t *testing.T) {
	c := kafkatest.Shared(t, kafkatest.Options{})
	user, password := c.User(), c.Password()
	withCert := c.TLSConfig()
	noCert := withCert.Clone()
	noCert.Certificates = nil
	for _, tt := range []struct {
		name  string
		addrs []string
		tls   *tls.Config
		sasl  sasl.Mechanism
		fails bool
	}{
		{name: "plaintext", addrs: c.Bootstrap()},
		{name: "PLAIN", addrs: c.BootstrapSASL(), sasl: plain.Mechanism{Username: user, Password: password}},
		{name: "SCRAM-SHA-256", addrs: c.BootstrapSASL(), sasl: scrammed(t, scram.SHA256, user, password)},
		{name: "SCRAM-SHA-512", addrs: c.BootstrapSASL(), sasl: scrammed(t, scram.SHA512, user, password)},
		{name: "TLS", addrs: c.BootstrapTLS(), tls: noCert},
		{name: "SASL over TLS", addrs: c.BootstrapSASLTLS(), tls: noCert, sasl: scrammed(t, scram.SHA512, user, password)},
		{name: "mTLS", addrs: c.BootstrapMTLS(), tls: withCert},
		{name: "no SASL", addrs: c.BootstrapSASL(), fails: true},
		{name: "wrong password, PLAIN", addrs: c.BootstrapSASL(), sasl: plain.Mechanism{Username: user, Password: "x"}, fails: true},
		{name: "wrong password, SCRAM", addrs: c.BootstrapSASL(), sasl: scrammed(t, scram.SHA256, user, "x"), fails: true},
		{name: "unknown authority", addrs: c.BootstrapTLS(), tls: &tls.Config{}, fails: true},
		{name: "mTLS without certificate", addrs: c.BootstrapMTLS(), tls: noCert, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := client(t, tt.addrs, &kafka.Transport{TLS: tt.tls, SASL: tt.sasl}).Metadata(t.Context(), &kafka.MetadataRequest{})
			switch {
			case tt.fails && err == nil:
				t.Error("no error")
			case !tt.fails && err != nil:
				t.Error(err)
			case !tt.fails && (len(got.Brokers) != 1 || fmt.Sprintf("%s:%d", got.Brokers[0].Host, got.Brokers[0].Port) != tt.addrs[0]):
				t.Errorf("brokers %v, want %s", got.Brokers, tt.addrs)
			}
		})
	}
}

func TestOneNode(t *testing.T) {
	other := kafkatest.Shared(t, kafkatest.Options{})
	c := kafkatest.Start(t, kafkatest.Options{Set: map[string]string{"message.max.bytes": "123456"}})
	if got := setting(t, c, "message.max.bytes"); got != "123456" {
		t.Errorf("message.max.bytes = %s", got)
	}

	for name, do := range map[string]func(*kafkatest.Cluster){
		"TLS":      func(c *kafkatest.Cluster) { c.BootstrapTLS() },
		"password": func(c *kafkatest.Cluster) { c.Password() },
		"CA":       func(c *kafkatest.Cluster) { c.CA() },
		"node 2":   func(c *kafkatest.Cluster) { c.Kill(2) },
		"no node":  func(c *kafkatest.Cluster) { c.Stop() },
	} {
		if fatal(t, func(t testing.TB) { do(c.As(t)) }) == "" {
			t.Errorf("a cluster without it gave %s", name)
		}
	}

	// Two clusters at once are two.
	topic := c.Topic()
	c.CreateTopic(topic, 1, map[string]string{"retention.ms": "-1"})
	other.CreateTopic(topic, 2, nil)
	put(t, other, topic, "other")
	put(t, c, topic, "first")

	c.Kill(1)
	if conn, err := net.Dial("tcp4", c.Bootstrap()[0]); err == nil {
		conn.Close()
		t.Error("a killed node accepts connections")
	}
	c.Restart(1)
	put(t, c, topic, "second")

	c.Stop(1)
	if conn, err := net.Dial("tcp4", c.Bootstrap()[0]); err == nil {
		conn.Close()
		t.Error("a stopped node accepts connections")
	}
	c.Restart(1)
	if got, want := values(t, c, topic), []string{"first", "second"}; !slices.Equal(got, want) {
		t.Errorf("after a kill and a stop the topic holds %q, want %q", got, want)
	}

	c.Pause(1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := client(t, c.Bootstrap(), &kafka.Transport{}).Metadata(ctx, &kafka.MetadataRequest{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused node: %v, want no answer", err)
	}
	c.Resume(1)
	put(t, c, topic, "third")
	if got := values(t, c, topic); len(got) != 3 {
		t.Errorf("after a pause the topic holds %q", got)
	}
}

func setting(t *testing.T, c *kafkatest.Cluster, name string) string {
	t.Helper()
	res, err := client(t, c.Bootstrap(), &kafka.Transport{}).DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeBroker, ResourceName: "1", ConfigNames: []string{name},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range res.Resources[0].ConfigEntries {
		return entry.ConfigValue
	}
	return ""
}

func TestThreeNodes(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{Nodes: 3})
	topic := c.Topic()
	c.CreateTopic(topic, 1, nil)
	put(t, c, topic, "first")

	leader := c.Leader(topic, 0)
	c.Kill(leader)
	second := c.Leader(topic, 0)
	for second == leader { // until the session of the killed one has ended
		second = c.Leader(topic, 0)
	}
	put(t, c, topic, "second")

	// With two nodes down nothing serves, and one alone could not come back.
	c.Stop(second)
	c.Restart(leader, second)
	c.AwaitInSync(topic, 0)
	if got, want := values(t, c, topic), []string{"first", "second"}; !slices.Equal(got, want) {
		t.Errorf("the topic holds %q, want %q", got, want)
	}
}
