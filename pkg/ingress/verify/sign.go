package verify

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/gembridge/bridge/pkg/secret"
)

// Sign returns the v1 entry of a delivery's webhook-signature. t is the moment of the attempt and is signed in
// whole unix seconds. The error is one of those of SetSecrets; id is not checked.
func Sign(s secret.Text, id string, t time.Time, body []byte) (signature string, err error) {
	raw, err := decodeSecret(s)
	if err != nil {
		return "", err
	}
	var sum [sha256.Size]byte
	newKey(raw, "").sum(&sum, id, timestamp(t), body)
	return v1Prefix + base64.StdEncoding.EncodeToString(sum[:]), nil
}

// SetHeaders sets the three headers of a delivery, signed as Sign does. On error h is unchanged.
func SetHeaders(h http.Header, s secret.Text, id string, t time.Time, body []byte) error {
	signature, err := Sign(s, id, t, body)
	if err != nil {
		return err
	}
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, timestamp(t))
	h.Set(HeaderSignature, signature)
	return nil
}

func timestamp(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
