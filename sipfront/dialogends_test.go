package sipfront

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hereis/actors"
	"hereis/messages"
)

// TestRFC3261_15_1_1_ByeOnTheWire: a BYE ends a call when it has been answered as
// one that ends a dialog, from either side.
func TestRFC3261_15_1_1_ByeOnTheWire(t *testing.T) {
	for status, ends := range map[string]bool{"200": true, "481": true, "408": true, "401": false, "403": false, "500": false} {
		for _, byCallee := range []bool{false, true} {
			t.Run(fmt.Sprint(status, " by the callee ", byCallee), func(t *testing.T) {
				inCalls(t, func(t *testing.T, r *rig, p *publisher) {
					answeredCall(t, r, p, "real")
					from, to := alice, "bob"
					if byCallee {
						from, to = "bob", alice
					}
					r.recv(from, inDialog("BYE", byCallee, "real"))
					synctest.Wait()
					r.take()
					if a := p.of("a"); a != "" {
						t.Errorf("before the answer: %q", a)
					}
					r.answer(to, status, "")
					want := ""
					if ends {
						want = "gone"
					}
					if a, b := p.of("a"), p.of("b"); a != want || b != want {
						t.Errorf("alice %q, bob %q", a, b)
					}
					time.Sleep(40 * time.Second) // the transactions end
				})
			})
		}
	}
}

// TestRFC3261_15_1_1_SilenceEndsADialog: a BYE that nobody answers is as good as one answered 408.
func TestRFC3261_15_1_1_SilenceEndsADialog(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		answeredCall(t, r, p, "real")
		r.recv(alice, inDialog("BYE", false, "real"))
		time.Sleep(40 * time.Second)
		if a, b := p.of("a"), p.of("b"); a != "gone" || b != "gone" {
			t.Errorf("alice %q, bob %q", a, b)
		}
	})
}

