package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestRFC3581_4_ReceivedAndRport(t *testing.T) {
	for _, tt := range []struct{ name, via, want string }{
		{"rport asked for", "192.0.2.1;rport;branch=z9hG4bK1", "192.0.2.1;rport=40000;branch=z9hG4bK1;received=192.0.2.200"},
		{"rport asked for by the source itself", "192.0.2.200;rport;branch=1", "192.0.2.200;rport=40000;branch=1;received=192.0.2.200"},
		{"a name in sent-by", "host.example;branch=1", "host.example;branch=1;received=192.0.2.200"},
		{"another address in sent-by", "192.0.2.1;branch=1", "192.0.2.1;branch=1;received=192.0.2.200"},
		{"the same address", "192.0.2.200;branch=1", "192.0.2.200;branch=1"},
		{"forged", "192.0.2.1;received=198.51.100.1;rport=9;branch=1", "192.0.2.1;received=192.0.2.200;rport=40000;branch=1"},
		{"forged, own address", "192.0.2.200;received=198.51.100.1;branch=1", "192.0.2.200;branch=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := receiveRaw(t, []byte(request("Via: SIP/2.0/UDP "+tt.via)))
			if m == nil {
				t.Fatal("refused")
			}
			if got := strings.TrimPrefix(requestOf(m).Via().Value(), "SIP/2.0/UDP "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// 4: a response takes the way back to where the request came from, from the
// address and port that it came to: of two sockets, the one that was written to.
func TestRFC3581_4_FromTheSocketThatWasAsked(t *testing.T) {
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	n := startNode(t, func(c *Config) { c.UDP = []netip.AddrPort{loopback, loopback} })
	c := dial(t)
	own := c.LocalAddr().(*net.UDPAddr).Port
	for _, to := range n.Addrs() {
		// A sent-by that leads elsewhere, as behind a NAT.
		send(t, c, to, request("Via: SIP/2.0/UDP 192.0.2.1:9;rport;branch=z9hG4bK"+fmt.Sprint(to.Port())))
		m := n.next(t)
		if got, _ := requestOf(m).Via().Params.Get("rport"); got != fmt.Sprint(own) {
			t.Errorf("rport=%s, want %d", got, own)
		}
		if err := m.Reply.Send([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		size, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:size]) != "answer" || unmap(from) != to {
			t.Errorf("got %q from %s, want it from %s", buf[:size], from, to)
		}
	}
}

// 4: "independent of the transport protocol": a connection's requests are
// stamped too, and their answers stay on it.
func TestRFC3581_4_OverTCP(t *testing.T) {
	n, _ := startTCP(t, nil)
	c := connect(t, n)
	write(t, c, request("Via: SIP/2.0/TCP 127.0.0.1:9;rport;branch=z9hG4bK1", "l: 0"))
	m := n.next(t)
	own := c.LocalAddr().(*net.TCPAddr).Port
	if got, want := requestOf(m).Via().Value(), fmt.Sprintf("SIP/2.0/TCP 127.0.0.1:9;rport=%d;branch=z9hG4bK1;received=127.0.0.1", own); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := m.Reply.Send([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, 6); got != "answer" {
		t.Errorf("got %q", got)
	}
}
