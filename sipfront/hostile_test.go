package sipfront

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// nobodyElse fails if anything was sent to an address that is none of the known ones.
func (m *mesh) nobodyElse(known ...string) {
	m.t.Helper()
	m.pump()
	for to, msgs := range m.inbox {
		if len(msgs) > 0 && !strings.Contains(strings.Join(known, " "), to) {
			m.t.Errorf("%s got:\n%s", to, msgs[0])
		}
	}
}

// No request of a stranger leaves for where no user of ours is.
func TestRFC3261_16_NoOpenRelay(t *testing.T) {
	for name, c := range map[string]struct{ target, route, want string }{
		"foreign Request-URI":         {"sip:bob@198.51.100.66", "", "403 Domain Not Served"},
		"foreign Route":               {"sip:bob@example.com", "<sip:198.51.100.66;lr>", "403 Domain Not Served"},
		"our Route, foreign Route":    {"sip:bob@example.com", "<sip:192.0.2.1;lr>, <sip:198.51.100.66;lr>", "403 Domain Not Served"},
		"node's Route with maddr":     {"sip:bob@example.com", "<sip:192.0.2.2;maddr=198.51.100.66;lr>", "403 Domain Not Served"},
		"node's Route, other port":    {"sip:bob@example.com", "<sip:192.0.2.2:5066;lr>", "403 Domain Not Served"},
		"our Route, foreign target":   {"sip:bob@198.51.100.66", "<sip:192.0.2.1;lr>", "403 Domain Not Served"},
		"domain as Route":             {"sip:bob@198.51.100.66", "<sip:example.com;lr>", "403 Domain Not Served"},
		"maddr":                       {"sip:nobody@example.com;maddr=198.51.100.66", "", "404 Not Found"},
		"foreign port of our domain":  {"sip:bob@example.com:5099", "", "403 Domain Not Served"},
		"foreign port of our address": {"sip:bob@192.0.2.1:22", "", "403 Domain Not Served"},
		"loopback":                    {"sip:x@127.0.0.1:8060", "", "403 Domain Not Served"},
		"made-up token":               {"sip:bob@198.51.100.66", "<sip:" + strings.Repeat("A", 60) + "@192.0.2.1;lr>", "403 Domain Not Served"},
		"strict Route":                {"sip:192.0.2.1", "<sip:bob@198.51.100.66>", "403 Domain Not Served"},
		"user in host":                {"sip:bob%40198.51.100.66@example.com", "", "404 Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
				for _, method := range []string{"INVITE", "MESSAGE"} {
					lines := []string{}
					if c.route != "" {
						lines = append(lines, "Route: "+c.route)
					}
					n1.recv(alice, invite(method, c.target, "relay-"+method, lines...))
					if got := strings.TrimPrefix(m.got(alice), "SIP/2.0 100 Trying\n"); got != "SIP/2.0 "+c.want {
						t.Errorf("%s: got %q, want %q", method, got, c.want)
					}
					m.nobodyElse(alice)
				}
				ack := strings.Replace(invite("ACK", c.target, "relay-ack"), "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=x", 1)
				n1.recv(alice, ack)
				m.nobodyElse(alice)
			})
		})
	}
}

// A Contact that is a whole network's address is not called.
func TestContactOfManyHostsIsNotCalled(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here("224.0.1.75:5060", 1000), here("255.255.255.255:5060", 1000), here("0.0.0.0:5060", 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "many"))
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
		m.nobodyElse()
	})
}

// The answer to a Via goes to where the request came from, whatever the Via
// and those below it say (RFC 3261 18.2.1, 18.2.2).
func TestRFC3261_18_2_ViaAimsAtNobody(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		for i, via := range []string{
			"198.51.100.66:5060", "198.51.100.66:5060;rport", "192.0.2.10:5060;received=198.51.100.66", "192.0.2.10:5060;maddr=198.51.100.66",
			"192.0.2.10:5060;rport=9;received=198.51.100.66",
		} {
			host, params, _ := strings.Cut(via, ";")
			req := strings.Replace(invite("MESSAGE", "sip:bob@example.com", fmt.Sprintf("via%d", i)), "192.0.2.10:5060;branch", host+";"+params+";branch", 1)
			n.recv(alice, strings.Replace(req, ";;", ";", 1))
			m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
			n.answer(phone1, "200", "")
			m.expect(alice, "SIP/2.0 200 Whatever")
			m.nobodyElse()
		}
	})
}

