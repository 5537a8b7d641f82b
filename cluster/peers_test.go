package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/cluster"
	"hereis/messages"
)

// The races of the experiment that this part can have.

func TestPeers1_6_1_NothingIsBroadcastInSteadyState(t *testing.T) {
	w := newWorld(t, 2, 6)
	w.settle()
	d := newDevice("sip:alice@example.com", "alice")
	sent := w.count()
	for i := range 20 {
		w.mustRegister(d, w.nodes[i%6], 3600)
		for _, n := range w.nodes {
			w.locate(n, d.aor)
			w.locate(n, "sip:unknown@example.com")
		}
	}
	if got := sent(); got["hereis.Pull"] != 0 {
		t.Errorf("asked others %d times", got["hereis.Pull"])
	}
}

// While members change, all are asked about a user at most once at each node,
// and never about more users at a time than the cap; afterwards about none.
func TestPeers1_6_1_BroadcastsAreBoundedWhileMembersChange(t *testing.T) {
	w := newWorld(t, 2, 6)
	w.cfg = func(c *cluster.Config) { c.MaxBroadcasts = 5 }
	w.settle()
	asked := func() (n int64) {
		for _, n2 := range w.nodes {
			n += n2.core.Stats().Broadcasts.Load()
		}
		return n
	}
	before := asked()
	w.crash(w.nodes[4])
	w.crash(w.nodes[5])
	w.spread(0)
	const users = 60
	answers := 0
	for i := range users {
		w.nodes[i%4].core.Ask(w.now, fmt.Sprintf("sip:gone%d@example.com", i), &messages.Locate{Aor: fmt.Sprintf("sip:gone%d@example.com", i)}, 0,
			func(proto.Message, error) { answers++ })
	}
	w.runUntil(5000, "all are answered", func() bool { return answers == users })
	during := asked() - before
	if during > users {
		t.Errorf("%d users were asked for at all nodes, want %d at most", during, users)
	}
	w.runUntil(5000, "settled", func() bool { return w.nodes[0].core.Settled() && w.nodes[3].core.Settled() })
	w.run(500)
	at := asked()
	for i := range users {
		w.locate(w.nodes[i%4], fmt.Sprintf("sip:gone%d@example.com", i))
	}
	if n := asked() - at; n != 0 {
		t.Errorf("in the settled view %d were asked for at all nodes", n)
	}
	t.Logf("%d of %d lookups were asked of all nodes during the change", during, users)
}

// Where all nodes woke up nobody knows surely, and all are asked about each user;
// above the cap lookups are refused, counted, and answered when they come again.
func TestRule11_AboveTheCapOfBroadcastsQuestionsComeAgain(t *testing.T) {
	w := newWorld(t, 2, 6)
	w.cfg = func(c *cluster.Config) { c.MaxBroadcasts = 1 }
	w.settle()
	woken := w.nodes[0]
	var aors []string
	for i := 0; len(aors) < 20; i++ {
		aor := fmt.Sprintf("sip:lost%d@example.com", i)
		if owner, _ := w.holders(woken, aor); owner == woken {
			aors = append(aors, aor)
		}
	}
	// Nobody confirms its view for now.
	end := w.filter(func(_, _ string, env *messages.Envelope) bool { return !strings.HasPrefix(env.Type, "hereis.Report") })
	for _, n := range w.nodes {
		n.core.Woke(w.now)
	}
	answers := 0
	for _, aor := range aors {
		woken.core.Ask(w.now, aor, &messages.Locate{Aor: aor}, 0, func(proto.Message, error) { answers++ })
	}
	w.run(500)
	end()
	w.runUntil(10_000, "all are answered", func() bool { return answers == len(aors) })
	if n := woken.core.Stats().BroadcastsRefused.Load(); n == 0 {
		t.Errorf("none of %d was counted as refused", len(aors))
	}
}

