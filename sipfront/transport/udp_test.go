package transport

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hereis/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a running transport on loopback with its messages in a channel.
type node struct {
	*Transport
	in chan *Message // 64 deep: more than any test sends before it reads
}

func startNode(t *testing.T, change func(*Config)) *node {
	t.Helper()
	cfg := DefaultConfig()
	cfg.UDP = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	cfg.Sockets = 2
	if change != nil {
		change(&cfg)
	}
	n := &node{in: make(chan *Message, 64)}
	var last atomic.Uint64
	tr, err := New(cfg, func(m *Message) { n.in <- m }, func(stream bool) *messages.FlowID {
		return &messages.FlowID{Incarnation: 7, Counter: last.Add(1), Stream: stream}
	}, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Listen(); err != nil {
		t.Fatal(err)
	}
	n.Transport = tr
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return n
}

func (n *node) addr() netip.AddrPort { return n.Addrs()[0] }

func (n *node) next(t *testing.T) *Message {
	t.Helper()
	select {
	case m := <-n.in:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no message")
		return nil
	}
}

func dial(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c *net.UDPConn, to netip.AddrPort, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestUDPMessageAndReply(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	send(t, c, n.addr(), request("Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1"))
	m := n.next(t)
	if got, want := m.Flow.Remote().String(), c.LocalAddr().String(); got != want {
		t.Errorf("got remote %s, want %s", got, want)
	}
	if m.Flow.Local() != n.addr() || m.Flow.Reliable() || m.Flow.Transport() != "udp" {
		t.Errorf("got flow %v %v %s", m.Flow.Local(), m.Flow.Reliable(), m.Flow.Transport())
	}
	if err := m.Reply.Send([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c); got != "answer" {
		t.Errorf("got %q", got)
	}
	st := n.Stats()
	if st.MessagesIn != 1 || st.MessagesOut != 1 || st.BytesOut != 6 || st.Flows != 0 {
		t.Errorf("got %+v", st)
	}
}

// One port has a socket for each processor, and whichever of them the kernel
// gives a sender to, its answer comes from the port that it asked.
func TestUDPSocketForEachProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	n := startNode(t, func(c *Config) { c.Sockets = 0 })
	if got := len(n.udp[0].sockets); got != 4 {
		t.Errorf("%d sockets on four processors", got)
	}
	for _, s := range n.udp[0].sockets {
		if got := s.conn.LocalAddr().String(); got != n.addr().String() {
			t.Errorf("a socket is at %s, the others at %s", got, n.addr())
		}
	}
	for range 40 {
		c := dial(t)
		send(t, c, n.addr(), request("Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1"))
		if err := n.next(t).Reply.Send([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 64)
		got, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil || string(buf[:got]) != "answer" || from != n.addr() {
			t.Fatalf("%q from %v, %v", buf[:got], from, err)
		}
	}
}

func TestRFC3261_18_2_2_WithoutRportToTheSentByPort(t *testing.T) {
	n := startNode(t, nil)
	from, sentBy := dial(t), dial(t)
	port := strings.TrimPrefix(sentBy.LocalAddr().String(), "127.0.0.1:")
	send(t, from, n.addr(), request("Via: SIP/2.0/UDP 127.0.0.1:"+port+";branch=z9hG4bK1"))
	m := n.next(t)
	if err := m.Reply.Send([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, sentBy); got != "answer" {
		t.Errorf("got %q", got)
	}
	send(t, from, n.addr(), request("Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1"))
	if got := n.next(t).Reply.Remote().Port(); got != 5060 {
		t.Errorf("got port %d, want 5060", got)
	}
}

// 18.2.1: received says where the packet came from, whatever sent-by claims, also
// where that is a name; 18.2.2: that is where the response goes, at sent-by's port.
func TestRFC3261_18_2_1_ReceivedIsTheSource(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	for _, host := range []string{"phone.example", "192.0.2.1", "[2001:db8::1]", "127.0.0.2"} {
		send(t, c, n.addr(), request(fmt.Sprintf("Via: SIP/2.0/UDP %s:%d;branch=z9hG4bK1;received=198.51.100.1", host, port)))
		m := n.next(t)
		if got, _ := requestOf(m).Via().Params.Get("received"); got != "127.0.0.1" {
			t.Errorf("%s: received=%s", host, got)
		}
		if err := m.Reply.Send([]byte(host)); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, c); got != host {
			t.Errorf("got %q, want %q", got, host)
		}
	}
	send(t, c, n.addr(), request(fmt.Sprintf("Via: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK2", port)))
	if via := requestOf(n.next(t)).Via(); via.Params.Has("received") {
		t.Errorf("needless: %s", via.Value())
	}
}

// 18.1.1: a datagram of the largest size is taken, if the limit is set so.
func TestRFC3261_18_1_1_TheLargestDatagram(t *testing.T) {
	n := startNode(t, func(c *Config) { c.Limits.Datagram, c.Limits.Body = 65535, 65535 })
	c := dial(t)
	head := request("Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1")
	send(t, c, n.addr(), head+strings.Repeat("x", 65507-len(head)))
	if m := n.next(t); len(m.Raw) != 65507 {
		t.Errorf("got %d bytes", len(m.Raw))
	}
}

// 7.5: CRLF before the start line is no part of the message, nor of its bytes.
func TestRFC3261_7_5_LeadingCRLF(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	send(t, c, n.addr(), "\r\n\r\n"+request("Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1"))
	if m := n.next(t); m.Head().Method == "" || string(m.Raw[:len(m.Head().Method)]) != m.Head().Method {
		t.Errorf("%q", m.Raw)
	}
}

func TestMalformedRequestIsAnswered400AndCounted(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	send(t, c, n.addr(), request("Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1", "CSeq: 1 INVITE"))
	if got := receive(t, c); !strings.HasPrefix(got, "SIP/2.0 400 Bad Request\r\n") {
		t.Errorf("got %q", got)
	}
	if st := n.Stats(); st.Refused != 1 || st.Malformed["CSeq method"] != 1 {
		t.Errorf("got %+v", st)
	}
}

// 5.4, 8: STUN on the SIP port, and a ping of CRLFs, as some send over UDP too.
func TestRFC5626_5_4_KeepAlivesOverUDP(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	send(t, c, n.addr(), "\r\n") // a pong, or a NAT kept open: no answer
	send(t, c, n.addr(), "\r\n\r\n")
	if got := receive(t, c); got != "\r\n" {
		t.Errorf("got %q, want CRLF", got)
	}
	ping := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42}, "transaction1"...)
	send(t, c, n.addr(), string(ping))
	got := []byte(receive(t, c))
	from := c.LocalAddr().(*net.UDPAddr).AddrPort()
	if len(got) != 32 || binary.BigEndian.Uint16(got) != stunSuccess || string(got[8:20]) != "transaction1" {
		t.Fatalf("got %x", got)
	}
	if port := binary.BigEndian.Uint16(got[26:]) ^ 0x2112; port != from.Port() {
		t.Errorf("got port %d, want %d", port, from.Port())
	}
	if ip := binary.BigEndian.Uint32(got[28:]) ^ stunMagic; ip != 0x7f000001 {
		t.Errorf("got address %x", ip)
	}
	if st := n.Stats(); st.KeepAlives != 2 || st.MessagesIn != 0 {
		t.Errorf("got %+v", st)
	}
}

// RFC 5769 2.1 and 2.2: the sample request, whose FINGERPRINT must hold, and
// the XOR-MAPPED-ADDRESS of the sample response.
func TestRFC5769_2(t *testing.T) {
	ping, err := hex.DecodeString("000100582112a442b7e7a701bc34d686fa87dfae" +
		"80220010" + "5354554e207465737420636c69656e74" +
		"00240004" + "6e0001ff" + "80290008" + "932ff9b151263b36" +
		"00060009" + "6576746a3a68367659202020" +
		"00080014" + "9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2" + "80280004" + "e57a3bcf")
	if err != nil {
		t.Fatal(err)
	}
	// PRIORITY (0x0024) must be understood and is not: 420, naming it.
	got := answerSTUN(nil, ping, netip.MustParseAddrPort("192.0.2.1:32853"))
	if binary.BigEndian.Uint16(got) != stunFailure || got[26] != 4 || got[27] != 20 {
		t.Fatalf("got %x", got)
	}
	if _, fingerprint, ok := stunAttributes(got); !ok || !fingerprint {
		t.Error("the answer's own FINGERPRINT does not hold")
	}
	bare := append([]byte{0, 1, 0, 0}, ping[4:20]...)
	got = answerSTUN(nil, bare, netip.MustParseAddrPort("192.0.2.1:32853"))
	if want := "002000080001a147e112a643"; hex.EncodeToString(got[20:]) != want {
		t.Errorf("got %x, want %s", got[20:], want)
	}
	got = answerSTUN(nil, bare, netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853"))
	if want := "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"; hex.EncodeToString(got[20:]) != want {
		t.Errorf("got %x, want %s", got[20:], want)
	}
	ping[len(ping)-1]++
	if got := answerSTUN(nil, ping, netip.MustParseAddrPort("192.0.2.1:1")); got != nil {
		t.Errorf("a wrong FINGERPRINT was answered: %x", got)
	}
}

func FuzzSTUN(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x04\x21\x12\xa4\x42transaction1\x80\x22\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if isSTUN(b) {
			answerSTUN(nil, b, netip.MustParseAddrPort("192.0.2.1:1"))
		}
	})
}

