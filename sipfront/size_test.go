package sipfront

import (
	"strings"
	"testing"
	"time"
)

// big is an INVITE of about 5 kB.
func big(target, callID string) string {
	body := strings.Repeat("a=candidate:0123456789\r\n", 200)
	req := invite("INVITE", target, callID, "Content-Type: application/sdp")
	return strings.Replace(req, "Content-Length: 0\n\n", "Content-Length: 4800\n\n"+strings.ReplaceAll(body, "\r\n", "\n"), 1)
}

// tcpMesh is newMesh with TCP at both nodes.
func tcpMesh(t *testing.T, f func(t *testing.T, m *mesh, n1, n2 *rig)) {
	t.Helper()
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		for _, n := range []*rig{n1, n2} {
			n.net.tcp = true
			n.zone.tcp = map[string]bool{"n1": true, "n2": true}
			n.zone.noUDP = map[string]bool{}
			n.srv.cfg.Addresses = append(n.srv.cfg.Addresses, Address{"tcp", n.srv.cfg.Addresses[0].Addr})
		}
		f(t, m, n1, n2)
	})
}

// 18.1.1: between nodes a large request goes over TCP, with TCP in its Via; the
// device's flow keeps its transport, whatever the size.
func TestRFC3261_18_1_1_LargeRequestCrossesNodesByTCP(t *testing.T) {
	tcpMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 99)+`],"final":true}`, t)
		n1.recv(alice, big("sip:bob@example.com", "big1"))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		req := n2.lastReq[bob]
		if !strings.Contains(req, "Via: SIP/2.0/UDP 192.0.2.2:5060;") || !strings.Contains(req, "Via: SIP/2.0/TCP 192.0.2.1:5060;") {
			t.Errorf("as bob got it:\n%s", req)
		}
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		n1.recv(alice, inDialog("BYE", false, "big1"))
		m.expect(bob, "BYE sip:bob@10.0.0.5:5060 SIP/2.0")

		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "small"))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if !strings.Contains(n2.lastReq[bob], "Via: SIP/2.0/UDP 192.0.2.1:5060;") {
			t.Errorf("a small one changed its transport:\n%s", n2.lastReq[bob])
		}
	})
}

// A node that serves nothing but TCP is reached, whatever the size of the request.
func TestRFC3263_4_NodeThatServesOnlyTCP(t *testing.T) {
	tcpMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.zone.noUDP["n2"] = true
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 99)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "only"))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if req := n2.lastReq[bob]; !strings.Contains(req, "Via: SIP/2.0/TCP 192.0.2.1:5060;") {
			t.Errorf("as bob got it:\n%s", req)
		}
		if !strings.Contains(n1.lastReq[addr2], "@192.0.2.2:5060;transport=tcp;lr;ob>") {
			t.Errorf("between nodes:\n%s", n1.lastReq[addr2])
		}
		n2.answer(bob, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")
	})
}

// 18.1.1: a Contact that is called gets a large request by TCP, and by UDP if
// it refuses the connection; one that is silent is not tried twice.
func TestRFC3261_18_1_1_LargeRequestFallsBackToUDP(t *testing.T) {
	tcpMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.bobAt(here(phone1, 1000))
		n1.recv(alice, big("sip:bob@example.com", "t1"))
		m.pump()
		if !strings.Contains(n1.lastReq[phone1], "Via: SIP/2.0/TCP 192.0.2.1:5060;") {
			t.Errorf("by TCP:\n%s", n1.lastReq[phone1])
		}
		n1.answer(phone1, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")

		n1.net.stream(mustAddr(phone1)).closed = true
		n1.recv(alice, big("sip:bob@example.com", "t2"))
		m.pump()
		if !strings.Contains(n1.lastReq[phone1], "Via: SIP/2.0/UDP 192.0.2.1:5060;") {
			t.Errorf("by UDP:\n%s", n1.lastReq[phone1])
		}
		n1.answer(phone1, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")

		n1.net.stream(mustAddr(phone1)).closed = false
		m.inbox[phone1] = nil
		n1.recv(alice, big("sip:bob@example.com", "t3"))
		time.Sleep(33 * time.Second)
		if got := m.got(alice); !strings.Contains(got, "SIP/2.0 408 Request Timeout") {
			t.Errorf("alice got %s", got)
		}
		if got := m.got(phone1); strings.Count(got, "INVITE") != 1 {
			t.Errorf("phone got %s", got)
		}
	})
}

// A connection of the caller's or the device's is kept, and so is a flow over UDP.
func TestRFC5626_5_3_FlowKeepsItsTransportWhateverTheSize(t *testing.T) {
	tcpMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n2.bobAt(flowTarget(bob, 1, 99))
		n2.recv(alice, big("sip:bob@example.com", "keep"))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if !strings.Contains(n2.lastReq[bob], "Via: SIP/2.0/UDP 192.0.2.2:5060;") {
			t.Errorf("as bob got it:\n%s", n2.lastReq[bob])
		}
	})
}
