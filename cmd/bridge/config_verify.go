package main

import (
	"os"
	"strings"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
)

const noSigningSecret = `there is no signing secret, so no delivery could be verified
  Gemini shows the secret (whsec_…) once: when a webhook is created, or when its secret is rotated.
  Set BRIDGE_SIGNING_SECRETS to it, or BRIDGE_SIGNING_SECRETS_FILE to a file with one secret per line.
  Webhooks of single jobs (dynamic ones) need BRIDGE_DYNAMIC_TOKENS instead.
  To see the bridge at work without one, run: bridge demo`

// signingMistakes is the verifier's judgement of the secrets, whether they stand in the variable or in the file.
func (c *Config) signingMistakes() mistakes {
	variable, secrets := "BRIDGE_SIGNING_SECRETS", c.SigningSecrets
	switch {
	case c.SigningSecretsFile != "" && len(secrets) > 0:
		return nil // which check has said
	case c.SigningSecretsFile != "":
		variable = "BRIDGE_SIGNING_SECRETS_FILE"
		content, ok := regularFile(c.SigningSecretsFile)
		if !ok {
			return nil // and that
		}
		secrets = verify.ParseSecrets(content)
	case len(secrets) == 0 && c.Dynamic.on():
		return nil
	case len(secrets) == 0:
		return mistakes{{variable, noSigningSecret}}
	}
	var found mistakes
	if _, err := verify.New(verify.Config{Secrets: secrets}); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			found = append(found, mistake{variable, line + "; set it as Gemini showed it: whsec_ and base64"})
		}
	}
	return found
}

// regularFile is the content of a file that can be read without waiting for anybody.
func regularFile(path string) (content []byte, ok bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, false
	}
	content, err = os.ReadFile(path)
	return content, err == nil
}

// DynamicConfig is the settings of dynamic webhooks, those of single jobs.
type DynamicConfig struct {
	DynamicTokens     []secret.Text `env:"BRIDGE_DYNAMIC_TOKENS" doc:"Tokens of dynamic webhooks, separated by commas: those of single jobs arrive at BRIDGE_PATH/<token>, and nowhere when there is none. 32 to 256 letters, digits and - _ . ~ each."`
	DynamicTokensFile string        `env:"BRIDGE_DYNAMIC_TOKENS_FILE" file:"secret" doc:"File with one token per line, instead of BRIDGE_DYNAMIC_TOKENS; read again when it changes."`
	JWKSURL           string        `env:"BRIDGE_JWKS_URL" envDefault:"https://generativelanguage.googleapis.com/.well-known/jwks.json" doc:"Where Google publishes the keys that dynamic webhooks are signed with; https, or http to a loopback address."`
	JWKSFile          string        `env:"BRIDGE_JWKS_FILE" file:"plain" doc:"File with the keys (a JSON Web Key Set), instead of BRIDGE_JWKS_URL, which is then not asked; read again when it changes."`
	JWTAudience       string        `env:"BRIDGE_JWT_AUDIENCE" doc:"Audience (aud) that dynamic webhooks in the form of a JWT must be for; empty refuses all of these."`
}

// on tells whether dynamic webhooks are received.
func (c DynamicConfig) on() bool { return len(c.DynamicTokens) > 0 || c.DynamicTokensFile != "" }

// verifyingMistakes is the verifier's judgement of secrets and tokens, whether they stand in a variable or in a file, and
// what is wrong in the certificate's files.
func (c *Config) verifyingMistakes() mistakes {
	found := append(c.signingMistakes(), c.Dynamic.mistakes()...)
	return append(found, c.TLS.mistakes()...)
}

func (c DynamicConfig) mistakes() mistakes {
	variable, tokens := "BRIDGE_DYNAMIC_TOKENS", c.DynamicTokens
	switch {
	case !c.on() || c.DynamicTokensFile != "" && len(tokens) > 0:
		return nil // or check has said it
	case c.DynamicTokensFile != "":
		variable = tokensFile
		content, ok := regularFile(c.DynamicTokensFile)
		if !ok {
			return nil // and that
		}
		tokens = verify.ParseSecrets(content)
	}
	var found mistakes
	if err := verify.CheckTokens(tokens); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			found = append(found, mistake{variable, line + "; make one with: openssl rand -hex 32"})
		}
	}
	return found
}

func (k *checker) dynamic() {
	if _, err := verify.NewJWKS(verify.JWKSConfig{URL: k.Dynamic.JWKSURL}); err != nil {
		k.report("it must begin with https://, or with http:// and a loopback address, and hold no credentials", "BRIDGE_JWKS_URL")
	}
	if k.given["BRIDGE_JWKS_URL"] != "" && k.Dynamic.JWKSFile != "" {
		k.report("both this and BRIDGE_JWKS_URL are set: remove one of them", "BRIDGE_JWKS_FILE", "BRIDGE_JWKS_URL")
	}
}

// warnings are settings of dynamic webhooks that do nothing, or less than they seem to.
func (c DynamicConfig) warnings() []string {
	switch {
	case !c.on() && c.JWTAudience != "":
		return []string{"BRIDGE_JWT_AUDIENCE does nothing without BRIDGE_DYNAMIC_TOKENS: dynamic webhooks are refused"}
	case !c.on() && c.JWKSFile != "":
		return []string{"BRIDGE_JWKS_FILE does nothing without BRIDGE_DYNAMIC_TOKENS: dynamic webhooks are refused"}
	case c.on() && c.JWTAudience == "":
		return []string{"BRIDGE_JWT_AUDIENCE is not set: dynamic webhooks in the form of a JWT, as Gemini's guide describes them, are refused"}
	}
	return nil
}
