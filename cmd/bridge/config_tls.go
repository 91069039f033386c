package main

import "time"

// PublicTLSConfig is the settings of TLS on the listener of webhooks.
type PublicTLSConfig struct {
	PublicCert     string `env:"BRIDGE_TLS_CERT" file:"plain" doc:"PEM file of the certificate, followed by its chain, that the webhook listener shows to senders; with it the listener speaks HTTPS (TLS 1.2 or later) alone; read again when it changes."`
	PublicKey      string `env:"BRIDGE_TLS_KEY" file:"secret" doc:"PEM file of the key of BRIDGE_TLS_CERT; read again when it changes, and used together with the certificate that fits."`
	PublicClientCA string `env:"BRIDGE_TLS_CLIENT_CA" file:"plain" doc:"PEM file of authorities: senders must show a certificate that one of them has signed, such as a proxy's (Gemini itself shows none); read again when it changes."`
}

// on tells whether the listener of webhooks speaks TLS.
func (c PublicTLSConfig) on() bool { return c.PublicCert != "" && c.PublicKey != "" }

func (k *checker) publicTLS() {
	k.pair(tlsCert, tlsKey)
	if k.TLS.PublicClientCA != "" && !k.TLS.on() {
		k.report("it is of no use without TLS: set "+tlsCert+" and "+tlsKey+" too, or remove this", tlsClientCA)
	}
}

// mistakes is what is wrong in the files, if they can be read; if not, check has said so.
func (c PublicTLSConfig) mistakes() mistakes {
	var found mistakes
	cert, certRead := regularFile(c.PublicCert)
	key, keyRead := regularFile(c.PublicKey)
	if c.on() && certRead && keyRead {
		if _, err := parsePair(cert, key, time.Now()); err != nil {
			found = append(found, mistake{tlsCert, err.Error()})
		}
	}
	if ca, ok := regularFile(c.PublicClientCA); ok {
		if _, err := parseCA(ca); err != nil {
			found = append(found, mistake{tlsClientCA, err.Error()})
		}
	}
	return found
}
