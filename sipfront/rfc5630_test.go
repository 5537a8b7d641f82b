package sipfront

import (
	"strings"
	"testing"
)

// A sips URI, the caller's or the device's own, is carried by secure flows
// alone. There is none here: 480, and a Warning says why.
func TestRFC5630_5_SipsTakesOnlySecureFlows(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sips:bob@example.com", "s1"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		if !strings.Contains(n.lastRes[alice], `Warning: 380 hereis "SIPS Not Allowed"`) {
			t.Errorf("%s", n.lastRes[alice])
		}
		bound := strings.Replace(flowTarget(phone1, 1, 99), `"contact":"sip:`, `"contact":"sips:`, 1)
		n.loc.answers = map[string][]locateAnswer{}
		n.bobAt(strings.Replace(bound, `"edge":"n2"`, `"edge":"n1"`, 1))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "s2"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		m.expect(phone1, "")
		// Beside such a device, another one is called.
		n.loc.answers = map[string][]locateAnswer{}
		n.bobAt(contact("sips:bob@192.0.2.20", 1000), here(phone2, 500))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "s3"))
		m.expect(phone2, "MESSAGE sip:bob@192.0.2.21:5060 SIP/2.0")
		m.expect(phone1, "")
	})
}

// A request of a dialog with a sips target does not leave by an insecure flow either.
func TestRFC5630_5_SipsInADialog(t *testing.T) {
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
