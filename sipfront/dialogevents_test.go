package sipfront

import (
	"context"
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
}

func (p *publisher) Publish(_ context.Context, m *messages.Publish) (*messages.Published, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.IfMatch != p.tags[m.Id] {
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
	return &messages.Published{EntityTag: m.EntityTag, ExpiresS: m.ExpiresS}, nil
}

func (p *publisher) Subscribe(context.Context, *messages.Subscribe) (*messages.Subscribed, error) {
	return nil, actors.ErrUnavailable
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
	synctest.Test(t, func(t *testing.T) {
		p := &publisher{tags: map[string]string{}}
		change := append([]func(*Config){func(c *Config) { c.DialogEvents = true }}, change...)
		r := newNodeWith(t, "n1", "192.0.2.1:5060", func(_ *rig, parts *Parts) {
			parts.Presentities, parts.Packages = p, nil
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
// both are withdrawn at the BYE, whoever sends it.
func TestRFC4235_3_7_1_StatesOfACall(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		d := r.srv.dialogs
		for i, bye := range []*request{{method: "BYE", callID: "c0", fromTag: "a", toTag: "b"}, {method: "BYE", callID: "c1", fromTag: "b", toTag: "a"}} {
			c := d.begin(aCall([]string{"c0", "c1"}[i]))
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
			if a, b := p.of("a"), p.of("b"); a != "confirmed" || b != "confirmed" {
				t.Errorf("200: alice %q, bob %q", a, b)
			}
			d.bye(&request{method: "BYE", callID: "other", fromTag: "a", toTag: "b"})
			d.bye(bye)
			d.bye(bye)
			if a, b := p.of("a"), p.of("b"); a != "gone" || b != "gone" {
				t.Errorf("BYE: alice %q, bob %q", a, b)
			}
		}
		if st := r.srv.Stats(); st.Dialogs != 0 || st.DialogsFailed != 0 {
			t.Errorf("%d followed, %d failed", st.Dialogs, st.DialogsFailed)
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

// TestDialogEvents_RefreshAndLoss: what is told of a long call is told again
// before it expires, anew if it was lost, and not for ever.
func TestDialogEvents_RefreshAndLoss(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		c := r.srv.dialogs.begin(aCall("c"))
		r.srv.dialogs.answered(c, response(200, "b"))
		p.of("a")
		time.Sleep(dialogExpires * time.Second / 2)
		if a := p.of("a"); a != "" {
			t.Errorf("too early: %q", a)
		}
		p.mu.Lock()
		clear(p.tags)
		p.mu.Unlock()
		time.Sleep(2 * dialogTick)
		if a := p.of("a"); a != "confirmed" {
			t.Errorf("refresh: %q", a)
		}
		time.Sleep(dialogLife)
		if a := p.of("a"); !strings.HasSuffix(a, " gone") || r.srv.Stats().Dialogs != 0 {
			t.Errorf("a call without end: %q", a)
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
		d.ended(one)
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

// TestDialogEvents_OfARealCall: an INVITE and its answers through the proxy. The BYE is
// given to the follower itself: that the proxy does so is not shown here.
func TestDialogEvents_OfARealCall(t *testing.T) {
	inCalls(t, func(t *testing.T, r *rig, p *publisher) {
		r.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}],"final":true}`, t)
		r.peers["bob"] = "192.0.2.20:5060"
		r.recv(alice, invite("INVITE", "sip:bob@example.com", "real"))
		synctest.Wait()
		r.take()
		r.answer("bob", "180", "")
		synctest.Wait()
		r.answer("bob", "200", "")
		if a, b := p.of("a"), p.of("b"); !strings.HasSuffix(a, "confirmed") || !strings.HasSuffix(b, "confirmed") {
			t.Errorf("alice %q, bob %q", a, b)
		}
		r.srv.dialogs.bye(&request{method: "BYE", callID: "real", fromTag: "bob", toTag: "a1"})
		if a, b := p.of("a"), p.of("b"); a != "gone" || b != "gone" {
			t.Errorf("after the BYE: alice %q, bob %q", a, b)
		}
		time.Sleep(40 * time.Second) // the transactions end
	})
}

// TestDialogEvents_AreAnOption: nothing is told of a call by default.
func TestDialogEvents_AreAnOption(t *testing.T) {
	r := newRig(t)
	r.srv.dialogs.bye(&request{method: "BYE"})
	if c := r.srv.dialogs.begin(aCall("c")); c != nil || r.srv.dialogs != nil {
		t.Error("calls are followed unasked")
	}
	r.srv.dialogs.answered(nil, response(200, "b"))
	r.srv.dialogs.ended(nil)
}
