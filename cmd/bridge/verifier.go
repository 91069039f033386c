package main

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/files"
	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/secret"
	"github.com/gembridge/bridge/pkg/sinks"
)

// The settings whose files are watched.
const (
	secretsFile = "BRIDGE_SIGNING_SECRETS_FILE"
	tokensFile  = "BRIDGE_DYNAMIC_TOKENS_FILE"
	jwksFile    = "BRIDGE_JWKS_FILE"
)

// newVerifier takes secrets and tokens from the environment, or from their files as long as the bridge runs.
func newVerifier(cfg *Config, keys *verify.JWKS, watcher *files.Watcher) (*verify.Verifier, error) {
	settings := verify.Config{
		Secrets: cfg.SigningSecrets, Tokens: cfg.Dynamic.DynamicTokens,
		JWKS: keys, Audience: cfg.Dynamic.JWTAudience, MaxAge: cfg.DedupWindow,
	}
	var verifier *verify.Verifier
	watch := func(setting, path string, list *[]secret.Text, check, set func([]secret.Text) error) error {
		if path == "" {
			return nil
		}
		return watcher.Watch(setting, []string{path}, func(contents [][]byte) error { // whose error begins with the setting
			values := verify.ParseSecrets(contents[0])
			if verifier != nil {
				return set(values)
			}
			*list = values
			return check(values)
		})
	}
	checkSecrets := func(secrets []secret.Text) error {
		_, err := verify.New(verify.Config{Secrets: secrets})
		return err
	}
	setSecrets := func(secrets []secret.Text) error { return verifier.SetSecrets(secrets) }
	if err := watch(secretsFile, cfg.SigningSecretsFile, &settings.Secrets, checkSecrets, setSecrets); err != nil {
		return nil, err
	}
	setTokens := func(tokens []secret.Text) error { return verifier.SetTokens(tokens) }
	if err := watch(tokensFile, cfg.Dynamic.DynamicTokensFile, &settings.Tokens, verify.CheckTokens, setTokens); err != nil {
		return nil, err
	}
	verifier, err := verify.New(settings)
	if err != nil {
		return nil, fmt.Errorf("BRIDGE_SIGNING_SECRETS, BRIDGE_DYNAMIC_TOKENS: %w", err)
	}
	return verifier, nil
}

// newJWKS has Google's keys, from their URL or from a file.
func newJWKS(cfg *Config, watcher *files.Watcher, log zerolog.Logger) (*verify.JWKS, error) {
	settings := verify.JWKSConfig{URL: cfg.Dynamic.JWKSURL, Log: log}
	if cfg.Dynamic.JWKSFile != "" {
		settings.URL = ""
	}
	keys, err := verify.NewJWKS(settings)
	if err != nil {
		return nil, fmt.Errorf("BRIDGE_JWKS_URL: %w", err)
	}
	if path := cfg.Dynamic.JWKSFile; path != "" {
		err = watcher.Watch(jwksFile, []string{path}, func(contents [][]byte) error { return keys.Set(contents[0]) })
	}
	return keys, err
}

// startVerifier makes the verifier, and what it needs in the background.
func (d *daemon) startVerifier(watcher *files.Watcher, metrics prometheus.Registerer) (*verify.Verifier, error) {
	var keys *verify.JWKS
	if d.cfg.Dynamic.on() {
		var err error
		if keys, err = newJWKS(d.cfg, watcher, d.log); err != nil {
			return nil, err
		}
		d.onStop("verification keys", inBackground(keys.Run))
		d.ready.add(part{"verification keys", keysReady(keys, d.cfg)})
	}
	registerJWKS(metrics, keys)
	return newVerifier(d.cfg, keys, watcher)
}

// keysReady says that dynamic deliveries are answered 503 as long as there are no keys. Static ones are not.
func keysReady(keys *verify.JWKS, cfg *Config) func(context.Context) error {
	static := len(cfg.SigningSecrets) > 0 || cfg.SigningSecretsFile != ""
	return func(context.Context) error {
		status := keys.Status()
		switch {
		case status.Keys > 0 && status.Err == nil:
			return nil
		case status.Keys > 0:
			return &sinks.DegradedError{Details: []string{fmt.Sprintf("they are from before and could not be fetched anew, see BRIDGE_JWKS_URL: %v", status.Err)}}
		}
		missing := fmt.Errorf("there are none yet, dynamic deliveries are answered 503, see BRIDGE_JWKS_URL: %w", orWaiting(status.Err))
		if static {
			return &sinks.DegradedError{Details: []string{missing.Error()}}
		}
		return missing
	}
}

func orWaiting(err error) error {
	if err == nil {
		return errStarting
	}
	return err
}

// registerJWKS registers the keys' series. Without dynamic deliveries they stay zero.
func registerJWKS(metrics prometheus.Registerer, keys *verify.JWKS) {
	status := func() verify.JWKSStatus {
		if keys == nil {
			return verify.JWKSStatus{}
		}
		return keys.Status()
	}
	metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "bridge_jwks_age_seconds", Help: "Since the keys of dynamic deliveries were fetched; before the first time, since the start; 0 when they are not fetched.",
		}, func() float64 { return status().Age.Seconds() }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "bridge_jwks_failures_total", Help: "Fetches of the keys of dynamic deliveries that brought none.",
		}, func() float64 { return float64(status().Failures) }),
	)
}
