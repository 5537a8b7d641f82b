package actors

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// writes tells how many leases an answer writes.
func writes(a *Answer) int { return len(a.Writes.GetLeases()) }

func TestRule1_EqualStampIsARepeat(t *testing.T) {
	p := newReplica(DefaultLimits())
	r := request(p.now, "n1", "c", 1, contactA)
	p.ask(r)
	p.advance(time.Second)
	a := p.ask(r)
	check(t, "repeat", show(a), contactA+";3599@n1")
	if a.Writes != nil {
		t.Errorf("writes %v", a.Writes)
	}
	// The first answer may have been lost before the edge stored its lease.
	if kept := a.Reply.(*messages.Registered).Writes; len(kept.GetLeases()) != 1 {
		t.Errorf("the edge keeps %v", kept)
	}
}

func TestRule1_LowerStamp(t *testing.T) {
	setup := func() *replica {
		p := newReplica(DefaultLimits())
		p.ask(request(p.now+1500, "n2", "d", 1, contactA)) // n2's clock is 1.5 s ahead
		p.advance(time.Second)
		return p
	}
	// It reached its edge after the winner was accepted: its clock is behind.
	p := setup()
	r := request(p.now, "n1", "c", 1, contactA)
	check(t, "later", show(p.ask(r)), "CLOCK_BEHIND stamp=1.5s")
	// It was on its way when the winner was accepted: it took effect before it.
	p = setup()
	r = request(p.now, "n1", "c", 1, contactA)
	r.AgeMs = 1001
	a := p.ask(r)
	check(t, "earlier", show(a), contactA+";3600@n2")
	if writes(a) != 0 {
		t.Errorf("an older write wins: %v", a.Writes)
	}
	// A copy has no time of acceptance here: its stamp says when.
	for age, want := range map[int64]string{0: "CLOCK_BEHIND stamp=1.5s", 1000: contactA + ";3600@n2"} {
		p = setup()
		p.now += 1000
		q := p.question(request(p.now-1000, "n1", "c", 1, contactA))
		q.Message.(*messages.Register).AgeMs = age
		q.AcceptedMS = func([]byte) int64 { return 0 }
		if got := show(p.user.Answer(q)); age == 0 && got != "CLOCK_BEHIND stamp=2s" || age != 0 && got != contactA+";3599@n2" {
			t.Errorf("copy, age %d: got %q, want %q", age, got, want)
		}
	}
}

// A REGISTER stuck on its way to a paused owner, while the device left.
func TestRule1_StuckRegisterDoesNotReviveARemovedBinding(t *testing.T) {
	p := newReplica(DefaultLimits())
	stuck := request(p.now, "n1", "c", 1, contactA)
	p.advance(time.Second)
	p.register("n2", "d", 7, contactA+"|expires=0")
	p.advance(20 * time.Second)
	stuck.AgeMs = 21_000
	a := p.ask(stuck)
	check(t, "stuck", show(a), "")
	if a.Writes != nil {
		t.Errorf("writes %v", a.Writes)
	}
}

func TestRule1_ConcurrentContactsOfOneRequest(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.ask(request(p.now+100, "n2", "d", 1, contactA))
	r := request(p.now, "n1", "c", 1, contactA+"|expires=60", contactB+"|expires=60")
	r.AgeMs = 5
	check(t, "the other one counts", show(p.ask(r)), contactA+";3600@n2 "+contactB+";60@n1")
}

func TestRule2_LaterByItsUAButLowerStampIsWrittenAgain(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.ask(request(p.now+500, "n2", "c", 1, contactA))
	r := request(p.now, "n1", "c", 2, contactA+"|expires=60")
	r.AgeMs = 1 // concurrent
	a := p.ask(r)
	check(t, "the higher CSeq", show(a), contactA+";60@n1")
	l := a.Writes.Leases[0]
	if l.Edge != "n1" || l.Vouch != 1 || l.Stamp.Incarnation != p.id || l.Stamp.Ms <= p.now+500 {
		t.Errorf("written as %v", l)
	}
	// The same request at the other holder, and both merged, end alike.
	check(t, "repeat of it", show(p.ask(r)), contactA+";60@n1")
}

