package transport

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is the room for one recvmmsg or sendmmsg. It is used by one goroutine
// at a time and stays where it is: the kernel is given addresses within it.
type batch struct {
	heads [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	// names have room for addresses of either family.
	names [batchSize]unix.RawSockaddrInet6
	rooms [batchSize][]byte
	// ages have room for the time at which each came.
	ages  [batchSize]arrival
	zones map[uint32]string

	// of tells which of those to be sent each is.
	of [batchSize]int
	// from and to are the datagrams of this call; did and errno what came of it.
	from, to int
	did      int
	errno    syscall.Errno
	// receive and send are the calls as the poller wants them, made once.
	receive, send func(fd uintptr) (done bool)
}

// mmsghdr is struct mmsghdr of recvmmsg(2); the compiler pads it as C does.
type mmsghdr struct {
	head unix.Msghdr
	n    uint32
}

// arrival is the control message that SO_TIMESTAMPNS adds to a datagram.
type arrival struct {
	head unix.Cmsghdr
	at   unix.Timespec
}

// stampArrivals has the kernel tell when each datagram came. Without it they
// are taken to have come when they are read.
func stampArrivals(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
}

// forceReadBuffer gives a socket more room than everybody may have, if this
// process may ask for it.
func forceReadBuffer(fd uintptr, size int) {
	_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
}

// overflowed is how many datagrams found no room at the socket.
func (s *udpSocket) overflowed() (n uint64) {
	// The array of SO_MEMINFO; sk_drops is its last element, by number.
	const drops = 8
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_ = s.raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 && size == uint32(unsafe.Sizeof(info)) {
			n = uint64(info[drops])
		}
	})
	return n
}

// newBatch makes a batch with room for datagrams of size bytes; 0: for sending.
func newBatch(size int) *batch {
	b := &batch{zones: make(map[uint32]string)}
	for i := range b.heads {
		h := &b.heads[i].head
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		if size > 0 {
			b.rooms[i] = make([]byte, size)
			b.iovs[i].Base = &b.rooms[i][0]
			b.iovs[i].SetLen(size)
		}
	}
	b.receive = func(fd uintptr) bool { return b.call(unix.SYS_RECVMMSG, fd) }
	b.send = func(fd uintptr) bool { return b.call(unix.SYS_SENDMMSG, fd) }
	return b
}

// call makes one system call without waiting; false: there is nothing to be done yet.
// As it does not wait, the scheduler need not be told of it.
func (b *batch) call(trap, fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(&b.heads[b.from])), uintptr(b.to-b.from), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		b.did, b.errno = int(n), errno
		return true
	}
}

// readAll waits for datagrams and takes in those that are there, of which it
// returns how many.
func (s *udpSocket) readAll(b *batch) (int, error) {
	for i := range b.heads {
		h := &b.heads[i].head
		h.Namelen = unix.SizeofSockaddrInet6
		h.Control = (*byte)(unsafe.Pointer(&b.ages[i]))
		h.SetControllen(int(unsafe.Sizeof(b.ages[i])))
	}
	b.from, b.to, b.did, b.errno = 0, batchSize, 0, 0
	if err := s.raw.Read(b.receive); err != nil {
		return 0, err
	}
	if b.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", b.errno)
	}
	return b.did, nil
}

// at is the datagram i of those read; it is the batch's until the next read.
func (b *batch) at(i int) ([]byte, netip.AddrPort) {
	return b.rooms[i][:b.heads[i].n], b.source(&b.names[i])
}

// age is how long the datagram i has waited to be read, as of now.
func (b *batch) age(i int, now time.Time) time.Duration {
	a := &b.ages[i]
	if b.heads[i].head.Controllen == 0 || a.head.Level != unix.SOL_SOCKET || a.head.Type != unix.SCM_TIMESTAMPNS {
		return 0
	}
	// Both are of the wall clock. If it was set meanwhile the age is wrong: it is
	// never more than a client waits for.
	return min(max(now.Sub(time.Unix(a.at.Unix())), 0), oldest)
}

