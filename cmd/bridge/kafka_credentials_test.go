package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gembridge/bridge/internal/kafkatest"
)

// TestKafkaPasswordChanges: the brokers get another password, and the bridge logs in with what its file says by then.
func TestKafkaPasswordChanges(t *testing.T) {
	const next, last = "the-next-credential", "the-last-credential"
	cluster := kafkatest.Start(t, kafkatest.Options{SASL: true})
	path := writeFile(t, cluster.Password()+"\n")
	b := launch(t, withKafka(t, cluster.BootstrapSASL(), cluster.Topic(), "BRIDGE_LOG_LEVEL=trace", kafkaPasswordFile+"="+path,
		"BRIDGE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "BRIDGE_KAFKA_SASL_USER="+cluster.User())).up(t)
	b.becomes(t, http.StatusOK)
	body := sample(t, "batch.succeeded")
	b.must(t, "published", "msg_1", body)

	replace(t, path, next+"\r\n", true)
	b.log.line(t, "file reloaded", kafkaPasswordFile)
	b.must(t, "published", "msg_2", body) // by connections from before
	cluster.SetPassword(next)
	cluster.Kill(1)
	cluster.Restart(1)
	b.becomes(t, http.StatusOK)
	b.must(t, "published", "msg_3", body)

	cluster.SetPassword(last)
	cluster.Kill(1)
	cluster.Restart(1)
	b.becomes(t, http.StatusServiceUnavailable, "BRIDGE_KAFKA_SASL_PASSWORD")
	if got := b.post(t, "msg_4", body); got.code != http.StatusServiceUnavailable {
		t.Errorf("with the old password: %v", got)
	}
	replace(t, path, last+"\n"+next+"\n", false) // which is it?
	b.log.line(t, `"level":"error"`, kafkaPasswordFile, "must hold one line")
	replace(t, path, last+"\n", false)
	b.becomes(t, http.StatusOK)
	b.must(t, "published", "msg_4", body)
	for _, password := range told(b.log.String(), cluster.Password(), next, last) {
		t.Errorf("the log tells %s", password)
	}
	if log := b.log.String(); strings.Count(log, "unusable") != 1 {
		t.Errorf("the file is told %d times to be of no use", strings.Count(log, "unusable"))
	}
}
