package transport

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hereis/messages"
)

// startTCP is a node that takes connections; closed tells of ended ones.
func startTCP(t *testing.T, change func(*Config)) (*node, chan Flow) {
	t.Helper()
	closed := make(chan Flow, 64)
	n := startNode(t, func(c *Config) {
		c.TCP = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
		c.OnClose = func(f Flow) { closed <- f }
		if change != nil {
			change(c)
		}
	})
	return n, closed
}

func connect(t *testing.T, n *node) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", n.TCPAddrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func nextClosed(t *testing.T, closed chan Flow) Flow {
	t.Helper()
	select {
	case f := <-closed:
		return f
	case <-time.After(20 * time.Second):
		t.Fatal("no connection ended")
		return nil
	}
}

// eventually polls until ok or five seconds are over.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestRFC3261_18_3_FramesByContentLength(t *testing.T) {
	n, _ := startTCP(t, nil)
	c := connect(t, n)
	two := request("Subject: a\r\n  b", "l: 3") + "one" + "\r\n" + request("Call-ID: c2", "Content-Length: 0")
	// Every way to cut them in two, among them inside the fold and the CRLFs.
	for cut := range two {
		write(t, c, two[:cut])
		if cut%16 == 0 {
			time.Sleep(time.Millisecond) // likelier two segments; right either way
		}
		write(t, c, two[cut:])
		first, second := n.next(t), n.next(t)
		if got := string(requestOf(first).Body()); got != "one" || requestOf(first).GetHeader("subject").Value() != "a b" {
			t.Fatalf("cut at %d: got body %q", cut, got)
		}
		if got := requestOf(second).CallID().Value(); got != "c2" {
			t.Fatalf("cut at %d: got Call-ID %q", cut, got)
		}
	}
	if got := n.Stats().Connections; got != 1 {
		t.Errorf("got %d connections, want 1", got)
	}
}

// 5.4: a double CRLF between messages is answered at once, with one.
func TestRFC5626_5_4_PingAlsoInPieces(t *testing.T) {
	n, _ := startTCP(t, nil)
	c := connect(t, n)
	for _, piece := range []string{"\r", "\n\r", "\n"} {
		write(t, c, piece)
		time.Sleep(time.Millisecond)
	}
	if got := read(t, c, 2); got != "\r\n" {
		t.Errorf("got %q", got)
	}
	write(t, c, "\r\n\r\n"+request("l: 0"))
	if got := read(t, c, 2); got != "\r\n" {
		t.Errorf("got %q", got)
	}
	n.next(t)
}

// The node has read each piece before the next is sent, wherever head and body are cut.
func TestRFC3261_18_3_PiecesThatAreReadOneByOne(t *testing.T) {
	n, _ := startTCP(t, nil)
	c := connect(t, n)
	text := request("l: 40") + strings.Repeat("1234\r\n\r\n", 5)
	sent := uint64(0)
	piece := func(s string) {
		write(t, c, s)
		sent += uint64(len(s))
		eventually(t, "a piece is read", func() bool { return n.Stats().BytesIn == sent })
	}
	for cut := 1; cut < len(text); cut++ {
		piece(text[:cut])
		piece(text[cut:])
		if got := string(requestOf(n.next(t)).Body()); len(got) != 40 {
			t.Fatalf("cut at %d: got body %q", cut, got)
		}
	}
	for i := range text {
		piece(text[i : i+1])
	}
	n.next(t)
}

