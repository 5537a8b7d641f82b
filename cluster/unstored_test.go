package cluster_test

import (
	"errors"
	"testing"

	"hereis/actors"
	"hereis/messages"
)

var errFull = errors.New("no room")

// A device goes while the disk of its edge is full, which so cannot delete it
// there. All know that it has gone, and after a while nobody need remember it,
// but for the disk, which the edge's next life reads.
func TestRule4_WhatAFullDiskCouldNotForgetIsNoGhost(t *testing.T) {
	for name, c := range map[string]struct {
		gone func(w *world, d *device, edge, other *simNode)
		// well: the disk takes writes again before the edge dies.
		well bool
	}{
		"removed elsewhere, and then the edge dies": {gone: func(w *world, d *device, _, other *simNode) { w.mustRegister(d, other, 0) }},
		"removed elsewhere, and then the disk is well": {
			gone: func(w *world, d *device, _, other *simNode) { w.mustRegister(d, other, 0) }, well: true,
		},
		"moved and then removed": {gone: func(w *world, d *device, _, other *simNode) {
			w.mustRegister(d, other, 3600)
			w.run(1000)
			w.mustRegister(d, other, 0)
		}},
		"ended by a star": {gone: func(w *world, d *device, _, other *simNode) {
			answered := false
			w.star(d, other, func(bool) { answered = true })
			w.runUntil(3000, "answered", func() bool { return answered })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 4)
			w.settle()
			d := newDevice("sip:ghost@example.com", "ghost")
			edge, other := w.others(d.aor)[0], w.others(d.aor)[1]
			w.mustRegister(d, edge, 3600)
			w.run(1000)
			edge.disk.err = errFull
			c.gone(w, d, edge, other)
			w.step = 50
			w.run(100_000)
			if n := edge.core.Stats().Unstored.Load(); n != 1 {
				t.Errorf("%d users are still to be written, want 1", n)
			}
			edge.disk.err = nil
			if c.well {
				w.run(2000)
				if n := edge.core.Stats().Unstored.Load(); n != 0 || len(edge.disk.recs) != 0 {
					t.Errorf("the disk is well: %d users are still to be written, and it has %v", n, edge.disk.recs)
				}
				w.run(200_000)
				for _, n := range w.nodes {
					if rec := n.core.Record(d.aor); rec != nil {
						t.Errorf("%s remembers %v", n.name, rec)
					}
				}
			}
			w.step = 5
			w.crash(edge)
			w.spread(100)
			w.run(500)
			w.start(edge, false)
			w.spread(100)
			w.runUntil(10_000, "settled", w.allSettled)
			w.run(2000)
			for _, n := range w.nodes {
				if got := w.found(n, d.aor); len(got) != 0 {
					t.Errorf("%s finds %v", n.name, got)
				}
			}
		})
	}
}

// A disk that has failed for more users than are remembered is behind for as long as
// the node lives; what is remembered is written.
func TestRule4_OfMoreFailedWritesThanAreRememberedItIsSaid(t *testing.T) {
	for _, users := range []int{2, 3} {
		w := newTwin(t, true, true, actors.DefaultLimits())
		now := int64(startMS)
		w.disk.err = errFull
		for _, aor := range neighbours[:users] {
			now += 10
			w.core.Tick(now)
			w.register(t, now, &messages.Register{
				Aor: aor, CallId: "c", Cseq: 1, Edge: "n1", Incarnation: 7, HasExpires: true, ExpiresS: 600,
				Contacts: []*messages.RegisterContact{{Uri: "sip:dev@192.0.2.1", Q: 1000}},
			})
		}
		st := w.core.Stats()
		if n, lost := st.Unstored.Load(), st.UnstoredLost.Load(); n != 2 || lost != int64(users-2) {
			t.Errorf("of %d users %d are remembered and %d are not", users, n, lost)
		}
		w.disk.err = nil
		for range 30 {
			now += 10
			w.core.Tick(now)
			w.disk.flush(now)
		}
		if n := st.Unstored.Load(); n != 0 || len(w.disk.recs) != 2 || w.core.Behind() != (users > 2) {
			t.Errorf("the disk is well: %d are to be written, it has %d of %d, behind: %t", n, len(w.disk.recs), users, w.core.Behind())
		}
	}
}
