package sipfront

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// passMesh is a mesh whose nodes pass on what they can; bob is behind n2.
func passMesh(t *testing.T, f func(t *testing.T, m *mesh, n1, n2 *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, n1, n2 := newMesh(t)
		n1.passing, n2.passing = true, true
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		f(t, m, n1, n2)
	})
}

// topBranch is the branch of the topmost Via.
func topBranch(raw string) string {
	_, _, v, _ := topVia(raw)
	x, _ := parseVia(v)
	b, _ := param(x.params, "branch")
	return b
}

// An INVITE whose device is silent is answered 100 in time for rule 17, repeated
// by timer A, and given up after 64*T1, as if this node had its transactions.
func TestRFC3261_16_11_SilentDeviceBehindAnotherNode(t *testing.T) {
	passMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "p1"))
		const one = "INVITE sip:bob@10.0.0.5:5060 SIP/2.0"
		m.expect(bob, one)
		first := n2.lastReq[bob]
		time.Sleep(90 * time.Millisecond)
		m.pump()
		if n1.lastRes[addr1] != "" || n2.lastRes[addr1] != "" {
			t.Error("answered before its time")
		}
		time.Sleep(30 * time.Millisecond)
		m.pump()
		if !strings.HasPrefix(n2.lastRes[addr1], "SIP/2.0 100 ") {
			t.Fatalf("n1 got %q", n2.lastRes[addr1])
		}
		time.Sleep(500 * time.Millisecond)
		m.expect(bob, one)
		time.Sleep(time.Second)
		m.expect(bob, one)
		if n2.lastReq[bob] != first {
			t.Errorf("repeated as\n%s\nafter\n%s", n2.lastReq[bob], first)
		}
		time.Sleep(31 * time.Second)
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 408 Request Timeout")
		if st := n2.layer.Stats(); st.Active != 0 || st.Servers != 0 || st.Passed != 1 {
			t.Errorf("n2: %+v", st)
		}
	})
}

// A repeat is answered 100 while the device has said nothing, and passed on as
// the same after that, so that the device repeats what it said.
func TestRFC3261_16_11_RepeatsHaveTheSameBranch(t *testing.T) {
	passMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "p2"))
		m.pump()
		again, first := strings.ReplaceAll(n1.lastReq[addr2], "\r\n", "\n"), n2.lastReq[bob]
		n2.recv(addr1, again)
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if !strings.HasPrefix(n2.lastRes[addr1], "SIP/2.0 100 ") {
			t.Errorf("n1 got %q", n2.lastRes[addr1])
		}
		n2.answer(bob, "180", "")
		n2.recv(addr1, again)
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if n2.lastReq[bob] != first {
			t.Errorf("passed on again as\n%s\nnot as\n%s", n2.lastReq[bob], first)
		}
	})
}

// CANCEL and ACK reach the device with the branch of their INVITE (16.11, 9.1, 17.1.1.3).
func TestRFC3261_16_11_CancelAndAckFollowTheirInvite(t *testing.T) {
	passMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "p3", "Proxy-Authorization: Digest realm=\"elsewhere\""))
		m.pump()
		branch := topBranch(n2.lastReq[bob])
		n2.answer(bob, "180", "")
		m.pump()
		n1.recv(alice, strings.Replace(invite("CANCEL", "sip:bob@example.com", "p3"), "branch=z9hG4bKp3", "branch=z9hG4bKp3", 1))
		m.pump()
		got := m.inbox[bob][len(m.inbox[bob])-1]
		if !strings.HasPrefix(got, "CANCEL sip:bob@10.0.0.5:5060 ") || topBranch(got) != branch || strings.Contains(got, markHeader) || strings.Contains(got, "\r\nRoute:") {
			t.Errorf("bob got\n%s\nnot for branch %s", got, branch)
		}
		n2.answer(bob, "487", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 200 OK\nSIP/2.0 487 Request Terminated")
		got = m.inbox[bob][len(m.inbox[bob])-1]
		if !strings.HasPrefix(got, "ACK sip:bob@10.0.0.5:5060 ") || topBranch(got) != branch || strings.Contains(got, markHeader) {
			t.Errorf("bob got\n%s\nnot for branch %s", got, branch)
		}
		if st := n2.layer.Stats(); st.Servers != 0 || st.Clients != 0 || st.Active != 0 {
			t.Errorf("n2: %+v", st)
		}
	})
}

