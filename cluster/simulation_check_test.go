package cluster_test

import (
	"bytes"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// expects is what a lookup must say of a device: known is false where nothing
// is promised.
func (h *history) expects(d *device) (found, known bool) {
	margin := 2*h.maxSkew + 2000
	switch {
	case d.state < 0 || d.busy:
		return false, false
	case d.state == 0:
		return false, true
	case h.now > d.until+margin:
		return false, true
	case h.now > d.until-margin || h.crowded(d):
		return false, false // another of its user's devices may have taken its place
	}
	// A connection goes with its process.
	return !d.stream || d.edge.inc == d.inc, true
}

// check: an acknowledged binding whose flow exists is found from every node, a
// removed or expired one from none.
func (h *history) check(d *device) {
	w := h.world
	want, known := h.expects(d)
	if !known {
		return
	}
	for _, n := range w.nodes {
		targets, code := w.locate(n, d.aor)
		found := false
		for _, t := range targets {
			if t.CallId == d.id {
				found = true
				if want && t.Edge != d.edge.name {
					w.t.Errorf("%s of %s from %s: found at %s, is at %s", d.id, d.aor, n.name, t.Edge, d.edge.name)
				}
			}
		}
		if found != want {
			w.t.Errorf("%s of %s from %s: found %v, want %v (code %v)", d.id, d.aor, n.name, found, want, code)
		}
	}
	if w.t.Failed() && !w.told {
		w.told = true
		owner, _ := w.holders(w.nodes[0], d.aor)
		w.t.Logf("%s: %v\nlog:\n%s", owner.name, owner.core.Record(d.aor), strings.Join(append(d.log, w.log...), "\n"))
	}
}

// last: at rest a REGISTER is accepted and visible, and the limit is kept.
func (h *history) last() {
	for _, d := range h.devices {
		if d.state >= 0 && !h.crowded(d) {
			continue
		}
		h.mustRegister(d, h.nodes[h.rng.IntN(len(h.nodes))], 3600)
		h.run(100)
		for _, n := range h.nodes {
			targets, code := h.locate(n, d.aor)
			if !slices.ContainsFunc(targets, func(t *messages.Target) bool { return t.CallId == d.id }) || len(targets) > maxBindings {
				h.t.Errorf("%s of %s from %s just now: %d targets (code %v): %v", d.id, d.aor, n.name, len(targets), code, targets)
			}
		}
	}
}

// checkCopies: owner and backup agree, nobody keeps what is none of its
// business, and each edge's part is what the holders have of it.
func (w *world) checkCopies(devices []*device) {
	for i, d := range devices {
		aor := d.aor
		if i > 0 && devices[i-1].aor == aor {
			continue
		}
		owner, backup := w.holders(w.nodes[0], aor)
		a, b := owner.core.Record(aor), backup.core.Record(aor)
		if !sameRecords(w.now, a, b) {
			w.t.Errorf("%s: copies differ:\n%s: %v\n%s: %v", aor, owner.name, a, backup.name, b)
		}
		for _, n := range w.nodes {
			if n == owner || n == backup {
				continue
			}
			for _, l := range n.core.Record(aor).GetLeases() {
				have := a.Lease(l.Key)
				old := !n.core.Record(aor).Alive(l, w.now) && l.Stamp.Ms < w.now-60_000
				if l.Edge != n.name || have.Compare(l) != 0 && !old {
					w.t.Errorf("%s: %s keeps %v, holders have %v", aor, n.name, l, have)
				}
			}
		}
	}
	for _, n := range w.nodes {
		if tables := n.core.Tables(w.now); tables.Former > 0 || tables.Unacknowledged > 0 {
			w.t.Errorf("%s: not at rest: %+v", n.name, tables)
		}
		if parked := n.core.Stats().Parked.Load(); parked != 0 {
			w.t.Errorf("%s: %d parked", n.name, parked)
		}
		if _, err := n.core.TallyError(); err != nil {
			w.t.Errorf("%s: %v", n.name, err)
		}
	}
}

// sameRecords compares what is alive or was lately. Whether a flow is over
// shows in that; when it was found to be, each finds for itself.
func sameRecords(now int64, a, b *messages.Record) bool {
	norm := func(r *messages.Record) *messages.Record {
		out := r.Clone()
		for i, l := range out.Leases {
			if !l.Dead && !out.Alive(l, now) {
				out.Leases[i] = proto.CloneOf(l)
				out.Leases[i].Dead = true
			}
		}
		// What is dead for a minute may be forgotten by now, by one and not yet by another.
		out.Leases = slices.DeleteFunc(out.Leases, func(l *messages.Lease) bool {
			return !out.Alive(l, now) && l.Stamp.Ms < now-60_000
		})
		slices.SortFunc(out.Leases, func(a, b *messages.Lease) int { return bytes.Compare(a.Key, b.Key) })
		if out.Floor != nil && out.Floor.Stamp.Ms < now-60_000 {
			out.Floor = nil // it is kept and forgotten like a tombstone
		}
		out.Ended = nil
		out.Aor = ""
		return out
	}
	return proto.Equal(norm(a), norm(b))
}
