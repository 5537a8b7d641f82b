package transport

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

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

// TestUDPBatch_ACopyIsTheSenders: what is sent as a copy may be written over at
// once, also where the queue's memory has been used before.
func TestUDPBatch_ACopyIsTheSenders(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	c := dial(t)
	f := &udpFlow{socket: s, remote: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	for round := range 3 {
		s.out.begin()
		b := make([]byte, 1)
		for i := range batchSize / 2 {
			b[0] = 'a' + byte(round+i)
			send := SendSoonCopy
			if i%3 == 1 {
				send = func(f Flow, b []byte) error { return SendSoon(f, []byte{b[0]}) }
			}
			if err := send(f, b); err != nil {
				t.Error(err)
			}
		}
		b[0] = '?'
		s.flush()
		for i := range batchSize / 2 {
			got := make([]byte, 10)
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(got); err != nil || string(got[:n]) != string(rune('a'+round+i)) {
				t.Fatalf("round %d: got %q, %v, want %c", round, got[:n], err, 'a'+round+i)
			}
		}
	}
}

// TestUDP_HeldFlows: what is held in a FlowRoom is like the flow that it was made
// of, which may become another; what is to last longer has memory of its own.
func TestUDP_HeldFlows(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	n, next := s.l.t, uint64(0)
	n.makeID = func(bool) *messages.FlowID { next++; return &messages.FlowID{Incarnation: 7, Counter: next} }
	var room FlowRoom
	var lasting []Flow
	n.cfg.Plain = func(m *Message) bool {
		f := room.Hold(m.Flow)
		m.Spent = true
		lasting = append(lasting, Lasting(f))
		var id messages.FlowID
		if n.PinTo(f, &id); !proto.Equal(&id, n.Pin(m.Flow)) || !proto.Equal(&id, n.Pin(f)) || id.Counter == 0 {
			t.Errorf("%v has the id %v, and %v", f.Remote(), &id, m.Flow.ID())
		}
		if n.PinTo(f, &id); !proto.Equal(&id, f.ID()) {
			t.Errorf("%v is told as %v, and is %v", f.Remote(), &id, f.ID())
		}
		return true
	}
	ids := map[uint64]bool{}
	for i := range 6 {
		remote := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(5001+i%3))
		s.datagram([]byte("text"), remote, time.Now(), false)
		if f := lasting[i]; f.Remote() != remote || f == Flow(&room.flow) {
			t.Errorf("a flow of %v leads to %v", remote, f.Remote())
		}
		ids[lasting[i].ID().Counter] = true
	}
	if len(ids) != 3 {
		t.Errorf("three peers have %d ids", len(ids))
	}
	other := &replyStream{}
	if room.Hold(other) != Flow(other) || Lasting(other) != Flow(other) {
		t.Error("a connection is held as another")
	}
}

// TestUDP_AFlowIsUsedAgainIfNobodyKeptIt: only then.
func TestUDP_AFlowIsUsedAgainIfNobodyKeptIt(t *testing.T) {
	s := batchNode(t, "127.0.0.1:0", func(*Message) {})
	var flows []Flow
	s.l.t.cfg.Plain = func(m *Message) bool {
		m.Spent = len(m.Raw) > 10
		flows = append(flows, m.Flow)
		if want := netip.MustParseAddrPort("127.0.0.1:" + string(m.Raw[:4])); m.Flow.Remote() != want {
			t.Errorf("flow to %v, want %v", m.Flow.Remote(), want)
		}
		return true
	}
	for _, text := range []string{"5001 is spent", "5002 is spent", "5003 kept", "5004 is spent"} {
		s.datagram([]byte(text), netip.MustParseAddrPort("127.0.0.1:"+text[:4]), time.Now(), false)
	}
	if flows[0] != flows[1] || flows[1] != flows[2] || flows[2] == flows[3] {
		t.Errorf("flows %p", flows)
	}
}
