package sipfront

import (
	"strings"
	"testing"
	"time"
)

// 4.1: no provisional response but 100 for a request that is not an INVITE,
// whatever a device sends; and a 100 only when timer E is T2.
func TestRFC4320_4_1_NoOtherProvisionalForANonInvite(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "pv"))
		m.pump()
		for _, status := range []string{"100", "180", "183", "199"} {
			n.answer(phone1, status, "")
		}
		m.expect(alice, "")
		time.Sleep(3400 * time.Millisecond)
		m.expect(alice, "")
		time.Sleep(200 * time.Millisecond)
		m.expect(alice, "SIP/2.0 100 Trying")
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// 4.1: a registrar that must wait for the cluster is no exception.
func TestRFC4320_4_1_ASlowLookupToo(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.gate = make(chan struct{})
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "slowlookup"))
		time.Sleep(3600 * time.Millisecond)
		m.expect(alice, "SIP/2.0 100 Trying")
		close(n.loc.gate)
		m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
	}, func(c *Config) { c.LookupTimeout = 10 * time.Second })
}

// 4.2: a 408 from below is not passed on: alone it is silence, and beside
// another answer it is none.
func TestRFC4320_4_2_A408FromBelowIsSilence(t *testing.T) {
	for _, c := range []struct{ one, two, want string }{
		{"408", "408", ""}, {"408", "486", "SIP/2.0 486 Whatever"}, {"480", "408", "SIP/2.0 480 Whatever"}, {"408", "500", "SIP/2.0 500 Whatever"},
	} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000))
			n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "four08"))
			m.pump()
			n.answer(phone1, c.one, "")
			n.answer(phone2, c.two, "")
			m.expect(alice, c.want)
			time.Sleep(40 * time.Second)
			if got := m.got(alice); strings.Contains(got, "408") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// 4.2: a response that comes when nobody waits for it any more is dropped.
func TestRFC4320_4_2_LateResponsesAreDropped(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "late4320"))
		time.Sleep(40 * time.Second)
		m.got(alice)
		for _, status := range []string{"180", "200", "486"} {
			n.answer(phone1, status, "")
		}
		m.expect(alice, "")
		if st := n.srv.Stats(); st.Dropped != 3 || st.Strays != 0 {
			t.Errorf("%+v", st)
		}
	})
}
