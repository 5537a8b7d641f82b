package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"hereis/messages"
)

// ErrFlowFull is returned by Send when a peer does not take what waits for it.
// The connection is closed then.
var ErrFlowFull = errors.New("peer does not read")

// streamFlow is a connection. One goroutine reads it; another writes while
// there is something to write, so an idle connection costs one.
type streamFlow struct {
	t         *Transport
	transport string
	remote    netip.AddrPort
	inbound   bool
	done      chan struct{} // closed by close; nobody sends

	mu      sync.Mutex
	conn    net.Conn // nil until connected
	local   netip.AddrPort
	id      *messages.FlowID
	closed  bool
	pending []byte // bounded by Streams.Queue
	// writing is there while a goroutine is at pending, which closes it.
	writing chan struct{}
}

func newStreamFlow(t *Transport, transport string, local, remote netip.AddrPort) *streamFlow {
	return &streamFlow{t: t, transport: transport, local: local, remote: remote, done: make(chan struct{})}
}

// ID gives the connection its id at the first call.
func (f *streamFlow) ID() *messages.FlowID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.id == nil {
		f.id = f.t.makeID(true)
		if !f.closed {
			f.t.flows.put(f.id, f)
		}
	}
	return f.id
}

func (f *streamFlow) Transport() string      { return f.transport }
func (f *streamFlow) Reliable() bool         { return true }
func (f *streamFlow) Remote() netip.AddrPort { return f.remote }

// Local is zero until a connection that we open is there.
func (f *streamFlow) Local() netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.local
}

// Send queues b; it never waits for the peer.
func (f *streamFlow) Send(b []byte) error {
	if err := f.queue(b); err != nil {
		f.t.count.sendErrors.Add(1)
		return err
	}
	f.t.count.messagesOut.Add(1)
	return nil
}

func (f *streamFlow) queue(b []byte) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrFlowClosed
	}
	if len(f.pending)+len(b) > f.t.cfg.Streams.Queue {
		f.mu.Unlock()
		f.close()
		return ErrFlowFull
	}
	f.pending = append(f.pending, b...)
	f.mu.Unlock()
	return f.startWrite()
}

// startWrite sees that somebody writes what is pending.
func (f *streamFlow) startWrite() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil || f.writing != nil || len(f.pending) == 0 || f.closed {
		return nil
	}
	done := make(chan struct{})
	if !f.t.conns.spawn(func() { f.write(done) }) {
		return ErrFlowClosed
	}
	f.writing = done
	return nil
}

// connected takes over the connection that dial made, unless the flow was closed meanwhile.
func (f *streamFlow) connected(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.conn, f.local = conn, unmap(conn.LocalAddr().(*net.TCPAddr).AddrPort())
	return true
}

// write empties pending, in the order of the Sends, and ends.
func (f *streamFlow) write(done chan struct{}) {
	defer close(done)
	var spare []byte
	for {
		f.mu.Lock()
		if len(f.pending) == 0 || f.closed {
			f.writing = nil
			f.mu.Unlock()
			return
		}
		out := f.pending
		f.pending, spare = spare[:0], nil
		f.mu.Unlock()
		err := f.conn.SetWriteDeadline(time.Now().Add(f.t.cfg.Streams.Write))
		if err == nil {
			_, err = f.conn.Write(out)
		}
		if err != nil {
			f.t.count.sendErrors.Add(1)
			f.close()
			return
		}
		f.t.count.bytesOut.Add(uint64(len(out)))
		if cap(out) <= 16<<10 {
			spare = out
		}
	}
}

// finish lets what is pending go out before the connection is closed. After an
// error of the peer's it says that no more will come and takes a little of what
// still does: closing on unread bytes would take the answer back.
func (f *streamFlow) finish(lost bool) {
	f.mu.Lock()
	writing := f.writing
	f.mu.Unlock()
	if writing != nil {
		<-writing // ends within Streams.Write
	}
	tcp, ok := f.conn.(*net.TCPConn)
	if !lost || !ok || tcp.CloseWrite() != nil {
		return
	}
	if tcp.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, tcp, lingerBytes)
	}
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// close ends the flow, once: its id is free, its connection closed, OnClose told.
func (f *streamFlow) close() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed, f.pending = true, nil
	conn, id := f.conn, f.id
	f.mu.Unlock()
	close(f.done)
	if conn != nil {
		_ = conn.Close() // it is over either way
	}
	if id != nil {
		f.t.flows.drop(keyOf(id))
	}
	f.t.conns.remove(f)
	if f.t.cfg.OnClose != nil {
		f.t.cfg.OnClose(f)
	}
}

