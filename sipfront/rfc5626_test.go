package sipfront

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// outboundVia is a REGISTER for alice of one of her flows, through a proxy in front.
func outboundVia(callID string, lines ...string) string {
	msg := registration("alice", callID, 1, lines...)
	msg = strings.Replace(msg, "Via: ", "Via: SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bKedge"+callID+"\nVia: ", 1)
	return strings.Replace(msg, "Contact: <sip:alice@192.0.2.10:5060>", `Contact: <sip:alice@10.0.0.5:5060>;reg-id=1;+sip.instance="<urn:uuid:1>"`, 1)
}

const edgeProxy = "192.0.2.50:5060"

// 6: where the first proxy keeps no flow, a device that wants its own used is
// told so, and registers without.
func TestRFC5626_6_FirstHopWithoutOutboundIs439(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.recv(edgeProxy, outboundVia("ob1", "Supported: path, outbound", "Path: <sip:192.0.2.50;lr>"))
		expectStatus(t, "a Path without ob", m.status(n, edgeProxy), "439 First Hop Lacks Outbound Support")
		n.recv(edgeProxy, outboundVia("ob2", "Supported: outbound"))
		expectStatus(t, "no Path", m.status(n, edgeProxy), "439 First Hop Lacks Outbound Support")
		if n.reg.reached() {
			t.Error("a refused REGISTER has come through")
		}
		n.recv(edgeProxy, outboundVia("ob3", "Supported: path", "Path: <sip:192.0.2.50;lr>"))
		expectStatus(t, "without the wish", m.status(n, edgeProxy), "200 OK")
		if strings.Contains(n.lastRes[edgeProxy], "Require: outbound") {
			t.Errorf("outbound that was not asked for:\n%s", n.lastRes[edgeProxy])
		}
		// The reg-id is ignored: what is kept is a Contact like any other.
		if c := n.reg.last.Contacts[0]; c.RegId != 0 || strings.Contains(n.lastRes[edgeProxy], "reg-id") {
			t.Errorf("%v\n%s", c, n.lastRes[edgeProxy])
		}
	})
}

// 5.1, 6: an edge proxy that keeps the flow says ob in its Path. The flow ends
// there: the Path leads to it, whatever transport is between it and this node.
func TestRFC5626_6_FlowAtAnEdgeProxy(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.recv(edgeProxy, outboundVia("ob4", "Supported: path, outbound", "Path: <sip:far@192.0.2.50;lr;ob>, <sip:192.0.2.51;lr>"))
		expectStatus(t, "through an edge", m.status(n, edgeProxy), "200 OK")
		for name, want := range map[string]string{"Require": "outbound", "Supported": "path, outbound"} {
			if got := values(n.lastRes[edgeProxy], name); !slices.Contains(got, want) {
				t.Errorf("%s: %q, want %s", name, got, want)
			}
		}
		if q := n.reg.last; q.Contacts[0].FlowBound || q.Contacts[0].RegId != 1 || len(q.Path) != 2 {
			t.Errorf("%+v", q)
		}
	})
}

// RFC 3327 5.3: the Path is kept and comes back to a device that knows it; to
// one that does not, the registration is as good, and it is not mentioned.
func TestRFC3327_5_3_PathIsKeptAndReturned(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		path := []string{"<sip:192.0.2.50;lr>", "<sip:p2.example.net;lr>"}
		for callID, supported := range map[string]string{"p1": "path", "p2": "timer"} {
			n.recv(edgeProxy, strings.Replace(registration("alice", callID, 1, "Supported: "+supported, "Path: "+path[0], "Path: "+path[1]),
				"Via: ", "Via: SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bKedge"+callID+"\nVia: ", 1))
			expectStatus(t, supported, m.status(n, edgeProxy), "200 OK")
			if !slices.Equal(n.reg.last.Path, path) {
				t.Errorf("%s: kept %q", supported, n.reg.last.Path)
			}
			got := values(n.lastRes[edgeProxy], "Path")
			if supported == "path" && !slices.Equal(got, path) || supported != "path" && len(got) > 0 {
				t.Errorf("%s: returned %q", supported, got)
			}
		}
	})
}

