package sipfront

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// mesh joins nodes by a network in memory; what leaves it for a phone waits in inbox.
type mesh struct {
	t     *testing.T
	nodes map[string]*rig
	inbox map[string][]string
	// dead addresses swallow what they are sent.
	dead map[string]bool
}

const (
	addr1 = "192.0.2.1:5060"
	addr2 = "192.0.2.2:5060"
	alice = "192.0.2.10:5060"
	bob   = "203.0.113.5:40000"
	bob2  = "203.0.113.5:40001"
)

// newMesh makes nodes n1 and n2.
func newMesh(t *testing.T, change ...func(*Config)) (m *mesh, n1, n2 *rig) {
	m = &mesh{t: t, nodes: map[string]*rig{}, inbox: map[string][]string{}, dead: map[string]bool{}}
	n1, n2 = newNode(t, "n1", addr1, change...), newNode(t, "n2", addr2, change...)
	m.nodes[addr1], m.nodes[addr2] = n1, n2
	for _, n := range m.nodes {
		n.zone.nodes["n1"], n.zone.nodes["n2"] = netip.MustParseAddrPort(addr1), netip.MustParseAddrPort(addr2)
	}
	return m, n1, n2
}

// pump carries messages until nobody has anything to say.
func (m *mesh) pump() {
	for {
		synctest.Wait()
		n := 0
		for from, r := range m.nodes {
			for _, s := range r.take() {
				n++
				switch to := m.nodes[s.to]; {
				case m.dead[s.to] || m.dead[from]:
				case to != nil:
					to.recvOver(s.network, from, strings.ReplaceAll(string(s.raw), "\r\n", "\n"))
				default:
					m.inbox[s.to] = append(m.inbox[s.to], string(s.raw))
				}
			}
		}
		if n == 0 {
			return
		}
	}
}

// got returns the start lines of what a phone has been sent since the last call.
func (m *mesh) got(phone string) string {
	m.t.Helper()
	m.pump()
	var lines []string
	for _, raw := range m.inbox[phone] {
		line, _, _ := strings.Cut(raw, "\r\n")
		lines = append(lines, line)
	}
	m.inbox[phone] = nil
	return strings.Join(lines, "\n")
}

func (m *mesh) expect(phone, want string) {
	m.t.Helper()
	if got := m.got(phone); got != want {
		m.t.Errorf("%s got:\n%s\nwant:\n%s", phone, got, want)
	}
}

// invite is a request out of a dialog as a phone writes it.
func invite(method, target, callID string, lines ...string) string {
	extra := ""
	for _, l := range lines {
		extra += l + "\n"
	}
	return fmt.Sprintf(`%s %s SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK%s
%sMax-Forwards: 70
From: <sip:alice@example.com>;tag=a1
To: <sip:bob@example.com>
Call-ID: %s
CSeq: 1 %s
Contact: <sip:alice@192.0.2.10:5060>
Content-Length: 0

`, method, target, callID, extra, callID, method)
}

// inDialog is a request in a dialog between alice and bob.
func inDialog(method string, byCallee bool, callID string) string {
	from, to, via, route := "<sip:alice@example.com>;tag=a1", "<sip:bob@example.com>;tag=bob", "192.0.2.10:5060", "{uac-route}"
	target := "sip:bob@10.0.0.5:5060"
	if byCallee {
		from, to, via, route, target = to, from, "10.0.0.5:5060", "{uas-route}", "sip:alice@192.0.2.10:5060"
	}
	return fmt.Sprintf(`%s %s SIP/2.0
Via: SIP/2.0/UDP %s;branch=z9hG4bK%s%v;rport
%s
Max-Forwards: 70
From: %s
To: %s
Call-ID: %s
CSeq: 7 %s
Content-Length: 0

`, method, target, via, method, byCallee, route, from, to, callID, method)
}

// flowTarget is a device behind a NAT at n2.
func flowTarget(remote string, regID int, counter int) string {
	return fmt.Sprintf(`{"contact":"sip:bob@10.0.0.5:5060","q":1000,"flowBound":true,"edge":"n2","edgeLive":true,`+
		`"flow":{"incarnation":"7","counter":"%d"},"transport":"udp","local":"192.0.2.2:5060","remote":"%s",`+
		`"instanceId":"urn:uuid:b","regId":%d}`, counter, remote, regID)
}

// inMesh runs a test twice: with a transaction at each node, and with those of
// the first node only where the second can pass on what it sends (passing.go).
func inMesh(t *testing.T, f func(t *testing.T, m *mesh, n1, n2 *rig), change ...func(*Config)) {
	t.Helper()
	for _, passing := range []bool{false, true} {
		t.Run(fmt.Sprintf("passing=%v", passing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, n1, n2 := newMesh(t, change...)
				n1.passing, n2.passing = passing, passing
				f(t, m, n1, n2)
			})
		})
	}
}