func TestListenRefusesATakenPort(t *testing.T) {
	// Another process of the same user with SO_REUSEPORT: sharing would succeed.
	n := startNode(t, nil)
	tr, err := New(Config{UDP: []netip.AddrPort{n.addr()}, Sockets: 1, MaxFlows: 64, Limits: DefaultLimits()},
		func(*Message) {}, func(bool) *messages.FlowID { return nil }, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Listen(); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), n.addr().String()) {
		t.Errorf("got %v, want EADDRINUSE with the address", err)
	}
}

// A flood from forged sources must leave nothing behind.
func TestUDPSourceWithoutIDLeavesNoEntry(t *testing.T) {
	n := startNode(t, nil)
	for range 50 {
		c := dial(t)
		send(t, c, n.addr(), request())
		n.next(t)
	}
	if st := n.Stats(); st.Flows != 0 {
		t.Errorf("got %d flows, want 0", st.Flows)
	}
}

func TestFlowIDIsOfThe4Tuple(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	remote := c.LocalAddr().(*net.UDPAddr).AddrPort()
	send(t, c, n.addr(), request())
	first := n.next(t).Flow
	send(t, c, n.addr(), request())
	second := n.next(t).Flow
	id := n.Pin(first)
	if id != first.ID() || keyOf(second.ID()) != keyOf(id) || id.GetStream() {
		t.Errorf("got %v and %v", id, second.ID())
	}
	out, err := n.Flow("udp", remote)
	if err != nil || keyOf(out.ID()) != keyOf(id) {
		t.Errorf("Flow: got %v, %v", out.ID(), err)
	}
	got, ok := n.ByID(&messages.FlowID{Incarnation: 7, Counter: id.GetCounter()})
	if !ok || !n.Open(id) || got.Remote() != remote {
		t.Fatalf("ByID: got %v, %v", got, ok)
	}
	if err := got.Send([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if text := receive(t, c); text != "hello" {
		t.Errorf("got %q", text)
	}
}

func TestRestore(t *testing.T) {
	n := startNode(t, nil)
	c := dial(t)
	remote := c.LocalAddr().(*net.UDPAddr).AddrPort()
	old := &messages.FlowID{Incarnation: 3, Counter: 9}
	f, err := n.Restore(old, "udp", n.addr(), remote)
	if err != nil || keyOf(f.ID()) != keyOf(old) || !n.Open(old) {
		t.Fatalf("got %v, %v", f, err)
	}
	send(t, c, n.addr(), request())
	if got := n.next(t).Flow.ID(); keyOf(got) != keyOf(old) {
		t.Errorf("the device came back as %v, want %v", got, old)
	}
	again, err := n.Restore(&messages.FlowID{Incarnation: 3, Counter: 10}, "udp", n.addr(), remote)
	if err != nil || again.ID().GetCounter() != 10 || again.Remote() != remote {
		t.Errorf("a second old id of the 4-tuple: got %v, %v", again, err)
	}
	for name, try := range map[string]struct {
		id    *messages.FlowID
		local netip.AddrPort
	}{
		"stream":        {&messages.FlowID{Incarnation: 3, Counter: 11, Stream: true}, n.addr()},
		"other address": {&messages.FlowID{Incarnation: 3, Counter: 12}, netip.MustParseAddrPort("127.0.0.1:1")},
	} {
		if _, err := n.Restore(try.id, "udp", try.local, remote); !errors.Is(err, ErrFlowClosed) {
			t.Errorf("%s: got %v, want ErrFlowClosed", name, err)
		}
	}
}

func TestFlowTableIsBounded(t *testing.T) {
	n := startNode(t, func(c *Config) { c.MaxFlows = 64 })
	for port := range uint16(2000) {
		f, err := n.Flow("udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port+1000))
		if err != nil {
			t.Fatal(err)
		}
		f.ID()
	}
	if st := n.Stats(); st.Flows > 64 || st.Evicted < 1900 {
		t.Errorf("got %d flows and %d evicted, want at most 64", st.Flows, st.Evicted)
	}
}

func TestFlowRefusesWhatNoSocketReaches(t *testing.T) {
	n := startNode(t, nil)
	for _, try := range []struct{ transport, to string }{
		{"tcp", "127.0.0.1:1"}, {"udp", "[::1]:1"}, {"udp", "192.0.2.1:1"}, {"udp", "127.0.0.1:0"},
	} {
		if _, err := n.Flow(try.transport, netip.MustParseAddrPort(try.to)); !errors.Is(err, ErrNoListener) {
			t.Errorf("%v: got %v, want ErrNoListener", try, err)
		}
	}
}

func BenchmarkUDPReceive(b *testing.B) {
	tr := idleTransport(b, func(*Message) {})
	s := &udpSocket{l: &udpListener{t: tr, addr: tr.cfg.UDP[0]}}
	raw := []byte(request("Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1", "Contact: <sip:a@192.0.2.1>", "Content-Length: 0"))
	from := netip.MustParseAddrPort("127.0.0.1:5060")
	b.ReportAllocs()
	for b.Loop() {
		s.datagram(raw, from, time.Time{}, false)
	}
}
