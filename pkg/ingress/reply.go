package ingress

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/rs/zerolog"

	"github.com/gembridge/bridge/pkg/ingress/verify"
	"github.com/gembridge/bridge/pkg/schema"
)

// errOverload appears when as many verified deliveries are under way as may be.
var errOverload = errors.New("too many deliveries in flight")

// retryAfter is what a sender is asked to wait, in whole seconds: at least five, and each another time, lest all
// come back at once.
func retryAfter() string { return strconv.Itoa(5 + rand.IntN(6)) }

// reply is what the client sees, and how loud the log is about it.
type reply struct {
	code  int
	token string // "published", …, or the error's stable name
	words string // for a person; empty in a success
	level zerolog.Level
}

// replyTo is the one place that maps an outcome to a status, a token and a log level. The client never hears why
// authentication failed. There is no 3xx, which the sender takes for a failure, and no 410, which tells it to
// disable the endpoint (Standard Webhooks 1.0, "Deliverability and reliability").
func replyTo(result schema.Result, err error) reply {
	_, invalid := errors.AsType[*schema.InvalidError](err)
	switch {
	case err == nil:
		level := zerolog.InfoLevel
		if result == schema.DeadLettered {
			level = zerolog.WarnLevel
		}
		return reply{http.StatusAccepted, result.String(), "", level}
	case errors.Is(err, verify.ErrUnauthenticated):
		return reply{http.StatusUnauthorized, "unauthenticated", "the delivery could not be authenticated", zerolog.WarnLevel}
	case errors.Is(err, errNotFound):
		return reply{http.StatusNotFound, "not_found", "no webhook is received at this path", zerolog.InfoLevel}
	case errors.Is(err, errMethod):
		return reply{http.StatusMethodNotAllowed, "method_not_allowed", "webhooks are sent with POST", zerolog.InfoLevel}
	case errors.Is(err, errEncoding):
		return reply{http.StatusUnsupportedMediaType, "unsupported_encoding", "the body must not be encoded", zerolog.InfoLevel}
	case errors.Is(err, errTooLarge):
		return reply{http.StatusRequestEntityTooLarge, "too_large", "the body is larger than this endpoint takes", zerolog.WarnLevel}
	case errors.Is(err, errCut): // there may be thousands
		return unavailable(zerolog.DebugLevel)
	case errors.Is(err, errUnreadable):
		return reply{http.StatusBadRequest, "bad_request", "the body could not be read", zerolog.InfoLevel}
	case invalid:
		return reply{http.StatusUnprocessableEntity, "invalid_event", "the body is not an event that this endpoint takes", zerolog.WarnLevel}
	}
	return unavailable(zerolog.WarnLevel)
}

// unreadEnds is the length of a body from which on net/http ends a connection rather than read it to the end.
const unreadEnds = 256 << 10

// ends tells whether net/http might end the connection of a request that is answered before its body has been read. All
// 401s to such a request end it, lest some of them tell that their body has been read.
func ends(r *http.Request) bool {
	return r.ContentLength < 0 || r.ContentLength >= unreadEnds || r.Header["Expect"] != nil
}

func unavailable(level zerolog.Level) reply {
	return reply{http.StatusServiceUnavailable, "unavailable", "the event could not be made durable now", level}
}

// tokens lists every token that replyTo knows, for metrics that shall be there before the first delivery.
func tokens() []string {
	return []string{
		schema.Published.String(), schema.Duplicate.String(), schema.DeadLettered.String(), schema.Spooled.String(),
		"unauthenticated", "not_found", "method_not_allowed", "unsupported_encoding", "too_large", "bad_request",
		"invalid_event", "unavailable",
	}
}

func (r reply) write(w http.ResponseWriter, id string) {
	header := w.Header()
	header["Content-Type"] = contentTypeJSON
	switch r.code {
	case http.StatusMethodNotAllowed:
		header.Set("Allow", http.MethodPost)
	case http.StatusRequestEntityTooLarge:
		header.Set("Connection", "close") // net/http would wait for the rest of the body before it replies
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", retryAfter())
	}
	w.WriteHeader(r.code)
	b := make([]byte, 0, 320)
	if r.code == http.StatusAccepted {
		b = append(append(b, `{"status":"`...), r.token...)
		b = strconv.AppendQuote(append(b, `","id":`...), id) // an id is visible ASCII: Go's quoting is JSON's
	} else {
		b = append(append(b, `{"error":"`...), r.token...)
		b = strconv.AppendQuote(append(b, `","message":`...), r.words)
	}
	_, _ = w.Write(append(b, '}', '\n')) // the client may have left; the event is where the status says
}

var contentTypeJSON = []string{"application/json"}
