// Package ports gives tests ports that nobody else has: not another test of
// this process, not one of a package that is tested at the same time, and no
// outgoing connection.
//
// The ports lie below those that the system takes for outgoing connections,
// and come in blocks of ten. The tenth port of a block is its lock: whoever has
// it bound has the block. The system frees it when the test's process ends,
// however that happens. So a test may close its sockets, start other
// processes on them and start these again, and has its ports still.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

const (
	// block is the distance of two blocks; the last port of each is the lock.
	block = 10
	// Row is how many ports of a block are for use.
	Row = block - 1
	// Systems take ports for outgoing connections from 32768 (Linux) or 49152
	// (IANA) on. What people start by hand mostly lies elsewhere, too.
	lowest, highest = 10_000, 24_000
)

// Rows reserves n blocks in a row until the test ends and returns the first
// port. From it, and from each tenth port after it, Row ports are free at
// 127.0.0.1, for UDP and TCP.
func Rows(t testing.TB, n int) int {
	t.Helper()
	blocks := (highest - lowest) / block
	at := rand.IntN(blocks)
	for range blocks {
		base := lowest + at*block
		if at+n <= blocks {
			if release, err := reserve(base, n); err == nil {
				t.Cleanup(release)
				return base
			}
		}
		at = (at + 1) % blocks
	}
	t.Fatalf("no %d blocks of ports in a row are free", n)
	return 0
}

// Addrs reserves n addresses at 127.0.0.1 until the test ends.
func Addrs(t testing.TB, n int) []string {
	t.Helper()
	base := Rows(t, (n+Row-1)/Row)
	out := make([]string, n)
	for i := range out {
		out[i] = Local(base + i/Row*block + i%Row)
	}
	return out
}

// Local is a port's address.
func Local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// reserve locks n blocks if all their ports are free.
func reserve(base, n int) (release func(), err error) {
	var locks []net.PacketConn
	release = func() {
		for _, l := range locks {
			_ = l.Close() // the port is free then in any case
		}
	}
	for i := range n {
		at := base + i*block
		lock, err := net.ListenPacket("udp", Local(at+Row))
		if err == nil {
			locks = append(locks, lock)
			err = free(at)
		}
		if err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// free tells whether the ports for use are: a process that does not ask this
// package may have one.
func free(at int) error {
	for port := at; port < at+Row; port++ {
		u, err := net.ListenPacket("udp", Local(port))
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", Local(port))
		if err != nil {
			return errors.Join(err, u.Close())
		}
		if err := errors.Join(u.Close(), l.Close()); err != nil {
			return err
		}
	}
	return nil
}
