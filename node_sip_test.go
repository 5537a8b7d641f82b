package hereis_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hereis/bench/ports"
)

// tcpPhone is a TCP connection to a node that speaks just enough SIP for a call.
type tcpPhone struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialPhone(t *testing.T, addr string) *tcpPhone {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &tcpPhone{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (p *tcpPhone) send(body string, lines ...string) {
	p.t.Helper()
	msg := strings.Join(lines, "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(p.conn, msg); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next message that is not a provisional answer.
func (p *tcpPhone) read() (head []string, body string) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		head = nil
		length := 0
		for {
			line, err := p.in.ReadString('\n')
			if err != nil {
				p.t.Fatal(err)
			}
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				break
			}
			if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				length, _ = strconv.Atoi(v)
			}
			head = append(head, line)
		}
		buf := make([]byte, length)
		if _, err := io.ReadFull(p.in, buf); err != nil {
			p.t.Fatal(err)
		}
		if len(head) > 0 && !strings.HasPrefix(head[0], "SIP/2.0 1") {
			return head, string(buf)
		}
	}
}

func (p *tcpPhone) via(branch string) string {
	return "Via: SIP/2.0/TCP " + p.conn.LocalAddr().String() + ";branch=z9hG4bK" + branch
}

// An INVITE of 5 kB crosses nodes over TCP, to an edge that serves nothing
// else and to one that serves both, and so does its answer and what follows.
func TestRFC3261_18_1_1_LargeInviteAcrossNodes(t *testing.T) {
	cfgs := configs(t, 3)
	at := make([]string, len(cfgs))
	for i := range cfgs {
		at[i] = strings.TrimPrefix(cfgs[i].SIP[0], "udp:")
		cfgs[i].SIP = []string{at[i]}
	}
	cfgs[2].SIP = []string{"tcp:" + at[2]}
	startAll(t, cfgs, nil)
	caller := dialPhone(t, at[0])
	for i, edge := range at[1:] {
		user := fmt.Sprintf("bob%d", i)
		phone := dialPhone(t, edge)
		phone.send("", "REGISTER sip:example.com SIP/2.0", phone.via("r"), "From: <sip:"+user+"@example.com>;tag=r",
			"To: <sip:"+user+"@example.com>", "Call-ID: reg-"+user, "CSeq: 1 REGISTER", "Max-Forwards: 70",
			"Contact: <sip:"+user+"@10.0.0.5;transport=tcp>", "Expires: 600")
		if head, _ := phone.read(); head[0] != "SIP/2.0 200 OK" {
			t.Fatal(head)
		}
		largeCall(t, caller, phone, user)
	}
}

func largeCall(t *testing.T, caller, phone *tcpPhone, user string) {
	t.Helper()
	dialog := []string{"From: <sip:alice@example.com>;tag=a", "To: <sip:" + user + "@example.com>", "Call-ID: call-" + user, "Max-Forwards: 70"}
	sdp := strings.Repeat("a=candidate:0123456789\r\n", 210)
	caller.send(sdp, append([]string{"INVITE sip:" + user + "@example.com SIP/2.0", caller.via("i" + user), "CSeq: 1 INVITE",
		"Contact: <sip:alice@10.0.0.9;transport=tcp>", "Content-Type: application/sdp"}, dialog...)...)
	head, body := phone.read()
	if head[0] != "INVITE sip:"+user+"@10.0.0.5;transport=tcp SIP/2.0" || body != sdp {
		t.Fatalf("%d bytes of body with %s", len(body), strings.Join(head, "\n"))
	}
	if n := strings.Count(strings.Join(head, "\n"), "Via: SIP/2.0/TCP "); n != 3 {
		t.Errorf("%d hops by TCP:\n%s", n, strings.Join(head, "\n"))
	}
	answer := []string{"SIP/2.0 200 OK"}
	var routes []string
	for _, line := range head[1:] {
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "To":
			answer = append(answer, line+";tag=b")
		case "Record-Route":
			routes = append([]string{"Route: " + value}, routes...)
			fallthrough
		case "Via", "From", "Call-ID", "CSeq":
			answer = append(answer, line)
		}
	}
	phone.send(sdp, append(answer, "Contact: <sip:"+user+"@10.0.0.5;transport=tcp>", "Content-Type: application/sdp")...)
	if head, body = caller.read(); head[0] != "SIP/2.0 200 OK" || body != sdp {
		t.Fatalf("caller got %s", strings.Join(head, "\n"))
	}
	dialog[1] += ";tag=b"
	follow := append(dialog, routes...)
	caller.send("", append([]string{"ACK sip:" + user + "@10.0.0.5;transport=tcp SIP/2.0", caller.via("a" + user), "CSeq: 1 ACK"}, follow...)...)
	if head, _ = phone.read(); !strings.HasPrefix(head[0], "ACK ") {
		t.Errorf("phone got %s", head[0])
	}
}

