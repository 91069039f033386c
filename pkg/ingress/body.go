package ingress

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/http"
	"sync"
)

// errUnreadable appears when the body ends early, is malformed, or does not come in time.
var errUnreadable = errors.New("body could not be read")

const (
	firstRead = 2 << 10
	keepUpTo  = 64 << 10 // larger buffers are not kept for the next request
)

// bodies reads bodies within the account of those that are not verified.
type bodies struct {
	account  unverified
	readings sync.Pool
	buffers  [5]sync.Pool // of 4, 8, 16, 32 and 64 KiB
}

// read reads at most limit bytes. The buffer grows as bytes arrive, so that a declared length costs nothing. What it
// returns is to be put back whether there was an error or not; whoever keeps a part of the bytes copies it. They stay
// on the account until account.release.
func (b *bodies) read(w http.ResponseWriter, r *http.Request, limit int) (*reading, error) {
	in, _ := b.readings.Get().(*reading)
	if in == nil {
		in = new(reading)
	}
	in.bytes = in.first[:0]
	if err := b.account.begin(in, w); err != nil {
		return in, err
	}
	for {
		if len(in.bytes) == cap(in.bytes) {
			if err := b.grow(in, limit); err != nil {
				return in, err
			}
		}
		n, err := r.Body.Read(in.bytes[len(in.bytes):cap(in.bytes)])
		in.bytes = in.bytes[:len(in.bytes)+n]
		in.arrived.Store(int64(len(in.bytes)))
		switch {
		case len(in.bytes) > limit:
			return in, errTooLarge
		case err == io.EOF:
			return in, b.account.arrive(in)
		case err != nil && b.account.release(in):
			return in, errCut
		case err != nil:
			return in, fmt.Errorf("%w: %w", errUnreadable, err)
		}
	}
}

// put takes a body back.
func (b *bodies) put(in *reading) {
	b.account.release(in)
	b.keep(in.buffer)
	in.buffer, in.bytes, in.sender, in.cut = nil, nil, nil, false
	in.arrived.Store(0)
	b.readings.Put(in)
}

// grow doubles a body's buffer, up to what one byte too many needs.
func (b *bodies) grow(in *reading, limit int) error {
	size := 2 * cap(in.bytes)
	if size > keepUpTo {
		size = min(size, limit+1)
	}
	if err := b.account.take(in, size-cap(in.bytes)); err != nil {
		return err
	}
	larger := b.lend(size)
	bytes := append((*larger)[:0], in.bytes...)
	b.keep(in.buffer)
	in.buffer, in.bytes = larger, bytes
	return nil
}

func (b *bodies) lend(size int) *[]byte {
	if size <= keepUpTo {
		if buffer, ok := b.buffers[class(size)].Get().(*[]byte); ok {
			return buffer
		}
	}
	buffer := make([]byte, size)
	return &buffer
}

func (b *bodies) keep(buffer *[]byte) {
	if buffer != nil && len(*buffer) <= keepUpTo {
		b.buffers[class(len(*buffer))].Put(buffer)
	}
}

// class is the place of a buffer's size, a power of two, among buffers.
func class(size int) int { return bits.TrailingZeros(uint(size / (2 * firstRead))) }
