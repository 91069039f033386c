package ingress

import (
	"errors"
	"net/http"
	"strings"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// What the head of a request can have wrong, in the order of the checks.
var (
	errNotFound = errors.New("not the webhook path")
	errMethod   = errors.New("not a POST")
	errEncoding = errors.New("content encoding other than identity")
	errTooLarge = errors.New("body over the limit")
)

// head does what does not need the body, in the order of its cost.
func (h *Handler) head(r *http.Request) (verify.Attempt, error) {
	place, err := h.checkPath(r)
	if err == nil {
		err = h.checkRequest(r)
	}
	if err != nil {
		return verify.Attempt{}, err
	}
	return place.Head(r.Header)
}

// place is a path at which deliveries count: a *verify.Verifier or a verify.Path.
type place interface {
	Head(http.Header) (verify.Attempt, error)
}

// checkPath tells the path of dynamic deliveries, which ends in a token, from that of static ones. It is compared as it
// was sent: an encoded or doubled slash is another path.
func (h *Handler) checkPath(r *http.Request) (place, error) {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), h.cfg.Path)
	switch {
	case ok && path == "":
		return h.cfg.Verifier, nil
	case ok && len(path) > 1 && path[0] == '/' && strings.IndexByte(path[1:], '/') < 0:
		return h.cfg.Verifier.Token(path[1:])
	}
	return nil, errNotFound
}

// checkRequest does what needs neither the webhook headers nor the body.
func (h *Handler) checkRequest(r *http.Request) error {
	if r.Method != http.MethodPost {
		return errMethod
	}
	for _, encoding := range r.Header["Content-Encoding"] {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return errEncoding
		}
	}
	if r.ContentLength > int64(h.cfg.MaxBody) {
		return errTooLarge
	}
	return nil
}

// traceParent returns the request's W3C trace context if it has one that is valid by its version 00, and only one:
// https://www.w3.org/TR/trace-context/#traceparent-header.
func traceParent(header http.Header) string {
	values := header["Traceparent"]
	if len(values) != 1 || len(values[0]) != 55 {
		return ""
	}
	v := values[0]
	for i := range len(v) {
		switch c := v[i]; {
		case i == 2 || i == 35 || i == 52:
			if c != '-' {
				return ""
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return ""
		}
	}
	if v[:2] != "00" || strings.Trim(v[3:35], "0") == "" || strings.Trim(v[36:52], "0") == "" {
		return ""
	}
	return v
}
