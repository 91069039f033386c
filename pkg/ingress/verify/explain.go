package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"golang.org/x/time/rate"
)

const (
	// explanations is how many of a kind there are in a second, lest a flood of refusals costs more than it must.
	explanations = 5
	// What is larger is not explained: it would cost as much as several deliveries.
	maxExplained        = 64 << 10
	maxExplainedEntries = 4
)

// explanation is a kind of them. Each has a limiter, so that a flood of one kind does not silence another.
type explanation struct{ stale, dynamic bool }

func newExplanations() map[explanation]*rate.Limiter {
	all := map[explanation]*rate.Limiter{}
	for _, kind := range []explanation{{}, {dynamic: true}, {stale: true}, {stale: true, dynamic: true}} {
		all[kind] = rate.NewLimiter(explanations, explanations)
	}
	return all
}

// WantsBody tells whether Explain could tell more of a refusal by Head, which is when only the timestamp is wrong. It
// says so at most five times a second, and five times of dynamic deliveries.
func (v *Verifier) WantsBody(err error) bool {
	failure, ok := errors.AsType[*Failure](err)
	return ok && failure.stale.by == v && v.affordable(failure.stale, true)
}

// Explain returns err, or, when WantsBody of it is true, a *Failure of the same Reason that tells whether the signature
// was right: then a clock is wrong, or somebody repeats an old delivery; else a stranger has made it up.
func (v *Verifier) Explain(err error, body []byte) error {
	failure, ok := errors.AsType[*Failure](err)
	if !ok || failure.stale.by != v || len(body) > maxExplained {
		return err
	}
	if failure.stale.scheme == SchemeV1A && v.jwks.current() == nil {
		return err
	}
	if who := v.whose(failure.stale, body); who != "" {
		return fail(failure.Reason, who+" was right, "+strings.Replace(failure.detail, "timestamp is", "timestamp", 1))
	}
	return fail(failure.Reason, failure.detail+", and the signature fits no key")
}

// explainMismatch looks for the usual cause of a signature that does not fit: a proxy that writes JSON anew.
func (v *Verifier) explainMismatch(err error, a Attempt, body []byte) error {
	failure, ok := errors.AsType[*Failure](err)
	if !ok || failure.Reason != SignatureMismatch || a.scheme == SchemeJWT || len(body) > maxExplained || !v.affordable(a, false) {
		return err
	}
	trimmed := bytes.TrimSpace(body)
	if len(trimmed) < len(body) && v.whose(a, trimmed) != "" {
		return fail(BodyAltered, "signature matches after trimming whitespace: a proxy re-serialised the body")
	}
	var compact bytes.Buffer
	if json.Compact(&compact, body) == nil && compact.Len() < len(body) && v.whose(a, compact.Bytes()) != "" {
		return fail(BodyAltered, "signature matches without the whitespace inside the JSON: a proxy re-serialised the body")
	}
	return err
}

func (v *Verifier) affordable(a Attempt, stale bool) bool {
	kind := explanation{stale: stale, dynamic: a.scheme == SchemeV1A}
	return strings.Count(a.signature, " ") < maxExplainedEntries && v.explain[kind].AllowN(v.now(), 1)
}

// whose names the key that fits. For v1a there must be a set.
func (v *Verifier) whose(a Attempt, body []byte) string {
	if a.scheme == SchemeV1A {
		if matched, _ := matchDynamic(v.jwks.current(), a, body); matched != nil {
			return "key …" + matched.tail
		}
		return ""
	}
	if matched, _, _ := v.matchStatic(a, body); matched != nil {
		return "secret …" + matched.tail
	}
	return ""
}

// explained is Explain when WantsBody says so.
func (v *Verifier) explained(err error, body []byte) error {
	if v.WantsBody(err) {
		return v.Explain(err, body)
	}
	return err
}