// RFC 3327 5.3: where that is the policy, a device that does not support a Path
// learns that a proxy has put one in.
func TestRFC3327_5_3_StrictPathIsRefused(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		for callID, c := range map[string]struct{ supported, status string }{"p1": {"timer", "420 Bad Extension"}, "p2": {"timer, path", "200 OK"}} {
			n.recv(edgeProxy, strings.Replace(registration("alice", callID, 1, "Supported: "+c.supported, "Path: <sip:192.0.2.50;lr>"),
				"Via: ", "Via: SIP/2.0/UDP 192.0.2.50:5060;branch=z9hG4bKedge"+callID+"\nVia: ", 1))
			expectStatus(t, c.supported, m.status(n, edgeProxy), c.status)
			if got := values(n.lastRes[edgeProxy], "Unsupported"); (c.status != "200 OK") != slices.Equal(got, []string{"path"}) {
				t.Errorf("%s: Unsupported %q", c.supported, got)
			}
		}
		n.recv(alice, registration("alice", "p3", 1))
		expectStatus(t, "without a Path", m.status(n, alice), "200 OK")
	}, func(c *Config) { c.StrictPath = true })
}

// RFC 3327 5.4: the Path of a binding is the Route of what is sent to it, in order.
func TestRFC3327_5_4_PathBecomesRoute(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(`{"contact":"sip:bob@10.0.0.5:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060",` +
			`"remote":"192.0.2.50:5060","path":["<sip:192.0.2.50;lr>","<sip:p2.example.net;lr>"]}`)
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "path"))
		m.expect(edgeProxy, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		if got, want := values(n.lastReq[edgeProxy], "Route"), []string{"<sip:192.0.2.50;lr>", "<sip:p2.example.net;lr>"}; !slices.Equal(got, want) {
			t.Errorf("Route %q, want %q", got, want)
		}
	})
}

// outboundDirect is a REGISTER for alice of one of her flows, without a proxy in front.
func outboundDirect(callID, contact string, lines ...string) string {
	return strings.Replace(registration("alice", callID, 1, lines...), "Contact: <sip:alice@192.0.2.10:5060>", "Contact: "+contact, 1)
}

const instance1 = `;+sip.instance="<urn:uuid:1>"`

// 6: a direct flow is kept and its use is confirmed, over UDP as over TCP; only
// to a device that has asked for it, with an instance and a reg-id.
func TestRFC5626_6_DirectFlowsAreUsed(t *testing.T) {
	for i, c := range []struct {
		contact, supported string
		bound, required    bool
	}{
		{"<sip:alice@192.0.2.10:5060>;reg-id=1" + instance1, "path, outbound", true, true},
		{"<sip:alice@192.0.2.10:5060>;reg-id=1" + instance1, "path", true, false},
		{"<sip:alice@192.0.2.10:5060>;reg-id=1", "path, outbound", false, false},
		{"<sip:alice@192.0.2.10:5060>" + instance1, "path, outbound", false, false},
	} {
		for _, network := range []string{"udp", "tcp"} {
			alone(t, func(t *testing.T, m *mesh, n *rig) {
				req := outboundDirect("d", c.contact, "Supported: "+c.supported)
				n.recvOver(network, alice, strings.Replace(req, "SIP/2.0/UDP", "SIP/2.0/"+strings.ToUpper(network), 1))
				expectStatus(t, c.contact, m.status(n, alice), "200 OK")
				if got := slices.Contains(values(n.lastRes[alice], "Require"), "outbound"); got != c.required {
					t.Errorf("row %d over %s: Require: outbound is %v, want %v", i, network, got, c.required)
				}
				if got := n.reg.last.Contacts[0].FlowBound; got != c.bound {
					t.Errorf("row %d over %s: bound %v, want %v", i, network, got, c.bound)
				}
			})
		}
	}
}

