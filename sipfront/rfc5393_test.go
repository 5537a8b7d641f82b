package sipfront

import (
	"fmt"
	"strings"
	"testing"
)

// breadths are the Max-Breadth values that phones got.
func breadths(n *rig, phones ...string) string {
	var list []string
	for _, p := range phones {
		_, headers, _, _ := splitMessage(n.lastReq[p])
		v := "-"
		for _, h := range headers {
			if h.name == "Max-Breadth" {
				v = h.value
			}
		}
		list = append(list, v)
	}
	return strings.Join(list, " ")
}

// 5.3.3: what comes in is shared among the branches; 60 if nothing came in.
func TestRFC5393_5_3_3_BreadthIsShared(t *testing.T) {
	for lines, want := range map[string]string{"": "20 20 20", "Max-Breadth: 7": "3 2 2", "max-breadth: 3": "1 1 1", "Max-Breadth: 1000": "20 20 20"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000))
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "b1", orX(lines)))
			m.pump()
			if got := breadths(n, phone1, phone2, phone3); got != want {
				t.Errorf("%s: got %s, want %s", lines, got, want)
			}
		})
	}
}

func orX(line string) string {
	if line == "" {
		return "X-None: 1"
	}
	return line
}

// 5.3.3: with less breadth than devices, some are tried later: what has ended
// gives its breadth back, whatever else of its q still rings.
func TestRFC5393_5_3_3_1_BreadthIsUsedAgain(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000), here("192.0.2.23:5060", 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "b2", "Max-Breadth: 2"))
		m.expect(phone3, "")
		n.answer(phone2, "180", "")
		n.answer(phone1, "486", "")
		m.expect(phone3, "INVITE sip:bob@192.0.2.22:5060 SIP/2.0")
		// A lower q waits for all of them.
		n.answer(phone3, "486", "")
		m.expect("192.0.2.23:5060", "")
		n.answer(phone2, "486", "")
		m.expect("192.0.2.23:5060", "INVITE sip:bob@192.0.2.23:5060 SIP/2.0")
		if got := breadths(n, phone1, phone2, phone3, "192.0.2.23:5060"); got != "1 1 1 2" {
			t.Error(got)
		}
	})
}

// 5.3.3: with a breadth of 1 devices are tried one after the other, which is no
// reason to refuse, and each gets all of it.
func TestRFC5393_5_3_3_ABreadthOfOneIsSerial(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "one", "Max-Breadth: 1"))
		for _, phone := range []string{phone1, phone2, phone3} {
			m.pump()
			if got := breadths(n, phone); got != "1" {
				t.Errorf("%s got %s", phone, got)
			}
			if other := map[string]string{phone1: phone2, phone2: phone3}[phone]; n.lastReq[other] != "" && other != "" {
				t.Errorf("%s is called beside %s", other, phone)
			}
			n.answer(phone, "486", "")
		}
		m.expect(alice, "SIP/2.0 486 Whatever")
	})
}

// 5.3.3: breadth is not depth: hops do not use it up, and each request has one
// value, also where it is passed on to one place alone, and the ACK of a 2xx.
func TestRFC5393_5_3_3_HopsDoNotUseItUp(t *testing.T) {
	for in, want := range map[string]string{"X-None: 1": "60", "Max-Breadth: 5": "5"} {
		inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
			n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
			n1.recv(alice, invite("INVITE", "sip:bob@example.com", "hops", in))
			m.pump()
			for n, to := range map[*rig]string{n1: addr2, n2: bob} {
				if got := values(n.lastReq[to], "Max-Breadth"); len(got) != 1 || got[0] != want {
					t.Errorf("%s: %s got %q", in, to, got)
				}
			}
			n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
			m.pump()
			m.inbox[bob] = nil
			n1.recv(alice, strings.Replace(inDialog("ACK", false, "hops"), "Max-Forwards", in+"\nMax-Forwards", 1))
			m.pump()
			if got := values(m.inbox[bob][0], "Max-Breadth"); len(got) != 1 || got[0] != want {
				t.Errorf("%s: the ACK has %q", in, got)
			}
		})
	}
}

// 5.3.5: whoever answers himself does not look at it.
func TestRFC5393_5_3_5_NotForAUAS(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.recv(alice, registration("alice", "ub", 1, "Max-Breadth: 0"))
		m.expect(alice, "SIP/2.0 200 OK")
		n.recv(alice, invite("OPTIONS", "sip:example.com", "uo", "Max-Breadth: 0"))
		m.expect(alice, "SIP/2.0 200 OK")
	})
}

// 5.3.3: nothing left is 440, and a value that is none 400.
func TestRFC5393_5_3_3_NoBreadthLeftIs440(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "b3", "Max-Breadth: 0"))
		m.expect(alice, "SIP/2.0 440 Max-Breadth Exceeded")
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "b4", "Max-Breadth: many"))
		m.expect(alice, "SIP/2.0 400 Bad Request")
		m.expect(phone1, "")
	})
}

