package actors

import (
	"testing"
	"time"

	"hereis/messages"
)

// Device moves A→B; A's old binding expires or is removed late.
func TestPeers1_6_4_LateOfflineLosesToNewerOnline(t *testing.T) {
	owner, other := newReplica(DefaultLimits()), newReplica(DefaultLimits())
	owner.register("nodeA", "c", 1, contactA+"|expires=60")
	stuck := request(owner.now+10, "nodeA", "c", 2, contactA+"|expires=0")
	owner.advance(time.Second)
	owner.register("nodeB", "c", 3, contactA+"|expires=600")
	// The offline comes to the owner, late: refused by its CSeq.
	owner.advance(time.Second)
	stuck.AgeMs = 2000
	check(t, "at the owner", show(owner.ask(stuck)), "STALE_CSEQ")
	// It was accepted at another holder, and is merged late: loses by stamp.
	other.ask(stuck)
	owner.copyFrom(other)
	check(t, "by a copy", owner.locate(), contactA)
	other.copyFrom(owner)
	check(t, "at the other", other.locate(), contactA)
	// The first binding's time is over: B's is not.
	owner.advance(70 * time.Second)
	check(t, "after A's expiry", owner.locate(), contactA)
}

// A device without Call-ID in common: a new Call-ID after its own restart.
func TestPeers1_6_4_LateOfflineOfAnotherCallID(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("nodeA", "old", 9, contactA)
	p.advance(time.Second)
	late := request(p.now, "nodeA", "old", 10, contactA+"|expires=0")
	p.advance(time.Second)
	p.register("nodeB", "new", 1, contactA)
	p.advance(time.Second)
	late.AgeMs = 2000
	p.ask(late)
	check(t, "still there", p.locate(), contactA)
}

// Two devices of one user at two nodes; the first to go takes nobody with it.
func TestPeers1_6_5_TwoDevicesAtTwoNodes(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("nodeA", "c", 1, contactA)
	p.advance(time.Second)
	p.register("nodeB", "d", 1, contactB)
	check(t, "both ring", p.locate(), contactB+" "+contactA)
	p.advance(time.Second)
	p.register("nodeA", "c", 2, contactA+"|expires=0")
	check(t, "the other one rings", p.locate(), contactB)
}

// Expiry is part of the lease: nobody has to delete anything, at no node.
func TestPeers1_6_7_NoClaimOutlivesItsExpiry(t *testing.T) {
	p, copied := newReplica(DefaultLimits()), newReplica(DefaultLimits())
	p.register("nodeA", "c", 1, contactA+"|expires=60")
	copied.copyFrom(p)
	p.advance(60 * time.Second)
	copied.advance(60 * time.Second)
	check(t, "owner", p.locate(), "NOT_FOUND")
	check(t, "copy", copied.locate(), "NOT_FOUND")
}

// Contact expires, one of several removed, "*": each is announced as what it is.
func TestPeers1_6_9_EveryFormOfExpiryIsAnnounced(t *testing.T) {
	p := newReplica(DefaultLimits())
	event := func(msg *messages.Register) Step {
		before := Sight{p.rec, p.now, map[string]uint64{"nodeA": 0}}
		p.ask(msg)
		p.advance(time.Second)
		if !p.user.Changed(before.Record, p.rec, p.now) {
			t.Error("not announced at all")
		}
		return StepBetween(before, Sight{p.rec, p.now, before.Live})
	}
	ev := event(request(p.now, "nodeA", "c", 1, contactA+"|expires=600", contactB+"|expires=600"))
	if ev.Kind != WentOnline || len(ev.Devices) != 2 {
		t.Errorf("Contact expires: %v", ev)
	}
	ev = event(request(p.now, "nodeA", "c", 2, contactA+"|expires=0"))
	if ev.Kind != DevicesChanged || ev.Reason != Unregistered || len(ev.Devices) != 1 {
		t.Errorf("one of two removed: %v", ev)
	}
	ev = event(expires(request(p.now, "nodeA", "c", 3, "*"), 0))
	if ev.Kind != WentOffline || ev.Reason != Unregistered {
		t.Errorf("star: %v", ev)
	}
}
