package cluster_test

import (
	"fmt"
	"testing"
)

// Rule 10: what each node shares with each other one is summed up as it
// changes; the sums are right at any time, also while members come and go, and
// while nothing happens nothing is looked at.
func TestRule10_SumsAreKeptAtEachChange(t *testing.T) {
	w := newWorld(t, 31, 4)
	w.settle()
	var devices []*device
	for i := range 60 {
		devices = append(devices, &device{aor: fmt.Sprintf("sip:u%d@example.com", i%40), id: fmt.Sprint(i)})
	}
	check := func(when string) {
		t.Helper()
		walked := 0
		for _, n := range w.nodes {
			is, err := n.core.TallyError()
			if err != nil {
				t.Fatalf("%s, %s: %v", when, n.name, err)
			}
			if is {
				walked++
			}
		}
		if walked == 0 {
			t.Fatalf("%s: nobody has sums", when)
		}
	}
	for i, d := range devices {
		w.mustRegister(d, w.nodes[i%4], uint32(60+i))
		if i%7 == 0 {
			w.run(1500)
			check("while they register")
		}
	}
	w.run(8000)
	check("at rest")
	for i, d := range devices {
		switch i % 3 {
		case 0:
			w.mustRegister(d, w.nodes[(i+1)%4], 300) // moves
		case 1:
			w.mustRegister(d, w.nodes[i%4], 0)
		}
		if i%9 == 0 {
			w.run(2000)
			check("while they move and go")
		}
	}
	w.crash(w.nodes[3])
	for range 20 {
		w.run(1000)
		check("after a crash")
	}
	w.run(90_000)
	check("after all have expired")
}

// A new round in which everybody is who they were wakes nobody: the walks after
// it look at records where they rest.
func TestRule14_ANewRoundLeavesUsersAtRest(t *testing.T) {
	w := newWorld(t, 37, 4)
	w.settle()
	const users = 400
	for i := range users {
		w.mustRegister(&device{aor: fmt.Sprintf("sip:u%d@example.com", i), id: "d"}, w.nodes[i%4], 3600)
	}
	w.run(8000)
	n := w.nodes[0]
	if awake := n.core.Awake(); awake != 0 {
		t.Fatalf("%d of %d are not at rest", awake, n.core.Tables(w.now).AoRs)
	}
	before, most := n.core.Stats().Rounds.Load(), 0
	w.sleep(n, 3000)
	for range 200 {
		w.run(50)
		most = max(most, n.core.Awake())
	}
	if n.core.Stats().Rounds.Load() == before {
		t.Fatal("there was no new round")
	}
	if most > 0 {
		t.Errorf("%d of %d were awake at one time", most, n.core.Tables(w.now).AoRs)
	}
}
