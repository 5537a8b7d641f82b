package cluster_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/cluster"
	"hereis/messages"
)

// own is a REGISTER of one contact through n, as the edge would send it.
func (w *world) own(d *device, n *simNode) *messages.Register {
	return &messages.Register{
		Aor: d.aor, CallId: d.id, Cseq: 1, Edge: n.name, Stamp: n.core.NewStamp(w.now + n.skew), Incarnation: n.inc,
		Contacts: []*messages.RegisterContact{{Uri: "sip:" + d.id + "@192.0.2.1", ExpiresS: 600, HasExpires: true}},
	}
}

func TestRule5_ANodeThatCannotBeReachedIsNotWaitedFor(t *testing.T) {
	for _, when := range []string{"before", "meanwhile"} {
		w := newWorld(t, 1, 3)
		w.settle()
		d := newDevice("sip:nowait@example.com", "nowait")
		owner, backup := w.holders(w.nodes[0], d.aor)
		w.crash(backup)
		if when == "before" {
			owner.core.PeerDown(w.now, backup.name)
		} else {
			w.after(20, func() { owner.core.PeerDown(w.now, backup.name) })
		}
		began := w.now
		reg, ok := w.ask(owner, d.aor, w.own(d, owner)).(*messages.Registered)
		if took := w.now - began; !ok || reg.Copied || took > 30 {
			t.Errorf("%s: 200 %v, copied %v, after %d ms", when, ok, reg.GetCopied(), took)
		}
		if got := owner.core.Stats().Undercopied.Load(); got != 1 {
			t.Errorf("%s: counted %d, want 1", when, got)
		}
		// Repair brings the copy when the stream is back.
		w.start(backup, false)
		w.spread(0)
		w.run(20)
		owner.core.PeerUp(w.now, &messages.Hello{Name: backup.name, Incarnation: backup.inc})
		w.runUntil(3000, "copied", func() bool { return backup.core.Record(d.aor) != nil })
		reg, ok = w.ask(owner, d.aor, w.own(newDevice(d.aor, "second"), owner)).(*messages.Registered)
		if !ok || !reg.Copied {
			t.Errorf("%s: back, and copied is %v", when, reg.GetCopied())
		}
	}
}

func TestRule10_WhatTheEdgeHasNotKeptIsPushedToIt(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d := newDevice("sip:lost@example.com", "lost")
	edge := w.others(d.aor)[0]
	end := w.filter(func(_, _ string, env *messages.Envelope) bool { return env.Type != "hereis.Registered" })
	began := w.now
	w.register(d, edge, 600, func(ok bool, _ *messages.Failure) {
		if ok {
			t.Error("200 without an answer")
		}
	})
	w.runUntil(2500, "at its edge", func() bool { return edge.core.Record(d.aor) != nil })
	t.Logf("after %d ms", w.now-began)
	end()
	w.run(500)
	for _, n := range w.nodes {
		if got := n.core.Tables(w.now).Unacknowledged; got != 0 {
			t.Errorf("%s: %d records unacknowledged", n.name, got)
		}
	}
	if edge.disk.recs[d.aor] == nil {
		t.Error("not on the edge's disk")
	}
}

func TestRule10_AnAnswerThatArrivedIsNotPushedAgain(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d := newDevice("sip:kept@example.com", "kept")
	edge := w.others(d.aor)[0]
	w.mustRegister(d, edge, 600)
	w.run(100)
	sent := w.count()
	w.run(5000)
	if got := sent(); got["hereis.Push"] != 0 {
		t.Errorf("sent %v", got)
	}
}

func TestRule2_TheLastWordOfAUAWinsOverAFasterClock(t *testing.T) {
	for _, removal := range []bool{false, true} {
		w := newWorld(t, 1, 4)
		w.settle()
		d := newDevice("sip:fast@example.com", "fast")
		w.nodes[3].skew = 900
		w.cut(w.nodes[3])
		w.mustRegister(d, w.nodes[3], 3600)
		w.run(200)
		expires, want := uint32(3600), "n1"
		if removal {
			expires, want = 0, ""
		}
		w.mustRegister(d, w.nodes[0], expires)
		w.nodes[3].side = 0
		w.spread(100)
		w.run(100)
		w.runUntil(10_000, "settled", w.allSettled)
		w.run(1000)
		w.mustFind(d.aor, d.id, want)
	}
}

