package sipfront

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/actors"
)

const (
	phone1 = "192.0.2.20:5060"
	phone2 = "192.0.2.21:5060"
	phone3 = "192.0.2.22:5060"
)

// here is a target at n1 that is called by its Contact.
func here(addr string, q int) string {
	return fmt.Sprintf(`{"contact":"sip:bob@%s","q":%d,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"%s"}`, addr, q, addr)
}

// alone runs a test at one node; phones get what it sends.
func alone(t *testing.T, f func(t *testing.T, m *mesh, n *rig), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, nodes: map[string]*rig{}, inbox: map[string][]string{}, dead: map[string]bool{}}
		n := newRig(t, change...)
		m.nodes[addr1] = n
		f(t, m, n)
	})
}

func (r *rig) bobAt(targets ...string) {
	r.t.Helper()
	r.loc.set("sip:bob@example.com", `{"targets":[`+strings.Join(targets, ",")+`],"final":true}`, r.t)
}

// 16.4: a strict router put our Record-Route URI into the Request-URI; the
// real one is the last Route.
func TestRFC3261_16_4_StrictRouterIsRepaired(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "s1"))
		m.pump()
		n.answer(phone1, "200", "Contact: <sip:bob@192.0.2.20>\n")
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		route := strings.TrimSuffix(strings.TrimPrefix(routeSet(n.lastReq[phone1], false), "Route: <"), ">\n")
		bye := strings.Replace(inDialog("BYE", false, "s1"), "{uac-route}", "Route: <sip:bob@192.0.2.20>", 1)
		n.recv(alice, strings.Replace(bye, "sip:bob@10.0.0.5:5060", route, 1))
		m.expect(phone1, "BYE sip:bob@192.0.2.20 SIP/2.0")
		if strings.Contains(n.lastReq[phone1], "\r\nRoute:") {
			t.Errorf("a Route is left:\n%s", n.lastReq[phone1])
		}
	})
}

// 16.4: maddr that names us, and our own Route by address, by domain and by alias, are taken off.
func TestRFC3261_16_4_OwnRoutesAndMaddr(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		for i, lines := range [][]string{
			{"Route: <sip:192.0.2.1;lr>"}, {"Route: <sip:192.0.2.1:5060;lr>"}, {"Route: <sip:example.com;lr>"},
			{"Route: <sip:SIP.example.COM:5060;lr>,<sip:192.0.2.1;lr>"}, {"Route: \"a, b\" <sip:example.org;lr>", "Route: <sip:192.0.2.1;lr>"},
		} {
			n.recv(alice, invite("MESSAGE", "sip:bob@example.com", fmt.Sprintf("o%d", i), lines...))
			m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
		}
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com:5060;maddr=192.0.2.1;transport=udp", "maddr"))
		m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
		m.expect(alice, "")
	})
}

// 16.5: tel, user=phone and escapes are one user; a phone at the host's own address is not us.
func TestRFC3261_16_5_WhoIsOurs(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.set("sip:+4912345@example.com", `{"targets":[`+here(phone1, 1000)+`],"final":true}`, t)
		n.bobAt(here(phone1, 1000))
		for i, target := range []string{"tel:+49-123-45", "sip:+49-123-45@example.com;user=phone", "sip:%62ob@EXAMPLE.com:5060"} {
			n.recv(alice, invite("MESSAGE", target, fmt.Sprintf("w%d", i)))
			m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
		}
		for i, target := range []string{"sip:bob@192.0.2.1:5071", "sip:bob@example.com:5071"} {
			n.recv(alice, invite("MESSAGE", target, fmt.Sprintf("v%d", i)))
			m.expect(phone1, "")
			m.expect(alice, "SIP/2.0 403 Domain Not Served")
		}
	})
}

// 16.3 step 4: the same request again is a loop; with another Request-URI it is a spiral.
func TestRFC3261_16_3_LoopAndSpiral(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		self := strings.ReplaceAll(here("example.com", 1000), `"sip:bob@example.com"`, `"sip:%s@example.com"`)
		n.loc.set("sip:bob@example.com", `{"targets":[`+fmt.Sprintf(self, "carol")+`],"final":true}`, t)
		n.loc.set("sip:carol@example.com", `{"targets":[`+here(phone1, 1000)+`],"final":true}`, t)
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "spiral"))
		m.expect(phone1, "MESSAGE sip:bob@192.0.2.20:5060 SIP/2.0")
		n.loc.set("sip:dave@example.com", `{"targets":[`+fmt.Sprintf(self, "dave")+`],"final":true}`, t)
		n.recv(alice, invite("MESSAGE", "sip:dave@example.com", "loop"))
		m.expect(alice, "SIP/2.0 482 Loop Detected")
	})
}

