package transport

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"hereis/messages"
)

// batchNode is a transport that is not running: the test reads its one socket.
func batchNode(t *testing.T, addr string, h Handler) *udpSocket {
	t.Helper()
	cfg := DefaultConfig()
	cfg.UDP, cfg.Sockets = []netip.AddrPort{netip.MustParseAddrPort(addr)}, 1
	tr, err := New(cfg, h, func(bool) *messages.FlowID { return &messages.FlowID{} }, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Listen(); err != nil {
		t.Skipf("%s: %v", addr, err) // a machine without IPv6
	}
	t.Cleanup(tr.Close)
	return tr.udp[0].sockets[0]
}

// readSome reads what is there and hands it on, until n datagrams have come.
func readSome(t *testing.T, s *udpSocket, n int) {
	t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := newBatch(s.l.t.cfg.Limits.Datagram + 1)
	for n > 0 {
		got, err := s.readAll(in)
		if err != nil {
			t.Fatal(err)
		}
		s.takeIn(in, got, time.Now())
		n -= got
	}
}

const batchRequest = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK%[1]d;rport\r\nFrom: <sip:f@h>;tag=1\r\n" +
	"To: <sip:t@h>\r\nCall-ID: %[1]d\r\nCSeq: 1 OPTIONS\r\n\r\n"

// TestUDPBatch_EachAnswerToItsSender: whatever comes at once, and in either
// family, each datagram has its sender and each answer goes there, in order.
func TestUDPBatch_EachAnswerToItsSender(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			s := batchNode(t, listen, func(m *Message) {
				if err := SendSoon(m.Flow, []byte(string(*requestOf(m).CallID())+" "+m.Flow.Remote().String())); err != nil {
					t.Error(err)
				}
			})
			to := s.l.addr
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
			}
			const each = 3*batchSize + 1
			var conns [3]*net.UDPConn
			for i := range conns {
				c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns[i] = c
			}
			for i := range each {
				for _, c := range conns {
					if _, err := fmt.Fprintf(c, batchRequest, i); err != nil {
						t.Fatal(err)
					}
				}
			}
			readSome(t, s, each*len(conns))
			for _, c := range conns {
				for i := range each {
					b := make([]byte, 100)
					if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
						t.Fatal(err)
					}
					n, err := c.Read(b)
					if want := fmt.Sprintf("%d %s", i, c.LocalAddr()); err != nil || string(b[:n]) != want {
						t.Fatalf("got %q, %v, want %q", b[:n], err, want)
					}
				}
			}
			st := s.l.t.Stats()
			if want := uint64(each * len(conns)); st.MessagesIn != want || st.MessagesOut != want || st.SendErrors != 0 || st.BytesOut == 0 {
				t.Errorf("counted %+v, want %d each way", st, want)
			}
		})
	}
}

// TestUDPBatch_OneThatIsRefusedHoldsNoneUp: the system refuses port 0.
func TestUDPBatch_OneThatIsRefusedHoldsNoneUp(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	c := dial(t)
	good := c.LocalAddr().(*net.UDPAddr).AddrPort()
	bad := netip.AddrPortFrom(good.Addr(), 0)
	other := netip.MustParseAddrPort("[2001:db8::1]:5060")
	s.out.begin()
	for i, to := range []netip.AddrPort{bad, good, bad, other, good, bad} {
		if err := SendSoon(&udpFlow{socket: s, remote: to}, []byte{'a' + byte(i)}); err != nil {
			t.Error(err)
		}
	}
	s.flush()
	for _, want := range "be" {
		b := make([]byte, 10)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err != nil || string(b[:n]) != string(want) {
			t.Fatalf("got %q, %v, want %q", b[:n], err, want)
		}
	}
	if st := s.l.t.Stats(); st.MessagesOut != 2 || st.SendErrors != 4 {
		t.Errorf("sent %d, refused %d, want 2 and 4", st.MessagesOut, st.SendErrors)
	}
}

// owner counts what it is told of its messages.
type owner struct{ failed int }

func (o *owner) SendFailed(err error) {
	if err != nil {
		o.failed++
	}
}

// TestUDPBatch_WhoSentWhatIsRefusedIsTold: also where others around it were sent,
// and one that is alone.
func TestUDPBatch_WhoSentWhatIsRefusedIsTold(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	good := dial(t).LocalAddr().(*net.UDPAddr).AddrPort()
	bad := netip.AddrPortFrom(good.Addr(), 0)
	other := netip.MustParseAddrPort("[2001:db8::1]:5060")
	for _, batch := range [][]netip.AddrPort{{bad}, {good}, {good, bad, other, good, bad, good}} {
		owners := make([]owner, len(batch))
		s.out.begin()
		for i, to := range batch {
			if err := SendWith(nil, &udpFlow{socket: s, remote: to}, []byte("x"), &owners[i]); err != nil {
				t.Error(err)
			}
		}
		s.flush()
		for i, to := range batch {
			want := 0
			if to != good {
				want = 1
			}
			if owners[i].failed != want {
				t.Errorf("of %v: the owner of %d was told %d times, want %d", batch, i, owners[i].failed, want)
			}
		}
	}
}

