package verify_test

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

func Example() {
	key := secret.New("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	v, err := verify.New(verify.Config{Secrets: []secret.Text{key}})
	if err != nil {
		log.Fatal(err)
	}

	// The sender.
	body := []byte(`{"type":"batch.succeeded","version":"v1","data":{"id":"batch_123456"}}`)
	h := http.Header{}
	if err := verify.SetHeaders(h, key, "msg_1", time.Now(), body); err != nil {
		log.Fatal(err)
	}

	// The receiver: the headers first, then, if they are worth it, the body.
	attempt, err := v.Head(h)
	if err != nil {
		log.Fatal(err)
	}
	delivery, err := v.Body(attempt, body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(delivery.ID, delivery.Scheme, delivery.Key)

	// Anything else is a Failure with a reason for the log. The sender learns only that it is one.
	_, err = v.Body(attempt, []byte(`{"type":"batch.failed"}`))
	if failure, ok := errors.AsType[*verify.Failure](err); ok {
		fmt.Println(errors.Is(err, verify.ErrUnauthenticated), failure.Reason)
		fmt.Println(failure.Detail())
	}

	// Output:
	// msg_1 v1 LaSw
	// true signature_mismatch
	// none of 1 v1 signatures fits any of 1 secrets
}

// Two secrets hold while one replaces the other.
func ExampleVerifier_SetSecrets() {
	v, err := verify.New(verify.Config{Secrets: []secret.Text{verify.GenerateSecret()}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.SetSecrets(verify.SplitSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")))
	fmt.Println(v.SetSecrets(verify.SplitSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, whsec_c2hvcnQgc2VjcmV0")))
	// Output:
	// <nil>
	// signing secret 2 of 2 (...cmV0): shorter than 24 bytes
}
