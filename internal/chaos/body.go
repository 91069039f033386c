package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"

	"github.com/gembridge/bridge/schemas"
)

// bodies makes what is sent: all known types, an unknown one, and now and then what is no valid event.
type bodies struct {
	examples [][]byte
}

func newBodies() (*bodies, error) {
	b := &bodies{}
	for _, typ := range schemas.Types() {
		example, err := schemas.Example(typ)
		if err != nil {
			return nil, err
		}
		if !dataID.Match(example) {
			return nil, fmt.Errorf("the example of %s has no data.id where it is looked for: %s", typ, example)
		}
		b.examples = append(b.examples, example)
	}
	return b, nil
}

// dataID is the beginning of an example's data, up to its id.
var dataID = regexp.MustCompile(`"data":\{(.*?)"id":"[^"]*"`)

// What a bridge must not touch: number forms, escapes, a member that it does not know, an order of its own.
const awkward = `"chaos":{"z":1.50e+3,"a":-0.0,"big":123456789012345678901234567890,"s":"é\u00e9\/\ud83d\ude00","n":%d},`

// next is the body of event n of a key.
func (b *bodies) next(rng *rand.Rand, key string, n int) (body []byte, dead bool) {
	if rng.IntN(12) == 0 {
		return invalid(rng, key, n), true
	}
	job, _ := json.Marshal(key) // never fails: a string
	if rng.IntN(12) == 0 {
		return fmt.Appendf(nil, `{"type":"chaos.unheard_of","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{`+awkward+`"id":%s}}`, n, job), false
	}
	example := b.examples[rng.IntN(len(b.examples))]
	at := dataID.FindSubmatchIndex(example)
	body = append(body, example[:at[2]]...)
	body = fmt.Appendf(body, awkward, n)
	if rng.IntN(8) == 0 {
		body = fmt.Appendf(body, `"padding":"%x",`, make([]byte, rng.IntN(16<<10)))
	}
	body = append(body, example[at[2]:at[3]]...)
	body = append(append(body, `"id":`...), job...)
	return append(body, example[at[1]:]...), false
}

func invalid(rng *rand.Rand, key string, n int) []byte {
	switch rng.IntN(4) {
	case 0:
		return fmt.Appendf(nil, `{"type":"batch.failed","chaos":%d,"data":{"id":"%s"`, n, key) // ends early
	case 1:
		return fmt.Appendf(nil, "{\"type\":\"batch.failed\",\"chaos\":%d,\"data\":\"\xff\xfe\"}", n) // no UTF-8
	case 2:
		return fmt.Appendf(nil, `{"type":"video.generated","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"n":%d}}`, n) // no id
	default:
		return fmt.Appendf(nil, `{"type":"batch.failed","s":"\ud800","chaos":%d}`, n) // half a character
	}
}