// TestRFC3261_9_CancelledCallIsWithdrawn: with the 487, not before.
func TestRFC3261_9_CancelledCallIsWithdrawn(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		r.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}],"final":true}`, t)
		r.peers["bob"] = "192.0.2.20:5060"
		req := invite("INVITE", "sip:bob@example.com", "cancelled")
		r.recv(alice, req)
		synctest.Wait()
		r.take()
		r.answer("bob", "180", "")
		p.of("a")
		r.recv(alice, strings.ReplaceAll(req, "INVITE", "CANCEL"))
		synctest.Wait()
		r.take()
		if a := p.of("a"); a != "" {
			t.Errorf("with the CANCEL: %q", a)
		}
		r.answer("bob", "487", "")
		if a, b := p.of("a"), p.of("b"); a != "gone" || !strings.HasSuffix(b, "gone") {
			t.Errorf("alice %q, bob %q", a, b)
		}
		time.Sleep(40 * time.Second)
	})
}

// TestRule17_ByeByAnotherNode: a node that a BYE comes by in the place of the one
// that follows the call tells that one, until it has heard, once there is an answer.
func TestRule17_ByeByAnotherNode(t *testing.T) {
	var mu sync.Mutex
	var told []string
	silent := true
	tell := func(_ context.Context, node string, m *messages.DialogEnded) error {
		mu.Lock()
		defer mu.Unlock()
		if silent {
			return actors.ErrUnavailable
		}
		told = append(told, node+" "+m.CallId+" "+m.FromTag+" "+m.ToTag)
		return nil
	}
	inCallsTold(t, tell, func(t *testing.T, r *rig, p *publisher) {
		bye := func(callID, via, edge, status string) {
			way := side{transport: "udp", local: netip.MustParseAddrPort("192.0.2.2:5060"), remote: netip.MustParseAddrPort("192.0.2.20:5060")}
			tok := token{kind: tokenDialog, edge: edge, caller: hashTag("a1"), sides: []side{way, way}}
			route := "Route: <sip:" + string(tok.seal(r.srv.flowKey, callID)) + "@example.com;lr>\n"
			r.peers["bob"] = "192.0.2.20:5060"
			r.recv(via, strings.NewReplacer("{uac-route}\n", route, "10.0.0.5:5060", "192.0.2.20:5060", "branch=", "branch=z9hG4bK"+callID).Replace(inDialog("BYE", false, callID)))
			synctest.Wait()
			r.take()
			r.answer("bob", status, "")
			synctest.Wait()
			r.take()
		}
		bye("c", alice, "n2", "200")
		time.Sleep(5 * time.Second)
		mu.Lock()
		silent = false
		mu.Unlock()
		time.Sleep(10 * time.Second)
		bye("refused", alice, "n2", "403")
		bye("own", alice, "n1", "200")
		r.zone.nodes["n3"] = netip.MustParseAddrPort("192.0.2.3:5060")
		bye("passed", "192.0.2.3:5060", "n2", "200")
		time.Sleep(time.Second)
		mu.Lock()
		if want := []string{"n2 c a1 bob"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		silent = true
		mu.Unlock()
		bye("never", alice, "n2", "200")
		if r.srv.dialogs.underWay() != 1 {
			t.Error("no word is under way")
		}
		bye("many", alice, "n2", "200")
		if n := r.srv.Stats().DialogsRefused; n != 1 || r.srv.dialogs.underWay() != 1 {
			t.Errorf("%d refused, %d under way", n, r.srv.dialogs.underWay())
		}
		time.Sleep(farewellLife + 2*time.Minute)
		if n := r.srv.Stats().DialogsFailed; n != 1 || r.srv.dialogs.underWay() != 0 {
			t.Errorf("%d given up, %d under way", n, r.srv.dialogs.underWay())
		}
	}, func(c *Config) { c.MaxDialogs = 1 })
}

// underWay is how many words are under way.
func (d *dialogEvents) underWay() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaving
}

// TestRule17_AWordFromAnotherNodeEndsTheCall: the other end of it.
func TestRule17_AWordFromAnotherNodeEndsTheCall(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		answeredCall(t, r, p, "real")
		r.srv.DialogEnded(&messages.DialogEnded{CallId: "real", FromTag: "bob", ToTag: "other"})
		if a := p.of("a"); a != "" {
			t.Errorf("another dialog: %q", a)
		}
		r.srv.DialogEnded(&messages.DialogEnded{CallId: "real", FromTag: "bob", ToTag: "a1"})
		if a, b := p.of("a"), p.of("b"); a != "gone" || b != "gone" {
			t.Errorf("alice %q, bob %q", a, b)
		}
		time.Sleep(40 * time.Second)
	})
}

// TestRule23_WhatADeadNodeToldOfCallsEnds: a node that is killed leaves a lamp lit
// until its publication expires, which is dialogExpires at the longest.
func TestRule23_WhatADeadNodeToldOfCallsEnds(t *testing.T) {
	inPresence(t, func(t *testing.T, p *presenceRig) {
		ctx, kill := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.srv.dialogs.run(ctx) })
		p.send(watcher1, "SUBSCRIBE", "sip:bob@example.com", "s1", "", "Event: dialog", "Expires: 3600")
		p.got(watcher1)
		c := p.srv.dialogs.begin(aCall("c"))
		p.srv.dialogs.answered(c, response(200, "b"))
		p.wait(2 * time.Second)
		if got := p.got(watcher1); !strings.Contains(got, "<state>confirmed</state>") {
			t.Errorf("the call: %s", got)
		}
		p.wait(dialogExpires * time.Second / 2)
		p.wait(10 * time.Second) // it has been refreshed
		p.got(watcher1)
		kill()
		running.Wait()
		p.wait(dialogExpires*time.Second - time.Minute)
		if got := p.got(watcher1); got != "" {
			t.Errorf("before it expires: %s", got)
		}
		p.wait(2 * time.Minute)
		if got := p.got(watcher1); !strings.HasPrefix(got, "NOTIFY active") || strings.Contains(got, "<dialog ") {
			t.Errorf("after that: %s", got)
		}
	}, func(c *Config) { c.DialogEvents = true })
}