// A request other than INVITE is answered 100 when timer E has come to T2 and not before.
func TestRFC4320_4_1_SlowDeviceBehindAnotherNode(t *testing.T) {
	passMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.recv(alice, invite("OPTIONS", "sip:bob@example.com", "p4"))
		m.pump()
		time.Sleep(3400 * time.Millisecond)
		m.pump()
		if n2.lastRes[addr1] != "" {
			t.Errorf("answered %q", n2.lastRes[addr1])
		}
		time.Sleep(200 * time.Millisecond)
		m.pump()
		if !strings.HasPrefix(n2.lastRes[addr1], "SIP/2.0 100 ") {
			t.Errorf("n1 got %q", n2.lastRes[addr1])
		}
		time.Sleep(4 * time.Second)
		n2.answer(bob, "200", "")
		if got := m.got(alice); !strings.HasSuffix(got, "SIP/2.0 200 Whatever") {
			t.Errorf("alice got %q", got)
		}
		if st := n2.layer.Stats(); st.Servers != 0 {
			t.Errorf("n2: %+v", st)
		}
	})
}

// An answer goes back by its Vias only with the proof that its request came so.
func TestRFC3261_16_11_AnswersNeedTheBranchOfTheirRequest(t *testing.T) {
	passMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", "p5"))
		m.pump()
		branch := topBranch(n2.lastReq[bob])
		good := n2.lastReq[bob]
		for name, bad := range map[string]string{
			"another branch": strings.Replace(good, branch, branch[:len(branch)-1]+"!", 1),
			"another way":    strings.Replace(good, "Via: SIP/2.0/UDP 192.0.2.1:5060", "Via: SIP/2.0/UDP 203.0.113.99:5060", 1),
			"another call":   strings.Replace(good, "Call-ID: p5", "Call-ID: p6", 1),
		} {
			n2.lastReq[bob] = bad
			n2.answer(bob, "200", "")
			m.pump()
			if got := m.got(alice) + m.got("203.0.113.99:5060"); got != "" {
				t.Errorf("%s: %q", name, got)
			}
		}
		// A device may add what it sees of this node (RFC 3261 18.2.1).
		n2.lastReq[bob] = strings.Replace(good, branch, branch+";received=192.0.2.2", 1)
		n2.answer(bob, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// A request that has a transaction here keeps it; a node of an earlier release,
// whose ACK and CANCEL could not be passed on, gets one.
func TestPassing_NodesOfAnEarlierRelease(t *testing.T) {
	passMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "p7"))
		m.pump()
		m.got(bob)
		old := strings.ReplaceAll(strings.Replace(n1.lastReq[addr2], ";"+passParam+">", ">", 1), "\r\n", "\n")
		old = strings.Replace(old, topBranch(n1.lastReq[addr2]), magic+"old", 1)
		n2.recv(addr1, old)
		m.pump()
		if st := n2.layer.Stats(); st.Servers != 1 || st.Passed != 1 {
			t.Errorf("n2: %+v", st)
		}
		cancel := strings.Replace(strings.Replace(old, "INVITE sip:", "CANCEL sip:", 1), "1 INVITE", "1 CANCEL", 1)
		n2.answer(bob, "180", "")
		n2.recv(addr1, cancel)
		if got := m.got(bob); !strings.Contains(got, "CANCEL ") {
			t.Errorf("bob got %q", got)
		}
		if !strings.HasPrefix(n2.lastRes[addr1], "SIP/2.0 200 OK") {
			t.Errorf("n1 got %q", n2.lastRes[addr1])
		}
	})
}

// passPair are two nodes that get the same requests from n1, of which one has
// transactions for all of them.
type passPair struct {
	t                testing.TB
	passes, ordinary *rig
	parser           *transport.Parser
}

