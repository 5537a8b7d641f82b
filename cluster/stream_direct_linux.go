package cluster

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directConn is a TCP connection whose system calls Go's scheduler is not told
// of: they never wait, the poller does. Told of one, it wakes its monitor thread
// where all else is idle, which then looks around every 20 µs for a while: on a node
// that handles a message now and then that costs as much as reading it. Reads come
// one at a time, and so do writes.
type directConn struct {
	*net.TCPConn
	raw syscall.RawConn
	in  directCall
	out directCall
}

// directCall is room for one call; call is made once.
type directCall struct {
	trap  uintptr
	b     []byte
	n     int
	errno syscall.Errno
	call  func(fd uintptr) bool
}

// direct is nc, or the same with less ado.
func direct(nc net.Conn) net.Conn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nc
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nc // it is closed, as the first read will say
	}
	c := &directConn{TCPConn: tcp, raw: raw}
	c.in.trap, c.out.trap = unix.SYS_READ, unix.SYS_WRITE
	c.in.call, c.out.call = c.in.once, c.out.once
	return c
}

// once makes one call; false: there is nothing to be done yet.
func (d *directCall) once(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(d.trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(d.b))), uintptr(len(d.b)))
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			d.n, d.errno = int(n), 0
		default:
			d.n, d.errno = 0, errno
		}
		return true
	}
}

func (c *directConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.b = b
	err := c.raw.Read(c.in.call)
	c.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case c.in.errno != 0:
		return 0, os.NewSyscallError("read", c.in.errno)
	case c.in.n == 0:
		return 0, io.EOF
	}
	return c.in.n, nil
}

func (c *directConn) Write(b []byte) (n int, err error) {
	for n < len(b) {
		c.out.b = b[n:]
		err = c.raw.Write(c.out.call)
		c.out.b = nil
		if err == nil && c.out.errno != 0 {
			err = os.NewSyscallError("write", c.out.errno)
		}
		if err != nil {
			return n, err
		}
		n += c.out.n
	}
	return n, nil
}