func TestTCPReplyTakesTheConnection(t *testing.T) {
	n, closed := startTCP(t, nil)
	c := connect(t, n)
	write(t, c, request("Via: SIP/2.0/TCP 192.0.2.1:9;branch=z9hG4bK1", "l: 0"))
	m := n.next(t)
	if !m.Flow.Reliable() || m.Flow.Transport() != "tcp" || m.Reply.Remote() != m.Flow.Remote() {
		t.Errorf("got %v", m.Flow)
	}
	id := m.Flow.ID()
	if f, ok := n.ByID(id); !ok || f != m.Flow || !id.GetStream() {
		t.Errorf("got %v, %v", f, ok)
	}
	same, err := n.Flow("tcp", m.Flow.Remote())
	if err != nil || same != m.Flow {
		t.Errorf("got %v, %v, want the connection that there is", same, err)
	}
	if err := m.Reply.Send([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, 6); got != "answer" {
		t.Errorf("got %q", got)
	}
	_ = c.Close()
	if got := nextClosed(t, closed); got != m.Flow {
		t.Errorf("got %v", got)
	}
	if n.Open(id) || n.Stats().Flows != 0 {
		t.Error("a closed connection is known by id")
	}
	if err := m.Flow.Send([]byte("x")); !errors.Is(err, ErrFlowClosed) {
		t.Errorf("got %v, want ErrFlowClosed", err)
	}
	if _, err := n.Restore(id, "tcp", m.Flow.Local(), m.Flow.Remote()); !errors.Is(err, ErrFlowClosed) {
		t.Errorf("got %v, want ErrFlowClosed", err)
	}
}

func TestRFC3261_18_2_2_AClosedConnectionIsReplaced(t *testing.T) {
	n, closed := startTCP(t, nil)
	sentBy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sentBy.Close() }()
	c := connect(t, n)
	write(t, c, request("Via: SIP/2.0/TCP "+sentBy.Addr().String()+";branch=z9hG4bK1", "l: 0"))
	m := n.next(t)
	_ = c.Close()
	nextClosed(t, closed)
	if err := m.Reply.Send([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	again, err := sentBy.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if got := read(t, again, 6); got != "answer" {
		t.Errorf("got %q", got)
	}
}

func TestTCPMalformed(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		closes    bool
		status    string
	}{
		{"no Content-Length", request(), true, "400"},
		{"two", request("l: 0", "Content-Length: 0"), true, "400"},
		{"not a number", request("l: 1x"), true, "400"},
		{"too long", request("l: 70000"), true, "513"},
		{"header line", request("Nonsense", "l: 0"), true, "400"},
		{"flaw with the boundary known", request("CSeq: 1 INVITE", "l: 0"), false, "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, closed := startTCP(t, nil)
			c := connect(t, n)
			write(t, c, tt.raw)
			if got := read(t, c, 11); got != "SIP/2.0 "+tt.status {
				t.Fatalf("got %q, want %s", got, tt.status)
			}
			if tt.closes {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
				nextClosed(t, closed)
				return
			}
			write(t, c, request("l: 0"))
			n.next(t)
		})
	}
}

func TestTCPHeadWithoutEndIsBounded(t *testing.T) {
	n, closed := startTCP(t, func(c *Config) { c.Streams.Message = 8 << 10 })
	c := connect(t, n)
	_, _ = io.WriteString(c, "REGISTER sip:a SIP/2.0\r\n"+strings.Repeat("X: y\r\n", 4000))
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
	nextClosed(t, closed)
	if st := n.Stats(); st.Malformed["head too long"] != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestTCPLimitsPerSourceAndSilence(t *testing.T) {
	n, closed := startTCP(t, func(c *Config) { c.Streams.PerSource = 2; c.Streams.Idle = 300 * time.Millisecond })
	first, second := connect(t, n), connect(t, n)
	eventually(t, "two connections", func() bool { return n.Stats().Connections == 2 })
	third := connect(t, n)
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was taken")
	}
	// Silence ends the others, and makes room.
	nextClosed(t, closed)
	nextClosed(t, closed)
	_, _ = first, second
	write(t, connect(t, n), request("l: 0"))
	n.next(t)
}

func TestTCPATrickleDoesNotProlong(t *testing.T) {
	n, closed := startTCP(t, func(c *Config) { c.Streams.Begun = 200 * time.Millisecond })
	c := connect(t, n)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for range 500 {
			if _, err := io.WriteString(c, "X"); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	nextClosed(t, closed)
	_ = c.Close()
	<-stop
}

func TestTCPAPeerThatDoesNotReadIsClosed(t *testing.T) {
	n, closed := startTCP(t, nil)
	c := connect(t, n)
	write(t, c, request("l: 0"))
	f := n.next(t).Flow
	big := make([]byte, 32<<10)
	var err error
	for range 10_000 {
		if err = f.Send(big); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFlowFull) && !errors.Is(err, ErrFlowClosed) {
		t.Errorf("got %v, want ErrFlowFull", err)
	}
	nextClosed(t, closed)
}

func TestTCPDialIsSharedAndKeepsOrder(t *testing.T) {
	n, _ := startTCP(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	first, err := n.Flow("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.Flow("tcp", to)
	if err != nil || first != second {
		t.Errorf("got %v and %v, %v, want one connection", first, second, err)
	}
	for _, text := range []string{"one ", "two ", "three"} {
		if err := first.Send([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if got := read(t, c, 13); got != "one two three" {
		t.Errorf("got %q", got)
	}
	write(t, c, request("l: 0"))
	if got := n.next(t).Flow; got != first || got.Local().String() != c.RemoteAddr().String() {
		t.Errorf("got %v", got)
	}
}

func TestTCPDialThatFailsIsTold(t *testing.T) {
	n, closed := startTCP(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	_ = ln.Close()
	f, err := n.Flow("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	if got := nextClosed(t, closed); got != f {
		t.Errorf("got %v", got)
	}
	if err := f.Send([]byte("x")); !errors.Is(err, ErrFlowClosed) {
		t.Errorf("got %v, want ErrFlowClosed", err)
	}
}

func TestListenRefusesATakenTCPPort(t *testing.T) {
	n, _ := startTCP(t, nil)
	cfg := DefaultConfig()
	cfg.TCP = n.TCPAddrs()
	tr, err := New(cfg, func(*Message) {}, func(bool) *messages.FlowID { return nil }, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Listen(); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}