// A device takes its binding away on one side of a cut, where the clock is fast, and
// makes it again on the other, where somebody then removes all. The edge slept
// over that, and still has the binding, which is the device's last word: but not
// the user's.
func TestRule6_AStarOutlivesTheLastWordOfAUA(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d, other := newDevice("sip:word@example.com", "word"), newDevice("sip:word@example.com", "other")
	fast := w.nodes[3]
	fast.skew = 900
	w.cut(fast)
	w.mustRegister(d, fast, 0)
	w.run(200)
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.nodes[slices.IndexFunc(w.nodes[:3], func(n *simNode) bool { return n != owner && n != backup })]
	w.mustRegister(d, edge, 3600)
	w.run(20)
	w.sleep(edge, 3000)
	end := w.filter(func(_, to string, env *messages.Envelope) bool { return to != edge.name || env.Type != "hereis.Push" })
	removed := false
	w.star(other, owner, func(ok bool) { removed = ok })
	w.runUntil(500, "removed", func() bool { return removed })
	fast.side = 0
	w.spread(100)
	w.run(4000)
	w.spread(100)
	w.runUntil(20_000, "settled", w.allSettled)
	w.run(3000)
	end()
	w.run(3000)
	w.mustFind(d.aor, d.id, "")
}

func TestRule4_ATombstoneStaysWhileAMemberIsFailed(t *testing.T) {
	for _, failed := range []bool{false, true} {
		w := newWorld(t, 1, 4)
		w.settle()
		d := newDevice("sip:tomb@example.com", "tomb")
		owner, _ := w.holders(w.nodes[0], d.aor)
		edges := w.others(d.aor)
		w.mustRegister(d, edges[0], 3600)
		w.mustRegister(d, edges[0], 0)
		if failed {
			w.crash(edges[1])
			w.spread(0)
		}
		w.run(60_000)
		if len(owner.core.Record(d.aor).GetLeases()) != 1 {
			t.Errorf("failed %v: no tombstone after a minute", failed)
		}
		w.step = 50
		w.run(60_000)
		if got, want := len(owner.core.Record(d.aor).GetLeases()), map[bool]int{true: 1}[failed]; got != want {
			t.Errorf("failed %v: %d dead keys after two minutes, want %d", failed, got, want)
		}
		w.run(7_300_000 - 120_000)
		if got := owner.core.Record(d.aor); got != nil {
			t.Errorf("failed %v: after the longest lifetime: %v", failed, got)
		}
	}
}

func TestRule6_AStarEndsWhatOtherEdgesHold(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	a, b := newDevice("sip:all@example.com", "a"), newDevice("sip:all@example.com", "b")
	edges := w.others(a.aor)
	w.mustRegister(a, edges[0], 3600)
	w.mustRegister(b, edges[1], 3600)
	w.run(100)
	done := false
	w.star(a, edges[0], func(ok bool) { done = ok })
	w.runUntil(300, "200", func() bool { return done })
	if got := edges[1].core.Record(a.aor); got != nil {
		t.Errorf("%s keeps %v", edges[1].name, got)
	}
	w.run(200)
	// Everything but the floor's edge's disk is lost: nothing comes back.
	for _, n := range w.nodes {
		w.crash(n)
	}
	for _, n := range w.nodes {
		w.start(n, n != edges[0])
	}
	w.spread(0)
	w.runUntil(10_000, "settled", w.allSettled)
	w.mustFind(a.aor, "a", "")
	w.mustFind(a.aor, "b", "")
}

func TestRule13_APositiveCountsThoughItsEdgeIsGoneAndItCanBeCalledDirectly(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d := newDevice("sip:direct@example.com", "direct")
	edges := w.others(d.aor)
	if _, ok := w.ask(edges[0], d.aor, w.own(d, edges[0])).(*messages.Registered); !ok {
		t.Fatal("no 200")
	}
	w.run(100)
	w.crash(edges[0])
	w.spread(0)
	w.run(100)
	targets, code := w.locate(edges[1], d.aor)
	if len(targets) != 1 || targets[0].EdgeLive {
		t.Errorf("got %v, code %v", targets, code)
	}
}

// flood asks n times at once and counts the answers.
func (w *world) flood(n int, from *simNode, msg func(i int) proto.Message, aor func(i int) string) map[string]int {
	got := map[string]int{}
	for i := range n {
		from.core.Ask(w.now, aor(i), msg(i), 0, func(reply proto.Message, err error) {
			if f, ok := reply.(*messages.Failure); ok {
				got[f.Code.String()]++
			} else if err == nil {
				got[messages.TypeName(reply)]++
			}
		})
	}
	w.run(2500)
	return got
}