func TestRule2_CollapseEqualContactsOfTwoSides(t *testing.T) {
	a, b := newReplica(DefaultLimits()), newReplica(DefaultLimits())
	a.register("n1", "c", 1, contactA+"|expires=600")
	b.ask(request(b.now+1, "n2", "d", 1, contactA+";x=1|expires=600"))
	a.copyFrom(b)
	check(t, "one target, the newer", a.locate(), contactA+";x=1")
	a.advance(time.Second)
	check(t, "both removed", show(a.register("n2", "d", 2, contactA+"|expires=0")), "")
	check(t, "unknown", a.locate(), "NOT_FOUND")
}

func TestRule2_RefreshJoinsWhatOneUALeftOnTwoSides(t *testing.T) {
	a, b := newReplica(DefaultLimits()), newReplica(DefaultLimits())
	a.register("n1", "c", 1, contactA)
	b.ask(request(b.now+1, "n2", "c", 2, contactA+";x=1"))
	a.copyFrom(b)
	a.advance(time.Second)
	ans := a.register("n2", "c", 3, contactA+"|expires=60")
	check(t, "one binding", show(ans), contactA+";60@n2")
	check(t, "n1 is told", fmt.Sprint(ans.All, ans.Tell), "true [n1]")
}

func TestRule3_ALeaseOnAnEndedFlowIsDead(t *testing.T) {
	p := newReplica(DefaultLimits())
	ended := &messages.Record{Ended: []*messages.Ended{{Edge: "n1", Flow: &messages.FlowID{Incarnation: 1, Counter: 1}, Ms: p.now}}}
	p.rec.Merge(ended)
	check(t, "on its way when the flow ended", show(p.register("n1", "c", 1, contactA)), "")
	r := request(p.now+1, "n1", "c", 1, contactA)
	r.Flow = &messages.FlowID{Incarnation: 1, Counter: 2}
	check(t, "the same request by another flow", show(p.ask(r)), contactA+";3600@n1")
}

func TestRule4_ATombstoneSaysHowLongItMustStay(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+"|expires=60")
	p.advance(time.Second)
	p.register("n1", "c", 2, contactA+"|expires=0")
	p.ask(expires(request(p.now+1, "n1", "e", 1, "*"), 0))
	want := (2 * time.Hour).Milliseconds()
	if got := p.rec.Leases[0].LifetimeMs; got != want || p.rec.Floor.LifetimeMs != want {
		t.Errorf("got %d and %d ms, want %d", got, p.rec.Floor.LifetimeMs, want)
	}
	// A removal of what nobody knows is remembered too: the add may come late.
	late := request(p.now, "n2", "d", 1, contactB)
	p.advance(time.Second)
	p.register("n1", "x", 1, contactB+"|expires=0")
	late.AgeMs = 1500
	check(t, "late add", show(p.ask(late)), "")
}

func TestRule4_KeysAreBounded(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxBindings, limits.Policy = 2, ReplaceOldest
	p := newReplica(limits)
	contact := func(i int) string { return fmt.Sprintf("sip:alice@10.0.0.1:%d", 5000+i) }
	n := limits.maxKeys()
	for i := range n {
		p.register("n1", "c", uint32(i+1), contact(i))
		p.advance(time.Second)
	}
	check(t, "full", show(p.register("n1", "c", 500, contact(n))), "OVERLOADED retry=2")
	check(t, "a known key", show(p.register("n1", "c", 501, contact(n-1))), contact(n-2)+";3598@n1 "+contact(n-1)+";3600@n1")
}

