package jetstream

import (
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// inbox takes the answers to everything that is under way. Unlike nats.go's own requests, an exchange outlives a
// single attempt and the connection, so a late answer to a first attempt still counts while a second is under way.
type inbox struct {
	prefix string // of reply subjects, with the dot

	mu        sync.Mutex
	last      uint64
	exchanges map[string]*exchange // by the last token of their reply subject
}

// exchange is a question that may be sent several times, and the answers to it.
type exchange struct {
	subject, reply string
	answers        chan answer
}

// answer is what came back: data, nats.ErrNoResponders, or a permission violation.
type answer struct {
	data []byte
	err  error
}

func newInbox() *inbox {
	return &inbox{prefix: nats.NewInbox() + ".", exchanges: map[string]*exchange{}}
}

func (b *inbox) open(subject string) *exchange {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	token := strconv.FormatUint(b.last, 36)
	x := &exchange{subject: subject, reply: b.prefix + token, answers: make(chan answer, 4)}
	b.exchanges[token] = x
	return x
}

func (b *inbox) shut(x *exchange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.exchanges, x.reply[len(b.prefix):])
}

// take is the handler of the subscription on the prefix.
func (b *inbox) take(m *nats.Msg) {
	b.mu.Lock()
	x := b.exchanges[strings.TrimPrefix(m.Subject, b.prefix)]
	b.mu.Unlock()
	if x == nil {
		return
	}
	a := answer{data: m.Data}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		a.err = nats.ErrNoResponders
	}
	x.put(a)
}

// deny answers everything that was sent to subject. The server reports a violation for a subject, not for a
// message, and it holds for each of them.
func (b *inbox) deny(subject string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range b.exchanges {
		if x.subject == subject {
			x.put(answer{err: err})
		}
	}
}

// put drops an answer when nobody has taken the last ones: any one of them is enough.
func (x *exchange) put(a answer) {
	select {
	case x.answers <- a:
	default:
	}
}
