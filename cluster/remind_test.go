package cluster_test

import (
	"fmt"
	"slices"
	"testing"

	"hereis/cluster"
	"hereis/messages"
)

// Rule 23 where nodes do not agree on who owns a watched user, or know of each
// other in one direction only.

// toldWithinMS is within which time a node with watchers knows what has changed
// once nodes agree.
const toldWithinMS = 1500

// openDesks gives every node a desk, in each of its lives from now on.
func (w *world) openDesks() map[string]*desk {
	desks := map[string]*desk{}
	w.born = func(n *simNode, core *cluster.Core, lost bool) {
		var kept map[string]int64
		if was := desks[n.name]; was != nil && !lost {
			kept = was.kept()
		}
		desks[n.name] = w.openDesk(n, core, kept)
	}
	w.ticked = func(n *simNode) { desks[n.name].tick() }
	w.streamUp = func(n *simNode, name string) { desks[n.name].peerBack(name) }
	return desks
}

// shows are the devices of a user that watchers at this node are shown.
func (d *desk) shows(aor string) (ids []string) {
	u := d.users[aor]
	if u == nil || !u.Known() {
		return nil
	}
	for _, l := range u.Rec.Leases {
		if l.Kind == messages.LeaseKind_LEASE_KIND_BINDING && u.Rec.Alive(l, d.now()) {
			ids = append(ids, l.CallId)
		}
	}
	slices.Sort(ids)
	return ids
}

func (w *world) mustShow(d *desk, aor, when string, ids ...string) {
	w.t.Helper()
	if got := d.shows(aor); !slices.Equal(got, ids) {
		w.t.Errorf("%s: watchers at %s are shown %v, want %v\n%v", when, d.n.name, got, ids, d.users[aor].log)
	}
}

// meet lets two nodes learn how each other is.
func (w *world) meet(a, b *simNode) {
	w.gossip(a, b)
	w.gossip(b, a)
}

// watchedWithoutOwner is a user whose first owner is down, watched at a node by
// way of the second, which is the owner now.
func watchedWithoutOwner(t *testing.T) (w *world, aor string, desks map[string]*desk, first, second, edge *simNode) {
	w = newWorld(t, 23, 3)
	desks = w.openDesks()
	w.settle()
	aor = "sip:watched@example.com"
	first, second = w.holders(w.nodes[0], aor)
	edge = w.third(first, second)
	w.crash(first)
	w.spread(0)
	w.run(5000)
	if got := edge.core.Owner(aor); got != second.name {
		t.Fatalf("owner %s, want %s", got, second.name)
	}
	return w, aor, desks, first, second, edge
}

// An owner sees another take over, gets from it as its backup what has changed,
// and is the owner again, all before the node with watchers has seen anything:
// for that node nothing has happened, and who told of the change, if anybody,
// did not know of it.
func TestRule23_AnOwnerThatIsOwnerAgainRemindsThoseWhoSawNothing(t *testing.T) {
	w, aor, desks, first, second, edge := watchedWithoutOwner(t)
	desks[edge.name].watch(aor, w.now+3_600_000)
	w.run(1000)
	w.mustShow(desks[edge.name], aor, "at first")

	w.start(first, false)
	edge.blind[first.name], first.blind[edge.name] = true, true
	w.meet(first, second)
	w.run(100)
	if got := second.core.Owner(aor); got != first.name {
		t.Fatalf("owner at %s: %s, want %s", second.name, got, first.name)
	}
	d := newDevice(aor, "d")
	w.mustRegister(d, second, 3600)
	w.run(100)
	w.crash(first)
	w.meet(first, second)
	w.run(toldWithinMS)
	if got := edge.core.Owner(aor); got != second.name {
		t.Fatalf("%s has seen another owner", edge.name)
	}
	w.mustShow(desks[edge.name], aor, "after the change of owners", d.id)

	// A removal in such a moment is no less to be seen.
	w.start(first, false)
	edge.blind[first.name], first.blind[edge.name] = true, true
	w.meet(first, second)
	w.run(100)
	w.mustRegister(d, second, 0)
	w.run(100)
	w.crash(first)
	w.meet(first, second)
	w.run(toldWithinMS)
	w.mustShow(desks[edge.name], aor, "after the removal")
}

