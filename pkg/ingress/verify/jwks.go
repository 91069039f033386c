package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// GoogleJWKS is where Google publishes the keys of dynamic deliveries (https://ai.google.dev/gemini-api/docs/webhooks).
const GoogleJWKS = "https://generativelanguage.googleapis.com/.well-known/jwks.json"

const (
	refreshEvery = 15 * time.Minute // a key that Google withdraws counts no longer than this
	retryEvery   = time.Minute      // also the least time between two fetches, once there is a set
	firstRetry   = time.Second      // while there is none, doubled each time up to retryEvery
	refreshWait  = 2 * time.Second  // of a delivery
	maxWaiting   = 16               // deliveries at a time, each with its body in memory
	fetchTimeout = 10 * time.Second // from the connection to the last byte
	maxKeySet    = 256 << 10
)

// LogKeyKeys is the number of keys in a log line.
const LogKeyKeys = "keys"

// ErrJWKSURL: the URL is neither https nor http to this machine, or has credentials in it.
var ErrJWKSURL = errors.New("the URL of a JWKS must be https, or http to a loopback address, without credentials")

// JWKSConfig is what a JWKS needs.
type JWKSConfig struct {
	// URL of the key set, such as GoogleJWKS. Without one nothing is fetched: the keys are those of Set.
	URL string
	// Transport fetches it. The default is net/http's, without idle connections.
	Transport http.RoundTripper
	// Log gets one line per change of state: fetched, changed, failing.
	Log zerolog.Logger
}

// JWKS is Google's public keys as they were last fetched (RFC 7517). It is safe for concurrent use. Make one with NewJWKS.
type JWKS struct {
	url     string
	request *http.Request // to it
	client  *http.Client
	log     zerolog.Logger
	set     atomic.Pointer[keySet]
	wanted  chan struct{} // a delivery has a key that is not in the set
	waiting chan struct{} // one for each delivery that waits

	mu       sync.Mutex
	running  bool
	round    chan struct{} // closed when the fetch under way, or asked for, has ended; nil when there is none
	last     time.Time     // when the last fetch began, but for those until the first success
	good     time.Time     // of the last success; at first when the JWKS was made
	digest   [sha256.Size]byte
	failures uint64
	err      error // of the last fetch
}

// NewJWKS returns a JWKS without keys, which Run fetches. The error is ErrJWKSURL.
func NewJWKS(cfg JWKSConfig) (*JWKS, error) {
	request, err := http.NewRequest(http.MethodGet, cfg.URL, http.NoBody) //nolint:noctx // fetch has one
	if cfg.URL != "" && (err != nil || !trusted(request.URL)) {
		return nil, ErrJWKSURL
	}
	request.Header.Set("Accept", "application/json")
	if cfg.Transport == nil {
		cfg.Transport = newTransport()
	}
	return &JWKS{
		url: cfg.URL, request: request, log: cfg.Log, wanted: make(chan struct{}, 1),
		waiting: make(chan struct{}, maxWaiting), good: time.Now(),
		client: &http.Client{
			Transport: cfg.Transport,
			// A redirect is an answer like any other but 200: a failure.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// newTransport is net/http's, or nearly that when the program has replaced it by something else.
func newTransport() *http.Transport {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: fetchTimeout}).DialContext,
		TLSHandshakeTimeout: fetchTimeout, ForceAttemptHTTP2: true,
	}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = standard.Clone()
	}
	transport.DisableKeepAlives = true
	transport.MaxResponseHeaderBytes = 64 << 10
	return transport
}

func trusted(u *url.URL) bool {
	if u.Hostname() == "" || u.User != nil {
		return false
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip.IsLoopback())
}

// Set takes a key set from elsewhere, a pinned file. The error matches ErrKeySetMalformed, ErrKeySetEmpty or
// ErrKeySetTooLarge; then the old keys stay.
func (j *JWKS) Set(content []byte) error {
	if len(content) > maxKeySet {
		return ErrKeySetTooLarge
	}
	set, err := parseKeySet(content)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.good = time.Now()
	if digest := sha256.Sum256(content); digest != j.digest || j.current() == nil {
		j.digest = digest
		j.set.Store(set)
		j.log.Info().Int(LogKeyKeys, set.size()).Msg("verification keys changed")
	}
	return nil
}

