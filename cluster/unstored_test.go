package cluster_test

import (
	"errors"
	"testing"
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
