package ingress

import "github.com/rs/zerolog"

// The keys of a delivery's log line.
const (
	LogKeyDelivery = "delivery" // the webhook-id; of a JWT, once it is verified, the event's id
	LogKeyType     = "type"     // the sender's event type
	LogKeyJob      = "job"      // data.id
	LogKeyStatus   = "status"   // HTTP status
	LogKeyResult   = "result"   // "published", …, or the error's token
	LogKeyReason   = "reason"   // why a dead letter
	LogKeyScheme   = "scheme"   // how it was verified
	LogKeyKey      = "key"      // the last four characters of the secret, or of the kid
	LogKeyBytes    = "bytes"    // size of the body
	LogKeyMillis   = "ms"       // from the request's head to the reply
)

// log writes the delivery's one line, unless nobody is known to have sent it and there are too many of those.
func (h *Handler) log(p *passage, rep reply, err error) {
	if rep.level < h.cfg.Log.GetLevel() {
		return
	}
	if reason, refused := refusal(p, rep, err); refused && !h.refusals.admit(reason) {
		return
	}
	line := h.cfg.Log.WithLevel(rep.level)
	line.Int(LogKeyStatus, rep.code).Str(LogKeyResult, rep.token)
	str(line, LogKeyDelivery, p.id)
	str(line, LogKeyType, p.typ)
	str(line, LogKeyJob, p.job)
	str(line, LogKeyReason, string(p.reason))
	str(line, LogKeyScheme, p.proof.Scheme)
	str(line, LogKeyKey, p.proof.Key)
	line.Int(LogKeyBytes, p.bodySize)
	line.Float64(LogKeyMillis, float64(h.cfg.Now().Sub(p.started).Microseconds())/1000)
	if err != nil {
		line.Err(err)
	}
	line.Msg("delivery")
}

func str(line *zerolog.Event, key, value string) {
	if value != "" {
		line.Str(key, value)
	}
}
