package cluster_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/cluster"
	"hereis/messages"
)

var (
	seeds    = flag.Int("seeds", defaultSeeds, "how many histories TestSimulation plays")
	fromSeed = flag.Uint64("seed", 0, "the first of them")
)

// TestSimulation plays random histories of delay, duplication, loss, crashes
// with and without disk, partitions and moving devices, and checks in the
// quiet period after each what CONSISTENCY promises.
func TestSimulation(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = 10
	}
	for i := range n {
		seed := *fromSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			play(t, seed)
		})
	}
}

func play(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 3+int(seed%3))
	for _, n := range w.nodes {
		n.skew = w.rng.Int64N(40) - 20
	}
	w.settle()
	var devices []*device
	for i := range 12 {
		d := newDevice(fmt.Sprintf("sip:u%d@example.com", i/2), fmt.Sprintf("d%d", i))
		d.stream = i%4 == 3
		devices = append(devices, d)
	}
	w.lossy = true
	for range 25 {
		w.disturb()
		for range 3 {
			w.act(devices[w.rng.IntN(len(devices))])
		}
		w.run(w.rng.Int64N(700))
	}
	w.quiet()
	for _, d := range devices {
		w.check(d)
	}
	w.checkCopies(devices)
	if t.Failed() {
		t.Logf("replay with: -run 'TestSimulation/%d$' -seeds 1 -seed %d", seed, seed)
	}
}

// act lets a device do something at a random edge.
func (w *world) act(d *device) {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if d.busy || !n.up || w.now < d.restMS {
		return // across a cut, order is node time within the skew of the clocks
	}
	d.busy = true
	expires := uint32(3600)
	if w.rng.IntN(4) == 0 {
		expires = 0
	}
	d.state = -1
	op := d.cseq + 1
	end := func() { d.busy = d.busy && d.cseq != op }
	w.register(d, n, expires, func(bool, *messages.Failure) {
		end()
		d.restMS = w.now + 100
	})
	// Its edge may have died with it.
	w.after(4500, end)
}

// disturb changes something about the cluster.
func (w *world) disturb() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	whole := w.allSettled() && len(w.later) == 0
	for _, n := range w.nodes {
		whole = whole && n.up && n.side == 0 && n.core.Tables(w.now).Unacknowledged == 0
	}
	switch w.rng.IntN(8) {
	case 0:
		if n.up {
			w.note("crash %s", n.name)
			w.crash(n)
			w.spread(1500)
			lost := whole && w.rng.IntN(2) == 0
			w.after(w.rng.Int64N(3000), func() { w.restart(n, lost) })
			if lost {
				// Nothing else goes wrong until the holders have given back what they have.
				w.run(3000)
				w.runUntil(40_000, "settled after a lost disk", w.allSettled)
				w.run(1000)
			}
		}
	case 1:
		n.side = 1 - n.side
		w.note("cut %s: %d", n.name, n.side)
		w.spread(1500)
		w.after(w.rng.Int64N(4000), func() { w.heal(n) })
	}
}

func (w *world) restart(n *simNode, lost bool) {
	if !n.up {
		w.note("restart %s lost %v", n.name, lost)
		w.start(n, lost)
		w.spread(500)
	}
}

func (w *world) heal(n *simNode) {
	n.side = 0
	w.note("heal %s", n.name)
	w.spread(500)
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%d: ", w.now-startMS)+fmt.Sprintf(format, args...))
}

// quiet lets everything come to rest: all up, whole, without loss.
func (w *world) quiet() {
	w.run(5000)
	w.lossy = false
	for _, n := range w.nodes {
		w.restart(n, false)
		n.side = 0
	}
	w.spread(300)
	w.run(1000)
	w.step = 40
	// Flapping members get no placement for half a minute.
	w.runUntil(70_000, "all settled, nobody in quarantine", func() bool {
		ok := w.allSettled()
		for _, n := range w.nodes {
			ok = ok && !slices.ContainsFunc(n.core.MemberStatus(w.now+n.skew), func(m cluster.MemberStatus) bool { return m.Quarantined })
		}
		return ok
	})
	// One round of digests.
	w.run(30_000 - w.now%30_000 + 6000)
	w.step = 5
}

// check: an acknowledged binding whose flow exists is found from every node, a
// removed one from none.
func (w *world) check(d *device) {
	if d.state < 0 || d.busy {
		return
	}
	want := d.state == 1
	if want && d.stream && d.edge.inc != d.inc {
		want = false // its connection is gone with its process
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

// checkCopies: owner and backup agree, nobody keeps what is none of its
// business, and each edge's part is what the holders have of it.
func (w *world) checkCopies(devices []*device) {
	for i := range 6 {
		aor := fmt.Sprintf("sip:u%d@example.com", i)
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
		out.Ended = nil
		out.Aor = ""
		return out
	}
	return proto.Equal(norm(a), norm(b))
}
