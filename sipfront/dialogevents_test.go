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
	"hereis/sipfront/event"
)

// publisher writes down what is published, and forgets it when it is told to.
type publisher struct {
	mu  sync.Mutex
	log []string
	// tags has the entity-tag of each publication.
	tags map[string]string
	// fail, if not nil, is the error of each; lost: it is that of one that was made.
	fail error
	lost bool
}

func (p *publisher) Publish(_ context.Context, m *messages.Publish) (*messages.Published, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil && !p.lost {
		return nil, p.fail
	}
	if m.IfMatch != "" && m.IfMatch != p.tags[m.Id] {
		return nil, actors.ErrConditionFailed
	}
	what := "gone"
	if m.ExpiresS > 0 {
		if err := (event.DialogInfo{}).Check(m.ContentType, m.Body); err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(string(m.Body), "<state>")
		what, _, _ = strings.Cut(rest, "<")
	}
	p.log = append(p.log, m.Aor[len("sip:"):len("sip:")+1]+" "+what)
	p.tags[m.Id] = m.EntityTag
	if p.fail != nil {
		return nil, p.fail
	}
	return &messages.Published{EntityTag: m.EntityTag, ExpiresS: m.ExpiresS}, nil
}

func (p *publisher) Subscribe(context.Context, *messages.Subscribe) (*messages.Subscribed, error) {
	return nil, actors.ErrUnavailable
}

// failing makes each publication fail from now on; with lost it is made all the same.
func (p *publisher) failing(err error, lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.lost = err, lost
}

// of is what was published of one user since the last look.
func (p *publisher) of(initial string) string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var got, rest []string
	for _, l := range p.log {
		if what, ok := strings.CutPrefix(l, initial+" "); ok {
			got = append(got, what)
		} else {
			rest = append(rest, l)
		}
	}
	p.log = rest
	return strings.Join(got, " ")
}

// inCalls runs f with a node that tells of calls, in a bubble.
func inCalls(t *testing.T, f func(t *testing.T, r *rig, p *publisher), change ...func(*Config)) {
	t.Helper()
	inCallsTold(t, nil, f, change...)
}

// inCallsTold is inCalls with a way to tell other nodes.
func inCallsTold(t *testing.T, tell func(context.Context, string, *messages.DialogEnded) error,
	f func(t *testing.T, r *rig, p *publisher), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &publisher{tags: map[string]string{}}
		change := append([]func(*Config){func(c *Config) { c.DialogEvents = true }}, change...)
		r := newNodeWith(t, "n1", "192.0.2.1:5060", func(_ *rig, parts *Parts) {
			parts.Presentities, parts.Packages, parts.EndDialog = p, nil, tell
			parts.Subscriptions = &memDisk{subs: map[uint64]*messages.Subscription{}}
		}, change...)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.srv.dialogs.run(ctx) })
		f(t, r, p)
		cancel()
		running.Wait()
	})
}

func aCall(callID string) (*request, *plan) {
	return &request{method: "INVITE", callID: callID, fromTag: "a", from: "<sip:alice@example.com>", to: "<sip:bob@example.com>"},
		&plan{way: wayUser, aor: "sip:bob@example.com"}
}

func response(status int, tag string) reply {
	return reply{status: status, raw: []byte("SIP/2.0 200 X\r\nTo: <sip:bob@example.com>;tag=" + tag + "\r\n\r\n")}
}

// TestRFC4235_3_7_1_StatesOfACall: each side is told as the call goes on, and
// both are withdrawn at its end, whichever of them brings it.
func TestRFC4235_3_7_1_StatesOfACall(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		d := r.srv.dialogs
		for i, by := range [][2]string{{"a", "b"}, {"b", "a"}} {
			id := fmt.Sprint("c", i)
			c := d.begin(aCall(id))
			if a, b := p.of("a"), p.of("b"); a != "trying" || b != "" {
				t.Errorf("INVITE: alice %q, bob %q", a, b)
			}
			d.answered(c, response(100, ""))
			d.answered(c, response(180, "b"))
			d.answered(c, response(180, "b"))
			if a, b := p.of("a"), p.of("b"); a != "early" || b != "early" {
				t.Errorf("180: alice %q, bob %q", a, b)
			}
			d.answered(c, response(200, "b"))
			d.ended(c)
			d.answered(c, response(200, "b"))
			if a, b := p.of("a"), p.of("b"); a != "confirmed" || b != "confirmed" {
				t.Errorf("200: alice %q, bob %q", a, b)
			}
			if d.over("other", by[0], by[1]) || d.over(id, by[0], "x") || d.over(id, "x", by[1]) {
				t.Error("a dialog of other identifiers ends this one")
			}
			if !d.over(id, by[0], by[1]) || d.over(id, by[0], by[1]) {
				t.Error("the dialog ends once")
			}
			d.answered(c, response(200, "b"))
			if a, b := p.of("a"), p.of("b"); a != "gone" || b != "gone" {
				t.Errorf("BYE: alice %q, bob %q", a, b)
			}
		}
		if st := r.srv.Stats(); st.Dialogs != 0 || st.DialogsFailed != 0 || d.held != 0 {
			t.Errorf("%d followed, %d failed, %d held", st.Dialogs, st.DialogsFailed, d.held)
		}
	})
}

