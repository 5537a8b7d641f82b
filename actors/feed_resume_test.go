package actors

import "testing"

// What can go wrong when a watcher comes back: it knows a user's state that the
// feed where it goes on takes for later than what it tells.

const (
	resumeAt  = int64(1_800_000_000_000)
	resumeAoR = "sip:alice@x"
	otherAoR  = "sip:bob@x"
)

// resumed is a reader at the first of two nodes that has been told everything.
func resumed(t *testing.T) (r *fakeReader, a, b *fakeCopy) {
	live := map[string]uint64{"e1": 1, "e2": 2}
	a, b = newFakeCopy(1, live), newFakeCopy(2, live)
	r = newFakeReader()
	r.connect(resumeAt, a, 0)
	r.read(t, resumeAt, 100)
	return r, a, b
}

func (r *fakeReader) knows(t *testing.T, now int64, aor string, want bool) {
	t.Helper()
	r.read(t, now, 100)
	if got := r.online[aor]; got != want {
		t.Errorf("the reader takes %s for online %v, want %v", aor, got, want)
	}
}

// Alice moves, and goes; Bob registers in between. The reader is told that
// Alice is offline, and leaves before it is told of Bob: its cursor is before
// Bob, and so before what it knows of Alice. Then she is back.
func TestFeed_AFlapBehindTheCursorIsToldAgain(t *testing.T) {
	r, a, _ := resumed(t)
	now := resumeAt
	a.set(resumeAoR, atEdge(resumeAoR, "e1", now, false), now)
	r.knows(t, now, resumeAoR, true)
	a.set(resumeAoR, atEdge(resumeAoR, "e2", now+1, false), now+1)
	a.set(otherAoR, atEdge(otherAoR, "e1", now+2, false), now+2)
	a.set(resumeAoR, atEdge(resumeAoR, "e2", now+3, true), now+3)
	r.read(t, now+4, 1)
	if r.online[resumeAoR] || r.online[otherAoR] {
		t.Fatalf("the reader was told %v, want Alice offline and nothing of Bob", r.online)
	}
	r.leave()
	a.set(resumeAoR, atEdge(resumeAoR, "e2", now+1, false), now+5)
	r.connect(now+6, a, 0)
	r.knows(t, now+6, resumeAoR, true)
	r.knows(t, now+6, otherAoR, true)
}

// The reader has been told of Alice at one node; the next node hears of her
// REGISTER and of her going only after the reader has come, and the reader reads late.
func TestFeed_AChangeOnItsWayToTheNextNodeIsTold(t *testing.T) {
	r, a, b := resumed(t)
	now := resumeAt + 100
	on := atEdge(resumeAoR, "e1", now, false)
	a.set(resumeAoR, on, now)
	r.knows(t, now, resumeAoR, true)
	r.leave()
	r.connect(now+10, b, 0)
	b.set(resumeAoR, on, now)
	b.set(resumeAoR, atEdge(resumeAoR, "e1", now+20, true), now+20)
	r.knows(t, now+30, resumeAoR, false)
}

// The same, and the reader loses its connection to the next node at once.
func TestFeed_AChangeOnItsWayIsToldToWhoConnectsTwice(t *testing.T) {
	r, a, b := resumed(t)
	now := resumeAt + 100
	on := atEdge(resumeAoR, "e1", now, false)
	a.set(resumeAoR, on, now)
	r.knows(t, now, resumeAoR, true)
	for range 2 {
		r.leave()
		r.connect(now+10, b, 0)
		r.read(t, now+10, 100)
	}
	b.set(resumeAoR, on, now)
	b.set(resumeAoR, atEdge(resumeAoR, "e1", now+20, true), now+20)
	r.knows(t, now+30, resumeAoR, false)
}

// The reader has been told of Alice at the node that then dies with all that
// was known of her. The next node has never heard of her, so it has nothing to
// tell when it has heard everybody again.
func TestFeed_WhoIsForgottenBeforeTheNextNodeHeardIsOffline(t *testing.T) {
	r, a, b := resumed(t)
	now := resumeAt + 100
	a.set(resumeAoR, atEdge(resumeAoR, "e1", now, false), now)
	r.knows(t, now, resumeAoR, true)
	r.leave()
	// It does not know yet that e1 is gone.
	r.connect(now+10, b, 0)
	r.knows(t, now+10, resumeAoR, true)
	b.parted = true
	b.setLive(map[string]uint64{"e2": 2})
	r.read(t, now+5000, 100)
	b.parted = false
	b.feed.Synced()
	r.knows(t, now+6000, resumeAoR, false)
}

// Everybody had Alice; her owner was lost with her, and the copy of the next
// node was corrected while the reader was on its way.
func TestFeed_WhoWasForgottenOnTheWayIsOffline(t *testing.T) {
	r, a, b := resumed(t)
	now := resumeAt + 100
	on := atEdge(resumeAoR, "e1", now, false)
	a.set(resumeAoR, on, now)
	b.set(resumeAoR, on, now)
	r.knows(t, now, resumeAoR, true)
	r.leave()
	b.set(resumeAoR, nil, now+12_000)
	r.connect(now+12_100, b, 0)
	r.knows(t, now+12_100, resumeAoR, false)
}

// In peace coming back costs what has changed, and no list of all.
func TestFeed_ComingBackInPeaceIsNoSync(t *testing.T) {
	r, a, b := resumed(t)
	now := resumeAt + 100
	for _, c := range []*fakeCopy{a, b} {
		c.set(resumeAoR, atEdge(resumeAoR, "e1", now, false), now)
		c.set(otherAoR, atEdge(otherAoR, "e1", now, false), now)
	}
	r.read(t, now, 100)
	now += 3 * slackMS
	r.id = r.watch.Position(now, a) // of a heartbeat
	r.leave()
	b.set(otherAoR, atEdge(otherAoR, "e1", now, true), now)
	r.connect(now, b, 0)
	told := 0
	for e, _ := r.watch.Next(now, b); e != nil; e, _ = r.watch.Next(now, b) {
		if e.AoR != otherAoR || e.Online {
			t.Errorf("told %+v", e)
		}
		told++
	}
	now += slackMS + 1
	r.read(t, now, 1)
	// What is so for long brings no list when members change.
	b.feed.Synced()
	if e, _ := r.watch.Next(now, b); told != 1 || e != nil {
		t.Errorf("told of %d changes, and then %+v; want one and nothing", told, e)
	}
}
