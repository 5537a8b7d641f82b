package sipfront

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// atN2 is a device of bob's at n2 that can be called from anywhere.
const (
	desk       = "192.0.2.20:5060"
	deskTarget = `{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n2","edgeLive":true,"transport":"udp","local":"192.0.2.2:5060","remote":"192.0.2.20:5060"}`
)

// callAcross sets up a call from alice at n1 to bob's device at n2; it returns
// the answers' and the request's route sets.
func callAcross(t *testing.T, m *mesh, n1, n2 *rig, device, target, callID string) (uac, uas string) {
	t.Helper()
	n1.loc.set("sip:bob@example.com", `{"targets":[`+target+`],"final":true}`, t)
	n1.recv(alice, invite("INVITE", "sip:bob@example.com", callID))
	m.pump()
	n2.answer(device, "200", "Contact: <sip:bob@"+device+">\n")
	m.pump()
	uac, uas = routeSet(n1.lastRes[alice], true), routeSet(n2.lastReq[device], false)
	if strings.Count(uac, "Route: ") != 2 || uac == uas {
		t.Fatalf("route sets:\n%s\n%s", uac, uas)
	}
	m.inbox = map[string][]string{}
	return uac, uas
}

// within is a request of a dialog with its own number, so that each is a new one.
func within(method string, byCallee bool, callID, route, seq string) string {
	req := inDialog(method, byCallee, callID)
	return strings.NewReplacer("{uac-route}\n", route, "{uas-route}\n", route, "CSeq: 7", "CSeq: "+seq, "branch=z9hG4bK", "branch=z9hG4bK"+seq).Replace(req)
}

// 12.2, 16.12: re-INVITE with its ACK, and BYE, both ways over two nodes that
// both record-routed, whether the callee is behind a NAT or not.
func TestRFC3261_16_12_DialogOverTwoNodes(t *testing.T) {
	for name, c := range map[string]struct{ device, target, caller, callee string }{
		"behind a NAT": {bob, flowTarget(bob, 1, 1), "sip:alice@192.0.2.10:5060", "sip:bob@10.0.0.5:5060"},
		"direct":       {desk, deskTarget, "sip:alice@192.0.2.10:5060", "sip:bob@10.0.0.5:5060"},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
				uac, uas := callAcross(t, m, n1, n2, c.device, c.target, "d1")
				n1.recv(alice, within("INVITE", false, "d1", uac, "11"))
				m.expect(c.device, "INVITE "+c.callee+" SIP/2.0")
				n2.answer(c.device, "200", "")
				m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
				n1.recv(alice, within("ACK", false, "d1", uac, "12"))
				m.expect(c.device, "ACK "+c.callee+" SIP/2.0")

				n2.recv(c.device, within("INVITE", true, "d1", uas, "21"))
				m.expect(alice, "INVITE "+c.caller+" SIP/2.0")
				n1.answer(alice, "200", "")
				m.expect(c.device, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
				n2.recv(c.device, within("ACK", true, "d1", uas, "22"))
				m.expect(alice, "ACK "+c.caller+" SIP/2.0")

				n2.recv(c.device, within("BYE", true, "d1", uas, "31"))
				m.expect(alice, "BYE "+c.caller+" SIP/2.0")
				n1.answer(alice, "481", "")
				m.expect(c.device, "SIP/2.0 481 Whatever")
				n1.recv(alice, within("BYE", false, "d1", uac, "32"))
				m.expect(c.device, "BYE "+c.callee+" SIP/2.0")
				n2.answer(c.device, "200", "")
				m.expect(alice, "SIP/2.0 200 Whatever")
				for _, req := range []string{n1.lastReq[alice], n2.lastReq[c.device]} {
					if strings.Contains(req, "\r\nRoute: ") || strings.Contains(req, markHeader) {
						t.Errorf("as the phone got it:\n%s", req)
					}
				}
			})
		})
	}
}

