package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hereis/messages"
)

// udpListener is one address with a group of sockets that share its port; the
// kernel gives a source always to the same one, so its messages stay in order.
type udpListener struct {
	t       *Transport
	addr    netip.AddrPort
	sockets []*udpSocket
}

type udpSocket struct {
	l    *udpListener
	conn *net.UDPConn
	raw  syscall.RawConn // conn's
	out  udpOutbox
	// queue is of what waits to be read; the socket's goroutine's own.
	queue lateness
	// taken is the datagram that the socket's goroutine is handling; free, if not
	// nil, the flow of one that was spent.
	taken Message
	free  *udpFlow
	// outgoing has the rooms (*batch) for what out sends.
	outgoing sync.Pool
}

func listenUDP(t *Transport, addr netip.AddrPort, n int) (*udpListener, error) {
	addr, err := probe(addr)
	if err != nil {
		return nil, err
	}
	l := &udpListener{t: t, addr: addr}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		if err := c.Control(func(fd uintptr) {
			serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			stampArrivals(fd)
		}); err != nil {
			return err
		}
		return serr
	}}
	for range n {
		// Binding an address literal does not wait, so there is nothing to cancel.
		pc, err := lc.ListenPacket(context.Background(), network(addr), addr.String())
		if err != nil {
			l.close()
			return nil, err
		}
		conn := pc.(*net.UDPConn)
		raw, err := conn.SyscallConn()
		if err != nil {
			_ = conn.Close() // nothing was sent by it
			l.close()
			return nil, err
		}
		if t.cfg.ReadBuffer > 0 {
			// The system may grant less; a smaller buffer only drops sooner.
			_ = conn.SetReadBuffer(t.cfg.ReadBuffer)
			_ = raw.Control(func(fd uintptr) { forceReadBuffer(fd, t.cfg.ReadBuffer) })
		}
		l.sockets = append(l.sockets, &udpSocket{l: l, conn: conn, raw: raw})
	}
	return l, nil
}

// probe binds addr alone, without SO_REUSEPORT: that fails if anybody has it,
// also a group of sockets of another process of the same user. It returns the
// address with the port that the system chose for 0.
func probe(addr netip.AddrPort) (netip.AddrPort, error) {
	conn, err := net.ListenUDP(network(addr), net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return addr, err
	}
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if err := conn.Close(); err != nil {
		return addr, fmt.Errorf("close probe: %w", err)
	}
	return netip.AddrPortFrom(addr.Addr(), port), nil
}

// network keeps an IPv4 address to IPv4; [::] takes both families.
func network(addr netip.AddrPort) string {
	if addr.Addr().Is4() {
		return "udp4"
	}
	return "udp"
}

func (l *udpListener) close() {
	for _, s := range l.sockets {
		// The only error is that it was closed before.
		_ = s.conn.Close()
	}
}

// reaches tells whether a datagram to remote can leave here: same family, and
// no loopback from a socket bound to a real address or the reverse.
func (l *udpListener) reaches(remote netip.AddrPort) bool {
	a, r := l.addr.Addr(), remote.Addr()
	if a.IsUnspecified() {
		return a.Is6() || r.Is4()
	}
	return a.Is4() == r.Is4() && (!a.IsLoopback() || r.IsLoopback())
}

func (l *udpListener) socket(remote netip.AddrPort) *udpSocket {
	return l.sockets[int(remote.Port())%len(l.sockets)]
}

// flow returns the flow to remote.
func (l *udpListener) flow(remote netip.AddrPort) *udpFlow {
	return &udpFlow{socket: l.socket(remote), remote: remote}
}