// serve is the connection's goroutine.
func (f *streamFlow) serve() {
	defer f.close()
	if f.startWrite() != nil {
		return
	}
	err := f.read()
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		f.t.log.Debug("connection ended", "remote", f.remote, "err", err)
	}
	f.finish(errors.Is(err, errFraming))
}

// errFraming ends a connection on which the next message cannot be found (18.3).
var errFraming = errors.New("message boundary lost")

// read takes messages off the connection until it ends.
func (f *streamFlow) read() error {
	buf := make([]byte, 0, 4<<10)
	var at framing
	begun := false
	for {
		n, err := f.take(buf, &at)
		if n > 0 {
			buf = buf[:copy(buf, buf[n:])]
			if len(buf) == 0 && cap(buf) > 4<<10 {
				buf = make([]byte, 0, 4<<10) // a large message is rare
			}
			begun = false
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		// One deadline from a message's first byte to its last: a trickle does not prolong it.
		if !begun || len(buf) == 0 {
			limit := f.t.cfg.Streams.Idle
			if begun = len(buf) > 0; begun {
				limit = f.t.cfg.Streams.Begun
			}
			if err := f.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
				return err
			}
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), f.t.cfg.Streams.Message+1)), buf...)
		}
		n, err = f.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		f.t.count.bytesIn.Add(uint64(n))
		if err != nil {
			return err
		}
	}
}

// framing is what a connection remembers between two reads.
type framing struct {
	crlfs int // CRLFs since the last message or ping
	need  int // length of the message at hand, once its head is read: else 0
	seen  int // how much of the head at hand has been looked through for its end
}

// take handles what stands at the start of buf: a keep-alive or a whole message.
// It returns how many bytes that was, 0 if more must come first.
func (f *streamFlow) take(buf []byte, at *framing) (int, error) {
	if len(buf) < at.need {
		return 0, nil
	}
	if bytes.HasPrefix(buf, []byte("\r\n")) {
		at.seen = 0
		// RFC 5626 4.4.1: a double CRLF is a ping, also in two segments.
		if at.crlfs++; at.crlfs == 2 {
			at.crlfs = 0
			f.t.count.keepAlives.Add(1)
			return 2, f.queue([]byte("\r\n"))
		}
		return 2, nil
	}
	// A head that comes byte by byte is not searched from its start each time.
	from := max(at.seen-3, 0)
	end := bytes.Index(buf[from:], []byte("\r\n\r\n"))
	if end < 0 {
		at.seen = len(buf)
		if len(buf) >= f.t.cfg.Streams.Message {
			return 0, f.lost(buf, &head{}, &Malformed{Status: 513, Reason: "head too long"})
		}
		return 0, nil
	}
	end += from
	at.seen = end // it is found again when the body is there
	var h head
	if err := f.t.parser.guard(buf[:end+4], &h); err != nil {
		return 0, f.lost(buf[:end+4], &h, err)
	}
	length, err := h.length()
	if err == nil && end+4+length > f.t.cfg.Streams.Message {
		err = &Malformed{Status: 513, Reason: "message too long"}
	}
	if err != nil {
		return 0, f.lost(buf[:end+4], &h, err)
	}
	total := end + 4 + length
	if len(buf) < total {
		at.need = total
		return 0, nil
	}
	*at = framing{}
	raw := bytes.Clone(buf[:total])
	h.body = raw[end+4:]
	f.t.count.messagesIn.Add(1)
	if m := (&Message{Raw: raw, Flow: f, Reply: f, At: time.Now()}); f.t.admits(m, &h) {
		f.t.build(m, &h)
	}
	return total, nil
}

// lost refuses the message at hand; nothing after it can be read.
func (f *streamFlow) lost(raw []byte, h *head, why *Malformed) error {
	f.t.count.messagesIn.Add(1)
	f.t.refuse(&Message{Raw: raw, Flow: f, Reply: f}, h, why)
	return errFraming
}

// length is Content-Length, which a stream cannot do without (7.5, 18.3): there
// must be exactly one.
func (h *head) length() (int, *Malformed) {
	found := -1
	for _, l := range h.lines {
		if l.name != "Content-Length" {
			continue
		}
		n, err := parseNumber(l.value, 1<<31-1)
		if err != nil || found >= 0 {
			return 0, bad("Content-Length")
		}
		found = int(n)
	}
	if found < 0 {
		return 0, bad("no Content-Length")
	}
	return found, nil
}