// 6: a flow is one device's: a reg-id beside another Contact that stays is 400,
// beside one that goes it is not.
func TestRFC5626_6_OneFlowForOneContact(t *testing.T) {
	flow := "<sip:alice@192.0.2.10:5060>;reg-id=1" + instance1
	for contacts, want := range map[string]string{
		flow + ", <sip:alice@192.0.2.11>":                            "400 Bad Contact",
		flow + ", <sip:alice@192.0.2.11>;expires=0":                  "200 OK",
		flow + ";expires=0, <sip:alice@192.0.2.11>":                  "200 OK",
		"<sip:alice@192.0.2.11>, <sip:alice@192.0.2.12>" + instance1: "200 OK",
		"<sip:alice@192.0.2.11>;reg-id=1, <sip:alice@192.0.2.12>":    "200 OK",
	} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.recv(alice, outboundDirect("of", contacts, "Supported: outbound"))
			expectStatus(t, contacts, m.status(n, alice), want)
		})
	}
}

// 5.3.1: a token that somebody has tampered with is 403; one whose flow is gone
// is 430 to the proxy that knows what to do with it.
func TestRFC5626_5_3_1_TamperedTokenAndFlowThatIsGone(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		tok := token{kind: tokenHop, edge: "n2", sides: []side{{transport: "udp", remote: mustAddr(bob), bound: true}}}
		sealed := []byte(tok.seal(newMACKey(testKeys().FlowToken), ""))
		forged := byte('A')
		if sealed[len(sealed)-4] == forged {
			forged = 'B'
		}
		r := &request{asked: asked{method: "MESSAGE", callID: "tt", cseq: 1}, fromTag: "a1"}
		good := markHeader + ": " + mark(newMACKey(testKeys().Mark), "n1", n2.zone.NowMS(), r)
		sealed[len(sealed)-4] = forged
		n2.recv(addr1, invite("MESSAGE", "sip:bob@10.0.0.5:5060", "tt", "Route: <sip:"+string(sealed)+"@192.0.2.2:5060;lr;ob>", good))
		synctest.Wait()
		n2.take()
		if got := n2.lastRes[alice]; !strings.HasPrefix(got, "SIP/2.0 403 ") {
			if got = n2.lastRes[addr1]; !strings.HasPrefix(got, "SIP/2.0 403 ") {
				t.Errorf("tampered: %q", got)
			}
		}
		m.expect(bob, "")
		f := n2.net.stream(mustAddr(bob))
		id := f.ID()
		f.closed = true
		tok.sides[0] = side{flow: id, transport: "tcp", remote: mustAddr(bob), bound: true}
		n2.recv(addr1, strings.ReplaceAll(invite("MESSAGE", "sip:bob@10.0.0.5:5060", "tt", "Route: <sip:"+string(tok.seal(newMACKey(testKeys().FlowToken), ""))+"@192.0.2.2:5060;lr;ob>", good), "branch=z9hG4bK", "branch=z9hG4bKgone"))
		synctest.Wait()
		n2.take()
		if got := n2.lastRes[addr1]; !strings.HasPrefix(got, "SIP/2.0 430 Flow Failed") {
			t.Errorf("gone: %q", got)
		}
	})
}

// 7: the answer of an instance is its answer: but for 430, its other flows are
// not tried after it.
func TestRFC5626_7_TheInstanceHasAnswered(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`,`+flowTarget(bob2, 2, 2)+`],"final":true}`, t)
		for i, status := range []string{"404", "480", "486", "500", "503"} {
			call := fmt.Sprint("ia", i)
			n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", call))
			m.expect(bob, "MESSAGE sip:bob@10.0.0.5:5060 SIP/2.0")
			n2.answer(bob, status, "")
			want := status
			if status == "503" {
				want = "500"
			}
			if got := m.got(alice); !strings.HasPrefix(got, "SIP/2.0 "+want) {
				t.Errorf("%s: alice got %q", status, got)
			}
			m.expect(bob2, "")
		}
	})
}