// JWKSStatus is the state of a JWKS.
type JWKSStatus struct {
	Keys     int           // that can be used
	Age      time.Duration // since they were last fetched; without any, since NewJWKS; zero when they are not fetched at all
	Failures uint64        // fetches that brought no set
	Err      error         // of the last fetch; nil if it brought one
}

// Status returns the state, for metrics and health checks.
func (j *JWKS) Status() JWKSStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := JWKSStatus{Failures: j.failures, Err: j.err}
	if set := j.current(); set != nil {
		s.Keys = set.size()
	}
	if j.url != "" {
		s.Age = time.Since(j.good)
	}
	return s
}

func (s *keySet) size() int { return len(s.ed25519) + len(s.rsa) }

func (j *JWKS) current() *keySet { return j.set.Load() }

// Run fetches the keys until ctx ends: at once, again and again with growing pauses, up to a minute, while there are none,
// then every quarter of an hour, after a failure every minute, and when a delivery has an unknown key, at most once a
// minute. A set that cannot be used is a failure, and the one before stays in use. Call it once.
func (j *JWKS) Run(ctx context.Context) {
	if j.url == "" {
		return
	}
	j.run(true)
	defer j.run(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := firstRetry; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-j.wanted:
		}
		j.begin()
		err := j.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		j.end(err)
		switch {
		case err == nil:
			timer.Reset(refreshEvery)
		case j.current() != nil:
			timer.Reset(retryEvery)
		default:
			timer.Reset(pause)
			pause = min(2*pause, retryEvery)
		}
	}
}

func (j *JWKS) run(running bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.running = running
	if !running && j.round != nil {
		close(j.round)
		j.round = nil
	}
}

func (j *JWKS) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.round == nil {
		j.round = make(chan struct{})
	}
	select {
	case <-j.wanted: // this is the one
	default:
	}
	if j.current() != nil {
		j.last = time.Now()
	}
}

func (j *JWKS) end(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.round)
	j.round = nil
	switch {
	case err != nil && j.err == nil:
		j.log.Warn().Err(err).Bool("kept", j.current() != nil).Msg("verification keys could not be fetched")
	case err == nil && j.err != nil:
		j.log.Info().Int(LogKeyKeys, j.current().size()).Msg("verification keys are fetched again")
	}
	if err != nil {
		j.failures++
	}
	j.err = err
}

func (j *JWKS) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	response, err := j.client.Do(j.request.WithContext(ctx))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", j.url, response.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxKeySet+1))
	if err != nil {
		return fmt.Errorf("%s: %w", j.url, err)
	}
	if err := j.Set(content); err != nil {
		return fmt.Errorf("%s: %w", j.url, err)
	}
	return nil
}

// refreshed returns a newer set than old, which may be nil. It waits for the fetch under way, or for one of its own if that
// is due; unless too many do already.
func (j *JWKS) refreshed(old *keySet) *keySet {
	if ended := j.ask(); ended != nil {
		j.wait(ended)
	}
	if set := j.current(); set != old {
		return set
	}
	return nil
}

func (j *JWKS) wait(ended <-chan struct{}) {
	select {
	case j.waiting <- struct{}{}:
		defer func() { <-j.waiting }()
	default:
		return
	}
	timer := time.NewTimer(refreshWait)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// ask returns what is closed at the end of the next fetch, or nil when it is too early for one. While there is no set Run
// alone decides when it is time.
func (j *JWKS) ask() (ended <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.round != nil {
		return j.round
	}
	if !j.running || j.current() == nil || !j.last.IsZero() && time.Since(j.last) < retryEvery {
		return nil
	}
	j.round = make(chan struct{})
	j.wanted <- struct{}{}
	return j.round
}
