package cluster_test

import (
	"fmt"
	"testing"

	"hereis/cluster"
	"hereis/messages"
)

// drainMS is how long a drain may take from the moment on at which nothing
// hinders it any more. What a node has to stop in is about ten times that.
const drainMS = 300

// drainWorld is five nodes at rest with users at all of them.
func drainWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 1, 5)
	w.settle()
	const users = 300
	left := users
	for i := range users {
		d := newDevice(fmt.Sprintf("sip:u%d@example.com", i), fmt.Sprintf("d%d", i))
		w.register(d, w.nodes[i%len(w.nodes)], 3600, func(ok bool, _ *messages.Failure) {
			if ok {
				left--
			}
		})
	}
	w.runUntil(3000, "registered", func() bool { return left == 0 })
	w.run(3000)
	return w
}

// drainSeen makes n drain; who is among late hears of it ms later than the others.
func (w *world) drainSeen(n *simNode, ms int64, late ...*simNode) {
	n.draining = true
	n.knows[n.name] = cluster.Member{Name: n.name, Incarnation: n.inc, Draining: true}
	n.core.Members(w.now+n.skew, w.known(n))
	for _, m := range w.nodes {
		wait := int64(20)
		for _, l := range late {
			if l == m {
				wait = ms
			}
		}
		w.after(wait, func() { w.gossip(m, n) })
	}
}

// drained waits until n may be stopped, and tells how long that took.
func (w *world) drained(n *simNode, within int64) int64 {
	w.t.Helper()
	began := w.now
	for !n.core.DrainStatus().Done {
		if w.now > began+within {
			w.t.Fatalf("not drained after %d ms: %+v", w.now-began, n.core.DrainStatus())
		}
		w.run(10)
	}
	return w.now - began
}

// A drain must not wait long for a member that hears of it late: what was
// pushed to it meanwhile did not count, as it was no holder in its own view,
// and is pushed again as soon as it is.
func TestDrainDoesNotWaitForAMemberThatHeardOfItLate(t *testing.T) {
	for _, late := range []int64{300, 700, 1500, 2500} {
		w := drainWorld(t)
		d := w.nodes[0]
		w.drainSeen(d, late, w.nodes[4])
		w.run(late)
		w.drained(d, drainMS)
	}
}

// The same for a member whose stream was broken for a while.
func TestDrainGoesOnWhenAStreamIsBack(t *testing.T) {
	for _, broken := range []int64{300, 700, 1500, 2500} {
		w := drainWorld(t)
		d, m := w.nodes[0], w.nodes[4]
		w.off.NoRelay = true
		for _, n := range w.nodes {
			n.core.SwitchOff(w.off)
		}
		w.severed[pair(d.name, m.name)] = true
		w.streamIs(d, m)
		w.streamIs(m, d)
		w.drainSeen(d, 0)
		w.run(broken)
		w.mend(d, m)
		w.drained(d, drainMS)
	}
}

// A member that is killed and restarts while another drains is waited for only
// until the others have heard that it is gone, or back.
func TestDrainWhileAnotherRestarts(t *testing.T) {
	for _, at := range []int64{-200, 0, 20, 100, 250} {
		for _, back := range []int64{100, 1000, 30_000} {
			w := drainWorld(t)
			d, r := w.nodes[0], w.nodes[2]
			w.after(max(0, at), func() { w.crash(r) })
			w.after(max(0, at)+800, func() { w.spread(200) }) // it is found to be dead
			w.after(max(0, at)+back, func() {
				w.start(r, false)
				w.spread(200)
			})
			w.run(max(0, -at))
			w.drainSeen(d, 0)
			w.run(max(0, at) + 1000)
			if back == 1000 {
				w.run(200)
			}
			w.drained(d, drainMS)
			if left := d.core.Tables(w.now).Former; left != 0 {
				t.Fatalf("crash at %d, back after %d: %d former records", at, back, left)
			}
		}
	}
}

// Two that drain at the same time hand over to those that stay.
func TestTwoDrainAtOnce(t *testing.T) {
	for _, apart := range []int64{0, 15, 50, 200} {
		w := drainWorld(t)
		d, e := w.nodes[0], w.nodes[3]
		w.drainSeen(d, 0)
		w.run(apart)
		w.drainSeen(e, 0)
		w.run(20)
		w.drained(d, 2*drainMS)
		w.drained(e, drainMS)
	}
}
