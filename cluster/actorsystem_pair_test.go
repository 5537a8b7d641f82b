//go:build !race

package cluster

import (
	"fmt"
	"testing"
)

// These have two actor systems in one process. proto.actor's remote sets gRPC's
// global logger whenever one starts, which the race detector reports; in two
// processes there is nothing to report.

func TestGrainsAreReachedByClusterRequest(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			var keys *Keys
			if secure {
				keys = testKeys(t)
			}
			p := &placement{}
			p.set("a", "b")
			a, b := startActors(t, "a", 1, p, keys), startActors(t, "b", 1, p, keys)
			members := []Member{a.member, b.member}
			a.SetMembers(members)
			b.SetMembers(members)
			seen := map[string]int{}
			for i := range 20 {
				id := fmt.Sprintf("id%d", i)
				want := p.owner(id) + " " + id + " hi"
				for _, n := range []*actorNode{a, b} {
					if got, err := n.ask(t, id, "hi"); err != nil || got != want {
						t.Fatalf("got %q, %v, want %q", got, err, want)
					}
				}
				seen[p.owner(id)]++
			}
			if len(seen) != 2 {
				t.Fatalf("got %v: one node has all", seen)
			}
		})
	}
}

func TestFlappedNodeIsNotKeptOut(t *testing.T) {
	p := &placement{}
	p.set("b")
	a, b := startActors(t, "a", 1, p, nil), startActors(t, "b", 1, p, nil)
	both, alone := []Member{a.member, b.member}, []Member{a.member}
	b.SetMembers(both)
	for range 3 {
		a.SetMembers(both)
		if got, err := a.ask(t, "x", "hi"); err != nil || got != "b x hi" {
			t.Fatalf("got %q, %v", got, err)
		}
		a.SetMembers(alone)
	}
}

func TestGrainMovesWithItsOwner(t *testing.T) {
	p := &placement{}
	p.set("a")
	a, b := startActors(t, "a", 1, p, nil), startActors(t, "b", 1, p, nil)
	members := []Member{a.member, b.member}
	a.SetMembers(members)
	b.SetMembers(members)
	if got, err := b.ask(t, "x", "hi"); err != nil || got != "a x hi" {
		t.Fatalf("got %q, %v", got, err)
	}
	p.set("b")
	a.SetMembers(members)
	b.SetMembers(members)
	eventually(t, "the old grain stops", func() bool { return a.lookup.count() == 0 })
	eventually(t, "the new one answers", func() bool {
		got, err := a.ask(t, "x", "hi")
		return err == nil && got == "b x hi"
	})
}