// 16.7 step 7: the challenges of all 401s and 407s go into the one that is sent.
func TestRFC3261_16_7_ChallengesAreGathered(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "auth"))
		m.pump()
		n.answer(phone1, "486", "")
		n.answer(phone2, "401", "WWW-Authenticate: Digest realm=\"a\", nonce=\"1\"\n")
		n.answer(phone3, "407", "Proxy-Authenticate: Digest realm=\"b\", nonce=\"2\"\n")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 401 Whatever")
		res := n.lastRes[alice]
		if !strings.Contains(res, "WWW-Authenticate: Digest realm=\"a\", nonce=\"1\"\r\n") ||
			!strings.Contains(res, "Proxy-Authenticate: Digest realm=\"b\", nonce=\"2\"\r\n") {
			t.Errorf("challenges are missing:\n%s", res)
		}
	})
}

func TestRFC3261_16_7_BestResponse(t *testing.T) {
	for _, c := range []struct {
		statuses []int
		silent   bool
		want     int
	}{
		{[]int{486, 302}, false, 302},
		{[]int{500, 486}, false, 486},
		{[]int{404, 486, 480}, false, 486},
		{[]int{486, 484, 404}, false, 484},
		{[]int{484, 407}, false, 407},
		{[]int{486, 603, 302}, false, 603},
		{[]int{503, 500}, false, 500},
		{[]int{503}, false, 503},
		{[]int{500}, true, 0},
		{[]int{486}, true, 486},
		{nil, false, 0},
	} {
		b := best{silent: c.silent}
		for _, s := range c.statuses {
			b.add(reply{status: s})
		}
		if _, got := b.choose(true); got != c.want {
			t.Errorf("%v silent=%v: got %d, want %d", c.statuses, c.silent, got, c.want)
		}
	}
}

// 16.7 step 10, RFC 6026: each 2xx of an INVITE is passed on, also the second
// device's; after the transaction, by the second Via, if the branch is ours.
func TestRFC3261_16_7_Every2xxIsPassedOn(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "two"))
		m.pump()
		n.answer(phone1, "200", "")
		n.answer(phone2, "200", "")
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever\nSIP/2.0 200 Whatever\nSIP/2.0 200 Whatever")
		time.Sleep(100 * time.Second)
		m.pump()
		m.inbox[alice] = nil
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
		// Nobody aims our answers at others: a branch that we did not make, or of another call.
		for _, change := range [][2]string{{"z9hG4bK", "z9hG4bKx"}, {"Call-ID: two", "Call-ID: three"}, {"1 INVITE", "1 BYE"}} {
			last := n.lastReq[phone2]
			n.lastReq[phone2] = strings.Replace(last, change[0], change[1], 1)
			n.answer(phone2, "200", "")
			m.expect(alice, "")
			n.lastReq[phone2] = last
		}
		if st := n.srv.Stats(); st.Strays != 1 || st.Dropped != 3 {
			t.Errorf("%+v", st)
		}
	})
}

// 16.8: Timer C ends a branch that rings for ever with a CANCEL; each
// provisional starts it again.
func TestRFC3261_16_8_TimerC(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "tc"))
		m.pump()
		n.answer(phone1, "180", "")
		time.Sleep(150 * time.Second)
		n.answer(phone1, "180", "")
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		time.Sleep(190 * time.Second)
		m.expect(phone1, "")
		time.Sleep(10*time.Second + 100*time.Millisecond)
		m.expect(phone1, "CANCEL sip:bob@192.0.2.20:5060 SIP/2.0")
		n.answer(phone1, "487", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 180 Whatever\nSIP/2.0 408 Request Timeout")
	})
}

// 16.10, 9.2: a CANCEL that comes while the cluster is still being asked
// leaves nobody ringing.
func TestRFC3261_16_10_CancelWhileLocating(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.gate = make(chan struct{})
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "cl"))
		cancel := strings.ReplaceAll(strings.Replace(invite("CANCEL", "sip:bob@example.com", "cl"), "Contact: <sip:alice@192.0.2.10:5060>\n", "", 1), "1 INVITE", "1 CANCEL")
		n.recv(alice, cancel)
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 OK")
		close(n.loc.gate)
		m.expect(alice, "SIP/2.0 487 Request Terminated")
		m.expect(phone1, "")
	})
}

// A silent device: an INVITE ends as 408 by Timer B, and everything else
// without an answer that comes too late (RFC 4320 4.2).
func TestRFC4320_4_2_No408ForNonInvite(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "silent1"))
		time.Sleep(40 * time.Second)
		m.expect(alice, "SIP/2.0 100 Trying")
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "silent2"))
		time.Sleep(33 * time.Second)
		if got := m.got(alice); !strings.HasPrefix(got, "SIP/2.0 100 Trying\nSIP/2.0 408 Request Timeout") {
			t.Errorf("got %s", got)
		}
	})
}

