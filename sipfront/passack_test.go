package sipfront

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hereis/sipfront/transport"
)

// ackPair are two nodes that get the same ACKs from alice, of which one passes on
// what it can in one pass.
type ackPair struct {
	passes, ordinary *rig
	parser           *transport.Parser
}

func newAckPair(t testing.TB) *ackPair {
	p := &ackPair{passes: newNode(t, "n1", addr1), ordinary: newNode(t, "n1", addr1), parser: transport.NewParser(transport.DefaultLimits())}
	for _, r := range []*rig{p.passes, p.ordinary} {
		r.zone.nodes["n2"] = netip.MustParseAddrPort(addr2)
		r.net.tcp = true
	}
	return p
}

// ackRoute is the Record-Route of a node in a call from alice to bob.
func ackRoute(edge, at string, caller, callee side) string {
	tok := token{kind: tokenDialog, edge: edge, caller: hashTag("a1"), sides: []side{caller, callee}}
	return fmt.Sprintf("<sip:%s@%s;lr>", tok.seal(newMACKey(testKeys().FlowToken), "acked"), at)
}

func sideTo(at string, bound bool) side {
	return side{transport: "udp", remote: netip.MustParseAddrPort(at), bound: bound}
}

func sampleAck(routes ...string) string {
	return "ACK sip:bob@10.0.0.5:5060;ob SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKack\r\nMax-Forwards: 70\r\n" +
		"Route: " + strings.Join(routes, ", ") + "\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=a1\r\nTo: <sip:bob@example.com>;tag=b1\r\n" +
		"Call-ID: acked\r\nCSeq: 7 ACK\r\nMax-Breadth: 9\r\nSubject: a, b\r\nContent-Length: 0\r\n\r\n"
}

// here is a call whose both ends are at n1, there one whose callee is at n2.
func (*ackPair) here() string { return ackRoute("n1", addr1, sideTo(alice, true), sideTo(bob, true)) }

func (*ackPair) there() []string {
	return []string{
		ackRoute("n1", addr1, sideTo(alice, true), sideTo(addr2, false)),
		ackRoute("n2", addr2, sideTo(addr1, false), sideTo(bob, true)),
	}
}

// check gives an ACK to both; false: it is left to the ordinary way.
func (p *ackPair) check(t interface{ Fatalf(string, ...any) }, raw string) bool {
	req, _, err := p.parser.Parse([]byte(raw))
	if err != nil || req == nil || req.Method != "ACK" {
		return false
	}
	to := func(r *rig) *transport.Message {
		return &transport.Message{Request: req, Raw: []byte(raw), Flow: r.net.flow(netip.MustParseAddrPort(alice)), At: time.Now()}
	}
	took := p.passes.srv.passAck(to(p.passes))
	got := p.passes.net.take()
	if !took {
		if len(got) > 0 {
			t.Fatalf("left alone, and sent %q", got)
		}
		return false
	}
	p.ordinary.srv.relayAck(to(p.ordinary))
	want := p.ordinary.net.take()
	if len(got) != 1 || len(want) != 1 || got[0].to != want[0].to || got[0].network != want[0].network {
		t.Fatalf("passed on %q, not %q", got, want)
	}
	a, b := string(got[0].raw), string(want[0].raw)
	if len(topBranch(a)) != len(topBranch(b)) || strings.Replace(a, topBranch(a), "", 1) != strings.Replace(b, topBranch(b), "", 1) {
		t.Fatalf("passed on as\n%s\nnot as\n%s\nof\n%s", a, b, raw)
	}
	return true
}

func TestPassAck_AgreesWithTheOrdinaryWay(t *testing.T) {
	p := newAckPair(t)
	here, there := sampleAck(p.here()), sampleAck(p.there()...)
	moved := strings.Replace(here, "10.0.0.5:5060;ob", "10.0.0.5:5071", 1)
	unbound := sampleAck(ackRoute("n1", addr1, sideTo(alice, true), side{remote: netip.MustParseAddrPort(bob)}))
	unbound = strings.Replace(unbound, "10.0.0.5:5060", bob, 1)
	for _, raw := range []string{
		here, there, moved, unbound,
		sampleAck(p.there()[1]), // as who has left out n1
		strings.Replace(here, "Max-Breadth: 9\r\n", "", 1),
		strings.Replace(here, ";rport", "", 1),
		strings.Replace(there, "Subject: a, b", "X: "+strings.Repeat("x", 600), 1),
	} {
		if !p.check(t, raw) {
			t.Errorf("left to the ordinary way:\n%s", raw)
		}
	}
	for _, raw := range []string{
		strings.Replace(here, "tag=b1", "tag", 1),                       // no dialog
		strings.Replace(here, "Call-ID: acked", "Call-ID: other", 1),    // another's token
		strings.Replace(here, "Max-Forwards: 70", "Max-Forwards: 0", 1), // it has gone far enough
		strings.Replace(here, "Max-Breadth: 9", "Max-Breadth: 0", 1),    // RFC 5393 5.3.3
		strings.Replace(here, "Subject: a", markHeader+": n2;1;abc", 1), // a forged mark
		strings.Replace(here, "Subject: a, b", "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1.1234567812345678", 1),
		strings.Replace(unbound, "Subject: a, b", "X: "+strings.Repeat("x", 1200), 1), // by TCP
		strings.Replace(unbound, bob, "10.0.0.6:5060", 1),                             // to somebody else
		sampleAck("<sip:192.0.2.1:5060;lr>"),
		strings.Replace(here, "Subject: a", "Subject: a\r\n b", 1),
		strings.Replace(here, "sip:bob@10", "sips:bob@10", 1),
	} {
		if p.check(t, raw) {
			t.Errorf("passed on:\n%s", raw)
		}
	}
}

func TestPassAck_AgreesOnEdits(t *testing.T) {
	p := newAckPair(t)
	samples := []string{sampleAck(p.here()), sampleAck(p.there()...)}
	rapid.Check(t, func(rt *rapid.T) {
		p.check(rt, edited(rt, rapid.SampledFrom(samples).Draw(rt, "sample"), 3))
	})
}

func FuzzPassAck(f *testing.F) {
	p := newAckPair(f)
	f.Add(sampleAck(p.here()))
	f.Add(sampleAck(p.there()...))
	f.Fuzz(func(t *testing.T, raw string) { p.check(t, raw) })
}

func BenchmarkPassAck(b *testing.B) {
	p := newAckPair(b)
	p.passes.net.quiet, p.passes.srv.spoils = true, false
	m := &transport.Message{Raw: []byte(sampleAck(p.there()...)), Flow: p.passes.net.flow(netip.MustParseAddrPort(alice)), At: time.Now()}
	for name, f := range map[string]func(*transport.Message){
		"pass": func(m *transport.Message) { p.passes.srv.passAck(m) }, "ordinary": p.passes.srv.relayAck,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(m)
			}
		})
	}
}