func newPassPair(t testing.TB) *passPair {
	p := &passPair{t: t, passes: newNode(t, "n2", addr2), ordinary: newNode(t, "n2", addr2), parser: transport.NewParser(transport.DefaultLimits())}
	for _, r := range []*rig{p.passes, p.ordinary} {
		r.zone.nodes["n1"] = netip.MustParseAddrPort(addr1)
	}
	p.forget() // from now on on layers whose timers nobody drives
	return p
}

// passSample is what n1 sends for bob.
func (p *passPair) sample(method string) string {
	hop := token{kind: tokenHop, edge: "n2", sides: []side{{transport: "udp", remote: netip.MustParseAddrPort(bob), bound: true}}}
	r := &request{asked: asked{method: method, callID: "pair", cseq: 7}, fromTag: "a1"}
	return fmt.Sprintf("%s sip:bob@10.0.0.5:5060;ob SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKpair.AAAAAAAABBBBBBBB\r\n"+
		"Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKp;rport=5060;received=192.0.2.10\r\nRoute: <sip:%s@192.0.2.2:5060;lr;ob;pass>\r\n"+
		"Record-Route: <sip:abc@192.0.2.1:5060;lr>\r\nMax-Breadth: 60\r\n%s: %s\r\nMax-Forwards: 69\r\n"+
		"From: \"Alice\" <sip:alice@example.com>;tag=a1\r\nTo: <sip:bob@example.com>\r\nCall-ID: pair\r\nCSeq: 7 %s\r\n"+
		"Contact: <sip:alice@192.0.2.10:5060>;+sip.instance=\"<urn:uuid:1>\"\r\nSubject: a, b\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
		method, hop.seal(newMACKey(testKeys().FlowToken), ""), markHeader, mark(newMACKey(testKeys().Mark), "n1", p.passes.zone.NowMS(), r), method)
}

// forget makes repeats of earlier requests new ones.
func (p *passPair) forget() {
	for _, r := range []*rig{p.passes, p.ordinary} {
		cfg := transaction.DefaultConfig()
		cfg.Seed = 1
		r.layer = transaction.New(cfg, r.srv)
		r.srv.Use(r.layer)
		r.net.take()
	}
}

// check gives a datagram to both. What the one passes on must be what the other
// forwards, but for the branch.
func (p *passPair) check(raw string) bool {
	p.t.Helper()
	from := netip.MustParseAddrPort(addr1)
	m := &transport.Message{Raw: []byte(raw), Flow: p.passes.net.flow(from), At: time.Now()}
	if !p.passes.srv.Plain(m) {
		if got := p.passes.net.take(); len(got) > 0 {
			p.t.Fatalf("left it alone, and sent %q", got)
		}
		return false
	}
	defer p.forget()
	got := p.passes.net.take()
	if len(got) != 1 || got[0].to != bob {
		p.t.Fatalf("passed on %q", got)
	}
	req, _, err := p.parser.Parse([]byte(raw))
	if err != nil {
		// The node before has let it in: here only what the way depends on is looked at.
		return true
	}
	p.ordinary.layer.Receive(&transport.Message{Request: req, Raw: []byte(raw), Flow: p.ordinary.net.flow(from), At: time.Now()})
	for _, s := range p.ordinary.net.take() {
		if s.to != bob {
			continue
		}
		a, b := string(got[0].raw), string(s.raw)
		if a = strings.Replace(a, topBranch(a), "", 1); a != strings.Replace(b, topBranch(b), "", 1) {
			p.t.Fatalf("passed on as\n%s\nforwarded as\n%s\nof\n%s", a, b, raw)
		}
		return true
	}
	p.t.Fatalf("passed on as\n%s\nand not forwarded, of\n%s", got[0].raw, raw)
	return true
}

