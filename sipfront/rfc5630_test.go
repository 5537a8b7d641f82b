package sipfront

import (
	"strings"
	"testing"
)

// A sips URI, the caller's or the device's own, is carried by secure flows
// alone. There is none here: 480, and a Warning says why.
func TestRFC5630_5_3_SipsTakesOnlySecureFlows(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sips:bob@example.com", "s1"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		if !strings.Contains(n.lastRes[alice], `Warning: 380 hereis "SIPS Not Allowed"`) {
			t.Errorf("%s", n.lastRes[alice])
		}
		bound := strings.Replace(flowTarget(phone1, 1, 99), `"contact":"sip:`, `"contact":"sips:`, 1)
		n.loc.forget()
		n.bobAt(strings.Replace(bound, `"edge":"n2"`, `"edge":"n1"`, 1))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "s2"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		if !strings.Contains(n.lastRes[alice], `Warning: 381 hereis "SIPS Required"`) {
			t.Errorf("%s", n.lastRes[alice])
		}
		m.expect(phone1, "")
		// Beside such a device, another one is called.
		n.loc.forget()
		n.bobAt(contact("sips:bob@192.0.2.20", 1000), here(phone2, 500))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "s3"))
		m.expect(phone2, "MESSAGE sip:bob@192.0.2.21:5060 SIP/2.0")
		m.expect(phone1, "")
	})
}

// A request of a dialog with a sips target does not leave by an insecure flow either.
func TestRFC5630_5_3_SipsInADialog(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "sd"))
		m.pump()
		n.answer(phone1, "200", "")
		m.pump()
		m.got(phone1)
		m.got(alice)
		n.recv(alice, strings.Replace(inDialog("BYE", false, "sd"), "BYE sip:", "BYE sips:", 1))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		m.expect(phone1, "")
	})
}

// 5.2: a sips Contact is bound by a sips request on a sips Path, whatever From
// and To are; taking one away is nobody's risk.
func TestRFC5630_5_2_SipsContactNeedsSipsThroughout(t *testing.T) {
	for _, c := range []struct{ target, path, expires, want string }{
		{"sip", "", "", "400 Bad Contact"}, {"sips", "", "", "200 OK"},
		{"sips", "Path: <sip:192.0.2.50;lr>", "", "400 Bad Contact"}, {"sips", "Path: <sips:192.0.2.50;lr>, <sip:192.0.2.51;lr>", "", "400 Bad Contact"},
		{"sips", "Path: <sips:192.0.2.50;lr>", "", "200 OK"}, {"sip", "", ";expires=0", "200 OK"},
	} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			req := registration("alice", "sec", 1, "Supported: path", orX(c.path))
			req = strings.NewReplacer("REGISTER sip:", "REGISTER "+c.target+":", "<sip:alice@192.0.2.10:5060>", "<SIPS:alice@192.0.2.10:5061>"+c.expires).Replace(req)
			n.recv(alice, req)
			expectStatus(t, c.target+" "+c.path+c.expires, m.status(n, alice), c.want)
		})
	}
}

// 5.2: sip and sips are one AoR.
func TestRFC5630_5_2_OneAoR(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.recv(alice, strings.Replace(registration("alice", "sa", 1), "To: <sip:", "To: <sips:", 1))
		expectStatus(t, "a sips To", m.status(n, alice), "200 OK")
		if n.reg.last.Aor != "sip:alice@example.com" {
			t.Errorf("AoR %s", n.reg.last.Aor)
		}
	})
}

// 5.3: a redirection does not change the scheme, in neither direction: the best
// response goes to the caller, who may decide.
func TestRFC5630_5_3_NoRecursionAcrossSchemes(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "rs"))
		m.pump()
		n.answer(phone1, "302", "Contact: <sips:bob@192.0.2.21:5061>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 302 Whatever")
		if got := values(n.lastRes[alice], "Contact"); len(got) != 1 || got[0] != "<sips:bob@192.0.2.21:5061>" {
			t.Errorf("Contact %q", got)
		}
		for addr := range m.inbox {
			if strings.HasPrefix(addr, "192.0.2.21:") {
				t.Errorf("%s was called", addr)
			}
		}
	}, recursing)
}

// 5.3: what goes by a Route, or to another domain, is carried securely or not at all.
func TestRFC5630_5_3_SipsToOthers(t *testing.T) {
	guardedWith(t, func(t *testing.T, m *mesh, n *rig) {
		req := authenticated(t, m, n, "MESSAGE", "sips:bob@partner.net", "so")
		n.recv(alice, req)
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		if !strings.Contains(n.lastRes[alice], `Warning: 380 hereis "SIPS Not Allowed"`) {
			t.Errorf("%s", n.lastRes[alice])
		}
		m.expect(partner, "")
	})
}
