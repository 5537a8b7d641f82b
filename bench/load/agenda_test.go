package load

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever is added and taken, the earliest of what is there is taken, with its value.
func TestAgendaIsInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		start := time.Now()
		var a agenda[int]
		due := map[int]time.Time{}
		for i := range rapid.IntRange(1, 200).Draw(rt, "steps") {
			if len(due) == 0 || rapid.Bool().Draw(rt, "add") {
				at := start.Add(time.Duration(rapid.IntRange(-50, 50).Draw(rt, "at")))
				due[i] = at
				a.add(at, i)
				continue
			}
			at := a.next()
			if a.due(at.Add(-1)) || !a.due(at) {
				rt.Fatalf("due before or after %v", at)
			}
			got := a.take()
			for _, other := range due {
				if other.Before(due[got]) {
					rt.Fatalf("took what is due at %v, there is one at %v", due[got], other)
				}
			}
			if !due[got].Equal(at) {
				rt.Fatalf("took what is due at %v, want %v", due[got], at)
			}
			delete(due, got)
		}
		if a.len() != len(due) {
			rt.Fatalf("%d are left, want %d", a.len(), len(due))
		}
	})
}
