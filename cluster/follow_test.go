package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hereis/cluster"
	"hereis/messages"
)

// copyOf is a follower in a simulation: what it has been told, and whether that
// was ever a step back.
type copyOf struct {
	h    *history
	node string
	core *cluster.Core
	// online is who is online, by the last word on each.
	online map[string]bool
	// newest is the highest stamp told of each key of each user.
	newest map[string]*messages.Stamp
	follow *cluster.Follow
	back   []string
}

func (c *copyOf) Changed(aor string, before, after cluster.Sight) {
	c.online[aor] = seesOnline(after)
	for _, l := range after.Record.GetLeases() {
		key := aor + " " + string(l.Key)
		if have := c.newest[key]; l.Stamp.Compare(have) >= 0 {
			c.newest[key] = l.Stamp
		} else if after.MS-have.Ms > 9000 {
			// A write that was lost with its holder before it was acknowledged is taken back.
			c.newest[key] = l.Stamp
		} else if after.Record.Alive(l, after.MS) {
			c.back = append(c.back, fmt.Sprintf("%d: %s: %s: %v after %v", c.h.now-startMS, c.node, key, l.Stamp, have))
		}
	}
}

func (c *copyOf) Synced() {}

// seesOnline: a device is on a flow of a live edge.
func seesOnline(s cluster.Sight) bool {
	return slices.ContainsFunc(s.Record.GetLeases(), func(l *messages.Lease) bool {
		incarnation, live := s.Live[l.Edge]
		return s.Record.Alive(l, s.MS) && live && l.Vouch >= incarnation
	})
}

// watchAll makes a copy at each node that lives and has none.
func (h *history) watchAll(copies map[*cluster.Core]*copyOf) {
	for _, n := range h.nodes {
		if !n.up || copies[n.core] != nil {
			continue
		}
		c := &copyOf{h: h, node: n.name, core: n.core, online: map[string]bool{}, newest: map[string]*messages.Stamp{}}
		var err error
		if c.follow, err = n.core.Follow(h.now+n.skew, "*", c); err != nil {
			h.t.Fatal(err)
		}
		copies[n.core] = c
	}
}

// TestSimulationFollow plays histories like TestSimulation with a follower of
// everybody at each node, through each of its lives: in the quiet after each,
// every follower sees those online whom the owners hold so, and has never been
// told of an older state after a newer one.
func TestSimulationFollow(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 5
	}
	playMany(t, n, playFollowed)
}

func playFollowed(t *testing.T, seed uint64) {
	h := newHistory(t, seed+100_000)
	h.settle()
	copies := map[*cluster.Core]*copyOf{}
	h.watchAll(copies)
	h.lossy = true
	for range 25 {
		h.disturb()
		h.watchAll(copies)
		for range 3 {
			h.act(h.devices[h.rng.IntN(len(h.devices))])
		}
		h.run(h.rng.Int64N(700))
		if h.rng.IntN(15) == 0 {
			h.idle(h.rng.Int64N(90_000))
		}
	}
	h.quiet()
	h.watchAll(copies)
	h.run(4000)
	for _, d := range h.devices {
		owner, _ := h.holders(h.nodes[0], d.aor)
		if h.expiring(owner, d.aor) {
			continue
		}
		want := seesOnline(cluster.Sight{Record: owner.core.Record(d.aor), MS: h.now + owner.skew, Live: h.edges()})
		for _, n := range h.nodes {
			c := copies[n.core]
			if got := c.online[d.aor]; got != want {
				t.Errorf("%s sees %s online %v, want %v: owner %s has %v", n.name, d.aor, got, want, owner.name, owner.core.Record(d.aor))
			}
			synced := false
			c.follow.Do(func(users cluster.Copy) { synced = users.Synced() })
			if !synced {
				t.Errorf("%s: not synced", n.name)
			}
		}
	}
	for _, c := range copies {
		if len(c.back) > 0 {
			t.Errorf("%s was told of an older state:\n%s", c.node, strings.Join(c.back, "\n"))
		}
		c.follow.Close()
	}
	if t.Failed() {
		t.Logf("replay with: -run 'TestSimulationFollow/%d$' -seeds 1 -seed %d\n%s", seed, seed, strings.Join(h.log, "\n"))
	}
}

// expiring: something ends within seconds of now, and owners tell of it within one.
func (h *history) expiring(owner *simNode, aor string) bool {
	return slices.ContainsFunc(owner.core.Record(aor).GetLeases(), func(l *messages.Lease) bool {
		left := l.ExpiresMs - h.now - owner.skew
		return left > -3000 && left < 3000
	})
}

// edges are the nodes with their incarnations, when all are up.
func (h *history) edges() map[string]uint64 {
	live := map[string]uint64{}
	for _, n := range h.nodes {
		live[n.name] = n.inc
	}
	return live
}
