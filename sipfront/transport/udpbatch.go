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
	// who is told that it was refused; nil: nobody.
	who Sender
	// room is the memory of this place in a queue, for what is copied to it.
	room []byte
}

// Sender is told of a message of its own that had to wait and that the socket
// refused then. SendFailed must not wait.
type Sender interface{ SendFailed(err error) }

// udpOutbox keeps the messages that are made while a batch is handled, which
// leave together at its end, or when there are batchSize of them. Nothing waits
// in it at any other time. Several may handle batches at once.
type udpOutbox struct {
	mu sync.Mutex
	// open counts those who handle a batch.
	open  int
	queue []datagram
	// spare are queues that have been sent, to be used again.
	spare [][]datagram
}

// begin has later messages wait for end.
func (o *udpOutbox) begin() {
	o.mu.Lock()
	o.open++
	o.mu.Unlock()
}

// add takes a message in, or a copy of it; false if it is to be sent at once. full
// are those that have waited, if they are to be sent now; they are given back with
// done, as are end's.
func (o *udpOutbox) add(b []byte, to netip.AddrPort, who Sender, copied bool) (full []datagram, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == 0 {
		return nil, false
	}
	if o.queue == nil {
		o.queue = make([]datagram, 0, batchSize)
	}
	n := len(o.queue)
	o.queue = o.queue[:n+1]
	d := &o.queue[n]
	d.b, d.to, d.who = b, to, who
	if copied {
		d.room = append(d.room[:0], b...)
		d.b = d.room
	}
	if len(o.queue) == batchSize {
		full = o.take()
	}
	return full, true
}

// end takes out what has waited.
func (o *udpOutbox) end() []datagram {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open--
	return o.take()
}

// take empties the queue. o is locked.
func (o *udpOutbox) take() []datagram {
	out := o.queue
	o.queue = nil
	if n := len(o.spare); n > 0 {
		o.queue, o.spare = o.spare[n-1], o.spare[:n-1]
	}
	return out
}

func (o *udpOutbox) done(out []datagram) {
	if cap(out) == 0 {
		return
	}
	for i := range out {
		out[i].b, out[i].who = nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spare = append(o.spare, out[:0])
}

// SendSoon is f.Send for an answer that may leave with others: those made while
// the socket's goroutine handles what it has read at once, or within Together. b
// is not to be changed any more. An error of the socket is then counted and told
// to nobody.
func SendSoon(f Flow, b []byte) error { return sendSoon(nil, f, b, nil, false) }

// SendSoonCopy is SendSoon of a b that is the caller's again when it returns.
func SendSoonCopy(f Flow, b []byte) error { return sendSoon(nil, f, b, nil, true) }

// SendWith is SendSoon for a message that one which has come by with, which may
// be nil, has led to: it leaves with the others that do, by the socket that with
// was read from, so that all that comes of the messages of one sender leaves in
// the order in which it was made. If it had to wait, who, which may be nil, is
// told of an error.
func SendWith(with, f Flow, b []byte, who Sender) error { return sendSoon(with, f, b, who, false) }

// SendCopyWith is SendWith of a b that is the caller's again when it returns.
func SendCopyWith(with, f Flow, b []byte) error { return sendSoon(with, f, b, nil, true) }

func sendSoon(with, f Flow, b []byte, who Sender, copied bool) error {
	u, ok := f.(*udpFlow)
	if !ok {
		return f.Send(b)
	}
	s := u.socket
	if w, ok := with.(*udpFlow); ok && w.socket.l == s.l {
		s = w.socket // of a group with one address, any will do
	}
	full, ok := s.out.add(b, u.remote, who, copied)
	if !ok {
		return s.write(b, u.remote)
	}
	if full != nil {
		s.send(full)
	}
	return nil
}

// Together calls f, which makes many answers: those that are sent with SendSoon
// meanwhile leave together.
func (t *Transport) Together(f func()) {
	for _, l := range t.udp {
		for _, s := range l.sockets {
			s.out.begin()
			defer s.flush()
		}
	}
	f()
}

// flush ends a batch, and sends the messages that have waited.
func (s *udpSocket) flush() { s.send(s.out.end()) }

// send sends what was taken out of the outbox, and gives it back.
func (s *udpSocket) send(out []datagram) {
	switch len(out) {
	case 0:
	case 1:
		s.writeOne(&out[0])
	default:
		s.writeAll(out)
	}
	s.out.done(out)
}

// writeOne sends one that has waited.
func (s *udpSocket) writeOne(d *datagram) {
	if err := s.write(d.b, d.to); err != nil {
		d.failed(err)
	}
}

// failed tells whose it is that it was refused.
func (d *datagram) failed(err error) {
	if d.who != nil {
		d.who.SendFailed(err)
	}
}

// sent counts a datagram that was sent, or was not.
func (s *udpSocket) sent(n int, err error) {
	if err != nil {
		s.l.t.count.sendErrors.Add(1)
		return
	}
	s.sentAll(1, n)
}

// sentAll counts datagrams that were sent.
func (s *udpSocket) sentAll(n, bytes int) {
	s.l.t.count.messagesOut.Add(uint64(n))
	s.l.t.count.bytesOut.Add(uint64(bytes))
}