func TestRule22_AboveTheCapOfAPeerRequestsAreRefusedAndItRecovers(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.cfg = func(c *cluster.Config) { c.MaxInFlight = 20 }
	w.settle()
	aor := w.aorWith(func(owner, backup *simNode) bool { return owner != w.nodes[0] && backup != w.nodes[0] })
	same := func(int) string { return aor }
	register := func(i int) proto.Message { return w.own(newDevice(aor, fmt.Sprint("d", i%3)), w.nodes[0]) }
	locate := func(int) proto.Message { return &messages.Locate{Aor: aor} }
	w.mustRegister(newDevice(aor, "d"), w.nodes[0], 600)
	w.run(100)

	owner, backup := w.holders(w.nodes[0], aor)
	end := w.filter(func(_, to string, _ *messages.Envelope) bool { return to != owner.name && to != backup.name })
	got := w.flood(100, w.nodes[0], register, same)
	if got["FAILURE_CODE_OVERLOADED"] != 80 || got["FAILURE_CODE_RETRY"] != 20 {
		t.Errorf("registers to silent holders: %v", got)
	}
	if n := w.nodes[0].core.Stats().Overloaded.Load(); n < 80 {
		t.Errorf("%d were counted as refused, want 80", n)
	}
	got = w.flood(100, w.nodes[0], locate, same)
	if n := got["FAILURE_CODE_OVERLOADED"] + got["FAILURE_CODE_RETRY"]; n != 100 || got["FAILURE_CODE_OVERLOADED"] < 60 {
		t.Errorf("lookups of silent holders: %v", got)
	}
	end()
	for _, m := range w.nodes[0].core.MemberStatus(w.now) {
		if m.InFlight != 0 {
			t.Errorf("%s: %d in flight after all have been answered", m.Name, m.InFlight)
		}
	}
	// A lookup that the owner has no room for goes to the backup.
	got = w.flood(30, w.nodes[0], locate, same)
	if got["hereis.Located"] != 30 {
		t.Errorf("recovered: %v", got)
	}
}

func TestRule22_AboveTheCapOfTheGateWritesAreRefusedAndLookupsAreNot(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.cfg = func(c *cluster.Config) { c.MaxParked = 10 }
	w.settle()
	owner := w.nodes[0]
	var aors []string
	for i := 0; len(aors) < 40; i++ {
		aor := fmt.Sprintf("sip:full%d@example.com", i)
		if o, _ := w.holders(owner, aor); o == owner {
			aors = append(aors, aor)
		}
	}
	known := newDevice(aors[0], "known")
	w.mustRegister(known, w.nodes[1], 600)
	w.run(100)
	end := w.filter(func(from, _ string, env *messages.Envelope) bool { return env.Type != "hereis.Ack" })
	refused, found := 0, 0
	for i, aor := range aors {
		d := newDevice(aor, fmt.Sprint("p", i))
		owner.core.Ask(w.now, aor, w.own(d, owner), w.now+30, func(reply proto.Message, _ error) {
			if f, ok := reply.(*messages.Failure); ok && f.Code == messages.FailureCode_FAILURE_CODE_OVERLOADED {
				refused++
			}
		})
	}
	owner.core.Ask(w.now, aors[0], &messages.Locate{Aor: aors[0]}, 0, func(reply proto.Message, _ error) {
		if _, ok := reply.(*messages.Located); ok {
			found++
		}
	})
	w.run(1000)
	if refused != 30 || found != 1 {
		t.Errorf("refused %d writes, want 30; found %d, want 1", refused, found)
	}
	if n := owner.core.Stats().Overloaded.Load(); n < 30 { // some came again
		t.Errorf("%d were counted as refused, want 30", n)
	}
	end()
	w.run(3000)
	if n := owner.core.Stats().Parked.Load(); n != 0 {
		t.Errorf("%d parked after all have been answered", n)
	}
	d := newDevice(aors[39], "after")
	w.mustRegister(d, owner, 600)
	w.mustFind(d.aor, d.id, owner.name)
}

func TestRule12_AnOwnerThatLearnsOfALeaseLateAsksItsRestartedEdgeToVouch(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	var devices []*device
	edge := w.nodes[2]
	for i := range 30 {
		d := newDevice(fmt.Sprintf("sip:v%d@example.com", i), fmt.Sprintf("v%d", i))
		w.mustRegister(d, edge, 3600)
		devices = append(devices, d)
	}
	w.run(1000)
	// The edge comes back without its disk in the moment that new nodes take
	// over as holders of some of its users.
	w.crash(edge)
	w.spread(0)
	w.run(3000)
	fresh := map[string]bool{}
	for _, name := range []string{"n4", "n5", "n6"} {
		n := &simNode{name: name, disk: &disk{recs: map[string]*messages.Record{}}}
		w.nodes = append(w.nodes, n)
		w.start(n, false)
		fresh[name] = true
	}
	w.start(edge, true)
	decide := w.net.Decide
	w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
		if fresh[to] && env.Type == "hereis.Push" {
			return cluster.Fate{DelayMS: []int64{1200}}
		}
		return decide(from, to, env)
	}
	w.spread(0)
	w.runUntil(8000, "settled", w.allSettled)
	w.run(1000)
	for _, d := range devices {
		w.mustFind(d.aor, d.id, edge.name)
	}
}