// Rule 13: an answer that is not final may lack a target. The fork begins at
// once; when all has failed, the cluster is asked again, once, and only what is new is tried.
func TestRule13_LateTargetsAreTakenIn(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.set("sip:bob@example.com", `{"targets":[`+here(phone1, 1000)+`]}`, t)
		n.loc.set("sip:bob@example.com", `{"targets":[`+here(phone1, 1000)+`,`+here(phone2, 1000)+`]}`, t)
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "late"))
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0")
		n.answer(phone1, "480", "")
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0")
		m.expect(phone1, "ACK sip:bob@192.0.2.20:5060 SIP/2.0")
		n.answer(phone2, "486", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 486 Whatever")
		if n.loc.asked != 2 || n.srv.Stats().Relocated != 1 {
			t.Errorf("asked %d times", n.loc.asked)
		}
	})
}

// Rule 13: the owner's stand-in knows of one device alone, and that is silent: the
// devices that the owner knows besides are called as soon as it has said so, not
// when the silent one is given up. So it is with every method.
func TestRule13_DevicesOfTheOwnerJoinThoseOfItsStandIn(t *testing.T) {
	for _, method := range []string{"OPTIONS", "MESSAGE", "INVITE"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.loc.part("sip:bob@example.com", here(phone1, 500), t)
			n.bobAt(here(phone2, 1000), here(phone1, 500), here(phone3, 200))
			n.recv(alice, invite(method, "sip:bob@example.com", "joins"))
			m.expect(phone1, method+" sip:bob@192.0.2.20:5060 SIP/2.0")
			if !n.loc.finish("sip:bob@example.com") {
				t.Fatal("nobody waits for the owner")
			}
			m.expect(phone2, method+" sip:bob@192.0.2.21:5060 SIP/2.0")
			m.expect(phone1, "")
			m.expect(phone3, "") // its turn comes after both
			n.answer(phone2, "200", "")
			if got := m.got(alice); !strings.HasSuffix(got, "SIP/2.0 200 Whatever") {
				t.Errorf("%s: %s", method, got)
			}
			if n.loc.asked != 1 || n.srv.Stats().Relocated != 0 {
				t.Errorf("asked %d times", n.loc.asked)
			}
		})
	}
}

// Rule 13: the owner's word is awaited no more once it is of no use: when somebody
// has answered, and when all devices of the stand-in's have refused: then whoever
// answers first is asked.
func TestRule13_NobodyWaitsForAnOwnerInVain(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.part("sip:bob@example.com", here(phone1, 1000), t)
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "answered"))
		m.pump()
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 200 Whatever")
		if n.loc.finish("sip:bob@example.com") || n.loc.forgotten != 1 {
			t.Error("somebody waits for the owner after the answer")
		}
		m.inbox = map[string][]string{}

		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "refused"))
		m.pump()
		m.inbox[alice] = nil
		stale := n.loc.rest["sip:bob@example.com"]
		n.loc.parts = nil
		n.answer(phone1, "486", "")
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0")
		if n.loc.forgotten != 2 || n.loc.asked != 1 || n.srv.Stats().Relocated != 1 {
			t.Errorf("forgotten %d, asked %d", n.loc.forgotten, n.loc.asked)
		}
		stale(nil, actors.ErrRetry) // it has crossed that
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// Rule 13: an owner that says nothing, or that the user is unknown, takes nothing
// from what its stand-in has begun; and a caller who hangs up waits for nobody.
func TestRule13_WhatTheStandInBeganGoesOn(t *testing.T) {
	for _, err := range []string{"retry", "not-found"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.loc.part("sip:bob@example.com", here(phone1, 1000), t)
			n.loc.set("sip:bob@example.com", err, t)
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "goes-on"))
			m.pump()
			n.answer(phone1, "180", "")
			n.loc.finish("sip:bob@example.com")
			m.pump()
			n.answer(phone1, "200", "")
			m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 180 Whatever\nSIP/2.0 200 Whatever")
		})
	}
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.part("sip:bob@example.com", here(phone1, 1000), t)
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		req := invite("INVITE", "sip:bob@example.com", "cancelled")
		n.recv(alice, req)
		m.pump()
		n.answer(phone1, "180", "")
		m.pump()
		n.recv(alice, strings.ReplaceAll(req, "INVITE", "CANCEL"))
		m.pump()
		n.loc.finish("sip:bob@example.com")
		m.expect(phone2, "")
		n.answer(phone1, "487", "")
		if got := m.got(alice); !strings.Contains(got, "SIP/2.0 487") {
			t.Errorf("%s", got)
		}
	})
}