// TestUDPBatch_WhatAMessageLedToLeavesByItsSocket: in the order in which it was
// made, whichever socket of the group its receiver's messages come by.
func TestUDPBatch_WhatAMessageLedToLeavesByItsSocket(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	other := &udpSocket{l: s.l, conn: s.conn, raw: s.raw}
	f := &udpFlow{socket: other, remote: dial(t).LocalAddr().(*net.UDPAddr).AddrPort()}
	with := &udpFlow{socket: s, remote: f.remote}
	sent := func() uint64 { return s.l.t.Stats().MessagesOut }
	s.out.begin()
	if err := SendWith(with, f, []byte("x"), nil); err != nil || sent() != 0 {
		t.Errorf("%v, %d sent while a batch is handled, want 0", err, sent())
	}
	if err := SendWith(nil, f, []byte("x"), nil); err != nil || sent() != 1 {
		t.Errorf("%v, %d sent by a socket that handles nothing, want 1", err, sent())
	}
	s.flush()
	if sent() != 2 {
		t.Errorf("%d sent in the end, want 2", sent())
	}
	s.out.begin()
	elsewhere := &udpFlow{socket: batchNode(t, "127.0.0.1:0", func(*Message) {}), remote: f.remote}
	if err := SendWith(with, elsewhere, []byte("x"), nil); err != nil || elsewhere.socket.l.t.Stats().MessagesOut != 1 {
		t.Errorf("%v: a flow of another address was not used at once", err)
	}
	s.flush()
}

// TestUDPBatch_NothingWaitsOutsideOfOne: an answer goes at once when no batch is
// being handled, all that wait when a batch ends, and before when they are many.
func TestUDPBatch_NothingWaitsOutsideOfOne(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	f := &udpFlow{socket: s, remote: dial(t).LocalAddr().(*net.UDPAddr).AddrPort()}
	sent := func() uint64 { return s.l.t.Stats().MessagesOut }
	send := func(n int) {
		for range n {
			if err := SendSoon(f, []byte("x")); err != nil {
				t.Error(err)
			}
		}
	}
	send(1)
	if got := sent(); got != 1 {
		t.Errorf("%d sent, want 1", got)
	}
	s.out.begin()
	send(batchSize + 2)
	if got := sent(); got != 1+batchSize {
		t.Errorf("%d sent by a full outbox, want %d", got, 1+batchSize)
	}
	s.l.t.Together(func() { send(1) })
	if got := sent(); got != batchSize+4 {
		t.Errorf("%d sent at the end of another's batch, want %d", got, batchSize+4)
	}
	send(1)
	if got := sent(); got != batchSize+4 {
		t.Errorf("%d sent while a batch is handled, want %d", got, batchSize+4)
	}
	s.flush()
	send(1)
	if got := sent(); got != batchSize+6 {
		t.Errorf("%d sent in the end, want %d", got, batchSize+6)
	}
}

// TestUDPBatch_AnswersFromAnywhere: others send while batches begin and end.
func TestUDPBatch_AnswersFromAnywhere(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	f := &udpFlow{socket: s, remote: dial(t).LocalAddr().(*net.UDPAddr).AddrPort()}
	const senders, each = 4, 200
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for range each {
				if err := SendSoon(f, []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	for over := false; !over; {
		select {
		case <-all:
			over = true
		default:
		}
		s.l.t.Together(func() {
			s.out.begin()
			s.flush()
		})
	}
	if st := s.l.t.Stats(); st.MessagesOut+st.SendErrors != senders*each {
		t.Errorf("%d of %d sent", st.MessagesOut+st.SendErrors, senders*each)
	}
}

// TestUDPBatch_ArrivalIsThatOfTheSocket: how long a datagram waited to be read counts.
func TestUDPBatch_ArrivalIsThatOfTheSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell when a datagram came")
	}
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			var came []time.Time
			s := batchNode(t, listen, func(m *Message) { came = append(came, m.At) })
			to := s.l.addr
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
			}
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			for i := range 3 {
				if _, err := fmt.Fprintf(c, batchRequest, i); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(50 * time.Millisecond) // they wait
			read := time.Now()
			readSome(t, s, 3)
			for i, at := range came {
				// The wall clock may be slewed a little meanwhile.
				if at.Before(began.Add(-time.Millisecond)) || !at.Before(read) {
					t.Errorf("datagram %d came %v after it was sent, want less than %v", i, at.Sub(began), read.Sub(began))
				}
			}
		})
	}
}
