package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ringing begins a call of alice's to bob that rings at these phones.
func ringing(t *testing.T, m *mesh, n *rig, callID string, phones ...string) {
	t.Helper()
	targets := make([]string, 0, len(phones))
	for _, phone := range phones {
		targets = append(targets, here(phone, 1000))
	}
	n.bobAt(targets...)
	n.recv(alice, invite("INVITE", "sip:bob@example.com", callID))
	m.pump()
	for _, phone := range phones {
		n.answer(phone, "180", "")
	}
	m.pump()
	m.inbox = map[string][]string{}
}

// 16.7 steps 3 and 9: what is passed on is what came, but for the top Via: every
// other header field and the body, in order, known or not, and received and
// rport of the next Via.
func TestRFC3261_16_7_NothingButTheViaIsTakenAway(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, strings.Replace(invite("INVITE", "sip:bob@example.com", "as-is"), "UDP 192.0.2.10:5060;", "UDP 10.9.9.9:5060;rport;", 1))
		m.pump()
		lines := []string{
			"Contact: <sip:bob@192.0.2.20>;x=\"a,b\"", "Warning: 399 h \"two\twords\"", "X-Unknown:  odd  ; spacing", "Require: 100rel", "RSeq: 1",
			"Content-Type: text/plain", "X-Hereis-Like: 1", "s: compact",
		}
		body := "v=0\nodd body \x00\x01\n"
		raw := strings.Join(lines, "\n") + "\nContent-Length: " + fmt.Sprint(len(body)+2) + "\n\n"
		for _, status := range []string{"183", "200"} {
			_, headers, _, _ := splitMessage(n.lastReq[phone1])
			res := "SIP/2.0 " + status + " A reason: of our own\n"
			var vias []string
			for _, h := range headers {
				switch h.name {
				case "Via":
					vias = append(vias, h.value)
					fallthrough
				case "From", "To", "Call-ID", "CSeq", "Record-Route":
					res += h.name + ": " + h.value + "\n"
				}
			}
			n.recv(phone1, res+raw+body)
			m.pump()
			got, gotHeaders, gotBody, _ := splitMessage(n.lastRes[alice])
			if got != "SIP/2.0 "+status+" A reason: of our own" || gotBody != strings.ReplaceAll(body, "\n", "\r\n") {
				t.Errorf("%q with body %q", got, gotBody)
			}
			for _, line := range lines {
				if !strings.Contains(n.lastRes[alice], "\r\n"+line+"\r\n") {
					t.Errorf("%s: not as it came: %s\n%s", status, line, n.lastRes[alice])
				}
			}
			if v := values(n.lastRes[alice], "Via"); len(v) != 1 || v[0] != vias[1] || !strings.Contains(v[0], "received=192.0.2.10") || !strings.Contains(v[0], "rport=5060") {
				t.Errorf("Via %q", v)
			}
			if len(gotHeaders) != len(headersOf(res))+len(lines) {
				t.Errorf("%d header fields", len(gotHeaders))
			}
		}
	})
}

// headersOf are the header lines of the start of a message, but for the topmost
// Via, which is taken off, and with a Content-Length.
func headersOf(head string) []string {
	return strings.Split(strings.TrimSuffix(head, "\n"), "\n")[1:]
}

// 16.7 step 6: the To tag of 1xx and 2xx is the device's, of an answer that is
// passed on too; where there was none in a 1xx, none is made.
func TestRFC3261_16_7_ToTagsAreLeftAlone(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "totag"))
		m.pump()
		to := func() string { return values(n.lastRes[alice], "To")[0] }
		last := n.lastReq[phone1]
		n.lastReq[phone1] = strings.Replace(last, "To: <sip:bob@example.com>", "To: <sip:bob@example.com>;tag=early", 1)
		n.answer(phone1, "180", "")
		m.pump()
		if to() != "<sip:bob@example.com>;tag=early" {
			t.Error(to())
		}
		n.lastReq[phone1] = last
		_, headers, _, _ := splitMessage(last)
		untagged := "SIP/2.0 181 Forwarded\n"
		for _, h := range headers {
			switch h.name {
			case "Via", "From", "To", "Call-ID", "CSeq":
				untagged += h.name + ": " + h.value + "\n"
			}
		}
		n.recv(phone1, untagged+"Content-Length: 0\n\n")
		m.pump()
		if to() != "<sip:bob@example.com>" {
			t.Error(to())
		}
		n.answer(phone1, "486", "")
		m.pump()
		if to() != "<sip:bob@example.com>;tag="+phone1 {
			t.Error(to())
		}
	})
}