// A call from alice at n1 to bob, who is behind a NAT at n2: out through n2's
// flow, in-dialog requests both ways along the tokens, whatever Request-URI they have.
func TestCallAcrossEdges(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c1"))
		m.pump()
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		n2.answer(bob, "180", "")
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 200 Whatever")
		raw := n1.lastRes[alice]
		if strings.Contains(raw, markHeader) || strings.Count(raw, "Record-Route") != 2 {
			t.Errorf("200 to alice:\n%s", raw)
		}
		if strings.Contains(n2.lastReq[bob], markHeader) {
			t.Errorf("the mark reached a phone:\n%s", n2.lastReq[bob])
		}
		n1.recv(alice, inDialog("ACK", false, "c1"))
		m.expect(bob, "ACK sip:bob@10.0.0.5:5060 SIP/2.0")
		n2.recv(bob, inDialog("INFO", true, "c1"))
		m.expect(alice, "INFO sip:alice@192.0.2.10:5060 SIP/2.0")
		n1.answer(alice, "200", "")
		m.expect(bob, "SIP/2.0 200 Whatever")
		n1.lastRes[alice] = raw
		n1.recv(alice, inDialog("BYE", false, "c1"))
		m.expect(bob, "BYE sip:bob@10.0.0.5:5060 SIP/2.0")
		n2.answer(bob, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// Any node opens any node's token: bob's BYE comes in at n1, though n2 has the
// call's other flow; it goes to n2, and on to alice.
func TestTokenOfAnotherEdgeRoutesToThatEdge(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n2.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n2.recv(alice, invite("INVITE", "sip:bob@example.com", "c2"))
		m.pump()
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		n1.lastReq[bob] = n2.lastReq[bob]
		n1.recv(bob, inDialog("BYE", true, "c2"))
		m.expect(alice, "BYE sip:alice@192.0.2.10:5060 SIP/2.0")
		n2.answer(alice, "200", "")
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0\nSIP/2.0 200 Whatever")
	})
}

// A node that does not answer 100 costs half a second, not a Timer B: the next
// target is tried, and with none left the caller hears 480 (rule 17).
func TestRule17_DeadEdgeCountsAs430(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		m.dead[addr2] = true
		direct := `{"contact":"sip:bob@192.0.2.20:5060","q":500,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}`
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`,`+direct+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c3"))
		m.expect(alice, "SIP/2.0 100 Trying")
		time.Sleep(499 * time.Millisecond)
		m.expect("192.0.2.20:5060", "")
		time.Sleep(2 * time.Millisecond)
		m.expect("192.0.2.20:5060", "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		n1.answer("192.0.2.20:5060", "404", "")
		m.expect(alice, "SIP/2.0 404 Whatever")

		n1.loc.forget()
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c4"))
		m.expect(alice, "SIP/2.0 100 Trying")
		time.Sleep(501 * time.Millisecond)
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")

		// A node that had got the INVITE all the same is told off as soon as it speaks.
		m.dead[addr2] = false
		time.Sleep(time.Second)
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0\nINVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		n2.answer(bob, "180", "")
		m.expect(bob, "CANCEL sip:bob@10.0.0.5:5060 SIP/2.0")
	})
}