// 4.2.1: the CANCEL and the ACK of an INVITE have its branch, and the part that
// tells a loop is the same for every method.
func TestRFC5393_4_2_1_CancelAndAckHaveTheBranch(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "br"))
		m.pump()
		n.answer(phone1, "180", "")
		n.recv(alice, strings.ReplaceAll(invite("CANCEL", "sip:bob@example.com", "br"), "1 INVITE", "1 CANCEL"))
		m.pump()
		n.answer(phone1, "487", "")
		m.pump()
		if got := len(m.inbox[phone1]); got != 3 {
			t.Fatalf("%d messages, want INVITE, CANCEL, ACK", got)
		}
		for _, raw := range m.inbox[phone1] {
			if viaOf(raw) != viaOf(m.inbox[phone1][0]) {
				t.Errorf("another branch:\n%s", raw)
			}
		}
		loops := map[string]bool{}
		for _, method := range []string{"INVITE", "MESSAGE", "OPTIONS"} {
			n.recv(alice, strings.Replace(invite(method, "sip:bob@example.com", "same"), "branch=z9hG4bK", "branch=z9hG4bK"+method, 1))
			m.pump()
			b, ok := n.srv.ownBranch(viaOf(n.lastReq[phone1]))
			if !ok {
				t.Fatalf("not our branch: %s", viaOf(n.lastReq[phone1]))
			}
			loops[b.loop] = true
		}
		if len(loops) != 1 {
			t.Errorf("it varies with the method: %v", loops)
		}
	})
}

// 4.2.1, 4.2.2: what decides the way makes another request of it: the user, the
// route, the dialog, the transaction.
func TestRFC5393_4_2_1_LoopPartVariesWithTheWay(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.loc.set("sip:carol@example.com", `{"targets":[`+here(phone1, 1000)+`],"final":true}`, t)
		seen := map[string]string{}
		for name, req := range map[string]string{
			"plain": invite("MESSAGE", "sip:bob@example.com", "v1"), "another user": invite("MESSAGE", "sip:carol@example.com", "v1"),
			"another Call-ID": invite("MESSAGE", "sip:bob@example.com", "v2"), "a Route": invite("MESSAGE", "sip:bob@example.com", "v1", "Route: <sip:example.com;lr>"),
			"another CSeq": strings.Replace(invite("MESSAGE", "sip:bob@example.com", "v1"), "CSeq: 1", "CSeq: 2", 1),
		} {
			n.recv(alice, strings.Replace(req, "branch=z9hG4bK", "branch=z9hG4bK"+strings.ReplaceAll(name, " ", ""), 1))
			m.pump()
			b, _ := n.srv.ownBranch(viaOf(n.lastReq[phone1]))
			if other, ok := seen[b.loop]; ok {
				t.Errorf("%s is the same as %s", name, other)
			}
			seen[b.loop] = name
		}
	})
}

// 4.2.4: a Via of somebody else's may be anything that the grammar admits.
func TestRFC5393_4_2_4_ViasOfOthersDoNotDisturb(t *testing.T) {
	for i, via := range []string{
		"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1.short", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK", "SIP/2.0/UDP 192.0.2.1",
		`SIP/2.0/UDP h.example;x;y="a;branch=z9hG4bK1.ABCDEFGHIJKLMNOP";z=` + "`" + `~;branch=q`, "SIP / 2.0 / SCTP [2001:db8::1] : 5060 ;ttl=1;maddr=224.0.1.75;branch=z9hG4bK1.ABCDEFGHIJKLMNOP",
	} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000))
			n.recv(alice, invite("MESSAGE", "sip:bob@example.com", fmt.Sprint("odd", i), "Via: "+via))
			m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
			if got := values(n.lastReq[phone1], "Via"); got[len(got)-1] != via {
				t.Errorf("%s became %s", via, got[len(got)-1])
			}
		})
	}
}

// 4.2: a request that comes back with what decided its way is a loop, whatever
// hops and Vias it has gathered elsewhere; a user whose devices are two other
// users that name each other does not multiply it.
func TestRFC5393_4_2_LoopsEndByTheBranch(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		for user, other := range map[string]string{"a": "b", "b": "a"} {
			n.loc.set("sip:"+user+"@example.com", fmt.Sprintf(`{"targets":[%s,%s],"final":true}`,
				contact("sip:"+other+"@example.com", 1000), contact("sip:"+other+"@example.com;x=1", 1000)), t)
		}
		n.recv(alice, invite("MESSAGE", "sip:a@example.com", "storm"))
		m.expect(alice, "SIP/2.0 482 Loop Detected")
		if st := n.srv.Stats(); st.Branches > 30 {
			t.Errorf("%d branches", st.Branches)
		}
	})
}
