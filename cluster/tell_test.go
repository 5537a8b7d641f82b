package cluster_test

import (
	"testing"

	"hereis/cluster"
	"hereis/messages"
)

// Rule 23: an event that finds the queue to a node full is not lost without a
// word: as soon as there is room, and not before, that node hears that it has
// missed something, once, and asks. Nobody else does.
func TestRule23_AFullQueueIsMadeGoodForByItsSender(t *testing.T) {
	w := newWorld(t, 23, 3)
	w.settle()
	aor := "sip:watched@example.com"
	owner, backup := w.holders(w.nodes[0], aor)
	edge := w.third(owner, backup)
	reply := w.ask(edge, aor, &messages.Subscribe{
		Aor: aor, Stamp: edge.core.NewStamp(w.now), Edge: edge.name, Incarnation: edge.inc, UntilMs: w.now + 600_000,
		Interest: &messages.Interest{Events: []*messages.EventInterest{{Event: "reg"}}},
	})
	if _, ok := reply.(*messages.Subscribed); !ok {
		t.Fatalf("interest: %v", reply)
	}
	full := true
	told := map[string]int{}
	decide := w.net.Decide
	changed, lost := messages.TypeName(&messages.StateChanged{}), messages.TypeName(&messages.StateLost{})
	w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
		if env.Type == changed || env.Type == lost {
			if full {
				return cluster.Fate{NoStream: true}
			}
			told[from+" "+to+" "+env.Type]++
		}
		return decide(from, to, env)
	}
	d := &device{aor: aor, id: "d"}
	w.mustRegister(d, backup, 600)
	w.run(3000)
	if len(told) != 0 {
		t.Fatalf("told with a full queue: %v", told)
	}
	full = false
	w.run(3000)
	if want := owner.name + " " + edge.name + " " + lost; len(told) != 1 || told[want] != 1 {
		t.Errorf("told %v, want once: %s", told, want)
	}
	w.mustRegister(d, backup, 600)
	w.run(1000)
	if n := told[owner.name+" "+edge.name+" "+changed]; n == 0 {
		t.Errorf("the next change: %v", told)
	}
}