// A Contact that anybody can call is called past an edge that does not answer,
// and at once if the edge is known to be out of reach.
func TestRule17_ADeviceThatAnybodyCanCallOutlivesItsEdge(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		const phone = "192.0.2.20:5060"
		m.dead[addr2] = true
		n1.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n2","edgeLive":true,`+
			`"transport":"udp","local":"192.0.2.2:5060","remote":"192.0.2.20:5060"}],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c8"))
		time.Sleep(499 * time.Millisecond)
		m.expect(phone, "")
		time.Sleep(2 * time.Millisecond)
		m.expect(phone, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		n1.answer(phone, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")

		n1.zone.mu.Lock()
		n1.zone.down = map[string]bool{"n2": true}
		n1.zone.mu.Unlock()
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c9"))
		m.expect(phone, "ACK sip:bob@192.0.2.20:5060 SIP/2.0\nINVITE sip:bob@192.0.2.20:5060 SIP/2.0")
	})
}

// Two reg-ids of one instance are alternatives: the second is tried when the
// first one's flow is gone, and both never ring.
func TestRFC5626_5_3_FlowsOfAnInstanceAreAlternatives(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		f := n2.net.flow(netip.MustParseAddrPort(bob))
		f.network = "tcp"
		id := f.ID()
		f.closed = true
		stream := strings.Replace(flowTarget(bob, 1, int(id.Counter)), `"counter"`, `"stream":true,"counter"`, 1)
		n1.loc.set("sip:bob@example.com", `{"targets":[`+stream+`,`+flowTarget(bob2, 2, 99)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c5"))
		m.expect(bob2, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		m.expect(bob, "")
		n2.answer(bob2, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")
		if st := n2.srv.Stats(); st.DeadFlows != 1 || !n2.passing && st.Answers[4] != 2 || n2.passing && st.Passed != 3 {
			t.Errorf("n2: %+v", st)
		}
	})
}

// race 11: the transport is lost on the way to the edge. Here the target keeps
// its flow: a TCP client at n2 is called by its connection, not by UDP and 5060.
func TestPeers1_6_11_TransportIsKeptAcrossNodes(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		f := n2.net.flow(netip.MustParseAddrPort(bob))
		f.network = "tcp"
		id := f.ID()
		target := strings.Replace(flowTarget(bob, 1, int(id.Counter)), `"counter"`, `"stream":true,"counter"`, 1)
		n1.loc.set("sip:bob@example.com", `{"targets":[`+strings.Replace(target, `"udp"`, `"tcp"`, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c6"))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if req := n2.lastReq[bob]; !strings.Contains(req, "Via: SIP/2.0/TCP 192.0.2.2:5060;") || !strings.Contains(req, ";transport=tcp;lr>") {
			t.Errorf("as bob got it:\n%s", req)
		}
	})
}

// race 12: a header of a client's suppresses nothing. A forged mark does not
// get past the cluster's lookup, and is not passed on.
func TestPeers1_6_12_ClientCannotForgeTheMark(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c7", "X-HEREIS-Mark: n2;mvx2cqo0;AAAAAAAAAAAAAAAA", "X-Loop-Flag: 1"))
		m.pump()
		if n1.loc.asked != 1 || n1.srv.Stats().BadMarks != 1 {
			t.Errorf("asked %d, bad marks %d", n1.loc.asked, n1.srv.Stats().BadMarks)
		}
		if n := strings.Count(n1.lastReq[addr2], markHeader); n != 1 {
			t.Errorf("%d marks between nodes", n)
		}
		if strings.Contains(n2.lastReq[bob], markHeader) {
			t.Error("a mark reached a phone")
		}
	})
}

// race 13: trust is not in a source address. A datagram that claims to come
// from a node, with a token that it has seen, is refused without the mark.
func TestPeers1_6_13_NodeAddressAloneIsNoProof(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		tok := token{kind: tokenHop, edge: "n2", sides: []side{{transport: "udp", remote: netip.MustParseAddrPort(bob), bound: true}}}
		route := "Route: <sip:" + string(tok.seal(newMACKey(testKeys().FlowToken), "")) + "@192.0.2.2:5060;lr;ob>"
		n2.recv(addr1, invite("MESSAGE", "sip:bob@10.0.0.5:5060", "c8", route))
		m.pump()
		m.expect(bob, "")
		if st := n2.srv.Stats(); st.Answers[4] != 1 {
			t.Errorf("%+v", st)
		}
		// The same with a mark of another request's.
		r := &request{asked: asked{method: "MESSAGE", callID: "other", cseq: 1}, fromTag: "a1"}
		forged := markHeader + ": " + mark(newMACKey(testKeys().Mark), "n1", n2.zone.NowMS(), r)
		n2.recv(addr1, invite("MESSAGE", "sip:bob@10.0.0.5:5060", "c9", route, forged))
		m.expect(bob, "")
		r.callID = "c10"
		good := markHeader + ": " + mark(newMACKey(testKeys().Mark), "n1", n2.zone.NowMS(), r)
		n2.recv(addr1, invite("MESSAGE", "sip:bob@10.0.0.5:5060", "c10", route, good))
		m.expect(bob, "MESSAGE sip:bob@10.0.0.5:5060 SIP/2.0")
		// And it does not last.
		time.Sleep(40 * time.Second)
		m.pump()
		m.inbox[bob] = nil
		n2.recv(addr1, strings.ReplaceAll(invite("MESSAGE", "sip:bob@10.0.0.5:5060", "c10", route, good), "branch=", "branch=z9hG4bKlate"))
		m.expect(bob, "")
	})
}

// race 3: a lookup without an answer ends, and ends as 404, 480 or 503; no
// target is made up, and nobody waits five seconds.
func TestPeers1_6_3_NegativeAnswersAreDefinite(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:away@example.com", "unavailable", t)
		n1.loc.set("sip:later@example.com", "retry", t)
		for user, want := range map[string]string{
			"nobody": "404 Not Found", "away": "480 Temporarily Unavailable", "later": "503 Service Unavailable",
		} {
			begin := time.Now()
			n1.recv(alice, invite("INVITE", "sip:"+user+"@example.com", "neg-"+user))
			m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 "+want)
			if d := time.Since(begin); d != 0 {
				t.Errorf("%s took %v", user, d)
			}
		}
	})
}