// TestRFC4235_3_7_1_NobodyAnswers: a call that fails is withdrawn with its final answer.
func TestRFC4235_3_7_1_NobodyAnswers(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		c := r.srv.dialogs.begin(aCall("c"))
		p.of("a")
		r.srv.dialogs.answered(c, response(183, ""))
		if a, b := p.of("a"), p.of("b"); a != "proceeding" || b != "proceeding" {
			t.Errorf("183 without tag: alice %q, bob %q", a, b)
		}
		r.srv.dialogs.ended(c)
		if a, b := p.of("a"), p.of("b"); a != "gone" || b != "gone" {
			t.Errorf("alice %q, bob %q", a, b)
		}
	})
}

// TestRFC3261_13_2_2_4_EachDialogOfAForkedCall: a call that two devices have
// taken lasts as long as either, also one whose 2xx came after the INVITE had
// been answered for good; a repeat of that brings nothing back.
func TestRFC3261_13_2_2_4_EachDialogOfAForkedCall(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		d := r.srv.dialogs
		c := d.begin(aCall("two"))
		d.answered(c, response(200, "b"))
		d.ended(c)
		d.answered(c, response(200, "late"))
		if a := p.of("a"); !strings.HasSuffix(a, "confirmed") || !d.over("two", "a", "b") {
			t.Errorf("answered: %q", a)
		}
		if a := p.of("a"); a != "confirmed" {
			t.Errorf("one device of two has hung up: %q", a)
		}
		d.over("two", "late", "a")
		if a := p.of("a"); a != "gone" {
			t.Errorf("both have hung up: %q", a)
		}
		c = d.begin(aCall("failed"))
		d.ended(c)
		p.of("a")
		p.of("b")
		d.answered(c, response(200, "late"))
		if a, b := p.of("a"), p.of("b"); a != "confirmed" || b != "confirmed" || d.held != 1 {
			t.Errorf("a late 2xx: alice %q, bob %q, %d held", a, b, d.held)
		}
		d.over("failed", "a", "late")
		d.answered(c, response(200, "late"))
		if a := p.of("a"); a != "gone" || d.held != 0 {
			t.Errorf("the end: %q, %d held", a, d.held)
		}
		for i := range 2 * dialogTags {
			d.answered(c, response(200, fmt.Sprint("t", i)))
		}
		if n := len(c.dialogs); n != dialogTags {
			t.Errorf("%d dialogs of one INVITE", n)
		}
		d.mu.Lock()
		d.end(c)
		d.mu.Unlock()
		p.of("a")
	})
}

// TestDialogEvents_RefreshAndLoss: what is told of a long call is told again
// before it expires, also if it was lost, and not for ever.
func TestDialogEvents_RefreshAndLoss(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		c := r.srv.dialogs.begin(aCall("c"))
		r.srv.dialogs.answered(c, response(200, "b"))
		p.of("a")
		time.Sleep(dialogExpires*time.Second/2 - time.Second)
		if a := p.of("a"); a != "" {
			t.Errorf("too early: %q", a)
		}
		p.mu.Lock()
		clear(p.tags)
		p.mu.Unlock()
		time.Sleep(2 * time.Second)
		if a := p.of("a"); a != "confirmed" {
			t.Errorf("refresh: %q", a)
		}
		time.Sleep(dialogLife)
		if a := p.of("a"); !strings.HasSuffix(a, " gone") || r.srv.Stats().Dialogs != 0 {
			t.Errorf("a call without end: %q", a)
		}
	})
}

// TestRule23_AFailedWordIsSaidAgain: what could not be published is published
// later, as it is then, whether or not the first has arrived; a withdrawal too.
func TestRule23_AFailedWordIsSaidAgain(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("answer lost ", lost), func(t *testing.T) {
			inCalls(t, func(t *testing.T, r *rig, p *publisher) {
				d := r.srv.dialogs
				p.failing(actors.ErrUnavailable, lost)
				c := d.begin(aCall("c"))
				d.answered(c, response(180, "b"))
				time.Sleep(10 * time.Second)
				d.answered(c, response(200, "b"))
				p.of("a")
				p.of("b")
				p.failing(nil, false)
				time.Sleep(time.Minute)
				if a, b := p.of("a"), p.of("b"); a != "confirmed" || b != "confirmed" {
					t.Errorf("the last state: alice %q, bob %q", a, b)
				}
				p.failing(actors.ErrRetry, lost)
				d.over("c", "a", "b")
				time.Sleep(30 * time.Second)
				p.of("a")
				if d.held != 1 && !lost { // a repeat finds it withdrawn
					t.Error("a call that is not withdrawn is forgotten")
				}
				p.failing(nil, false)
				time.Sleep(time.Minute)
				p.of("a")
				if d.held != 0 {
					t.Errorf("%d held", d.held)
				}
			})
		})
	}
}