func TestPassing_AgreesWithTheOrdinaryWay(t *testing.T) {
	p := newPassPair(t)
	for _, method := range []string{"INVITE", "ACK", "BYE", "MESSAGE", "SUBSCRIBE", "NEW"} {
		if !p.check(p.sample(method)) {
			t.Errorf("%s is not passed on", method)
		}
	}
	edit := func(old, new string) string {
		raw := p.sample("INVITE")
		if !strings.Contains(raw, old) {
			t.Fatalf("no %q in the sample", old)
		}
		return strings.Replace(raw, old, new, 1)
	}
	for _, raw := range []string{
		edit("Max-Breadth: 60\r\n", ""), edit("Max-Breadth: 60", "Max-Breadth: 7"), edit("Subject: a, b", "s: x"), edit("Contact", "m"),
		edit("From: ", "From:"), edit("Max-Forwards: 69", "Max-Forwards: 1"), edit(";ob SIP", ";ob;method=BYE SIP"), edit("Content-Type", "c"), edit("Content-Length: 4", "Content-Length: 3"),
	} {
		if !p.check(raw) {
			t.Errorf("not passed on:\n%s", raw)
		}
	}
	for _, raw := range []string{
		edit("Max-Forwards: 69", "Max-Forwards: 0"), edit("Max-Forwards: 69\r\n", ""), edit("Subject: a", "Subject: \r\n a"), edit("Subject: ", "Proxy-Require: "),
		edit("Content-Length: 4", "Content-Length: 5"), edit("Content-Length: 4\r\n", ""), edit("Subject", "To"),
		edit("z9hG4bKpair", "pair"), edit("192.0.2.1:5060;branch", "192.0.2.1:5061;branch"), edit(";pass>", ">"), edit(markHeader, "X-Other"),
		edit("BBBBBBBB", "BBBBBBBB;rport"), edit("BBBBBBBB", "BBBBBBB"), edit("Max-Breadth: 60", "Max-Breadth: 0"), edit("sip:bob@10.0.0.5:5060;ob", "sips:bob@10.0.0.5:5060"),
		edit("7 INVITE", "7 BYE"), edit("SIP/2.0\r\n", "SIP/3.0\r\n"), edit("Subject: a", "Subject: \ra"), edit("pass>", "pass>, <sip:gw.example.com;lr>"),
		edit("Subject: a, b", "Via: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK1.1234567812345678"), "", edit("Call-ID: pair", "Call-ID: other"),
	} {
		if p.check(raw) {
			t.Errorf("passed on:\n%s", raw)
		}
	}
}

func TestPassing_AgreesOnEdits(t *testing.T) {
	p := newPassPair(t)
	rapid.Check(t, func(rt *rapid.T) {
		p.check(edited(rt, p.sample(rapid.SampledFrom([]string{"INVITE", "MESSAGE"}).Draw(rt, "method")), 3))
	})
}

func FuzzPassing(f *testing.F) {
	p := newPassPair(f)
	f.Add(p.sample("INVITE"))
	f.Add(p.sample("MESSAGE"))
	f.Fuzz(func(t *testing.T, raw string) {
		p.t = t
		p.check(raw)
	})
}

// BenchmarkPassing passes an INVITE on, and its answer back, without sockets.
func BenchmarkPassing(b *testing.B) {
	p := newPassPair(b)
	p.passes.net.quiet, p.passes.srv.spoils = true, false
	raw, from := []byte(p.sample("INVITE")), netip.MustParseAddrPort(addr1)
	var sent []byte
	p.passes.net.flow(netip.MustParseAddrPort(bob)).tap = func(b []byte) { sent = b }
	flow := p.passes.net.flow(from)
	p.passes.srv.Plain(&transport.Message{Raw: raw, Flow: flow, At: time.Now()})
	_, rest, _ := strings.Cut(string(sent), "\r\n")
	answer := []byte("SIP/2.0 200 OK\r\n" + rest)
	b.ReportAllocs()
	for b.Loop() {
		p.passes.srv.Plain(&transport.Message{Raw: raw, Flow: flow, At: time.Now()})
		p.passes.srv.Plain(&transport.Message{Raw: answer, Flow: flow, At: time.Now()})
	}
}
