package transport

import (
	"net/netip"
	"sync"
)

// batchSize is how many datagrams one system call takes in or sends at most,
// where the system can do so. It bounds how long an answer waits for company.
const batchSize = 16

// datagram is one that is to be sent.
type datagram struct {
	b  []byte
	to netip.AddrPort
}

// udpOutbox keeps the answers that are made while a batch is handled, which
// leave together at its end. Nothing waits in it at any other time.
type udpOutbox struct {
	mu   sync.Mutex
	open bool
	// queue is batchSize at most; spare is the one before it, used again.
	queue, spare []datagram
}

// begin has later answers wait for flush.
func (o *udpOutbox) begin() {
	o.mu.Lock()
	o.open = true
	o.mu.Unlock()
}

// add takes an answer in; false if it is to be sent at once.
func (o *udpOutbox) add(b []byte, to netip.AddrPort) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open || len(o.queue) == batchSize {
		return false
	}
	o.queue = append(o.queue, datagram{b, to})
	return true
}

// end takes out what has waited; it is given back with done.
func (o *udpOutbox) end() []datagram {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.queue
	o.open, o.queue, o.spare = false, o.spare, nil
	return out
}

func (o *udpOutbox) done(out []datagram) {
	clear(out)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spare = out[:0]
}

// SendSoon is f.Send for an answer that may leave with others: those made while
// the socket's goroutine handles what it has read at once. b is not to be changed
// any more. An error of the socket is then counted and told to nobody.
func SendSoon(f Flow, b []byte) error {
	if u, ok := f.(*udpFlow); ok && u.socket.out.add(b, u.remote) {
		return nil
	}
	return f.Send(b)
}

// flush sends the answers to a batch that has been handled.
func (s *udpSocket) flush() {
	out := s.out.end()
	switch len(out) {
	case 0:
	case 1:
		_ = s.write(out[0].b, out[0].to) // counted there
	default:
		s.writeAll(out)
	}
	s.out.done(out)
}

// sent counts a datagram that was sent, or was not.
func (s *udpSocket) sent(n int, err error) {
	t := s.l.t
	if err != nil {
		t.count.sendErrors.Add(1)
		return
	}
	t.count.messagesOut.Add(1)
	t.count.bytesOut.Add(uint64(n))
}