func TestRule5_MovesAndRemovalsWaitForAll(t *testing.T) {
	p := newReplica(DefaultLimits())
	said := func(a *Answer) string { return fmt.Sprint(a.All, a.Tell) }
	check(t, "add", said(p.register("n1", "c", 1, contactA)), "false []")
	p.advance(time.Second)
	check(t, "refresh", said(p.register("n1", "c", 2, contactA)), "false []")
	p.advance(time.Second)
	check(t, "move", said(p.register("n2", "c", 3, contactA)), "true [n1]")
	p.advance(time.Second)
	r := request(p.now, "n2", "c", 4, contactA)
	r.Flow = &messages.FlowID{Incarnation: 1, Counter: 2}
	check(t, "another flow, Contact called directly", said(p.ask(r)), "false []")
	p.advance(time.Second)
	r = request(p.now, "n2", "c", 5, contactA)
	bindFlow(r, true)
	check(t, "another flow of the edge", said(p.ask(r)), "true []")
	p.advance(time.Second)
	check(t, "removal by another edge", said(p.register("n3", "c", 6, contactA+"|expires=0")), "true [n2]")
	check(t, "query", said(p.register("n3", "c", 7)), "false []")
	dead := p.rec.Lease([]byte(contactA))
	if !dead.Dead || dead.Edge != "n3" || dead.Payload != nil || dead.LifetimeMs != (2*time.Hour).Milliseconds() {
		t.Errorf("tombstone %v", dead)
	}
}

func TestRule6_NothingBelowTheFloorComesBack(t *testing.T) {
	p := newReplica(DefaultLimits())
	late := request(p.now, "n1", "c", 1, contactA)
	p.advance(time.Second)
	a := p.ask(expires(request(p.now, "n2", "d", 1, "*"), 0))
	if a.Writes.GetFloor() == nil || !a.All || a.Reply.(*messages.Registered).Writes.GetFloor() == nil {
		t.Fatalf("no floor: %v", a)
	}
	late.AgeMs = 2000
	p.advance(time.Second)
	check(t, "late", show(p.ask(late)), "")
	late.AgeMs = 500
	check(t, "after the floor by a slow clock", show(p.ask(late)), "CLOCK_BEHIND stamp=2s")
	// Same UA: its CSeq says what is later.
	late = request(p.now-1500, "n1", "d", 2, contactA)
	late.AgeMs = 1500
	check(t, "later by CSeq", show(p.ask(late)), contactA+";3598@n1")
}

func TestRule6_StarBelowAStamp(t *testing.T) {
	setup := func() *replica {
		p := newReplica(DefaultLimits())
		p.register("n1", "c", 1, contactA)
		p.ask(request(p.now+1000, "n2", "d", 1, contactB))
		p.advance(500 * time.Millisecond)
		return p
	}
	p := setup()
	check(t, "a slow clock", show(p.ask(expires(request(p.now, "n3", "e", 1, "*"), 0))), "CLOCK_BEHIND stamp=1s")
	// On its way when B registered: it took effect before B, and after A.
	p = setup()
	r := expires(request(p.now, "n3", "e", 1, "*"), 0)
	r.AgeMs = 500
	check(t, "concurrent", show(p.ask(r)), contactB+";3600@n2")
	// B's own UA says that the star is later.
	p = setup()
	p.rec.Leases = p.rec.Leases[1:]
	r = expires(request(p.now, "n3", "d", 2, "*"), 0)
	r.AgeMs = 500
	check(t, "later by CSeq", show(p.ask(r)), "")
}

func TestRule7_RetriesAreReplays(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "c", 1, contactA+"|expires=600")
	p.advance(10 * time.Second)
	a := p.register("n1", "c", 1, contactA+"|expires=600")
	check(t, "replay", show(a), contactA+";590@n1")
	if a.Writes != nil {
		t.Errorf("a replay writes %v", a.Writes)
	}
	a = p.register("n2", "c", 1, contactA+"|expires=600")
	check(t, "by another edge: a move", show(a), contactA+";600@n2")
	check(t, "the former edge is told", fmt.Sprint(a.All, a.Tell), "true [n1]")
	p.advance(time.Second)
	check(t, "lower CSeq", show(p.register("n2", "c", 0, contactA)), "STALE_CSEQ")
	p.register("n2", "c", 2, contactA+"|expires=0")
	p.advance(time.Second)
	check(t, "a removal repeated", show(p.register("n2", "c", 2, contactA+"|expires=0")), "")
	check(t, "an old one after a removal", show(p.register("n2", "c", 1, contactA)), "STALE_CSEQ")
}

