package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// contact is a target with its own URI, called from n1.
func contact(uri string, q int) string {
	return fmt.Sprintf(`{"contact":"%s","q":%d,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.99:5060"}`, uri, q)
}

func recursing(c *Config) { c.Recurse = true }

// 16.7 step 4: off by default, a 302 is the caller's business.
func TestRFC3261_16_7_RedirectIsPassedOnByDefault(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "r0"))
		m.pump()
		n.answer(phone1, "302", "Contact: <sip:bob@192.0.2.21:5060>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 302 Whatever")
		m.expect(phone2, "")
	})
}

// 16.7 step 4: with recursion its Contacts are called, best q first and after
// those that still wait with a higher one, each once, and as many as allowed.
func TestRFC3261_16_7_RecursionInOrderOnceAndBounded(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "r1"))
		m.pump()
		n.answer(phone1, "302", "Contact: <sip:bob@192.0.2.22:5060>;q=0.2, <sip:bob@192.0.2.20:5060>;q=0.9\n")
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0\nACK sip:bob@192.0.2.20:5060 SIP/2.0")
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0")
		m.expect(phone3, "")
		n.answer(phone2, "486", "")
		m.expect(phone3, "INVITE sip:bob@192.0.2.22:5060 SIP/2.0")
		n.answer(phone3, "301", "Contact: <sip:bob@192.0.2.21:5060>, <sip:x@192.0.2.31>, <sip:x@192.0.2.32>\nContact: <tel:+123>\n")
		m.expect("192.0.2.31:5060", "INVITE sip:x@192.0.2.31 SIP/2.0")
		n.answer("192.0.2.31:5060", "404", "")
		m.expect("192.0.2.32:5060", "")
		// What was not called is left for the caller.
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 301 Whatever")
		res := n.lastRes[alice]
		if !strings.Contains(res, "Contact: <sip:x@192.0.2.32>\r\nContact: <tel:+123>\r\n") || strings.Contains(res, "192.0.2.31>") {
			t.Errorf("%s", res)
		}
	}, recursing, func(c *Config) { c.MaxRedirects = 2 })
}

// 16.7 step 4: a redirect that bites its own tail ends, and so does one to
// ourselves; a request that only passes by is not redirected here.
func TestRFC3261_16_7_RecursionHasNoLoop(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "r2"))
		m.pump()
		n.answer(phone1, "302", "Contact: <sip:bob@example.com>\n")
		m.pump()
		m.expect(alice, "SIP/2.0 482 Loop Detected")
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "r3"))
		m.pump()
		n.answer(phone1, "302", "Contact: <sip:bob@192.0.2.20:5060>\n")
		m.expect(alice, "SIP/2.0 480 Temporarily Unavailable")
	}, recursing)
}

// 16.7 step 6: a lone 503 says nothing of this proxy: 500 goes up. Our own
// overload is a 503 with Retry-After.
func TestRFC3261_16_7_Lone503Becomes500(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "l1"))
		m.pump()
		n.answer(phone1, "503", "Retry-After: 60\n")
		n.answer(phone2, "503", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 500 Server Internal Error")
		if strings.Contains(n.lastRes[alice], "Retry-After") {
			t.Errorf("%s", n.lastRes[alice])
		}
	})
}

// 16.7 step 5: a 6xx ends everything, and is the answer.
func TestRFC3261_16_7_6xxEndsTheFork(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "six"))
		m.pump()
		n.answer(phone2, "180", "")
		n.answer(phone1, "603", "")
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0\nCANCEL sip:bob@192.0.2.21:5060 SIP/2.0")
		n.answer(phone2, "487", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 603 Whatever")
		m.expect(phone3, "")
	})
}

// 16.6: groups of one q ring in turn, each for its time; one that answers after
// its turn has the call.
func TestRFC3261_16_6_GroupsInTurnWithTheirOwnTime(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "g1"))
		m.pump()
		n.answer(phone1, "180", "")
		time.Sleep(19900 * time.Millisecond)
		m.expect(phone2, "")
		time.Sleep(200 * time.Millisecond)
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0")
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0\nCANCEL sip:bob@192.0.2.20:5060 SIP/2.0")
		// The last group rings on.
		n.answer(phone2, "180", "")
		time.Sleep(30 * time.Second)
		m.expect(phone2, "")
		m.got(alice)
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
		m.expect(phone2, "CANCEL sip:bob@192.0.2.21:5060 SIP/2.0")
	})
}