// 16.7 step 5: a 100 stays here; each other provisional goes up at once, until
// there is a final answer.
func TestRFC3261_16_7_ProvisionalsGoUpUntilAFinal(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "prov"))
		m.expect(alice, "SIP/2.0 100 Trying")
		n.answer(phone1, "100", "")
		m.expect(alice, "")
		n.answer(phone1, "183", "")
		n.answer(phone2, "180", "")
		n.answer(phone1, "180", "")
		m.expect(alice, "SIP/2.0 183 Whatever\nSIP/2.0 180 Whatever\nSIP/2.0 180 Whatever")
		n.answer(phone2, "200", "")
		n.answer(phone1, "180", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// 16.7 step 10: whatever final answer is sent, all that still rings is cancelled:
// once, and not what has not rung.
func TestRFC3261_16_7_PendingBranchesAreCancelled(t *testing.T) {
	for _, status := range []string{"200", "603"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000))
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "pend"))
			m.pump()
			n.answer(phone2, "180", "")
			m.pump()
			m.inbox = map[string][]string{}
			n.answer(phone1, status, "")
			m.expect(phone2, "CANCEL sip:bob@192.0.2.21:5060 SIP/2.0")
			m.expect(phone3, "")
			// It is told at its first provisional.
			n.answer(phone3, "180", "")
			m.expect(phone3, "CANCEL sip:bob@192.0.2.22:5060 SIP/2.0")
			n.answer(phone3, "180", "")
			m.expect(phone3, "")
		})
	}
}

// 16.7 step 6: no final answer comes before all branches have theirs, and there
// is exactly one.
func TestRFC3261_16_7_OneFinalWhenAllHaveEnded(t *testing.T) {
	for _, method := range []string{"INVITE", "MESSAGE"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000))
			n.recv(alice, invite(method, "sip:bob@example.com", "once"))
			m.pump()
			m.inbox[alice] = nil
			n.answer(phone1, "486", "")
			m.expect(alice, "")
			n.answer(phone2, "404", "")
			m.expect(alice, "SIP/2.0 486 Whatever")
			n.answer(phone2, "404", "")
			n.answer(phone1, "500", "")
			m.expect(alice, "")
		})
	}
}

// 16.7 step 5: of a request other than INVITE one 2xx goes up, not more.
func TestRFC3261_16_7_One2xxOfANonInvite(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "one2xx"))
		m.pump()
		n.answer(phone1, "200", "")
		n.answer(phone2, "202", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// 16.7 step 6: a silent branch of an INVITE is a 408 among the others.
func TestRFC3261_16_7_SilenceIsA408(t *testing.T) {
	for status, want := range map[string]string{"": "408 Request Timeout", "500": "408 Request Timeout", "486": "486 Whatever", "300": "300 Whatever"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000))
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "mute"))
			m.pump()
			if status != "" {
				n.answer(phone2, status, "")
			}
			time.Sleep(33 * time.Second)
			expectStatus(t, "with "+status, m.status(n, alice), want)
		})
	}
}