func TestRule8_Limits(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxBindings = 2
	full := func(policy Policy) *replica {
		limits.Policy = policy
		p := newReplica(limits)
		p.register("n1", "a", 1, "sip:a@h")
		p.advance(time.Second)
		p.register("n2", "b", 1, "sip:b@h")
		p.advance(time.Second)
		return p
	}
	const more = "sip:c@h|expires=600"
	check(t, "reject", show(full(Reject).register("n1", "c", 1, more)), "TOO_MANY_BINDINGS")
	check(t, "refresh when full", show(full(Reject).register("n1", "a", 2, "sip:a@h")), "sip:a@h;3600@n1 sip:b@h;3599@n2")
	check(t, "removed and added", show(full(Reject).register("n1", "a", 2, "sip:a@h|expires=0", more)), "sip:b@h;3599@n2 sip:c@h;600@n1")
	p := full(Reject)
	p.dead["n2"] = true
	a := p.register("n1", "c", 1, more)
	check(t, "a dead edge gives way", show(a), "sip:a@h;3598@n1 sip:c@h;600@n1")
	check(t, "and is told", fmt.Sprint(a.All, a.Tell), "true [n2]")
	p = full(ReplaceOldest)
	check(t, "the oldest", show(p.register("n1", "c", 1, more)), "sip:b@h;3599@n2 sip:c@h;600@n1")
	p.advance(time.Second)
	check(t, "it comes back", show(p.register("n1", "a", 2, "sip:a@h")), "sip:a@h;3600@n1 sip:c@h;599@n1")
	p = full(ReplaceOldest)
	p.dead["n2"] = true
	check(t, "dead edges first", show(p.register("n1", "c", 1, more)), "sip:a@h;3598@n1 sip:c@h;600@n1")
	check(t, "three at once", show(full(ReplaceOldest).register("n1", "c", 1, more, "sip:d@h", "sip:e@h")), "TOO_MANY_BINDINGS")
}

func TestRule8_AStandInEvictsNothing(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxBindings = 1
	for policy, want := range map[Policy]string{
		Reject:        "RETRY retry=2",
		ReplaceOldest: "sip:a@h;3600@n1 sip:b@h;3600@n1",
	} {
		limits.Policy = policy
		p := newReplica(limits)
		p.register("n1", "a", 1, "sip:a@h")
		p.standIn = true
		check(t, string(policy), show(p.register("n1", "b", 1, "sip:b@h")), want)
		p.standIn = false
		p.advance(time.Second)
		if policy == ReplaceOldest {
			check(t, "the owner applies it", show(p.register("n1", "b", 2, "sip:b@h")), "sip:b@h;3600@n1")
		}
	}
}

func TestRule9_StampsAheadAreRefused(t *testing.T) {
	p := newReplica(DefaultLimits())
	check(t, "2 s", show(p.ask(request(p.now+messages.SkewBoundMS, "n1", "c", 1, contactA))), contactA+";3602@n1")
	check(t, "more", show(p.ask(request(p.now+messages.SkewBoundMS+1, "n1", "c", 2, contactA))), "CLOCK_AHEAD")
}

func TestRule12_RestartedEdges(t *testing.T) {
	for _, tt := range []struct {
		name              string
		flowBound, stream bool
		inc, vouch        uint64
		want              string
	}{
		{"same incarnation", true, true, 1, 1, contactA},
		{"a connection of the process before", true, true, 2, 2, "UNAVAILABLE"},
		{"UDP, not vouched for yet", true, false, 2, 1, "UNAVAILABLE"},
		{"UDP, vouched for", true, false, 2, 2, contactA},
		{"its Contact can be called", false, true, 2, 1, contactA},
	} {
		p := newReplica(DefaultLimits())
		r := request(p.now, "n1", "c", 1, contactA)
		bindFlow(r, tt.flowBound)
		r.Flow.Stream, r.Incarnation = tt.stream, tt.vouch
		p.ask(r)
		p.inc["n1"] = tt.inc
		check(t, tt.name, p.locate(), tt.want)
	}
}

