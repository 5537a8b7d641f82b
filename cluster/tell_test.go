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
	w.mustWatch(edge, aor)
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

// mustWatch makes a node interested in a user.
func (w *world) mustWatch(n *simNode, aor string) {
	w.t.Helper()
	reply := w.ask(n, aor, &messages.Subscribe{
		Aor: aor, Stamp: n.core.NewStamp(w.now), Edge: n.name, Incarnation: n.inc, UntilMs: w.now + 600_000,
		Interest: &messages.Interest{Events: []*messages.EventInterest{{Event: "reg"}}},
	})
	if _, ok := reply.(*messages.Subscribed); !ok {
		w.t.Fatalf("interest: %v", reply)
	}
}

// Rules 5, 23: the stream to a member breaks, the member is taken for failed,
// the stream is renewed, and only then does gossip say that the member lives. It
// is told of changes, and copies to it are waited for, as before.
func TestRule23_AStreamRenewedBeforeItsMemberIsBackIsUsed(t *testing.T) {
	w := newWorld(t, 23, 3)
	w.settle()
	aor := "sip:watched@example.com"
	owner, backup := w.holders(w.nodes[0], aor)
	edge := w.third(owner, backup)
	w.mustWatch(edge, aor)
	w.sever(owner, edge, 0)
	w.run(100)
	owner.blind[edge.name] = true
	w.gossip(owner, edge)
	w.run(100)
	w.mend(owner, edge)
	w.run(100)
	delete(owner.blind, edge.name)
	w.gossip(owner, edge)
	w.runUntil(5000, "all settled", w.allSettled)
	told := 0
	changed := messages.TypeName(&messages.StateChanged{})
	w.trace = func(from, to string, env *messages.Envelope) {
		if from == owner.name && to == edge.name && env.Type == changed {
			told++
		}
	}
	w.mustRegister(&device{aor: aor, id: "d"}, backup, 600)
	w.run(1000)
	if told == 0 {
		t.Error("the node with watchers is not told")
	}
}