// read is a socket's goroutine.
func (s *udpSocket) read(ctx context.Context) error {
	t := s.l.t
	// One byte more than any datagram that we take, to see that it was longer.
	in := newBatch(t.cfg.Limits.Datagram + 1)
	var pause time.Duration
	for {
		n, err := s.readAll(in)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// An ICMP error or lack of memory must not end the socket.
			pause = min(max(2*pause, time.Millisecond), 100*time.Millisecond)
			t.log.Debug("udp read", "local", s.l.addr, "err", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		s.takeIn(in, n, time.Now())
	}
}

// oldest is the most that a datagram can have waited in the socket and still
// have somebody who waits for an answer (64*T1, RFC 3261 17.1.2.2).
const oldest = 32 * time.Second

// takeIn handles what came at once, and sends what comes of it at once.
func (s *udpSocket) takeIn(in *batch, n int, now time.Time) {
	s.out.begin()
	defer s.flush()
	if with := s.l.t.cfg.Company; with != nil {
		with.Begin()
		defer with.End()
	}
	for i := range n {
		b, from := in.at(i)
		s.l.t.count.bytesIn.Add(uint64(len(b)))
		age := in.age(i, now)
		s.datagram(b, from, now.Add(-age), s.queue.see(age, now))
	}
}

// datagram takes in what came; b is the socket's buffer.
func (s *udpSocket) datagram(b []byte, from netip.AddrPort, at time.Time, late bool) {
	t := s.l.t
	if len(b) == 0 || from.Port() == 0 {
		t.count.dropped.Add(1)
		return
	}
	if b[0] == '\r' || b[0] == '\n' || b[0] < 4 {
		if s.keepAlive(b, from) {
			return
		}
	}
	t.count.messagesIn.Add(1)
	// The flow is by itself: an answer that is kept for repeats holds it for 32 s,
	// and must not hold the whole request with it.
	flow := s.free
	if flow == nil {
		flow = &udpFlow{socket: s}
	}
	flow.is(s, from, nil)
	s.free = nil
	s.taken = Message{Flow: flow, Reply: flow, At: at, Late: late, Raw: b}
	if t.receive(&s.taken); s.taken.Spent {
		s.free = flow
	}
}

// keepAlive answers RFC 5626 4.4 pings: CRLF CRLF, as some send over UDP too,
// and STUN. A lone CRLF is a pong, or keeps a NAT open: nothing to do.
func (s *udpSocket) keepAlive(b []byte, from netip.AddrPort) bool {
	t := s.l.t
	var answer []byte
	switch {
	case string(b) == "\r\n\r\n":
		answer = []byte("\r\n")
	case len(b) <= 4 && isBlank(b):
		return true
	case isSTUN(b):
		answer = answerSTUN(nil, b, from)
	default:
		return false
	}
	if len(answer) == 0 {
		t.count.dropped.Add(1)
		return true
	}
	t.count.keepAlives.Add(1)
	_ = s.write(answer, from) // counted there; the client repeats
	return true
}

func isBlank(b []byte) bool {
	for _, c := range b {
		if c != '\r' && c != '\n' && c != 0 {
			return false
		}
	}
	return true
}

func (s *udpSocket) write(b []byte, to netip.AddrPort) error {
	n, err := s.writeNow(b, to)
	s.sent(n, err)
	if errors.Is(err, net.ErrClosed) {
		return ErrFlowClosed
	}
	return err
}

// udpFlow is a 4-tuple. Several values may stand for one: they share the id.
type udpFlow struct {
	socket *udpSocket
	remote netip.AddrPort
	// id is set at the first call of ID, or by Restore.
	id atomic.Pointer[messages.FlowID]
}

func (f *udpFlow) tuple() tuple { return tuple{f.socket.l.addr, f.remote} }

// ID pins the flow: see Transport.Pin.
func (f *udpFlow) ID() *messages.FlowID {
	if id := f.id.Load(); id != nil {
		return id
	}
	f.id.CompareAndSwap(nil, f.pin().message())
	return f.id.Load()
}

func (f *udpFlow) pin() flowKey {
	t := f.socket.l.t
	return t.flows.pin(f, t.makeID)
}

// FlowRoom is memory for a flow, for who sees to many messages one after the other
// and is done with the flow of one when the next comes.
type FlowRoom struct{ flow udpFlow }

// Hold is f, in r's memory if it is one over UDP, so that f itself need not be held.
func (r *FlowRoom) Hold(f Flow) Flow {
	u, ok := f.(*udpFlow)
	if !ok {
		return f
	}
	r.flow.is(u.socket, u.remote, u.id.Load())
	return &r.flow
}

// is makes f another one.
func (f *udpFlow) is(s *udpSocket, remote netip.AddrPort, id *messages.FlowID) {
	f.socket, f.remote = s, remote
	if f.id.Load() != id {
		f.id.Store(id)
	}
}

// Lasting is f in memory of its own, for who holds it longer than a FlowRoom does.
func Lasting(f Flow) Flow { return new(FlowRoom).Hold(f) }

func (f *udpFlow) Transport() string      { return "udp" }
func (f *udpFlow) Reliable() bool         { return false }
func (f *udpFlow) Local() netip.AddrPort  { return f.socket.l.addr }
func (f *udpFlow) Remote() netip.AddrPort { return f.remote }
func (f *udpFlow) Send(b []byte) error    { return f.socket.write(b, f.remote) }
