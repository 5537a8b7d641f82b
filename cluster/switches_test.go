package cluster_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"hereis/cluster"
	"hereis/messages"
)

// Each rule marked ▲ in docs/consistency.md alone breaks a promise when it is
// left out. These are the accidents that they prevent: with all rules in force
// the promise is kept, without the one it is not.

// accident plays one with the rule and without it; kept tells whether the
// promise held.
func accident(t *testing.T, off cluster.Rules, kept func(w *world) bool) {
	t.Helper()
	for _, c := range []struct {
		name string
		off  cluster.Rules
		want bool
	}{{"with the rule", cluster.Rules{}, true}, {"without it", off, false}} {
		w := newWorld(t, 1, 4)
		w.off = c.off
		w.settle()
		if got := kept(w); got != c.want {
			t.Errorf("%s: promise kept is %v, want %v", c.name, got, c.want)
		}
	}
}

// Each mark in docs/consistency.md has its test, and each switch is thrown by one.
func TestEveryMarkedRuleHasItsSwitch(t *testing.T) {
	doc, err := os.ReadFile("../docs/consistency.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("switches_test.go")
	if err != nil {
		t.Fatal(err)
	}
	marked := 0
	rule := regexp.MustCompile(`^(\d+)\. `)
	for line := range strings.Lines(string(doc)) {
		m := rule.FindStringSubmatch(line)
		marks := strings.Count(line, "▲")
		if m == nil || marks == 0 {
			continue
		}
		marked++
		if n := strings.Count(string(tests), "func TestRule"+m[1]+"Off_"); n < marks {
			t.Errorf("rule %s has %d marks and %d tests without it", m[1], marks, n)
		}
	}
	if marked != 6 {
		t.Errorf("%d rules are marked, want 6", marked)
	}
	for i := range reflect.TypeFor[cluster.Rules]().NumField() {
		if name := reflect.TypeFor[cluster.Rules]().Field(i).Name; strings.Count(string(tests), "cluster.Rules{"+name+": true}") != 1 {
			t.Errorf("the switch %s is not thrown once", name)
		}
	}
}

// others are the nodes that hold nothing of an AoR.
func (w *world) others(aor string) (out []*simNode) {
	owner, backup := w.holders(w.nodes[0], aor)
	for _, n := range w.nodes {
		if n != owner && n != backup {
			out = append(out, n)
		}
	}
	return out
}

// filter lets through only what ok allows, until it is called.
func (w *world) filter(ok func(from, to string, env *messages.Envelope) bool) (end func()) {
	decide := w.net.Decide
	w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
		if !ok(from, to, env) {
			return cluster.Fate{}
		}
		return decide(from, to, env)
	}
	return func() { w.net.Decide = decide }
}

// A REGISTER is stuck on its way to the owner; the device has long moved.
func TestRule1Off_AStuckRegisterTakesTheDeviceBack(t *testing.T) {
	accident(t, cluster.Rules{HolderStamps: true}, func(w *world) bool {
		d := newDevice("sip:stuck@example.com", "old")
		owner, _ := w.holders(w.nodes[0], d.aor)
		edges := w.others(d.aor)
		var stuck []*messages.Envelope
		end := w.filter(func(from, _ string, env *messages.Envelope) bool {
			held := from == edges[0].name && env.Type == "hereis.Register"
			if held {
				stuck = append(stuck, env)
			}
			return !held
		})
		w.register(d, edges[0], 3600, func(bool, *messages.Failure) {})
		w.run(3000)
		end()
		// The device starts anew elsewhere, with a Call-ID of its own.
		again := newDevice(d.aor, "new")
		again.instance = "old"
		w.mustRegister(again, edges[1], 3600)
		owner.core.Receive(w.now, edges[0].name, stuck[0])
		w.run(1000)
		return w.found(edges[1], d.aor)["new"] == edges[1].name
	})
}