// 16.7 step 5, 16.10, RFC 6026: a 2xx that crosses a CANCEL is the answer; one
// that comes after the final answer is passed on beside the transaction.
func TestRFC3261_16_10_2xxThatCrossesTheCancel(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "x1"))
		m.pump()
		n.answer(phone1, "180", "")
		n.recv(alice, strings.ReplaceAll(invite("CANCEL", "sip:bob@example.com", "x1"), "1 INVITE", "1 CANCEL"))
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 200 OK\nSIP/2.0 200 Whatever")

		n.recv(alice, invite("INVITE", "sip:bob@example.com", "x2"))
		m.pump()
		n.answer(phone1, "180", "")
		n.recv(alice, strings.ReplaceAll(invite("CANCEL", "sip:bob@example.com", "x2"), "1 INVITE", "1 CANCEL"))
		n.answer(phone1, "487", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 200 OK\nSIP/2.0 487 Request Terminated")
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// A device that was left behind takes the call after the caller has been
// refused: the 2xx is passed on all the same, so that the caller can end it.
func TestRFC3261_16_7_2xxAfterAnotherFinal(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "late2"))
		m.pump()
		n.answer(phone1, "180", "")
		time.Sleep(20100 * time.Millisecond)
		m.pump()
		n.answer(phone2, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 486 Whatever")
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
		if st := n.srv.Stats(); st.Strays != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// 16.3 step 5, 20.29: what must be understood by proxies is refused by name;
// Require is for the other end, and passes.
func TestRFC3261_16_3_ProxyRequireAndRequire(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "pr", "Proxy-Require: foo, bar", "Proxy-Require: baz"))
		m.expect(alice, "SIP/2.0 420 Bad Extension")
		if !strings.Contains(n.lastRes[alice], "Unsupported: foo, bar, baz\r\n") {
			t.Errorf("%s", n.lastRes[alice])
		}
		m.expect(phone1, "")
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "rq", "Require: 100rel, foo"))
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		if !strings.Contains(n.lastReq[phone1], "Require: 100rel, foo\r\n") {
			t.Errorf("%s", n.lastReq[phone1])
		}
		n.answer(phone1, "420", "Unsupported: foo\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 420 Whatever")
		if !strings.Contains(n.lastRes[alice], "Unsupported: foo\r\n") {
			t.Errorf("%s", n.lastRes[alice])
		}
	})
}

// 16.6 step 6: what is left of Route goes along in order; a strict router that
// comes next trades places with the Request-URI.
func TestRFC3261_16_6_RoutesOfOthers(t *testing.T) {
	for name, want := range map[string]string{
		"<sip:192.0.2.40;lr>, <sip:192.0.2.41>": "BYE sip:bob@10.0.0.5:5060 SIP/2.0|Route: <sip:192.0.2.40;lr>|Route: <sip:192.0.2.41>",
		"<sip:192.0.2.40>, <sip:192.0.2.41;lr>": "BYE sip:192.0.2.40 SIP/2.0|Route: <sip:192.0.2.41;lr>|Route: <sip:bob@10.0.0.5:5060>",
	} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000))
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "rt"))
			m.pump()
			n.answer(phone1, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
			m.pump()
			n.recv(alice, strings.Replace(inDialog("BYE", false, "rt"), "{uac-route}", "{uac-route}\nRoute: "+name, 1))
			m.pump()
			line, headers, _, _ := splitMessage(n.lastReq[phone1])
			got := line
			for _, h := range headers {
				if h.name == "Route" {
					got += "|Route: " + h.value
				}
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// 16.6 step 4: a re-INVITE is record-routed too, either way, and its token
// leads like the first one's.
func TestRFC3261_16_6_ReInviteIsRecordRouted(t *testing.T) {
	inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
		n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 99)+`],"final":true}`, t)
		n1.recv(alice, invite("INVITE", "sip:bob@example.com", "re"))
		m.pump()
		n2.answer(bob, "200", "Contact: <sip:bob@10.0.0.5:5060>\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		m.expect(bob, "INVITE sip:bob@10.0.0.5:5060 SIP/2.0")
		n2.recv(bob, inDialog("INVITE", true, "re"))
		m.expect(alice, "INVITE sip:alice@192.0.2.10:5060 SIP/2.0")
		if got := strings.Count(n1.lastReq[alice], "Record-Route: "); got != 2 {
			t.Errorf("%d Record-Routes:\n%s", got, n1.lastReq[alice])
		}
		n1.answer(alice, "200", "Contact: <sip:alice@192.0.2.10:5060>\n")
		m.expect(bob, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		// A BYE by the route set of the re-INVITE, of which alice is the callee.
		bye := strings.Replace(inDialog("BYE", false, "re"), "{uac-route}", "{uas-route}", 1)
		n1.recv(alice, bye)
		m.expect(bob, "BYE sip:bob@10.0.0.5:5060 SIP/2.0")
	})
}

// Each method passes within a dialog, across nodes and both ways.
func TestRFC3261_16_2_EachMethodPassesInADialog(t *testing.T) {
	for _, method := range []string{"INVITE", "ACK", "BYE", "PRACK", "UPDATE", "INFO", "REFER", "MESSAGE", "NOTIFY", "SUBSCRIBE", "OPTIONS", "X-unknown"} {
		t.Run(method, func(t *testing.T) {
			inMesh(t, func(t *testing.T, m *mesh, n1, n2 *rig) {
				n1.loc.set("sip:bob@example.com", `{"targets":[`+flowTarget(bob, 1, 99)+`],"final":true}`, t)
				n1.recv(alice, invite("INVITE", "sip:bob@example.com", "im"))
				m.pump()
				n2.answer(bob, "183", "Contact: <sip:bob@10.0.0.5:5060>\n")
				m.pump()
				uac, uas := n1.lastRes[alice], n2.lastReq[bob]
				m.got(bob)
				m.got(alice)
				n1.lastRes[alice] = uac
				n1.recv(alice, inDialog(method, false, "im"))
				m.expect(bob, method+" sip:bob@10.0.0.5:5060 SIP/2.0")
				n2.lastReq[bob] = uas
				n2.recv(bob, inDialog(method, true, "im"))
				if got := m.got(alice); !strings.Contains(got, method+" sip:alice@192.0.2.10:5060 SIP/2.0") {
					t.Errorf("alice got %s", got)
				}
			})
		})
	}
}