// TestRule23_AnUnsureCallIsWithdrawn: a call of which nothing is known to have
// been published, and something may have been, ends as such and is withdrawn.
func TestRule23_AnUnsureCallIsWithdrawn(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		d := r.srv.dialogs
		p.failing(actors.ErrUnavailable, true)
		c := d.begin(aCall("c"))
		d.answered(c, response(180, "b"))
		p.of("a")
		d.ended(c)
		p.of("a")
		p.failing(nil, false)
		time.Sleep(2 * time.Minute)
		if a := p.of("a"); !strings.HasSuffix(a, "terminated gone") || d.held != 0 {
			t.Errorf("alice %q, %d held", a, d.held)
		}
	})
}

// TestDialogEvents_RetriesEnd: nothing is tried for ever: not what is refused for
// what it is, nor the withdrawal of what has expired by itself.
func TestDialogEvents_RetriesEnd(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		d := r.srv.dialogs
		p.failing(actors.ErrNotFound, false)
		c := d.begin(aCall("unknown"))
		synctest.Wait()
		failed := r.srv.Stats().DialogsFailed
		time.Sleep(time.Hour)
		if n := r.srv.Stats().DialogsFailed; n != failed {
			t.Errorf("refused %d times, then %d", failed, n)
		}
		d.ended(c)
		synctest.Wait()
		p.failing(nil, false)
		c = d.begin(aCall("c"))
		d.answered(c, response(200, "b"))
		p.of("a")
		p.failing(actors.ErrUnavailable, false)
		d.over("c", "a", "b")
		time.Sleep(dialogExpires*time.Second + 2*time.Minute)
		failed = r.srv.Stats().DialogsFailed
		time.Sleep(time.Hour)
		if n := r.srv.Stats().DialogsFailed; n != failed || d.held != 0 {
			t.Errorf("a withdrawal failed %d times, then %d; %d held", failed, n, d.held)
		}
	})
}

func TestDialogEvents_AreBounded(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		d := r.srv.dialogs
		one := d.begin(aCall("1"))
		if one == nil || d.begin(aCall("2")) != nil || r.srv.Stats().DialogsRefused != 1 {
			t.Error("one call is followed, and no other")
		}
		p.of("a")
		p.failing(actors.ErrUnavailable, false)
		d.ended(one)
		synctest.Wait()
		if d.begin(aCall("2")) != nil {
			t.Error("a call that is not withdrawn yet does not count")
		}
		p.failing(nil, false)
		time.Sleep(time.Minute)
		if d.begin(aCall("2")) == nil {
			t.Error("its end makes no room")
		}
		again, at := aCall("3")
		again.toTag = "b"
		marked, by := aCall("4")
		by.marked = true
		if d.begin(again, at) != nil || d.begin(marked, by) != nil {
			t.Error("a re-INVITE, or a call that came by another node, is followed")
		}
		synctest.Wait()
	}, func(c *Config) { c.MaxDialogs = 1 })
}

// answeredCall is a call of alice to bob that he has taken, on the wire.
func answeredCall(t *testing.T, r *rig, p *publisher, callID string) {
	t.Helper()
	r.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}],"final":true}`, t)
	r.peers["bob"] = "192.0.2.20:5060"
	r.recv(alice, invite("INVITE", "sip:bob@example.com", callID))
	synctest.Wait()
	r.take()
	r.answer("bob", "180", "")
	synctest.Wait()
	r.answer("bob", "200", "")
	synctest.Wait()
	r.take()
	if a, b := p.of("a"), p.of("b"); !strings.HasSuffix(a, "confirmed") || !strings.HasSuffix(b, "confirmed") {
		t.Errorf("alice %q, bob %q", a, b)
	}
}

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
		if r.srv.dialogs.leaving != 1 {
			t.Error("no word is under way")
		}
		bye("many", alice, "n2", "200")
		if n := r.srv.Stats().DialogsRefused; n != 1 || r.srv.dialogs.leaving != 1 {
			t.Errorf("%d refused, %d under way", n, r.srv.dialogs.leaving)
		}
		time.Sleep(farewellLife + 2*time.Minute)
		if n := r.srv.Stats().DialogsFailed; n != 1 || r.srv.dialogs.leaving != 0 {
			t.Errorf("%d given up, %d under way", n, r.srv.dialogs.leaving)
		}
	}, func(c *Config) { c.MaxDialogs = 1 })
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

// TestDialogEvents_AreAnOption: nothing is told of a call by default.
func TestDialogEvents_AreAnOption(t *testing.T) {
	r := newRig(t)
	if l := r.srv.dialogs.leave(&request{method: "BYE", fromTag: "a", toTag: "b"}, &plan{}); l != nil {
		t.Error("a BYE is followed unasked")
	}
	if c := r.srv.dialogs.begin(aCall("c")); c != nil || r.srv.dialogs != nil {
		t.Error("calls are followed unasked")
	}
	r.srv.dialogs.answered(nil, response(200, "b"))
	r.srv.dialogs.ended(nil)
	r.srv.DialogEnded(&messages.DialogEnded{})
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