// The device restarts and comes back at B, A does not hear of it, and its old
// connection to A times out. (With the old Call-ID rule 2 would save it.)
func TestRule3Off_ALateCloseRemovesTheNewBinding(t *testing.T) {
	accident(t, cluster.Rules{CloseRemoves: true}, func(w *world) bool {
		d := newDevice("sip:closes@example.com", "closes")
		d.stream = true
		a, b := w.others(d.aor)[0], w.others(d.aor)[1]
		w.mustRegister(d, a, 3600)
		w.run(500)
		old := d.flow
		end := w.filter(func(_, to string, env *messages.Envelope) bool { return to != a.name })
		again := newDevice(d.aor, "again")
		again.instance, again.stream = d.id, true
		w.mustRegister(again, b, 3600)
		delete(a.flows.open, old.Counter)
		a.core.EndFlow(w.now, old)
		end()
		w.run(3000)
		return w.found(b, d.aor)[again.id] == b.name
	})
}

// The owner is the edge: it says 200 and burns down.
func TestRule5Off_AnAcknowledgedBindingDiesWithItsEdge(t *testing.T) {
	accident(t, cluster.Rules{ReplyAtOnce: true}, func(w *world) bool {
		d := newDevice("sip:burns@example.com", "burns")
		owner, backup := w.holders(w.nodes[0], d.aor)
		decide := w.net.Decide
		w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
			if to == backup.name && env.Type == "hereis.Push" {
				return cluster.Fate{DelayMS: []int64{100}}
			}
			return decide(from, to, env)
		}
		w.mustRegister(d, owner, 3600)
		w.crash(owner)
		w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
			// What the node had not sent in full is gone with it.
			if env.Type == "hereis.Push" && from == owner.name {
				return cluster.Fate{}
			}
			return decide(from, to, env)
		}
		w.net.Forget(owner.name)
		w.run(200)
		w.net.Decide = decide
		w.spread(0)
		w.start(owner, true)
		w.spread(100)
		w.runUntil(10_000, "settled", w.allSettled)
		w.run(1000)
		return w.found(backup, d.aor)[d.id] == owner.name
	})
}

// The acknowledgement of a backup's former life is late: the new one has nothing.
func TestRule10Off_AnAcknowledgementOfAFormerLifeCounts(t *testing.T) {
	accident(t, cluster.Rules{AnyAck: true}, func(w *world) bool {
		d := newDevice("sip:acks@example.com", "acks")
		owner, backup := w.holders(w.nodes[0], d.aor)
		edge := w.others(d.aor)[0]
		var late []*messages.Envelope
		end := w.filter(func(from, to string, env *messages.Envelope) bool {
			held := from == backup.name && env.Type == "hereis.Ack"
			if held && to == owner.name {
				late = append(late, env)
			}
			return !held
		})
		w.mustRegister(d, edge, 3600)
		w.run(100)
		end()
		w.crash(backup)
		w.spread(0)
		w.run(300)
		w.start(backup, true)
		end = w.filter(func(_, to string, env *messages.Envelope) bool {
			return to != backup.name || env.Type != "hereis.Push"
		})
		w.spread(0)
		w.run(500)
		for _, env := range late {
			owner.core.Receive(w.now, backup.name, env)
			edge.core.Receive(w.now, backup.name, env)
		}
		w.run(30)
		end()
		w.runUntil(10_000, "settled", w.allSettled)
		return backup.core.Record(d.aor).Lease(owner.core.Record(d.aor).Leases[0].Key) != nil
	})
}

// A member is gone for good with an acknowledgement of it outstanding.
func TestRule10Off_WaitingForTheAbsentNobodySettles(t *testing.T) {
	accident(t, cluster.Rules{WaitForAbsent: true}, func(w *world) bool {
		d := newDevice("sip:absent@example.com", "absent")
		_, backup := w.holders(w.nodes[0], d.aor)
		end := w.filter(func(_, to string, env *messages.Envelope) bool {
			return to != backup.name || env.Type != "hereis.Push"
		})
		w.mustRegister(d, w.others(d.aor)[0], 3600)
		w.crash(backup)
		w.spread(0)
		end()
		w.run(5000)
		for _, n := range w.nodes {
			if n.up && !n.core.Settled() {
				return false
			}
		}
		return true
	})
}

