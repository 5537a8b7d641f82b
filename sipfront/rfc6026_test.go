package sipfront

import (
	"strings"
	"testing"
	"time"
)

// 7.3: a response that belongs to no transaction is dropped, whatever it is.
// The one that is not is a 2xx of an INVITE whose branch proves that this node
// made it, for this call and this caller: TestRFC3261_16_7_Every2xxIsPassedOn.
func TestRFC6026_7_3_StrayResponsesAreDropped(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "stray"))
		m.pump()
		n.answer(phone1, "486", "")
		m.pump()
		time.Sleep(100 * time.Second)
		m.got(alice)
		for _, status := range []string{"100", "180", "183", "302", "486", "603"} {
			n.answer(phone1, status, "")
		}
		// To somebody else than the caller, and by a Via that is not this node's.
		last := n.lastReq[phone1]
		for _, change := range [][2]string{
			{"UDP 192.0.2.10:5060", "UDP 192.0.2.66:5060"}, {"UDP 192.0.2.1:5060", "UDP 192.0.2.7:5060"}, {"UDP 192.0.2.1:5060", "UDP proxy.example:5060"},
			{"192.0.2.10:5060", "192.0.2.10:5060;received=192.0.2.66"},
		} {
			if !strings.Contains(last, change[0]) {
				t.Fatalf("no %s in\n%s", change[0], last)
			}
			n.lastReq[phone1] = strings.Replace(last, change[0], change[1], 1)
			n.answer(phone1, "200", "")
		}
		m.expect(alice, "")
		m.expect("192.0.2.66:5060", "")
		if st := n.srv.Stats(); st.Dropped != 10 || st.Strays != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// 7.1: repeats of an INVITE that a device has accepted are absorbed: they reach
// nobody, and bring no second call.
func TestRFC6026_7_1_RepeatsReachNobody(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "rep"))
		m.pump()
		n.answer(phone1, "200", "")
		m.pump()
		m.inbox = map[string][]string{}
		for range 6 {
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "rep"))
			m.expect(phone1, "")
			time.Sleep(5 * time.Second)
		}
		m.expect(alice, "")
		// The device repeats its 2xx until the ACK comes; each is passed on.
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}
