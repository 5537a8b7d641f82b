package cluster_test

import (
	"testing"

	"hereis/messages"
)

// Double activation: for a time two nodes both take themselves for the owner of
// a user, and both acknowledge REGISTERs. There is no fence: the two merge.

// twoOwners has the owner of an AoR and a third node each on a side of their own
// of a cut, with another node beside it, so that both sides acknowledge.
func twoOwners(t *testing.T, aor string) (w *world, here, there *simNode) {
	w = newWorld(t, 7, 4)
	w.settle()
	owner, backup := w.holders(w.nodes[0], aor)
	rest := w.others(aor)
	rest[0].side, rest[1].side, backup.side = 1, 1, 0
	w.spread(0)
	w.run(3000)
	theirs, _ := w.holders(rest[0], aor)
	if ours, _ := w.holders(owner, aor); ours != owner || theirs == owner || theirs.side != 1 {
		t.Fatalf("owners are %s and %s, want one on each side", ours.name, theirs.name)
	}
	return w, owner, theirs
}

func (w *world) healed() {
	w.t.Helper()
	for _, n := range w.nodes {
		n.side = 0
	}
	w.spread(100)
	w.runUntil(10_000, "all settled", w.allSettled)
	w.run(2000)
}

func TestDoubleActivation_TwoDevicesAcknowledgedByTwoOwnersBothStay(t *testing.T) {
	const aor = "sip:double@example.com"
	w, here, there := twoOwners(t, aor)
	a, b := newDevice(aor, "a"), newDevice(aor, "b")
	w.mustRegister(a, here, 3600)
	w.mustRegister(b, there, 3600)
	w.healed()
	w.mustFind(aor, "a", here.name)
	w.mustFind(aor, "b", there.name)
	w.checkCopies([]*device{a})
}

func TestDoubleActivation_OneDeviceAcknowledgedByTwoOwnersIsWhereItWasLast(t *testing.T) {
	const aor = "sip:double@example.com"
	w, here, there := twoOwners(t, aor)
	d := newDevice(aor, "moves")
	w.mustRegister(d, here, 3600)
	w.run(500)
	w.mustRegister(d, there, 3600)
	w.healed()
	w.mustFind(aor, d.id, there.name)
	w.checkCopies([]*device{d})
}

// One owner has accepted the device's removal, the other, before that, its refresh.
func TestDoubleActivation_ARemovalAtOneOwnerEndsARefreshAtTheOther(t *testing.T) {
	const aor = "sip:double@example.com"
	w, here, there := twoOwners(t, aor)
	d := newDevice(aor, "goes")
	w.mustRegister(d, there, 3600)
	w.run(500)
	w.mustRegister(d, here, 0)
	w.healed()
	w.mustFind(aor, d.id, "")
	w.checkCopies([]*device{d})
}

// Members have no common view for a moment, without a cut: the asker's node takes
// another for the owner than all others do, which has taken over already.
func TestDoubleActivation_WithoutACut(t *testing.T) {
	w := newWorld(t, 7, 4)
	w.settle()
	const aor = "sip:double@example.com"
	owner, backup := w.holders(w.nodes[0], aor)
	edges := w.others(aor)
	for _, n := range []*simNode{backup, edges[0], edges[1]} {
		n.blind = map[string]bool{owner.name: true}
		w.gossip(n, owner)
	}
	w.runUntil(5000, "backup has taken over", func() bool { o, _ := w.holders(edges[0], aor); return o == backup })
	if o, _ := w.holders(owner, aor); o != owner {
		t.Fatalf("%s takes %s for the owner", owner.name, o.name)
	}
	a, b := newDevice(aor, "a"), newDevice(aor, "b")
	acknowledged := 0
	count := func(ok bool, _ *messages.Failure) {
		if ok {
			acknowledged++
		}
	}
	w.register(a, owner, 3600, count)
	w.register(b, edges[0], 3600, count)
	w.run(3000)
	for _, n := range w.nodes {
		n.blind = map[string]bool{}
	}
	w.healed()
	if acknowledged != 2 {
		t.Fatalf("%d were acknowledged, want both", acknowledged)
	}
	w.mustFind(aor, "a", owner.name)
	w.mustFind(aor, "b", edges[0].name)
	w.checkCopies([]*device{a})
}
