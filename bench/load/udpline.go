package load

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	readBuffer = 4 << 20
	// minWait is the least time that a read is given.
	minWait = 200 * time.Microsecond
	// together is how many datagrams are sent, or read, by one system call at most.
	together = 64
)

// udpLine is one socket. What is written waits until together are, or nothing is
// left of what was read.
type udpLine struct {
	conn     *net.UDPConn
	batch    *ipv4.PacketConn // conn's, which may be of either family
	deadline time.Time        // as last set on the socket
	// source is the control message that names the address to send from; empty: the socket's.
	source []byte
	// in has what was read, of which next is the first that is left.
	in      []ipv4.Message
	got, at int
	out     []ipv4.Message
	to      []net.UDPAddr // of out
	waiting int           // in out
}

// devices is how many loopback addresses devices have: 127.1.0.0 to
// 127.31.255.255, below those of servers that bench starts.
const devices = 31 << 16

// from makes all that is written from now on come from a device's own address.
func (l *udpLine) from(device uint64) {
	if l.source == nil {
		l.source = unix.PktInfo4(&unix.Inet4Pktinfo{})
	}
	n := uint32(device%devices) + 1<<16
	// ipi_spec_dst is behind ipi_ifindex in struct in_pktinfo.
	copy(l.source[unix.CmsgLen(0)+4:], []byte{127, byte(n >> 16), byte(n >> 8), byte(n)})
}

func newUDPLine(bind netip.Addr) (*udpLine, error) {
	network := "udp"
	if bind.Is4() {
		network = "udp4" // 0.0.0.0 would take IPv6 as well
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(bind, 0)))
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadBuffer(readBuffer); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l := &udpLine{
		conn: conn, batch: ipv4.NewPacketConn(conn),
		in: make([]ipv4.Message, together), out: make([]ipv4.Message, together), to: make([]net.UDPAddr, together),
	}
	for i := range together {
		l.in[i].Buffers = [][]byte{make([]byte, 65536)}
		l.out[i].Buffers = [][]byte{nil}
		l.out[i].Addr = &l.to[i]
	}
	return l, nil
}

func (l *udpLine) write(b []byte, to netip.AddrPort) {
	m, addr := &l.out[l.waiting], &l.to[l.waiting]
	m.Buffers[0] = append(m.Buffers[0][:0], b...)
	m.OOB = append(m.OOB[:0], l.source...)
	addr.IP, addr.Port, addr.Zone = appendIP(addr.IP[:0], to.Addr()), int(to.Port()), to.Addr().Zone()
	if l.waiting++; l.waiting == together {
		l.flush()
	}
}

func appendIP(b net.IP, a netip.Addr) net.IP {
	if a.Is4() {
		v4 := a.As4()
		return append(b, v4[:]...)
	}
	v6 := a.As16()
	return append(b, v6[:]...)
}

// flush: a full send buffer is loss, and so is what the system refuses; the
// retransmission deals with it.
func (l *udpLine) flush() {
	for out := l.out[:l.waiting]; len(out) > 0; {
		n, err := l.batch.WriteBatch(out, 0)
		if err != nil {
			n = 1 // the first of them was refused, alone
		}
		out = out[n:]
	}
	l.waiting = 0
}

func (l *udpLine) read(until time.Time) ([]byte, netip.AddrPort, error) {
	if l.at == l.got {
		l.flush()
		if err := l.readMore(until); err != nil {
			return nil, netip.AddrPort{}, err
		}
	}
	m := &l.in[l.at]
	l.at++
	from, _ := m.Addr.(*net.UDPAddr)
	return m.Buffers[0][:m.N], unmap(from.AddrPort()), nil
}

// readMore waits for at least one datagram, and takes in those that are there.
func (l *udpLine) readMore(until time.Time) error {
	// Go does not read at all once a deadline has passed, so one that has come too
	// near would let the socket's buffer run over.
	now := time.Now()
	if soonest := now.Add(minWait); until.Before(soonest) {
		until = soonest
	}
	// The deadline moves by system call, so only if it is over or must be earlier,
	// or is so much too early that it would wake for nothing too often.
	if !l.deadline.After(now) || until.Before(l.deadline) || until.Sub(l.deadline) > tick/2 {
		if err := l.conn.SetReadDeadline(until); err != nil {
			return err
		}
		l.deadline = until
	}
	l.at, l.got = 0, 0
	n, err := l.batch.ReadBatch(l.in, 0)
	if err == nil && n == 0 {
		return os.ErrDeadlineExceeded
	}
	l.got = max(n, 0)
	return err
}

// local is what devices believe their address to be, where each has one of its own: they are behind a NAT.
func (l *udpLine) local() netip.AddrPort {
	at := unmap(l.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return at
}

func (l *udpLine) Close() error { return l.conn.Close() }

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