// 16.8: a 100 does not start Timer C again; when it fires, the branch is
// cancelled, and one that does not end by that either counts as a 408.
func TestRFC3261_16_8_A100DoesNotRestartTimerC(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		ringing(t, m, n, "c100", phone1)
		time.Sleep(150 * time.Second)
		n.answer(phone1, "100", "")
		time.Sleep(49900 * time.Millisecond)
		m.expect(phone1, "")
		time.Sleep(200 * time.Millisecond)
		m.expect(phone1, "CANCEL sip:bob@192.0.2.20:5060 SIP/2.0")
		n.answer(phone1, "199", "") // late, and no reason to go on
		m.pump()
		m.inbox[alice] = nil
		time.Sleep(32 * time.Second)
		m.expect(alice, "SIP/2.0 408 Request Timeout")
	})
}

// 16.8: each branch has its own Timer C, and a 2xx that crosses the CANCEL counts.
func TestRFC3261_16_8_TimerCIsTheBranchsOwn(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		ringing(t, m, n, "cown", phone1, phone2)
		time.Sleep(100 * time.Second)
		n.answer(phone2, "180", "")
		time.Sleep(100*time.Second + 200*time.Millisecond)
		m.expect(phone1, "CANCEL sip:bob@192.0.2.20:5060 SIP/2.0")
		m.expect(phone2, "")
		m.inbox[alice] = nil
		n.answer(phone1, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
		m.expect(phone2, "CANCEL sip:bob@192.0.2.21:5060 SIP/2.0")
	})
}

// 16.9: a transport that refuses a request ends that branch alone; where nothing
// else is left the caller hears at once.
func TestRFC3261_16_9_ARequestThatCannotBeSent(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		n.net.flow(mustAddr(phone1)).closed = true
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "te1"))
		m.expect(phone2, "INVITE sip:bob@192.0.2.21:5060 SIP/2.0")
		m.expect(alice, "SIP/2.0 100 Trying")
		n.net.flow(mustAddr(phone2)).closed = true
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "te2"))
		m.expect(alice, "SIP/2.0 100 Trying\nSIP/2.0 480 Temporarily Unavailable")
	})
}

// 16.9: an answer that cannot be sent is dropped, and nobody's call is
// cancelled: or a caller could break off others' by its Via.
func TestRFC3261_16_9_AnAnswerThatCannotBeSent(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		ringing(t, m, n, "te3", phone1, phone2)
		n.net.flow(mustAddr(alice)).closed = true
		n.answer(phone1, "183", "")
		n.answer(phone1, "486", "")
		m.expect(phone2, "")
		m.expect(alice, "")
		n.net.flow(mustAddr(alice)).closed = false
		n.answer(phone2, "200", "")
		m.expect(alice, "SIP/2.0 200 Whatever")
	})
}

// 16.10: the CANCEL is answered at once and told to all that ring; what has not
// rung is told when it does. The caller hears 487 when all have ended.
func TestRFC3261_16_10_CancelReachesEveryBranch(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 500))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "can"))
		m.pump()
		n.answer(phone1, "180", "")
		m.pump()
		m.inbox = map[string][]string{}
		n.recv(alice, strings.ReplaceAll(invite("CANCEL", "sip:bob@example.com", "can", "Reason: SIP;cause=200;text=\"x\""), "1 INVITE", "1 CANCEL"))
		m.expect(alice, "SIP/2.0 200 OK")
		m.expect(phone1, "CANCEL sip:bob@192.0.2.20:5060 SIP/2.0")
		m.expect(phone2, "")
		n.answer(phone2, "180", "")
		m.expect(phone2, "CANCEL sip:bob@192.0.2.21:5060 SIP/2.0")
		n.answer(phone1, "487", "")
		m.expect(alice, "")
		n.answer(phone2, "487", "")
		m.expect(alice, "SIP/2.0 487 Request Terminated")
		m.expect(phone3, "")
	})
}

// 16.10 has a CANCEL without an INVITE passed on statelessly. This node passes
// no INVITE on without state, so it knows that there is nothing to cancel.
func TestRFC3261_16_10_CancelOfNothingIs481(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, strings.ReplaceAll(invite("CANCEL", "sip:bob@example.com", "nil"), "1 INVITE", "1 CANCEL"))
		m.expect(alice, "SIP/2.0 481 Call/Transaction Does Not Exist")
		m.expect(phone1, "")
	})
}
