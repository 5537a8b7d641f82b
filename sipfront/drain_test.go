package sipfront

import (
	"fmt"
	"strings"
	"testing"
)

// A draining node takes no new device and no new call, and spreads the return of
// those whom it turns away. A device may leave, and anybody may ask.
func TestDrain_NothingNewBegins(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		register := func(i int, lines ...string) string {
			n.recv(alice, strings.ReplaceAll(
				strings.Replace(invite("REGISTER", "sip:example.com", fmt.Sprint("r", i), lines[1:]...), "Contact: <sip:alice@192.0.2.10:5060>", lines[0], 1),
				"<sip:bob@example.com>", "<sip:alice@example.com>"))
			return m.got(alice)
		}
		const contact, refused = "Contact: <sip:alice@192.0.2.10:5060>", "SIP/2.0 503 Service Unavailable"
		n.bobAt(here(phone1, 1000))
		n.srv.SetDraining(true)
		after := map[string]bool{}
		for i := range 200 {
			if got := register(i, contact); got != refused {
				t.Fatalf("REGISTER: %s", got)
			}
			_, rest, _ := strings.Cut(n.lastRes[alice], "Retry-After: ")
			value, _, _ := strings.Cut(rest, "\r\n")
			after[value] = true
		}
		for s := range uint64(drainSpread) {
			if want := fmt.Sprint(uint64(n.srv.cfg.RetryAfter) + s); !after[want] {
				t.Errorf("nobody was told to come again after %s s: %v", want, after)
			}
		}
		if len(after) != drainSpread {
			t.Errorf("Retry-After: %v", after)
		}
		for i, lines := range [][]string{{contact, "Expires: 0"}, {contact + ";expires=0"}, {"Contact: *", "Expires: 0"}, {"Supported: path"}} {
			if got := register(1000+i, lines...); got != "SIP/2.0 200 OK" {
				t.Errorf("REGISTER with %q: %s", lines, got)
			}
		}
		if got := register(2000, contact+";expires=0, <sip:alice@192.0.2.11>"); got != refused {
			t.Errorf("a REGISTER that removes and adds: %s", got)
		}
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "new"))
		m.expect(alice, refused)
		n.recv(alice, invite("OPTIONS", "sip:bob@example.com", "ask"))
		m.expect(phone1, "OPTIONS sip:bob@192.0.2.20:5060 SIP/2.0")
		n.srv.SetDraining(false)
		if got := register(3000, contact); got != "SIP/2.0 200 OK" {
			t.Errorf("after the drain: %s", got)
		}
	})
}

// Calls that run keep their way through a draining node, and the devices of its
// flows are called through it.
func TestDrain_WhatRunsGoesOn(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c1"))
		m.pump()
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		n1.recv(alice, inDialog("ACK", false, "c1"))
		m.got(bob)
		m.got(alice)
		raw := n1.lastRes[alice]
		for _, n := range []*rig{n1, n2} {
			n.srv.SetDraining(true)
		}
		for _, method := range []string{"INVITE", "INFO", "BYE"} {
			n1.lastRes[alice] = raw
			n1.recv(alice, inDialog(method, false, "c1"))
			m.expect(bob, method+" sip:bob@10.0.0.5:5060 SIP/2.0")
			n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
			if got := m.got(alice); !strings.HasSuffix(got, "SIP/2.0 200 Whatever") {
				t.Errorf("%s: %s", method, got)
			}
		}
		n1.srv.SetDraining(false)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "c2"))
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
	})
}