func TestPeers1_6_3_AnOfflineUserIsANoAtOnce(t *testing.T) {
	w := newWorld(t, 2, 6)
	w.settle()
	for _, n := range w.nodes {
		began := w.now
		if _, code := w.locate(n, "sip:offline@example.com"); code != messages.FailureCode_FAILURE_CODE_NOT_FOUND {
			t.Errorf("from %s: %v", n.name, code)
		}
		if took := w.now - began; took > 10 {
			t.Errorf("from %s: took %d ms", n.name, took)
		}
	}
}

func TestPeers1_6_4_LateOfflineDoesNotKillNewerOnline(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.settle()
	d := newDevice("sip:late@example.com", "late")
	w.mustRegister(d, w.nodes[0], 60)
	w.run(1000)
	w.mustRegister(d, w.nodes[1], 3600)
	w.run(70_000) // the lease at n1 would have expired
	w.mustFind(d.aor, d.id, "n2")
}

func TestPeers1_6_4_ARestartedEdgeRaisesNoGhost(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.settle()
	d := newDevice("sip:ghost@example.com", "ghost")
	w.mustRegister(d, w.nodes[0], 3600)
	w.run(500)
	w.crash(w.nodes[0])
	w.spread(0)
	w.run(1000)
	w.mustRegister(d, w.nodes[1], 60)
	w.run(70_000) // it has expired at n2; n1's disk still has the older one
	w.start(w.nodes[0], false)
	w.spread(0)
	w.runUntil(5000, "settled", w.allSettled)
	for _, n := range w.nodes {
		if got := w.found(n, d.aor); len(got) != 0 {
			t.Errorf("from %s: ghost %v", n.name, got)
		}
	}
}

func TestPeers1_6_5_TwoDevicesAtTwoNodesAreTwo(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.settle()
	a, b := newDevice("sip:two@example.com", "a"), newDevice("sip:two@example.com", "b")
	w.mustRegister(a, w.nodes[0], 3600)
	w.mustRegister(b, w.nodes[1], 3600)
	w.run(100)
	w.mustFind(a.aor, "a", "n1")
	w.mustFind(a.aor, "b", "n2")
	w.mustRegister(a, w.nodes[0], 0)
	w.run(300)
	w.mustFind(a.aor, "b", "n2")
	w.mustFind(a.aor, "a", "")
}

// A node that a user has left does not claim him: neither at once, nor after
// its restart, nor when it comes back to a cluster that was restarted without it.
func TestPeers1_6_6_ANodeClaimsNobodyWhoHasLeft(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.settle()
	d := newDevice("sip:leaver@example.com", "leaver")
	w.mustRegister(d, w.nodes[0], 3600)
	w.run(300)
	w.mustRegister(d, w.nodes[0], 0)
	w.run(300)
	nobody := func(when string) {
		t.Helper()
		for _, n := range w.nodes {
			if got := w.found(n, d.aor); len(got) != 0 {
				t.Errorf("%s, from %s: %v", when, n.name, got)
			}
		}
	}
	nobody("removed")
	w.crash(w.nodes[0])
	w.spread(0)
	w.run(500)
	for _, n := range w.nodes[1:] {
		w.crash(n)
		w.start(n, false)
	}
	w.spread(0)
	w.run(500)
	w.start(w.nodes[0], false)
	w.spread(0)
	w.runUntil(10_000, "settled", w.allSettled)
	nobody("all restarted")
}

func TestPeers1_6_16_APartitionHealsWithoutARefresh(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.settle()
	a, b := newDevice("sip:halves@example.com", "a"), newDevice("sip:halves@example.com", "b")
	w.cut(w.nodes[3])
	w.mustRegister(a, w.nodes[0], 3600)
	w.mustRegister(b, w.nodes[3], 3600)
	w.run(2000)
	if got := w.found(w.nodes[0], a.aor); got["a"] != "n1" {
		t.Errorf("while cut: %v", got)
	}
	w.nodes[3].side = 0
	w.spread(100)
	began := w.now
	w.runUntil(10_000, "one union", func() bool {
		for _, n := range w.nodes {
			if got := w.found(n, a.aor); got["a"] != "n1" || got["b"] != "n4" {
				return false
			}
		}
		return true
	})
	t.Logf("healed in %d ms", w.now-began)
}
