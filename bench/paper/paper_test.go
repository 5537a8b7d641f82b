package paper

import (
	"math"
	"strings"
	"testing"
)

func simulate(t *testing.T, nodes int, users, sample uint64) *Result {
	t.Helper()
	c := DefaultConfig()
	c.Nodes, c.Users, c.Sample = nodes, users, sample
	r, err := Simulate(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Placement must be as even as chance, and move what it must and nothing else.
func TestPlacementIsEvenAndMovesLittle(t *testing.T) {
	r := simulate(t, 50, 200_000, 0)
	if r.Placed != 200_000 {
		t.Errorf("placed %d", r.Placed)
	}
	// The variance of 50 values scatters by a fifth; three times that is a bias.
	for name, b := range map[string]Balance{"owned": r.Owned, "held": r.Held} {
		if b.Evenness < 0.4 || b.Evenness > 1.8 || b.Least < 0.9 || b.Most > 1.1 {
			t.Errorf("%s: %+v", name, b)
		}
	}
	for name, m := range map[string]Move{"join": r.Join, "leave": r.Leave} {
		if m.Bystanders != 0 {
			t.Errorf("%s: %d users move for nothing", name, m.Bystanders)
		}
		if math.Abs(m.Owners/m.IdealOwners-1) > 0.1 || math.Abs(m.Holders/m.IdealHolders-1) > 0.1 {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestASampleTellsTheSame(t *testing.T) {
	r := simulate(t, 20, 10_000_000, 100_000)
	if r.Placed != 100_000 || math.Abs(r.Leave.Holders-0.1) > 0.01 || r.Owned.WholeMost > 1.01 {
		t.Errorf("got %+v", r)
	}
	d := r.Report(nil)
	if !strings.Contains(d.Facts[0].Value, "sample") || len(d.Tables) != 4 {
		t.Errorf("got %+v", d.Facts)
	}
}

func TestTwoNodes(t *testing.T) {
	r := simulate(t, 2, 1000, 0)
	if r.Copies != 2 || r.Messages != 3 || r.Leave.Holders != 0 || r.Leave.Owners < 0.4 {
		t.Errorf("got %+v", r)
	}
	if _, err := Simulate(Config{Nodes: 1, Users: 1}); err == nil {
		t.Error("a cluster of one has nothing to hand over")
	}
}
