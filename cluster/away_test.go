package cluster_test

import (
	"testing"

	"hereis/cluster"
)

// leave is a graceful end: the disk stays, and the others do not remember the
// node as failed.
func (w *world) leave(n *simNode) {
	n.disk.flush(1 << 62)
	w.crash(n)
	for _, m := range w.nodes {
		delete(m.knows, n.name)
		if m.up {
			m.core.Members(w.now+m.skew, w.known(m))
		}
	}
}

// back starts a node again, which everybody learns of.
func (w *world) back(n *simNode) {
	w.t.Helper()
	w.start(n, false)
	w.spread(0)
	w.runUntil(5000, "all settled", w.allSettled)
	w.run(500)
}

func TestRule4_TheShortWayIsClosedWhileAMemberIsAwayWithItsDisk(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:ghost@example.com", "d")
	w.mustRegister(d, w.nodes[0], 3600)
	w.run(1000)
	// The edge leaves well, so that it is no failed member; then the device
	// removes its binding at another one.
	w.leave(w.nodes[0])
	w.run(5000)
	w.mustRegister(d, w.nodes[1], 0)
	w.step = 1000
	w.run(300_000)
	w.step = 5
	w.back(w.nodes[0])
	for _, n := range w.nodes {
		if found := w.found(n, d.aor); len(found) != 0 {
			t.Errorf("%s finds %v, which was removed while its edge was away", n.name, found)
		}
	}
}

func TestRule4_WhoLearnsLaterThatAMemberIsAwayKeepsTombstonesToo(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:ghost@example.com", "d")
	w.mustRegister(d, w.nodes[0], 3600)
	w.run(1000)
	left := w.now
	w.leave(w.nodes[0])
	w.run(5000)
	w.mustRegister(d, w.nodes[1], 0)
	w.run(1000)
	// The others restart one after the other: what they know of node 1 comes
	// from their membership.
	for _, n := range w.nodes[1:] {
		w.crash(n)
		w.start(n, false)
		n.core.Away(w.now, []cluster.Away{{Name: "n1", SinceMS: left}})
		w.spread(0)
		w.run(3000)
	}
	w.step = 1000
	w.run(300_000)
	w.step = 5
	w.back(w.nodes[0])
	for _, n := range w.nodes {
		if found := w.found(n, d.aor); len(found) != 0 {
			t.Errorf("%s finds %v, which was removed while its edge was away", n.name, found)
		}
	}
}

func TestRule4_TombstonesGoEarlyWhenNobodyIsAway(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:gone@example.com", "d")
	w.mustRegister(d, w.nodes[0], 3600)
	w.mustRegister(d, w.nodes[1], 0)
	w.leave(w.nodes[0])
	w.run(5000)
	w.back(w.nodes[0])
	w.step = 1000
	w.run(120_000)
	for _, n := range w.nodes {
		if rec := n.core.Record(d.aor); !rec.Empty() {
			t.Errorf("%s still has %v", n.name, rec)
		}
	}
}