// An edge restarts: the connections of its former life are gone.
func TestRule12Off_ADeadConnectionIsOffered(t *testing.T) {
	accident(t, cluster.Rules{OldLivesCount: true}, func(w *world) bool {
		d := newDevice("sip:lives@example.com", "lives")
		d.stream = true
		edge := w.others(d.aor)[0]
		w.mustRegister(d, edge, 3600)
		w.run(500)
		w.crash(edge)
		w.spread(0)
		w.run(200)
		w.start(edge, false)
		w.spread(0)
		w.runUntil(10_000, "settled", w.allSettled)
		w.run(500)
		return len(w.found(w.nodes[0], d.aor)) == 0
	})
}

// Both holders of a user die at once, and the next in the order know nothing.
func TestRule14Off_AFreshOwnerSaysNo(t *testing.T) {
	accident(t, cluster.Rules{SettledAtOnce: true}, func(w *world) bool {
		d := newDevice("sip:fresh@example.com", "fresh")
		owner, backup := w.holders(w.nodes[0], d.aor)
		edge := w.others(d.aor)[0]
		w.mustRegister(d, edge, 3600)
		w.run(500)
		w.crash(owner)
		w.crash(backup)
		w.spread(0)
		w.run(5)
		for _, n := range w.nodes {
			if n.up && w.found(n, d.aor)[d.id] != edge.name {
				return false
			}
		}
		return true
	})
}

// Two members lose the way to each other, and to nobody else; then a third
// restarts, so that all must report anew.
func TestRule14Off_APairWithoutAStreamNeverSettles(t *testing.T) {
	accident(t, cluster.Rules{NoRelay: true}, func(w *world) bool {
		a, c, third := w.nodes[0], w.nodes[2], w.nodes[3]
		held := func(owner, backup *simNode) bool { return owner == a && backup == c || owner == c && backup == a }
		aor, seen := w.aorWith(held), false
		nobody := w.aorWith(func(owner, backup *simNode) bool {
			again := held(owner, backup) && seen
			seen = seen || held(owner, backup)
			return again
		})
		w.sever(a, c, 0)
		w.run(100)
		w.crash(third)
		w.spread(0)
		w.run(300)
		w.start(third, false)
		w.spread(0)
		w.run(2000)
		d := newDevice(aor, "pair")
		registered := false
		w.register(d, third, 3600, func(ok bool, _ *messages.Failure) { registered = ok })
		w.run(3000)
		for _, n := range w.nodes {
			_, code := w.locate(n, nobody)
			if !n.core.Settled() || w.found(n, aor)[d.id] != third.name || code == messages.FailureCode_FAILURE_CODE_RETRY {
				return false
			}
		}
		return registered
	})
}

// All that a node knows have slept with it, and one whom none of them has met
// has taken a registration meanwhile.
func TestRule16Off_SleepersConfirmEachOthersIgnorance(t *testing.T) {
	accident(t, cluster.Rules{AnyWakes: true}, func(w *world) bool {
		// The accident wants a node that comes when the others sleep.
		late, rest := w.nodes[3], w.nodes[:3]
		w.depart(late)
		w.runUntil(5000, "settled without it", func() bool { return w.node("n1").core.Settled() })
		for _, n := range rest {
			n.blind = map[string]bool{late.name: true}
			w.sleep(n, 500)
		}
		w.start(late, true)
		d := newDevice("sip:news@example.com", "news")
		w.mustRegister(d, late, 3600)
		w.run(1200)
		for _, n := range rest {
			if n.asleep {
				w.t.Fatal("still asleep")
			}
			if _, code := w.locate(n, d.aor); code == messages.FailureCode_FAILURE_CODE_NOT_FOUND {
				return false
			}
			if n.core.Settled() {
				return false
			}
		}
		for _, n := range rest {
			n.blind = map[string]bool{}
		}
		w.spread(100)
		w.runUntil(10_000, "all settled", w.allSettled)
		w.run(500)
		return w.found(rest[0], d.aor)[d.id] == late.name
	})
}