// source reads a socket address; it is not valid if it is of neither family.
func (b *batch) source(name *unix.RawSockaddrInet6) netip.AddrPort {
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), hostOrder(v4.Port))
	case unix.AF_INET6:
		addr := netip.AddrFrom16(name.Addr).Unmap()
		if name.Scope_id != 0 {
			addr = addr.WithZone(b.zone(name.Scope_id))
		}
		return netip.AddrPortFrom(addr, hostOrder(name.Port))
	}
	return netip.AddrPort{}
}

// zone is the name of the interface that a link-local address belongs to.
func (b *batch) zone(index uint32) string {
	name, ok := b.zones[index]
	if !ok {
		name = strconv.Itoa(int(index))
		if i, err := net.InterfaceByIndex(int(index)); err == nil {
			name = i.Name
		}
		b.zones[index] = name
	}
	return name
}

// hostOrder turns the bytes of a port in network order around, where need be,
// and so does it back.
func hostOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// writeAll sends datagrams, batchSize at most, by one system call where none fails.
func (s *udpSocket) writeAll(out []datagram) {
	b, ok := s.outgoing.Get().(*batch)
	if !ok {
		b = newBatch(0)
	}
	defer s.outgoing.Put(b)
	v4, n := s.l.addr.Addr().Is4(), 0
	for i := range out {
		if to := out[i].to.Addr(); to.Zone() != "" || v4 && !to.Unmap().Is4() {
			s.writeOne(&out[i])
			continue
		}
		b.of[n] = i
		b.iovs[n].Base = unsafe.SliceData(out[i].b)
		b.iovs[n].SetLen(len(out[i].b))
		b.heads[n].head.Namelen = b.setName(n, out[i].to, v4)
		n++
	}
	for b.from, b.to = 0, n; b.from < b.to; {
		b.did, b.errno = 0, 0
		err := s.raw.Write(b.send)
		if err == nil && b.errno != 0 {
			err = b.errno
		}
		if err != nil {
			// The first of them was refused, alone.
			s.sent(0, err)
			out[b.of[b.from]].failed(err)
			b.from++
			continue
		}
		for range b.did {
			s.sent(int(b.heads[b.from].n), nil)
			b.from++
		}
	}
	for i := range n {
		b.iovs[i].Base = nil // nothing of the messages is held
	}
}

// writeNow sends one datagram.
func (s *udpSocket) writeNow(out []byte, to netip.AddrPort) (int, error) {
	v4 := s.l.addr.Addr().Is4()
	if to.Addr().Zone() != "" || v4 && !to.Addr().Unmap().Is4() {
		return s.conn.WriteToUDPAddrPort(out, to)
	}
	b, ok := s.outgoing.Get().(*batch)
	if !ok {
		b = newBatch(0)
	}
	defer s.outgoing.Put(b)
	b.iovs[0].Base = unsafe.SliceData(out)
	b.iovs[0].SetLen(len(out))
	b.heads[0].head.Namelen = b.setName(0, to, v4)
	b.from, b.to, b.did, b.errno = 0, 1, 0, 0
	err := s.raw.Write(b.send)
	b.iovs[0].Base = nil // nothing of the message is held
	switch {
	case err != nil:
		return 0, err
	case b.errno != 0:
		return 0, os.NewSyscallError("sendmmsg", b.errno)
	}
	return int(b.heads[0].n), nil
}

// setName writes an address for a socket of one family, and returns its length.
func (b *batch) setName(i int, to netip.AddrPort, v4 bool) uint32 {
	port := hostOrder(to.Port())
	if v4 {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.names[i]))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().Unmap().As4()}
		return unix.SizeofSockaddrInet4
	}
	b.names[i] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
	return unix.SizeofSockaddrInet6
}
