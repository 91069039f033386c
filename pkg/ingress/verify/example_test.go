package verify_test

import (
	"crypto/ed25519"
	"encoding/base64"
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

	// The receiver, all at once.
	if _, err := v.Verify(h, body); err != nil {
		log.Fatal(err)
	}

	// Or the headers first, then, if they are worth it, the body.
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

// The webhooks of one job, signed with Google's keys. A server keeps them fresh:
//
//	keys, err := verify.NewJWKS(verify.JWKSConfig{URL: verify.GoogleJWKS})
//	go keys.Run(ctx)
//
// This example has a key of its own.
func ExampleVerifier_VerifyDynamic() {
	google := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	keys, err := verify.NewJWKS(verify.JWKSConfig{})
	if err != nil {
		log.Fatal(err)
	}
	public := base64.RawURLEncoding.EncodeToString(google.Public().(ed25519.PublicKey))
	if err := keys.Set([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"key-2026","x":"` + public + `"}]}`)); err != nil {
		log.Fatal(err)
	}

	// The last part of the URI that was given to Gemini: https://example.com/webhooks/gemini/<token>.
	const token = "Zk3vQ0s5TnWc8hYbR2mJx7LpUe4aGd9f"
	v, err := verify.New(verify.Config{Tokens: []secret.Text{secret.New(token)}, JWKS: keys})
	if err != nil {
		log.Fatal(err)
	}

	body := []byte(`{"type":"batch.succeeded","version":"v1","data":{"id":"batch_123456"}}`)
	h := http.Header{}
	h.Set(verify.HeaderID, "msg_1")
	h.Set(verify.HeaderTimestamp, fmt.Sprint(time.Now().Unix()))
	signed := "msg_1." + h.Get(verify.HeaderTimestamp) + "." + string(body)
	h.Set(verify.HeaderSignature, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(google, []byte(signed))))

	delivery, err := v.VerifyDynamic(token, h, body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(delivery.ID, delivery.Scheme, delivery.Key)
	fmt.Printf("%s\n", delivery.Event(body))

	// Google signs for everybody: what is sent elsewhere is not for us.
	_, err = v.VerifyDynamic("somebody", h, body)
	fmt.Println(err)
	_, err = v.Verify(h, body)
	fmt.Println(err)

	// Output:
	// msg_1 v1a 2026
	// {"type":"batch.succeeded","version":"v1","data":{"id":"batch_123456"}}
	// unauthenticated: the last part of the path is no token
	// unauthenticated: v1a at the path without a token
}