// nameServer answers from records in zone-file form until the test ends.
func nameServer(t *testing.T, lines ...string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var rrs []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	up, done := make(chan struct{}), make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }}
	srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		res := new(dns.Msg).SetReply(q)
		for _, rr := range rrs {
			if h := rr.Header(); strings.EqualFold(h.Name, q.Question[0].Name) && h.Rrtype == q.Question[0].Qtype {
				res.Answer = append(res.Answer, rr)
			}
		}
		_ = w.WriteMsg(res)
	})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = srv.Shutdown(); <-done })
	return pc.LocalAddr().String()
}

// A Contact that is a domain is called where its NAPTR and SRV records say:
// its first server refuses the connection, the second takes the call.
func TestRFC3263_4_3_CallsThroughDNSWithFailover(t *testing.T) {
	cfgs := configs(t, 1)
	at := strings.TrimPrefix(cfgs[0].SIP[0], "udp:")
	cfgs[0].SIP, cfgs[0].Join = []string{at}, nil
	gateway, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	port := netip.MustParseAddrPort(gateway.Addr().String()).Port()
	refused := netip.MustParseAddrPort(ports.Addrs(t, 1)[0]).Port()
	cfgs[0].DNS = []string{nameServer(t,
		`gw.example.net. 60 IN NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.gw.example.net.`,
		`gw.example.net. 60 IN NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.gw.example.net.`,
		fmt.Sprintf("_sip._tcp.gw.example.net. 60 IN SRV 0 0 %d a.gw.example.net.", refused),
		fmt.Sprintf("_sip._tcp.gw.example.net. 60 IN SRV 1 0 %d b.gw.example.net.", port),
		"a.gw.example.net. 60 IN A 127.0.0.1", "b.gw.example.net. 60 IN A 127.0.0.1",
	)}
	startAll(t, cfgs, nil)
	caller := dialPhone(t, at)
	caller.send("", "REGISTER sip:example.com SIP/2.0", caller.via("r"), "From: <sip:bob@example.com>;tag=r",
		"To: <sip:bob@example.com>", "Call-ID: reg", "CSeq: 1 REGISTER", "Max-Forwards: 70", "Contact: <sip:bob@gw.example.net>")
	if head, _ := caller.read(); head[0] != "SIP/2.0 200 OK" {
		t.Fatal(head)
	}
	caller.send("", "MESSAGE sip:bob@example.com SIP/2.0", caller.via("m"), "From: <sip:alice@example.com>;tag=a",
		"To: <sip:bob@example.com>", "Call-ID: msg", "CSeq: 1 MESSAGE", "Max-Forwards: 70")
	_ = gateway.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	conn, err := gateway.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer := &tcpPhone{t: t, conn: conn, in: bufio.NewReader(conn)}
	if head, _ := peer.read(); head[0] != "MESSAGE sip:bob@gw.example.net SIP/2.0" {
		t.Errorf("the gateway got %s", head[0])
	}
}
