package sipfront

import (
	"strings"
	"testing"
	"time"
)

// named is a target at n1 whose Contact is a name.
func named(host string, q string) string {
	return strings.Replace(strings.Replace(here(phone1, 1000), "sip:bob@192.0.2.20:5060", "sip:bob@"+host, 1), "1000", q, 1)
}

// 4.3: the next server is tried after a 503, silence, or a flow that breaks,
// each time with a branch of its own; any other answer is the target's.
func TestRFC3263_4_3_FailoverToTheNextServer(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.parts.Resolver = names{"gw.example.net": phone1 + " " + phone2 + " " + phone3}
		n.bobAt(named("gw.example.net", "1000"))
		n.net.flow(mustAddr(phone1)).closed = true
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "f1"))
		m.expect(phone2, "INVITE sip:bob@gw.example.net SIP/2.0")
		n.answer(phone2, "503", "Retry-After: 9\n")
		m.expect(phone3, "INVITE sip:bob@gw.example.net SIP/2.0")
		if viaOf(n.lastReq[phone2]) == viaOf(n.lastReq[phone3]) {
			t.Error("the branch is the same")
		}
		n.answer(phone3, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		if st := n.srv.Stats(); st.Failovers != 1 {
			t.Errorf("%+v", st)
		}
		m.inbox[phone2] = nil

		n.net.flow(mustAddr(phone1)).closed = false
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "f2"))
		m.pump()
		n.answer(phone1, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")
		n.recv(alice, strings.NewReplacer("INVITE", "ACK").Replace(invite("INVITE", "sip:bob@example.com", "f2")))
		m.expect(phone2, "")

		m.got(phone1)
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "f3"))
		time.Sleep(32*time.Second + 300*time.Millisecond)
		m.expect(phone2, "INVITE sip:bob@gw.example.net SIP/2.0")
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
	})
}

// 4.3: nobody waits for timer F at each server in turn: by then the caller has
// given up. Each has its share of the time.
func TestRFC3263_4_3_ServersShareTheTimeOfANonInvite(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.parts.Resolver = names{"gw.example.net": phone1 + " " + phone2}
		n.bobAt(named("gw.example.net", "1000"))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "share"))
		time.Sleep(15900 * time.Millisecond)
		m.expect(phone2, "")
		time.Sleep(200 * time.Millisecond)
		m.expect(phone2, "MESSAGE sip:bob@gw.example.net SIP/2.0")
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
	})
}

// 4.3: a server that has said anything has not failed, if only 100.
func TestRFC3263_4_3_AServerThatSaid100IsTheOne(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.parts.Resolver = names{"gw.example.net": phone1 + " " + phone2}
		n.bobAt(named("gw.example.net", "1000"))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "said"))
		m.pump()
		n.answer(phone1, "100", "")
		time.Sleep(40 * time.Second)
		m.expect(phone2, "")
	})
}

// 16.7 step 6: if the last server says 503 too, the caller hears 500, once.
func TestRFC3263_4_3_NoServerLeft(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.parts.Resolver = names{"gw.example.net": phone1 + " " + phone2}
		n.bobAt(named("gw.example.net", "1000"))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "all"))
		m.pump()
		n.answer(phone1, "503", "")
		m.pump()
		n.answer(phone2, "503", "")
		m.expect(alice, "SIP/2.0 500 Server Internal Error")
	})
}

// A name of somebody else's that leads here would come back for ever.
func TestRFC3263_4_NameThatLeadsToOurselvesIsALoop(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.srv.parts.Resolver = names{"us.example.net": addr1, "both.example.net": addr1 + " " + phone1}
		n.bobAt(named("us.example.net", "1000"))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "self"))
		m.expect(alice, "SIP/2.0 482 Loop Detected")
		n.loc.forget()
		n.bobAt(named("both.example.net", "1000"))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "other"))
		m.expect(phone1, "MESSAGE sip:bob@both.example.net SIP/2.0")
	})
}

// viaOf is the topmost Via of a message.
func viaOf(raw string) string {
	_, _, v, _ := topVia(raw)
	return v
}
