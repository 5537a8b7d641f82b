package load

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
)

// Transports.
const (
	UDP = "udp"
	TCP = "tcp"
)

// line is how an endpoint's messages travel. Its owner alone writes and reads.
type line interface {
	// write sends one message, at the next read or flush at the latest; it may be
	// lost, as on any network.
	write(b []byte, to netip.AddrPort)
	flush()
	// read waits for one message until a time; os.ErrDeadlineExceeded is then its error.
	// The bytes are valid until the next read.
	read(until time.Time) (b []byte, from netip.AddrPort, err error)
	local() netip.AddrPort
	Close() error
}

// tcpLine is a listener and a connection to each peer, made when it is first written to.
type tcpLine struct {
	listener net.Listener
	// in carries what the connections' readers have read; they and the
	// acceptor send, nobody closes it, and a full one makes them wait.
	in     chan packet
	closed chan struct{}
	wait   sync.WaitGroup
	timer  *time.Timer

	mu    sync.Mutex
	conns map[netip.AddrPort]net.Conn // by the peer's address
}

type packet struct {
	b    []byte
	from netip.AddrPort
}

// A peer that takes nothing for this long loses its connection.
const writeTimeout = 5 * time.Second

func newTCPLine(bind netip.Addr) (*tcpLine, error) {
	listener, err := net.Listen("tcp", netip.AddrPortFrom(bind, 0).String())
	if err != nil {
		return nil, err
	}
	l := &tcpLine{
		listener: listener, in: make(chan packet, 1024), closed: make(chan struct{}),
		timer: time.NewTimer(time.Hour), conns: map[netip.AddrPort]net.Conn{},
	}
	l.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.take(conn)
		}
	})
	return l, nil
}

// take begins to read from a connection.
func (l *tcpLine) take(conn net.Conn) {
	from := unmap(conn.RemoteAddr().(*net.TCPAddr).AddrPort())
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		conn.Close()
		return
	default:
	}
	l.conns[from] = conn
	l.wait.Go(func() {
		readFrames(conn, func(b []byte) bool {
			select {
			case l.in <- packet{b, from}:
				return true
			case <-l.closed:
				return false
			}
		})
		conn.Close()
		l.mu.Lock()
		if l.conns[from] == conn {
			delete(l.conns, from)
		}
		l.mu.Unlock()
	})
}

func (l *tcpLine) write(b []byte, to netip.AddrPort) {
	l.mu.Lock()
	conn := l.conns[to]
	l.mu.Unlock()
	if conn == nil {
		var err error
		if conn, err = net.DialTimeout("tcp", to.String(), writeTimeout); err != nil {
			return // as lost as a datagram
		}
		l.take(conn)
	}
	if err := writeAll(conn, b); err != nil {
		conn.Close() // the reader takes it out
	}
}

func (l *tcpLine) flush() {}

func writeAll(conn net.Conn, b []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}

func (l *tcpLine) read(until time.Time) ([]byte, netip.AddrPort, error) {
	select {
	case p := <-l.in:
		return p.b, p.from, nil
	default:
	}
	l.timer.Reset(time.Until(until))
	select {
	case p := <-l.in:
		return p.b, p.from, nil
	case <-l.timer.C:
		return nil, netip.AddrPort{}, os.ErrDeadlineExceeded
	}
}

func (l *tcpLine) local() netip.AddrPort {
	return unmap(l.listener.Addr().(*net.TCPAddr).AddrPort())
}

func (l *tcpLine) Close() error {
	l.mu.Lock()
	close(l.closed)
	err := l.listener.Close()
	for _, c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.wait.Wait()
	return err
}

// maxFrame is the longest message that is read from a connection.
const maxFrame = 65536

// readFrames cuts what comes over a connection into messages (RFC 3261 18.3)
// until it ends, f does not want more, or it is no SIP. Pings (RFC 5626 3.5.1) are answered.
func readFrames(conn net.Conn, f func([]byte) bool) {
	buf, used := make([]byte, 4096), 0
	for {
		n, err := conn.Read(buf[used:])
		if err != nil {
			return
		}
		used += n
		for {
			skip := leadingCRLF(buf[:used])
			if skip >= 4 && writeAll(conn, []byte("\r\n")) != nil {
				return
			}
			size, ok := frame(buf[skip:used])
			if !ok || size > maxFrame {
				return
			}
			if size == 0 {
				used = copy(buf, buf[skip:used])
				break
			}
			if !f(bytes.Clone(buf[skip : skip+size])) {
				return
			}
			used = copy(buf, buf[skip+size:used])
		}
		if used == len(buf) {
			if used >= maxFrame {
				return
			}
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

func leadingCRLF(b []byte) (n int) {
	for len(b) >= n+2 && b[n] == '\r' && b[n+1] == '\n' {
		n += 2
	}
	return n
}

// frame is the length of the first message in b, 0 if it is not whole yet; not
// ok: no Content-Length (RFC 3261 18.3: it must be there).
func frame(b []byte) (size int, ok bool) {
	head, _, whole := bytes.Cut(b, []byte("\r\n\r\n"))
	if !whole {
		return 0, true
	}
	for line := range bytes.Lines(head) {
		name, value, _ := bytes.Cut(line, []byte{':'})
		if name = bytes.TrimSpace(name); !bytes.EqualFold(name, []byte("Content-Length")) && !bytes.EqualFold(name, []byte("l")) {
			continue
		}
		length, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 20)
		if err != nil {
			return 0, false
		}
		if size = len(head) + 4 + int(length); size > len(b) {
			return 0, true
		}
		return size, true
	}
	return 0, false
}