// rules 15 and 17: with the callee's node dead, the caller hears so within
// half a second (INVITE) or four (others); once the node has left the view, at
// once. A device that can be called without it is.
func TestRule17_DialogWithADeadNode(t *testing.T) {
	const gone = "SIP/2.0 480 Temporarily Unavailable"
	t.Run("bound to the dead node", func(t *testing.T) {
		inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
			uac, _ := callAcross(t, m, n1, n2, bob, flowTarget(bob, 1, 1), "dead1")
			m.dead[addr2] = true
			n1.recv(alice, within("INVITE", false, "dead1", uac, "11"))
			m.expect(alice, "SIP/2.0 100 Trying")
			time.Sleep(501 * time.Millisecond)
			m.expect(alice, gone)
			n1.recv(alice, strings.NewReplacer("INVITE sip", "ACK sip", "11 INVITE", "11 ACK").Replace(within("INVITE", false, "dead1", uac, "11")))
			n1.recv(alice, within("BYE", false, "dead1", uac, "12"))
			time.Sleep(3999 * time.Millisecond)
			m.expect(alice, "SIP/2.0 100 Trying")
			time.Sleep(2 * time.Millisecond)
			m.expect(alice, gone)
			delete(n1.zone.nodes, "n2")
			for i, method := range []string{"INVITE", "BYE"} {
				n1.recv(alice, within(method, false, "dead1", uac, []string{"13", "14"}[i]))
				if got := strings.TrimPrefix(m.got(alice), "SIP/2.0 100 Trying\n"); got != "SIP/2.0 430 Flow Failed" {
					t.Errorf("%s after the node has left: %q", method, got)
				}
			}
		})
	})
	t.Run("device is called past it", func(t *testing.T) {
		inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
			uac, _ := callAcross(t, m, n1, n2, desk, deskTarget, "dead2")
			m.dead[addr2] = true
			bye := func(seq string) string {
				return strings.Replace(within("BYE", false, "dead2", uac, seq), "sip:bob@10.0.0.5:5060", "sip:bob@192.0.2.20:5060", 1)
			}
			n1.recv(alice, bye("11"))
			m.pump()
			time.Sleep(4001 * time.Millisecond)
			m.expect(desk, "BYE sip:bob@192.0.2.20:5060 SIP/2.0")
			n1.answer(desk, "200", "")
			m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
			delete(n1.zone.nodes, "n2")
			n1.recv(alice, bye("12"))
			m.expect(desk, "BYE sip:bob@192.0.2.20:5060 SIP/2.0")
			if strings.Contains(n1.lastReq[desk], "\r\nRoute: ") {
				t.Errorf("the dead node's Route is left:\n%s", n1.lastReq[desk])
			}
			ack := strings.NewReplacer("BYE sip", "ACK sip", "13 BYE", "13 ACK").Replace(bye("13"))
			n1.recv(alice, ack)
			m.expect(desk, "ACK sip:bob@192.0.2.20:5060 SIP/2.0")
		})
	})
	t.Run("callee comes to another node", func(t *testing.T) {
		inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
			_, uas := callAcross(t, m, n1, n2, bob, flowTarget(bob, 1, 1), "dead3")
			m.dead[addr2] = true
			delete(n1.zone.nodes, "n2")
			n1.recv(bob, within("BYE", true, "dead3", uas, "11"))
			m.expect(alice, "BYE sip:alice@192.0.2.10:5060 SIP/2.0")
			n1.answer(alice, "200", "")
			m.expect(bob, "SIP/2.0 200 Whatever")
		})
	})
}

// A connection may close within a dialog (RFC 3261 18: an idle one may). Where
// the peer's Contact is a name, the address that the dialog began with is
// dialled again, and no other: a name server is not asked.
func TestRFC3261_18_AClosedConnectionOfADialogIsDialledAgain(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.net.tcp = true
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		overTCP := strings.NewReplacer("SIP/2.0/UDP", "SIP/2.0/TCP", "<sip:alice@192.0.2.10:5060>", "<sip:alice@phone.example.net;transport=tcp>")
		n1.recvOver("tcp", alice, overTCP.Replace(invite("INVITE", "sip:bob@example.com", "again")))
		m.pump()
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.pump()
		uas := routeSet(n2.lastReq[bob], false)
		n1.net.forget(mustAddr(alice))
		m.inbox = map[string][]string{}
		bye := strings.Replace(within("BYE", true, "again", uas, "31"), "sip:alice@192.0.2.10:5060", "sip:alice@phone.example.net;transport=tcp", 1)
		n2.recv(bob, bye)
		m.expect(alice, "BYE sip:alice@phone.example.net;transport=tcp SIP/2.0")
		n1.answer(alice, "200", "")
		m.expect(bob, "SIP/2.0 200 Whatever")
	})
}

