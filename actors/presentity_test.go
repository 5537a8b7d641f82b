package actors

import (
	"testing"

	"hereis/messages"
)

const presentityNow = int64(1_800_000_000_000)

// settledWith is the answer of an owner that knows all, which is rec.
func settledWith(rec *messages.Record, ms int64) *messages.Subscribed {
	return &messages.Subscribed{State: rec, NowMs: ms, Settled: true}
}

func answer(p *Presentity, res *messages.Subscribed) (show bool, againMS int64) {
	return p.Answered(p.Question(nil, 0), nil, "owner", res)
}

// A stand-in answers with less than the owner has accepted, which nobody tells
// of, as the owner had not heard of the interest: the owner is asked again.
func TestRule23_AWordThatDoesNotSettleItIsShownAndAskedForAgain(t *testing.T) {
	p := NewPresentity("sip:alice@x", false)
	if show, again := answer(p, &messages.Subscribed{NowMs: presentityNow}); !show || again == 0 || !p.Waits() {
		t.Errorf("a stand-in: shown %v, again in %d ms, waits %v", show, again, p.Waits())
	}
	if show, again := answer(p, settledWith(atEdge("sip:alice@x", "e", presentityNow, false), presentityNow)); !show || again != 0 || p.Waits() {
		t.Errorf("the owner: shown %v, again in %d ms, waits %v", show, again, p.Waits())
	}
}

// An owner told of a change and was lost with it before anybody had acknowledged
// it: while a copy may be late it is believed, and then no more.
func TestRule23_WhatWasToldAndLostIsTakenBack(t *testing.T) {
	p := NewPresentity("sip:alice@x", false)
	old := atEdge("sip:alice@x", "e1", presentityNow-60_000, false)
	answer(p, settledWith(old, presentityNow))
	told := atEdge("sip:alice@x", "e2", presentityNow, false)
	if !p.Told(&messages.StateChanged{Aor: "sip:alice@x", Delta: told, Sum: Sum(told, presentityNow), NowMs: presentityNow}) {
		t.Fatal("told: something seems to be missing")
	}
	for _, c := range []struct {
		after int64
		know  *messages.Record
		edge  string
		again bool
	}{{1000, old, "e2", true}, {believeMS, old, "e1", false}, {believeMS, nil, "", false}} {
		_, again := answer(p, settledWith(c.know, presentityNow+c.after))
		edge := ""
		if len(p.Rec.Leases) > 0 {
			edge = p.Rec.Leases[0].Edge
		}
		if edge != c.edge || (again > 0) != c.again {
			t.Errorf("after %d ms: at %q, again in %d ms; want %q, again %v", c.after, edge, again, c.edge, c.again)
		}
	}
}

// The same of the end of something: a removal that nobody has acknowledged is no
// reason to leave out what the owner holds.
func TestRule23_AnEndThatWasToldAndLostIsTakenBack(t *testing.T) {
	p := NewPresentity("sip:alice@x", false)
	held := atEdge("sip:alice@x", "e1", presentityNow-60_000, false)
	answer(p, settledWith(held, presentityNow))
	p.Told(&messages.StateChanged{Aor: "sip:alice@x", Delta: atEdge("sip:alice@x", "e1", presentityNow, true), NowMs: presentityNow})
	for _, c := range []struct {
		after       int64
		dead, again bool
	}{{1000, true, true}, {believeMS, false, false}} {
		_, again := answer(p, settledWith(held, presentityNow+c.after))
		if dead := !p.Rec.Alive(p.Rec.Leases[0], presentityNow+c.after); dead != c.dead || (again > 0) != c.again {
			t.Errorf("after %d ms: ended %v, again in %d ms; want %v, again %v", c.after, dead, again, c.dead, c.again)
		}
	}
}
