package cluster_test

import (
	"testing"

	"hereis/messages"
)

// A node whose clock is an hour ahead has taken registrations while it was alone.
// What devices do afterwards, elsewhere and by clocks that are right, is in force
// all the same, and no clock follows the wrong one.
func TestRule9_AStampOfTheFutureIsNoLastWord(t *testing.T) {
	for name, sameCallID := range map[string]bool{"the device goes on": true, "the device has started anew": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 4)
			w.settle()
			d := newDevice("sip:hour@example.com", "hour")
			ahead, here, there := w.nodes[3], w.nodes[0], w.nodes[1]
			w.cut(ahead)
			ahead.skew = 3_600_000
			w.mustRegister(d, ahead, 3600)
			w.run(1000)
			ahead.side = 0
			w.spread(100)
			w.runUntil(10_000, "settled", w.allSettled)
			w.run(1000)
			// By itself that node would take all others' bindings for expired: it is off duty (clock.go of the node).
			w.drain(ahead)
			w.spread(100)
			w.runUntil(10_000, "settled", w.allSettled)
			again := d
			if !sameCallID {
				again = newDevice(d.aor, "again")
				again.instance = d.id
			}
			at := func(edge string) {
				t.Helper()
				w.run(1000)
				for _, n := range w.nodes[:3] {
					if got := w.found(n, d.aor); got[again.id] != edge || edge == "" && len(got) != 0 {
						t.Errorf("%s finds %v, want %q", n.name, got, edge)
					}
				}
			}
			w.mustRegister(again, here, 3600)
			at(here.name)
			w.mustRegister(again, there, 3600)
			at(there.name)
			w.mustRegister(again, there, 3600)
			at(there.name)
			w.mustRegister(again, there, 0)
			at("")
			w.mustRegister(again, here, 3600)
			at(here.name)
			answered := false
			w.star(newDevice(d.aor, "star"), there, func(ok bool) { answered = ok })
			w.runUntil(3000, "removed", func() bool { return answered })
			at("")
			w.mustRegister(again, here, 3600)
			at(here.name)
			other := newDevice("sip:other@example.com", "other")
			for _, n := range w.nodes[:3] {
				w.mustRegister(other, n, 3600)
				if stamp := n.core.NewStamp(w.now + n.skew); stamp.Ms > w.now+messages.SkewBoundMS {
					t.Errorf("%s has followed the clock that is wrong: %d ms ahead", n.name, stamp.Ms-w.now)
				}
			}
		})
	}
}

// All clocks are set back by an hour, and the nodes are started anew: what is on
// their disks is of the future, and devices register all the same.
func TestRule9_DisksOfTheFutureKeepNobodyOut(t *testing.T) {
	w := newWorld(t, 1, 3)
	for _, n := range w.nodes {
		n.skew = 3_600_000
	}
	w.settle()
	var devices []*device
	for i := range 6 {
		d := newDevice(aorsApart(6)[i], "d")
		w.mustRegister(d, w.nodes[i%3], 3600)
		devices = append(devices, d)
	}
	w.run(1000)
	for _, n := range w.nodes {
		w.crash(n)
		n.skew = 0
	}
	w.run(1000)
	for _, n := range w.nodes {
		w.start(n, false)
	}
	w.spread(300)
	w.runUntil(10_000, "settled", w.allSettled)
	for i, d := range devices {
		if l := w.nodes[i%3].core.Record(d.aor).Leases[0]; l.ExpiresMs > w.now+l.LifetimeMs {
			t.Errorf("%s: %d ms are left", d.aor, l.ExpiresMs-w.now)
		}
		w.mustFind(d.aor, d.id, w.nodes[i%3].name)
		w.mustRegister(d, w.nodes[(i+1)%3], 3600)
		w.run(300)
		w.mustFind(d.aor, d.id, w.nodes[(i+1)%3].name)
		w.mustRegister(d, w.nodes[(i+1)%3], 0)
		w.run(300)
		w.mustFind(d.aor, d.id, "")
	}
}
