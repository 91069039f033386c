package kafkatest

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"github.com/segmentio/kafka-go"
)

// SetPassword changes what [Cluster.User] shows for SCRAM-SHA-256 and SCRAM-SHA-512. The former password lets nobody in
// any more; who is in stays. That of PLAIN stands in the brokers' settings and does not change.
func (c *Cluster) SetPassword(password string) {
	c.t.Helper()
	const iterations = 4096 // the fewest that Kafka takes
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails: crypto/rand
	for mechanism, sum := range map[kafka.ScramMechanism]func() hash.Hash{kafka.ScramMechanismSha256: sha256.New, kafka.ScramMechanismSha512: sha512.New} {
		salted, err := pbkdf2.Key(sum, password, salt, iterations, sum().Size())
		if err != nil {
			c.t.Fatal(err)
		}
		c.setSCRAM(kafka.UserScramCredentialsUpsertion{ // one at a time: Kafka takes one of each user in a request
			Name: c.User(), Mechanism: mechanism, Iterations: iterations, Salt: salt, SaltedPassword: salted,
		})
	}
}

func (c *Cluster) setSCRAM(user kafka.UserScramCredentialsUpsertion) {
	c.t.Helper()
	ctx, client, done := c.client()
	defer done()
	c.until(ctx, "set the password of "+user.Name, func(bool) error {
		res, err := client.AlterUserScramCredentials(ctx, &kafka.AlterUserScramCredentialsRequest{Upsertions: []kafka.UserScramCredentialsUpsertion{user}})
		if err != nil {
			return err // the client has no metadata yet
		}
		for _, result := range res.Results {
			if result.Error != nil {
				return result.Error
			}
		}
		return nil
	})
}