// A node's interest is taken by an owner for a moment, which dies; the owner of
// before and after hears of it when it has taken in a change already, and had
// nobody to tell of that.
func TestRule23_AnOwnerThatHearsOfAnInterestLateRemindsOfWhatItHad(t *testing.T) {
	w, aor, desks, first, second, edge := watchedWithoutOwner(t)
	w.start(first, false)
	edge.blind[first.name] = true
	w.meet(first, second)
	w.gossip(first, edge)
	w.run(100)
	// The node with watchers asks second, which has first answer, and of which
	// nobody else hears yet.
	subscription := func(l *messages.Lease) bool { return l.Kind == messages.LeaseKind_LEASE_KIND_SUBSCRIPTION }
	end := w.filter(func(_, to string, env *messages.Envelope) bool {
		m, err := env.Open()
		p, ok := m.(*messages.Push)
		return err != nil || !ok || to != second.name || !slices.ContainsFunc(p.Items, func(i *messages.PushItem) bool {
			return slices.ContainsFunc(i.Record.GetLeases(), subscription)
		})
	})
	desks[edge.name].watch(aor, w.now+3_600_000)
	w.runUntil(2000, "the owner has answered", func() bool { u := desks[edge.name].users[aor]; return u.Known() && !u.asking })
	if rec := second.core.Record(aor); slices.ContainsFunc(rec.GetLeases(), subscription) {
		t.Fatalf("%s knows of the interest: %v", second.name, rec)
	}
	w.crash(first)
	w.meet(first, second)
	d := newDevice(aor, "d")
	w.mustRegister(d, second, 3600)
	w.run(toldWithinMS)
	w.mustShow(desks[edge.name], aor, "before the owner knows of the interest")
	end()
	w.run(2000 + toldWithinMS) // the copy's next try
	w.mustShow(desks[edge.name], aor, "when it knows", d.id)
}

// What reminders cost: nothing at rest, and when a member fails one event for each
// watched user that it owned and each node with watchers of theirs.
func TestRule23_RemindersAreForUsersThatChangeOwners(t *testing.T) {
	w := newWorld(t, 23, 5)
	w.settle()
	watchers, fails := w.nodes[:2], w.nodes[4]
	want := 0
	for i := range 200 {
		aor := fmt.Sprintf("sip:u%d@example.com", i)
		for _, n := range watchers {
			w.mustWatch(n, aor)
		}
		owner, backup := w.holders(w.nodes[0], aor)
		if owner != fails {
			continue
		}
		for _, n := range watchers {
			if n != backup { // who owns it next tells itself
				want++
			}
		}
	}
	w.run(1000)
	sent := w.count()
	w.run(60_000)
	if n := sent()["hereis.StateChanged"]; n != 0 {
		t.Errorf("%d events at rest", n)
	}
	w.crash(fails)
	w.spread(200)
	w.run(10_000)
	if n := sent()["hereis.StateChanged"]; n != want {
		t.Errorf("%d events when a member fails, want %d", n, want)
	}
}

// The node with watchers knows the owner, and the owner does not know it (yet, or
// any more): it is answered, cannot be told, and is shown what is so within the
// usual time once the owner has heard of it. So it is if either has restarted
// meanwhile.
func TestRule23_AWatchersNodeThatTheOwnerHasNotHeardOf(t *testing.T) {
	for _, c := range []struct {
		name      string
		meanwhile func(w *world, owner, edge *simNode)
	}{
		{"both stay", func(*world, *simNode, *simNode) {}},
		{"the node with watchers restarts", func(w *world, _, edge *simNode) { w.relive(edge) }},
		{"the owner restarts", func(w *world, owner, _ *simNode) { w.relive(owner) }},
		{"the word that it has missed something is lost with the stream", func(w *world, owner, edge *simNode) {
			lost := messages.TypeName(&messages.StateLost{})
			end := w.filter(func(_, _ string, env *messages.Envelope) bool { return env.Type != lost })
			w.after(500, func() {
				end()
				w.sever(owner, edge, 0)
				w.after(200, func() { w.mend(owner, edge) })
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 23, 4)
			desks := w.openDesks()
			w.settle()
			const aor = "sip:watched@example.com"
			owner, backup := w.holders(w.nodes[0], aor)
			edge := w.others(aor)[0]
			owner.blind[edge.name], backup.blind[edge.name] = true, true
			w.gossip(owner, edge)
			w.gossip(backup, edge)
			w.run(1000)
			stays, goes, comes := newDevice(aor, "stays"), newDevice(aor, "goes"), newDevice(aor, "comes")
			w.mustRegister(stays, backup, 3600)
			w.mustRegister(goes, backup, 3600)
			desks[edge.name].watch(aor, w.now+3_600_000)
			w.run(1000)
			w.mustShow(desks[edge.name], aor, "while the owner does not know the node", goes.id, stays.id)
			w.mustRegister(goes, backup, 0)
			w.mustRegister(comes, backup, 3600)
			c.meanwhile(w, owner, edge)
			w.run(100)
			owner.blind, backup.blind = map[string]bool{}, map[string]bool{}
			w.meet(owner, edge)
			w.meet(backup, edge)
			w.run(700) // until the stream that broke is back
			w.run(toldWithinMS)
			w.mustShow(desks[edge.name], aor, "when they see each other", comes.id, stays.id)
		})
	}
}

// relive restarts a node at once with its disk, and all but those who are blind
// hear of that.
func (w *world) relive(n *simNode) {
	blind := n.blind
	n.disk.flush(1 << 62)
	w.crash(n)
	w.start(n, false)
	n.blind = blind
	w.spread(0)
}