// Too many questions under way are a 503 with Retry-After, at once; one that
// the cluster does not answer is a 503 at the deadline.
func TestLookupsAreBounded(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.gate = make(chan struct{})
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "first"))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "second"))
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 503 Service Unavailable")
		if !strings.Contains(n.lastRes[alice], "Retry-After: 2\r\n") {
			t.Errorf("%s", n.lastRes[alice])
		}
		time.Sleep(2001 * time.Millisecond)
		m.expect(alice, "SIP/2.0 503 Service Unavailable")
		if n.srv.Stats().Overloaded != 1 {
			t.Errorf("%+v", n.srv.Stats())
		}
	}, func(c *Config) { c.MaxLookups = 1 })
}

// A UA that ignores Record-Route sends ACK and BYE to the AoR: they arrive all the same.
func TestAckAndByeWithoutRoute(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "nr"))
		m.pump()
		n.answer(phone1, "200", "")
		m.pump()
		for _, method := range []string{"ACK", "BYE"} {
			req := strings.Replace(inDialog(method, false, "nr"), "{uac-route}\n", "", 1)
			n.recv(alice, strings.Replace(req, "sip:bob@10.0.0.5:5060", "sip:bob@example.com", 1))
			synctest.Wait()
		}
		m.expect(phone1, "INVITE sip:bob@192.0.2.20:5060 SIP/2.0\nACK sip:bob@192.0.2.20:5060 SIP/2.0\nBYE sip:bob@192.0.2.20:5060 SIP/2.0")
	})
}

// A dialog's token is for that dialog: not for a new request, not for another call.
func TestDialogTokenIsBoundToItsCall(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "t1"))
		m.pump()
		m.inbox = map[string][]string{}
		route := strings.TrimSuffix(routeSet(n.lastReq[phone1], false), "\n")
		n.recv(alice, invite("MESSAGE", "sip:bob@192.0.2.20:5060", "t1", route))
		n.recv(alice, strings.Replace(inDialog("BYE", false, "t2"), "{uac-route}", route, 1))
		m.expect(alice, "SIP/2.0 403 Invalid Route\nSIP/2.0 403 Domain Not Served")
		m.expect(phone1, "")
	})
}

func TestErrorsOfTheRegistrarReachTheClient(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.reg.err = actors.IntervalTooBriefError{Min: time.Minute}
		req := strings.NewReplacer("<sip:bob@example.com>", "<sip:alice@example.com>").Replace(invite("REGISTER", "sip:example.com", "brief", "Expires: 10"))
		n.recv(alice, req)
		m.expect(alice, "SIP/2.0 423 Interval Too Brief")
		if !strings.Contains(n.lastRes[alice], "Min-Expires: 60\r\n") {
			t.Errorf("%s", n.lastRes[alice])
		}
		q := n.reg.last
		if q.Aor != "sip:alice@example.com" || q.Remote != alice || q.Contacts[0].FlowBound || q.ExpiresS != 10 || q.Flow == nil || q.Edge != "n1" {
			t.Errorf("%v", q)
		}
	})
}

// Every method is passed on, known or not, with its letters as they are.
func TestAllMethodsAreProxied(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		for _, method := range []string{"MESSAGE", "SUBSCRIBE", "NOTIFY", "INFO", "PRACK", "UPDATE", "REFER", "PUBLISH", "OPTIONS", "newMethod"} {
			n.recv(alice, invite(method, "sip:bob@example.com", "m-"+method))
			m.expect(phone1, method+" sip:bob@192.0.2.20:5060 SIP/2.0")
			n.answer(phone1, "501", "")
			m.expect(alice, "SIP/2.0 501 Whatever")
		}
	})
}

// What a node is asked about itself is answered at once and by itself, whatever
// state the cluster is in: nobody is asked, and no other node need be up.
func TestRFC3261_11_2_OptionsForTheNodeNeedsNoCluster(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.loc.gate = make(chan struct{}) // closed by the end: until then the cluster answers nothing
		defer close(n.loc.gate)
		n.zone.mu.Lock()
		n.zone.nodes["n2"] = netip.MustParseAddrPort("192.0.2.2:5060")
		n.zone.down = map[string]bool{"n2": true}
		n.zone.mu.Unlock()
		for i, uri := range []string{"sip:192.0.2.1:5060", "sip:192.0.2.1", "sip:example.com"} {
			began := time.Now()
			n.recv(alice, invite("OPTIONS", uri, fmt.Sprint("self", i)))
			m.expect(alice, "SIP/2.0 200 OK")
			if took := time.Since(began); took != 0 { // on the clock of the bubble
				t.Errorf("%s: after %v", uri, took)
			}
		}
		if n.loc.asked != 0 {
			t.Errorf("the cluster was asked %d times", n.loc.asked)
		}
	})
}
