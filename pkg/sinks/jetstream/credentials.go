package jetstream

import (
	"errors"
	"fmt"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/gembridge/bridge/pkg/secret"
)

// CheckCreds returns an error unless creds, in the form of a credentials file, hold the JWT of a user and the seed of the
// same one. Whether a server knows the user is not looked at, nor how long the JWT lasts. Neither is in the error.
func CheckCreds(creds secret.Text) error {
	token, pair, err := parseCreds(creds)
	if err != nil {
		return err
	}
	defer pair.Wipe()
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return errors.New("there is no JWT of a user in it, or not all of it")
	}
	public, err := pair.PublicKey()
	if err != nil {
		return err
	}
	if claims.Subject != public {
		return errors.New("the seed is not that of the JWT's user")
	}
	return nil
}

// CheckNKey returns an error unless seed holds the seed of a user. It is not in the error.
func CheckNKey(seed secret.Text) error {
	_, err := nkeyOption(seed)
	return err
}

func parseCreds(creds secret.Text) (token string, _ nkeys.KeyPair, err error) {
	if token, err = nkeys.ParseDecoratedJWT([]byte(creds.Reveal())); err != nil {
		return "", nil, err
	}
	pair, err := nkeys.ParseDecoratedUserNKey([]byte(creds.Reveal()))
	return token, pair, err
}

// renewingCreds shows the JWT of the moment, and signs with the seed that belongs to it.
func renewingCreds(creds func() secret.Text) nats.Option {
	var shown secret.Text // the client asks for the JWT first, and then for the signature, from one goroutine at a time
	broken := func(err error) error { return &settingsError{fmt.Errorf("BRIDGE_NATS_CREDS: %w", err)} }
	return nats.UserJWT(func() (string, error) {
		shown = creds()
		token, pair, err := parseCreds(shown)
		if err != nil {
			return "", broken(err)
		}
		pair.Wipe()
		return token, nil
	}, func(nonce []byte) ([]byte, error) {
		_, pair, err := parseCreds(shown)
		if err != nil {
			return nil, broken(err)
		}
		defer pair.Wipe()
		return pair.Sign(nonce)
	})
}

// nkeyOption is for one seed, since the client wants the public key beforehand: see Sink.dial.
func nkeyOption(seed secret.Text) (nats.Option, error) {
	pair, err := nkeys.ParseDecoratedUserNKey([]byte(seed.Reveal()))
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	return nats.Nkey(public, func(nonce []byte) ([]byte, error) {
		pair, err := nkeys.ParseDecoratedUserNKey([]byte(seed.Reveal()))
		if err != nil {
			return nil, &settingsError{fmt.Errorf("BRIDGE_NATS_NKEY: %w", err)}
		}
		defer pair.Wipe()
		return pair.Sign(nonce)
	}), nil
}
