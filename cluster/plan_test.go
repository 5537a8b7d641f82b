package cluster

import (
	"fmt"
	"testing"
)

func TestPlanIsThePlacementOfAView(t *testing.T) {
	p := NewPlan([]string{"c", "a", "b"})
	if got := fmt.Sprint(p.Names()); got != "[a b c]" {
		t.Fatalf("names: %s", got)
	}
	for i := range 1000 {
		owner, backup := p.Place(fmt.Sprint("sip:u", i, "@example.com"))
		if owner == backup || owner < 0 || backup < 0 || owner > 2 || backup > 2 {
			t.Fatalf("key %d is placed at %d and %d", i, owner, backup)
		}
	}
	if owner, backup := NewPlan([]string{"a"}).Place("x"); owner != 0 || backup != none {
		t.Errorf("one member: %d and %d", owner, backup)
	}
	if owner, backup := NewPlan(nil).Place("x"); owner != none || backup != none {
		t.Errorf("no member: %d and %d", owner, backup)
	}
}