// 16.7 step 9: a late 2xx goes where the INVITE came from. A device that has
// seen our branch cannot use us to send its answers to somebody else.
func TestRFC3261_16_7_LateAnswersAimAtNobody(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "aim"))
		m.pump()
		n.answer(phone1, "200", "")
		time.Sleep(100 * time.Second)
		m.pump()
		m.inbox = map[string][]string{}
		good := n.lastReq[phone1]
		for _, change := range []string{"198.51.100.66:5060", "192.0.2.10:5061", "192.0.2.10:5060;received=198.51.100.66", "192.0.2.10:5060;rport=99"} {
			n.lastReq[phone1] = strings.Replace(good, "192.0.2.10:5060;branch", change+";branch", 1)
			n.answer(phone1, "200", "")
			m.nobodyElse()
		}
		n.lastReq[phone1] = good
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// 18.3: what follows the body of a datagram is not passed on, and what goes
// out has a Content-Length, or a device could write messages of its own onto
// the caller's connection.
func TestRFC3261_18_3_AnswersDoNotSmuggle(t *testing.T) {
	const head = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=1\r\nVia: SIP/2.0/UDP b;branch=2\r\n"
	for _, c := range []struct{ in, want string }{
		{"Content-Length: 0\r\n\r\nINVITE sip:x SIP/2.0\r\n", "Content-Length: 0\r\n\r\n"},
		{"l : 2\r\n\r\nabINVITE", "l : 2\r\n\r\nab"},
		{"Subject: x\r\n\r\nabc", "Subject: x\r\nContent-Length: 3\r\n\r\nabc"},
		{"Subject: x\r\n\r\n", "Subject: x\r\nContent-Length: 0\r\n\r\n"},
		{"content-length:3\r\n\r\nabc", "content-length:3\r\n\r\nabc"},
	} {
		r, _, err := readReply(head + c.in)
		if got, want := string(r.raw), "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP b;branch=2\r\n"+c.want; err != nil || got != want {
			t.Errorf("%q: got\n%q, %v, want\n%q", c.in, got, err, want)
		}
	}
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "smuggle")+"INVITE sip:x@example.com SIP/2.0\n")
		m.pump()
		if strings.Contains(n.lastReq[phone1], "INVITE") {
			t.Errorf("passed on:\n%s", n.lastReq[phone1])
		}
	})
}

// Forged answers: a branch that we did not make is nobody's, and an answer of
// another method is not the request's.
func TestForgedAnswersAreDropped(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "forged"))
		m.expect(alice, "SIP/2.0 100 Trying")
		good := n.lastReq[phone1]
		for _, change := range [][2]string{{"branch=z9hG4bK", "branch=z9hG4bKx"}, {"CSeq: 1 INVITE", "CSeq: 1 BYE"}, {"branch=", "x="}} {
			n.lastReq[phone1] = strings.Replace(good, change[0], change[1], 1)
			n.answer(phone1, "200", "")
			n.answer(phone1, "603", "")
			m.expect(alice, "")
		}
		n.lastReq[phone1] = good
		n.answer(phone1, "180", "")
		m.expect(alice, "SIP/2.0 180 Whatever")
		m.nobodyElse(phone1)
	})
}

// A token whose MAC is changed in any place is no token, whoever brings it.
func TestTokenForgery(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 1)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "forge"))
		m.pump()
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.pump()
		m.inbox = map[string][]string{}
		_, tail, _ := strings.Cut(routeSet(n1.lastRes[alice], true), "<sip:")
		tok, _, _ := strings.Cut(tail, "@")
		for i := range tok {
			c := byte('A')
			if tok[i] == c {
				c = 'B'
			}
			route := "Route: <sip:" + tok[:i] + string(c) + tok[i+1:] + "@192.0.2.1:5060;lr>"
			bye := strings.NewReplacer("{uac-route}", route, "branch=z9hG4bK", fmt.Sprintf("branch=z9hG4bK%dx", i)).Replace(inDialog("BYE", false, "forge"))
			n1.recv(alice, bye)
			m.pump()
			if got := m.got(alice); got != "SIP/2.0 403 Domain Not Served" {
				t.Fatalf("changed at %d: %q", i, got)
			}
		}
		m.nobodyElse()
	})
}

// A mark is taken off wherever a request goes on to, and off answers' requests to phones and Routes.
func TestMarksStayBetweenNodes(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.bobAt(here(phone1, 1000))
		for i, name := range []string{"X-Hereis-Mark", "x-hereis-mark", "X-HEREIS-MARK "} {
			for j, method := range []string{"INVITE", "MESSAGE"} {
				n1.recv(alice, invite(method, "sip:bob@example.com", fmt.Sprintf("mark%d-%d", i, j), name+": n1;1;x", name+": n2;2;y"))
				m.pump()
				if req := n1.lastReq[phone1]; strings.Contains(strings.ToLower(req), "hereis-mark") {
					t.Errorf("a mark got through:\n%s", req)
				}
			}
		}
		// Towards a node that the client itself chose, nothing is vouched for.
		n1.recv(alice, invite("MESSAGE", "sip:bob@example.com", "hop", "Route: <sip:192.0.2.2:5060;lr>", "X-Hereis-Mark: n1;1;x"))
		m.pump()
		if req := n1.lastReq[addr2]; req == "" || strings.Contains(req, markHeader) {
			t.Errorf("to the other node:\n%s", req)
		}
	})
}

// RFC 5393: a user whose Contacts lead back to them, told apart by a
// parameter only, is a loop at the first turn and not at the seventieth.
func TestRFC5393_4_ContactsThatLeadBackDoNotMultiply(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		var list []string
		for i := range 8 {
			list = append(list, strings.Replace(here("example.com", 1000), "sip:bob@example.com", fmt.Sprintf("sip:bob@example.com;x=%d", i), 1))
		}
		n.bobAt(list...)
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "bomb"))
		m.pump()
		synctest.Wait()
		if st := n.srv.Stats(); st.Branches != 8 {
			t.Errorf("%d branches of one request, want 8", st.Branches)
		}
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 482 Loop Detected")
	})
}

func TestUnicast(t *testing.T) {
	for addr, want := range map[string]bool{"192.0.2.1": true, "::1": true, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "0.0.0.0": false, "::": false} {
		if got := unicast(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}