func TestRule13_FinalAndIncomplete(t *testing.T) {
	for _, tt := range []struct {
		standIn, unsettled, found bool
		final, incomplete         bool
	}{
		{false, false, true, true, false},
		{true, false, true, false, true},
		{false, true, true, false, true},
		{false, false, false, false, false},
		{true, false, false, false, true},
		{false, true, false, false, true},
	} {
		p := newReplica(DefaultLimits())
		if tt.found {
			p.register("n1", "c", 1, contactA)
		}
		p.standIn, p.unsettled = tt.standIn, tt.unsettled
		a := p.ask(&messages.Locate{Aor: testAoR})
		located, _ := a.Reply.(*messages.Located)
		if located.GetFinal() != tt.final || a.Incomplete != tt.incomplete {
			t.Errorf("%+v: final %v, incomplete %v", tt, located.GetFinal(), a.Incomplete)
		}
	}
}

func TestRule15_Table(t *testing.T) {
	yes, no := func(AoR) bool { return true }, func(AoR) bool { return false }
	for _, tt := range []struct {
		name              string
		known             func(AoR) bool
		bound, deadEdge   bool
		unsettled, failed bool
		want              string
	}{
		{"reachable", no, true, false, true, true, contactA},
		{"not in the credential source", no, false, false, true, true, "NOT_FOUND"},
		{"bound at a dead edge", nil, true, true, false, true, "UNAVAILABLE"},
		{"in the source, settled", yes, false, false, false, false, "UNAVAILABLE"},
		{"in the source, a failed member", yes, false, false, false, true, "UNAVAILABLE retry=30"},
		{"a failed member", nil, false, false, false, true, "UNAVAILABLE retry=30"},
		{"a failed member, unsettled", nil, false, false, true, true, "UNAVAILABLE retry=30"},
		{"unsettled", nil, false, false, true, false, "RETRY retry=2"},
		{"in the source, unsettled", yes, false, false, true, false, "RETRY retry=2"},
		{"settled", nil, false, false, false, false, "NOT_FOUND"},
	} {
		limits := DefaultLimits()
		limits.Known = tt.known
		p := newReplica(limits)
		if tt.bound {
			r := request(p.now, "n1", "c", 1, contactA)
			bindFlow(r, true)
			p.ask(r)
		}
		p.dead["n1"], p.unsettled, p.failedMember = tt.deadEdge, tt.unsettled, tt.failed
		check(t, tt.name, p.locate(), tt.want)
	}
}

// bindFlow says of every Contact whether only the flow leads to it.
func bindFlow(r *messages.Register, bound bool) {
	for _, c := range r.GetContacts() {
		c.FlowBound = bound
	}
}

// A connection that closes takes the Contacts with it that were bound to it,
// and no other of the same REGISTER.
func TestRule3_FlowBoundIsOfEachContact(t *testing.T) {
	p := newReplica(DefaultLimits())
	r := request(p.now, "n1", "c", 1, contactA, contactB)
	r.Flow = &messages.FlowID{Incarnation: 1, Counter: 9, Stream: true}
	r.Contacts[0].FlowBound = true
	p.ask(r)
	a, b := p.rec.Lease([]byte(contactA)), p.rec.Lease([]byte(contactB))
	if !a.Flow.Same(r.Flow) || b.Flow != nil {
		t.Errorf("flows %v and %v", a.Flow, b.Flow)
	}
	for l, want := range map[*messages.Lease]bool{a: true, b: false} {
		var got messages.Binding
		if err := proto.Unmarshal(l.Payload, &got); err != nil || got.FlowBound != want {
			t.Errorf("%s: bound %v, %v", l.Key, got.FlowBound, err)
		}
	}
	p.dead["n1"] = true
	check(t, "edge gone", p.locate(), contactB)
}
