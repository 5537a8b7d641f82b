package sipfront

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hereis/actors"
	"hereis/messages"
)

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

// TestDialogEvents_AreAnOption: nothing is told of a call by default.
func TestDialogEvents_AreAnOption(t *testing.T) {
	r := newRig(t)
	if l := r.srv.dialogs.leave(&request{asked: asked{method: "BYE"}, fromTag: "a", toTag: "b"}, &plan{}); l != nil {
		t.Error("a BYE is followed unasked")
	}
	if c := r.srv.dialogs.begin(aCall("c")); c != nil || r.srv.dialogs != nil {
		t.Error("calls are followed unasked")
	}
	r.srv.dialogs.answered(nil, response(200, "b"))
	r.srv.dialogs.ended(nil)
	r.srv.DialogEnded(&messages.DialogEnded{})
}
