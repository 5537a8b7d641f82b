package sipfront

import (
	"slices"
	"strings"
	"testing"
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
