package cluster

import (
	"fmt"
	"testing"
)

func viewOf(names ...string) *view {
	var list []Member
	for _, n := range names[1:] {
		list = append(list, Member{Name: n, Incarnation: 1})
	}
	return newView(1, Member{Name: names[0], Incarnation: 1}, list, func(string) bool { return false },
		func(m Member) *neighbor { return &neighbor{name: m.Name} })
}

func names(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("node-%d", i))
	}
	return out
}

func TestPlacementIsBalanced(t *testing.T) {
	const users = 100_000
	for _, n := range []int{2, 3, 5, 8, 20} {
		v := viewOf(names(n)...)
		owners, backups := make([]int, n), make([]int, n)
		for i := range users {
			o, b := v.place(fmt.Sprintf("sip:user%d@example.com", i))
			if o == b {
				t.Fatal("owner is backup")
			}
			owners[o]++
			backups[b]++
		}
		for i := range n {
			for role, got := range map[string]int{"owner": owners[i], "backup": backups[i]} {
				if want := users / n; got < want*95/100 || got > want*105/100 {
					t.Errorf("%d nodes: %s is %s of %d, want about %d", n, v.nodes[i].Name, role, got, want)
				}
			}
		}
	}
}

func TestPlacementMovesOnlyWhatItMust(t *testing.T) {
	all := names(6)
	with, without := viewOf(all...), viewOf(all[:5]...)
	gone := all[5]
	for i := range 20_000 {
		aor := fmt.Sprintf("sip:user%d@example.com", i)
		o, b := with.place(aor)
		o2, b2 := without.place(aor)
		was, is := [2]string{with.name(o), with.name(b)}, [2]string{without.name(o2), without.name(b2)}
		switch {
		case was[0] == gone:
			if is[0] != was[1] {
				t.Fatalf("%s: owner gone, the backup %s must own, not %s", aor, was[1], is[0])
			}
		case was[1] == gone:
			if is[0] != was[0] {
				t.Fatalf("%s: backup gone, owner moved from %s to %s", aor, was[0], is[0])
			}
		case was != is:
			t.Fatalf("%s: moved from %v to %v", aor, was, is)
		}
		if top := with.order(aor, 2); len(top) != 2 || top[0] != o || top[1] != b {
			t.Fatalf("%s: order %v, want %d %d", aor, top, o, b)
		}
	}
}

func TestPlacementDoesNotAllocate(t *testing.T) {
	v := viewOf(names(20)...)
	if n := testing.AllocsPerRun(100, func() { v.place("sip:alice@example.com") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPlacementLeavesDrainingMembersOut(t *testing.T) {
	v := newView(1, Member{Name: "a", Incarnation: 1}, []Member{
		{Name: "a", Incarnation: 1, Draining: true}, {Name: "b", Incarnation: 1}, {Name: "c", Incarnation: 1, FailedMS: 7},
	}, func(string) bool { return false }, func(m Member) *neighbor { return &neighbor{name: m.Name} })
	o, b := v.place("sip:alice@example.com")
	if v.name(o) != "b" || b != none {
		t.Errorf("owner %q, backup %q, want b alone", v.name(o), v.name(b))
	}
	if len(v.failed) != 1 || !v.live("a") {
		t.Errorf("view %+v", v)
	}
}

func BenchmarkPlace(b *testing.B) {
	v := viewOf(names(20)...)
	b.ReportAllocs()
	for b.Loop() {
		v.place("sip:alice@example.com")
	}
}
