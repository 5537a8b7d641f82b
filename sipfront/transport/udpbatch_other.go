//go:build !linux

package transport

import (
	"net/netip"
	"time"
)

// batch is the room for one datagram, as the system takes one at a time.
type batch struct {
	room []byte
	n    int
	from netip.AddrPort
}

func newBatch(size int) *batch { return &batch{room: make([]byte, size)} }

// readAll waits for a datagram.
func (s *udpSocket) readAll(b *batch) (n int, err error) {
	if b.n, b.from, err = s.conn.ReadFromUDPAddrPort(b.room); err != nil {
		return 0, err
	}
	return 1, nil
}

// at is the datagram that was read; it is the batch's until the next read.
func (b *batch) at(int) ([]byte, netip.AddrPort) { return b.room[:b.n], unmap(b.from) }

// stampArrivals: there is no such thing here.
func stampArrivals(uintptr) {}

func forceReadBuffer(uintptr, int) {}

// overflowed is not known.
func (s *udpSocket) overflowed() uint64 { return 0 }

// age is not known.
func (b *batch) age(int, time.Time) time.Duration { return 0 }

// writeAll sends datagrams one after the other.
func (s *udpSocket) writeAll(out []datagram) {
	for i := range out {
		s.writeOne(&out[i])
	}
}

// writeNow sends one datagram.
func (s *udpSocket) writeNow(b []byte, to netip.AddrPort) (int, error) {
	return s.conn.WriteToUDPAddrPort(b, to)
}
