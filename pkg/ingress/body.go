package ingress

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// errUnreadable appears when the body ends early, is malformed, or does not come in time.
var errUnreadable = errors.New("body could not be read")

const (
	firstRead = 2 << 10  // most bodies fit
	keepUpTo  = 64 << 10 // larger buffers are not kept for the next request
)

// bodyPool lends the buffers that bodies are read into. Whoever keeps a part of a body copies it.
type bodyPool struct{ pool sync.Pool }

type bodyBuffer struct{ bytes []byte }

func (p *bodyPool) put(b *bodyBuffer) {
	if cap(b.bytes) <= keepUpTo {
		p.pool.Put(b)
	}
}

// read reads at most limit bytes. The buffer grows as bytes arrive, so that a declared length costs nothing. It is to
// be put back whether there was an error or not.
func (p *bodyPool) read(r *http.Request, limit int) (*bodyBuffer, error) {
	b, _ := p.pool.Get().(*bodyBuffer)
	if b == nil {
		b = &bodyBuffer{bytes: make([]byte, 0, firstRead)}
	}
	b.bytes = b.bytes[:0]
	for {
		if len(b.bytes) == cap(b.bytes) {
			b.bytes = append(b.bytes, 0)[:len(b.bytes)]
		}
		n, err := r.Body.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case len(b.bytes) > limit:
			return b, errTooLarge
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, fmt.Errorf("%w: %w", errUnreadable, err)
		}
	}
}
