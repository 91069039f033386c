package kafka_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/gembridge/bridge/internal/kafkatest"
	"github.com/gembridge/bridge/pkg/schema"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
	"github.com/gembridge/bridge/pkg/sinks/durable"
	"github.com/gembridge/bridge/pkg/sinks/kafka"
	"github.com/gembridge/bridge/pkg/sinks/sinkstest"
)

// TestPermissions: a user who may do less and less. Nobody without an entry may do anything, but for the brokers.
func TestPermissions(t *testing.T) {
	c := kafkatest.Start(t, kafkatest.Options{SASL: true, Set: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS",
	}})
	a := admin(t, c.Bootstrap())
	const events, dead = "acl", "acl.dead"
	entry := func(topic string, operation kafkago.ACLOperationType) kafkago.ACLEntry {
		return kafkago.ACLEntry{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic, ResourcePatternType: kafkago.PatternTypeLiteral,
			Principal: "User:" + c.User(), Host: "*", Operation: operation, PermissionType: kafkago.ACLPermissionTypeAllow,
		}
	}
	allow := func(topic string, operation kafkago.ACLOperationType) {
		t.Helper()
		res, err := a.CreateACLs(ctxOf(t, 10*time.Second), &kafkago.CreateACLsRequest{ACLs: []kafkago.ACLEntry{entry(topic, operation)}})
		if err != nil || res.Errors[0] != nil {
			t.Fatal(err, res)
		}
	}
	deny := func(topic string, operation kafkago.ACLOperationType) {
		t.Helper()
		e := entry(topic, operation)
		res, err := a.DeleteACLs(ctxOf(t, 10*time.Second), &kafkago.DeleteACLsRequest{Filters: []kafkago.DeleteACLsFilter{{
			ResourceTypeFilter: e.ResourceType, ResourceNameFilter: e.ResourceName, ResourcePatternTypeFilter: e.ResourcePatternType,
			PrincipalFilter: e.Principal, HostFilter: e.Host, Operation: e.Operation, PermissionType: e.PermissionType,
		}}})
		if err != nil || res.Results[0].Error != nil || len(res.Results[0].MatchingACLs) != 1 {
			t.Fatal(err, res)
		}
	}
	grant := func(operation, topic string) string {
		return "--allow-principal User:" + c.User() + " --operation " + operation + " --topic " + topic
	}
	s, log := openSink(t, kafka.Config{
		Brokers: c.BootstrapSASL(), SASLMechanism: "SCRAM-SHA-256", SASLUser: c.User(), SASLPassword: secret.New(c.Password()),
		Topic: events, CreateTopics: true,
	})
	if err := s.Check(ctxOf(t, prompt)); err != nil {
		t.Errorf("Check: %v", err)
	}
	down := func(want string) {
		t.Helper()
		eventually(t, "down for lack of a right", func() error {
			if err := ready(t, s); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("Ready: %w, want %s", err, want)
			}
			return nil
		})
	}

	// Nothing is allowed, so the topic cannot even be seen: this event never.
	down(grant("Describe", events))
	if _, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(1)); !isRefused(err) || !strings.Contains(err.Error(), grant("Describe", events)) {
		t.Errorf("Publish: %v", err)
	}
	for _, topic := range []string{events, dead} {
		allow(topic, kafkago.ACLOperationTypeDescribe)
	}
	down(grant("Create", events))
	for _, topic := range []string{events, dead} {
		allow(topic, kafkago.ACLOperationTypeCreate)
	}
	eventually(t, "created", func() error {
		for _, topic := range []string{events, dead} {
			if !strings.Contains(log.String(), "created topic "+topic+`"`) {
				return errors.New("not yet: " + topic)
			}
		}
		return nil
	})
	down("Topic Authorization Failed") // the ids cannot be read
	for _, topic := range []string{events, dead} {
		allow(topic, kafkago.ACLOperationTypeRead)
	}
	found := details(t, s)
	if len(found) != 2 || !strings.Contains(found[0], grant("DescribeConfigs", events)) {
		t.Errorf("found %q", found)
	}

	// It may write nothing.
	_, err := s.Publish(ctxOf(t, 5*time.Second), sinkstest.Event(1))
	if err == nil || isRefused(err) || !strings.Contains(err.Error(), "allow the user IdempotentWrite on the cluster, or Write on the topic") {
		t.Errorf("Publish: %v", err)
	}
	eventually(t, "told", func() error {
		if found := details(t, s); !strings.Contains(strings.Join(found, "\n"), "no producer id") {
			return fmt.Errorf("found %q", found)
		}
		return nil
	})

	// It may write dead letters only: that is what becomes of an event.
	allow(dead, kafkago.ACLOperationTypeWrite)
	d := durable.New(s, durable.Config{AckTimeout: 5 * time.Second})
	eventually(t, "dead-lettered", func() error {
		result, err := d.Deliver(t.Context(), sinkstest.Event(1))
		if err == nil && result != schema.DeadLettered {
			t.Fatalf("result %s", result)
		}
		return err
	})
	if n, m := count(t, c.Bootstrap(), events), count(t, c.Bootstrap(), dead); n != 0 || m != 1 {
		t.Errorf("%d events, %d dead letters", n, m)
	}
	if n := strings.Count(log.String(), "does not permit writing"); n != 1 {
		t.Errorf("said %d times that it may not write:\n%s", n, log)
	}
	if found := details(t, s); !strings.Contains(strings.Join(found, "\n"), grant("Write", events)) {
		t.Errorf("found %q", found)
	}

	// All is allowed.
	allow(events, kafkago.ACLOperationTypeWrite)
	for _, topic := range []string{events, dead} {
		allow(topic, kafkago.ACLOperationTypeDescribeConfigs)
	}
	eventually(t, "published", func() error { _, err := s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(2)); return err })
	eventually(t, "content", func() error { return ready(t, s) })

	// A right is taken away while all is well.
	deny(events, kafkago.ACLOperationTypeWrite)
	i := 2
	eventually(t, "refused", func() error {
		i++
		if _, err = s.Publish(ctxOf(t, 3*time.Second), sinkstest.Event(i)); err == nil {
			return errors.New("published")
		}
		return nil
	})
	if refused, ok := errors.AsType[*sinks.RefusedError](err); !ok || !strings.Contains(refused.Reason, grant("Write", events)) {
		t.Errorf("Publish: %v", err)
	}
	if strings.Contains(log.String(), c.Password()) {
		t.Error("the log holds the password")
	}
}