// Where Record-Route names a host that leads to every node, the requests of a
// dialog survive the node that the call came through: any other takes them,
// at once when the node has left the view, and after the hop deadline before.
func TestRule17_DialogOutlivesTheNodeItCameThrough(t *testing.T) {
	const host = "all.example.com"
	shared := func(c *Config) { c.RecordRoute = host }
	for name, c := range map[string]struct{ device, target, callee string }{
		"behind a NAT": {bob, flowTarget(bob, 1, 1), "sip:bob@10.0.0.5:5060"},
		"direct":       {desk, deskTarget, "sip:bob@10.0.0.5:5060"},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
				uac, uas := callAcross(t, m, n1, n2, c.device, c.target, "out1")
				if strings.Count(uac, "@"+host+";lr>") != 2 || strings.Contains(uac, addr1) {
					t.Fatalf("route set of the caller:\n%s", uac)
				}
				m.dead[addr1] = true
				// The view of n2 still has n1.
				n2.recv(alice, within("INVITE", false, "out1", uac, "11"))
				time.Sleep(501 * time.Millisecond)
				m.expect(c.device, "INVITE "+c.callee+" SIP/2.0")
				n2.answer(c.device, "200", "")
				m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
				n2.recv(alice, within("INFO", false, "out1", uac, "12"))
				time.Sleep(4001 * time.Millisecond)
				m.expect(c.device, "INFO "+c.callee+" SIP/2.0")
				n2.answer(c.device, "200", "")
				m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
				// It has left the view.
				delete(n2.zone.nodes, "n1")
				n2.recv(alice, strings.NewReplacer("INVITE sip", "ACK sip", "13 INVITE", "13 ACK").Replace(within("INVITE", false, "out1", uac, "13")))
				m.expect(c.device, "ACK "+c.callee+" SIP/2.0")
				n2.recv(c.device, within("INVITE", true, "out1", uas, "21"))
				m.expect(alice, "INVITE sip:alice@192.0.2.10:5060 SIP/2.0")
				n2.answer(alice, "200", "")
				m.expect(c.device, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
				n2.recv(alice, within("BYE", false, "out1", uac, "14"))
				m.expect(c.device, "BYE "+c.callee+" SIP/2.0")
				n2.answer(c.device, "200", "")
				m.expect(alice, "SIP/2.0 200 Whatever")
				if req := n2.lastReq[c.device]; strings.Contains(req, "\r\nRoute: ") {
					t.Errorf("a Route of ours is left:\n%s", req)
				}
			}, shared)
		})
	}
}

// 16.7 step 5: a 2xx that comes after another final answer has gone out is
// passed on all the same: the device waits for its ACK.
func TestRFC3261_16_7_A2xxAfterAFailureReachesTheCaller(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "late"))
		m.dead[addr2] = true
		m.pump()
		time.Sleep(501 * time.Millisecond)
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 480 Temporarily Unavailable")
		m.dead[addr2] = false
		time.Sleep(time.Second)
		m.pump()
		m.inbox = map[string][]string{}
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		if got := m.got(alice); !strings.Contains(got, "SIP/2.0 200 Whatever") {
			t.Errorf("alice got %q", got)
		}
	})
}

// A 2xx of an attempt that was given up ends what rings in its place.
func TestLateAnswerEndsTheNextAttempt(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		// Two flows of one instance: by n2, which is slow, and here.
		second := strings.NewReplacer(`"edge":"n2"`, `"edge":"n1"`, "192.0.2.2", "192.0.2.1").Replace(flowTarget(bob2, 2, 2))
		n1.net.flow(netip.MustParseAddrPort(bob2))
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`,`+second+`],"final":true}`, t)
		m.dead[addr2] = true
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "slow"))
		m.pump()
		time.Sleep(501 * time.Millisecond)
		m.expect(bob2, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		n1.answer(bob2, "180", "")
		m.dead[addr2] = false
		time.Sleep(time.Second)
		m.pump()
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.expect(bob2, "CANCEL sip:bob@10.0.0.5:5060 SIP/2.0")
		if got := m.got(alice); !strings.HasSuffix(got, "SIP/2.0 200 Whatever") {
			t.Errorf("alice got %q", got)
		}
	})
}
