package sipfront

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Whoever has been in one call has a token. It leads to the peer of that call:
// not, with the next node's Route left out and another Request-URI, past the
// next node's door in the name of this one.
func TestDialogTokenDoesNotVouch(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		uac, _ := callAcross(t, m, n1, n2, bob, flowTarget(bob, 1, 1), "vouch")
		n1.guarded()
		n2.guarded()
		n2.loc.set("sip:carol@example.com", `{"targets":[`+strings.ReplaceAll(deskTarget, "sip:bob@", "sip:carol@")+`],"final":true}`, t)
		first, _, _ := strings.Cut(uac, "\n")
		for i, method := range []string{"INVITE", "MESSAGE"} {
			req := within(method, false, "vouch", first+"\n", []string{"11", "12"}[i])
			n1.recv(alice, strings.Replace(req, "sip:bob@10.0.0.5:5060", "sip:carol@example.com", 1))
			if got := strings.TrimPrefix(m.got(alice), "SIP/2.0 100 Trying\n"); got != "SIP/2.0 407 Proxy Authentication Required" {
				t.Errorf("%s: %q", method, got)
			}
			if strings.Contains(n1.lastReq[addr2], markHeader) {
				t.Errorf("marked:\n%s", n1.lastReq[addr2])
			}
		}
		m.expect(desk, "")
		// The call itself goes on without credentials.
		n1.recv(alice, within("BYE", false, "vouch", uac, "13"))
		m.expect(bob, "BYE sip:bob@10.0.0.5:5060 SIP/2.0")
	})
}

// With the peer's connection closed, or its node dead, a dialog's request may
// go to another port of the same host, and nowhere else.
func TestDialogTokenLeadsToThePeerAlone(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		f := n.net.flow(netip.MustParseAddrPort(phone1))
		f.network = "tcp"
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "closed"))
		m.pump()
		n.answer(phone1, "200", "Contact: <sip:bob@192.0.2.20:5070>\n")
		m.pump()
		route := routeSet(n.lastRes[alice], true)
		f.closed = true
		m.inbox = map[string][]string{}
		seq := 10
		for target, want := range map[string]string{
			"sip:bob@192.0.2.20:5070":                     "",
			"sip:bob@198.51.100.66":                       "SIP/2.0 480 Temporarily Unavailable",
			"sip:bob@192.0.2.20:5070;maddr=198.51.100.66": "SIP/2.0 480 Temporarily Unavailable",
			"sip:bob@elsewhere.example":                   "SIP/2.0 480 Temporarily Unavailable",
		} {
			seq++
			req := within("BYE", false, "closed", route, strconv.Itoa(seq))
			n.recv(alice, strings.Replace(req, "sip:bob@10.0.0.5:5060", target, 1))
			m.expect(alice, want)
		}
		m.expect("192.0.2.20:5070", "BYE sip:bob@192.0.2.20:5070 SIP/2.0")
		m.nobodyElse()
	})
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		uac, _ := callAcross(t, m, n1, n2, desk, deskTarget, "past")
		delete(n1.zone.nodes, "n2")
		m.dead[addr2] = true
		n1.recv(alice, strings.Replace(within("BYE", false, "past", uac, "11"), "sip:bob@10.0.0.5:5060", "sip:bob@198.51.100.66", 1))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		m.nobodyElse()
	})
}

// RFC 4320 4.1 between nodes: a slow answer within a dialog, which has no
// mark, is waited for all the same.
func TestRFC4320_4_1_SlowAnswerWithinADialog(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		uac, _ := callAcross(t, m, n1, n2, bob, flowTarget(bob, 1, 1), "slowinfo")
		n1.recv(alice, within("INFO", false, "slowinfo", uac, "11"))
		for range 24 {
			m.pump()
			time.Sleep(250 * time.Millisecond)
		}
		n2.answer(bob, "200", "")
		if got := m.got(alice); got != "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever" {
			t.Errorf("alice got %q", got)
		}
	})
}
