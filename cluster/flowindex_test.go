package cluster

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hereis/messages"
)

// A trunk registers its users over one connection: what one more of them costs
// must not grow with their number. With a list this takes minutes.
func TestFlowIndexOfATrunkIsNotQuadratic(t *testing.T) {
	const users = 300_000
	x := flowIndex{aors: make(map[flowKey]*flowAoRs)}
	f := &messages.FlowID{Incarnation: 1, Counter: 1, Stream: true}
	aor := make([]string, users)
	for i := range aor {
		aor[i] = fmt.Sprintf("sip:u%06d@example.com", i)
		x.add(f, aor[i])
		x.add(f, aor[i])
	}
	if got := x.on(f); !slices.Equal(got, aor) {
		t.Fatalf("%d AoRs are on the flow, want %d", len(got), users)
	}
	for _, a := range aor {
		x.remove(f, a)
	}
	if len(x.aors) != 0 {
		t.Errorf("%d flows are left, want none", len(x.aors))
	}
}

func TestFlowIndexForgetsNothingOfAConnection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := flowIndex{aors: make(map[flowKey]*flowAoRs)}
		f := &messages.FlowID{Incarnation: 7, Counter: 3, Stream: true}
		model := map[string]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			aor := fmt.Sprint("sip:u", rapid.IntRange(0, 20).Draw(t, "user"), "@example.com")
			if rapid.Bool().Draw(t, "add") {
				x.add(f, aor)
				model[aor] = true
			} else {
				x.remove(f, aor)
				delete(model, aor)
			}
			got := x.on(f)
			if len(got) != len(model) || slices.ContainsFunc(got, func(a string) bool { return !model[a] }) {
				t.Fatalf("on the flow: %v, want %v", got, model)
			}
		}
	})
}

func BenchmarkFlowIndexAdd(b *testing.B) {
	for _, users := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			x := flowIndex{aors: make(map[flowKey]*flowAoRs)}
			f := &messages.FlowID{Incarnation: 1, Counter: 1, Stream: true}
			aor := make([]string, users)
			for i := range aor {
				aor[i] = fmt.Sprintf("sip:u%d@example.com", i)
				x.add(f, aor[i])
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				x.add(f, aor[i%users])
				i++
			}
		})
	}
}
