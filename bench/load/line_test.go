package load

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// A read whose deadline is near waits for a message until then: one that
// returned at once, because the deadline before it is over, would hear nothing
// for as long as it is not moved.
func TestUDPLineHearsAfterADeadline(t *testing.T) {
	l, err := newUDPLine(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 20 {
		if _, _, err := l.read(time.Now()); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("nothing was sent, read says %v", err)
		}
		began := time.Now()
		_, _, err := l.read(began.Add(tick / 4))
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < tick/4 {
			t.Fatalf("a read of %v ended after %v: %v", tick/4, took, err)
		}
	}
	peer, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.local()))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, _, err := l.read(time.Now()); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("nothing was sent, read says %v", err)
	}
	if _, err := peer.Write([]byte("OPTIONS")); err != nil {
		t.Fatal(err)
	}
	if b, _, err := l.read(time.Now().Add(tick / 4)); err != nil || string(b) != "OPTIONS" {
		t.Fatalf("read %q: %v", b, err)
	}
}
