package cluster

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quietConn is a TCP connection whose reads and writes are system calls that do
// not wait, so that Go's scheduler is not told of them: it would wake a thread of
// its own for each burst of them, which then looks after them 50,000 times a
// second. Where there is nothing to read, or no room to write, the goroutine
// waits as it does with any other connection. One at a time may read, and one
// write.
type quietConn struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out quietCall
}

// quietCall is one read or write; its functions are what the poller wants, made once.
type quietCall struct {
	b     []byte
	n     int
	errno syscall.Errno
	// wait makes the call, false: it is to be made when the connection is ready;
	// try makes it once.
	wait, try func(fd uintptr) (done bool)
}

// quiet makes nc such a connection if it can be one.
func quiet(nc net.Conn) net.Conn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nc
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nc
	}
	c := &quietConn{TCPConn: tcp, raw: raw}
	c.in.make(unix.SYS_READ)
	c.out.make(unix.SYS_WRITE)
	return c
}

func (q *quietCall) make(trap uintptr) {
	q.wait = func(fd uintptr) bool { return q.call(trap, fd) }
	q.try = func(fd uintptr) bool {
		q.call(trap, fd)
		return true
	}
}

func (q *quietCall) call(trap, fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(q.b))), uintptr(len(q.b)))
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			q.n, q.errno = 0, 0
			return false
		case 0:
			q.n, q.errno = int(n), 0
		default:
			q.n, q.errno = 0, errno
		}
		return true
	}
}

// Read implements net.Conn.
func (c *quietConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.b = b
	err := c.raw.Read(c.in.wait)
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

// Write implements net.Conn.
func (c *quietConn) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var did int
		did, err = c.write(b[n:], c.out.wait)
		n += did
	}
	return n, err
}

// tryWrite writes what there is room for, and does not wait.
func (c *quietConn) tryWrite(b []byte) (int, error) { return c.write(b, c.out.try) }

func (c *quietConn) write(b []byte, how func(uintptr) bool) (int, error) {
	c.out.b, c.out.n, c.out.errno = b, 0, 0
	err := c.raw.Write(how)
	c.out.b = nil
	if err == nil && c.out.errno != 0 {
		err = os.NewSyscallError("write", c.out.errno)
	}
	return c.out.n, err
}
