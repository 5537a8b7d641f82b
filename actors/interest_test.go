package actors

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// watch puts a node's interest in events to a replica; none: it has no more.
func (p *replica) watch(edge string, untilMS int64, events ...string) *messages.Subscribed {
	i := &messages.Interest{}
	for _, e := range events {
		i.Events = append(i.Events, &messages.EventInterest{Event: e})
	}
	p.counter++
	a := p.ask(&messages.Subscribe{
		Aor: testAoR, Edge: edge, Incarnation: 1, Interest: i, UntilMs: untilMS,
		Stamp: &messages.Stamp{Ms: p.now, Counter: p.counter, Incarnation: edgeIncarnation(edge)},
	})
	return a.Reply.(*messages.Subscribed)
}

// told is what Tell says of the step that f is.
func (p *replica) told(f func()) (*messages.StateChanged, []string) {
	before := p.rec
	f()
	msg, nodes := p.user.Tell(before, p.rec, p.now)
	slices.Sort(nodes)
	return msg, nodes
}

func TestOneLeaseForEachNodeThatWatches(t *testing.T) {
	p := newReplica(DefaultLimits())
	until := p.now + 3_600_000
	for range 1000 {
		p.watch("A", until, "presence")
		p.watch("B", until, "presence", "reg")
	}
	if n := len(p.rec.Leases); n != 2 {
		t.Errorf("%d leases for two nodes", n)
	}
	p.now++
	if w := p.watch("A", until, "presence").Writes; w != nil {
		t.Errorf("a renewal that renews nothing writes %v", w)
	}
	p.watch("A", 0)
	_, nodes := p.told(func() { p.register("C", "c", 1, "sip:alice@192.0.2.1") })
	if !slices.Equal(nodes, []string{"B"}) {
		t.Errorf("told: %v", nodes)
	}
}

func TestWhatNodesAreTold(t *testing.T) {
	p := newReplica(DefaultLimits())
	if msg, _ := p.told(func() { p.register("C", "c", 1, "sip:alice@192.0.2.1") }); msg != nil {
		t.Errorf("told though nobody watches: %v", msg)
	}
	p.watch("A", p.now+3_600_000, "presence")
	p.watch("B", p.now+3_600_000, "presence")
	p.now++
	msg, nodes := p.told(func() {
		publishArgs{tag: "e1", body: "open", call: "p", edge: "C", cseq: 1, expires: -1}.to(p)
	})
	if !slices.Equal(nodes, []string{"A", "B"}) || len(msg.GetDelta().GetLeases()) != 1 {
		t.Fatalf("told %v: %v", nodes, msg)
	}
	// Who knows the state before and merges the delta has the sum.
	known := p.rec.Clone()
	known.Leases = slices.DeleteFunc(known.Leases, func(l *messages.Lease) bool { return l == msg.Delta.Leases[0] })
	if Sum(known, p.now) == msg.Sum {
		t.Error("the sum does not tell the states apart")
	}
	known.Merge(proto.CloneOf(msg.Delta))
	if Sum(known, p.now) != msg.Sum {
		t.Error("the sum differs after the merge")
	}
	// That a node watches, and that it goes on watching, is for nobody but winfo watchers.
	if msg, _ := p.told(func() { p.watch("D", p.now+1000, "presence") }); msg != nil {
		t.Errorf("a watcher is told: %v", msg)
	}
	msg, nodes = p.told(func() { p.watch("A", p.now+3_600_000, "presence", "presence.winfo") })
	if len(nodes) != 3 || len(msg.GetDelta().GetLeases()) != 1 {
		t.Errorf("a winfo watcher: %v %v", nodes, msg)
	}
	p.now++
	if msg, _ := p.told(func() { p.watch("D", p.now+1_000_000, "presence") }); msg != nil {
		t.Errorf("a renewal is told: %v", msg)
	}
	if msg, _ := p.told(func() { p.watch("D", 0) }); len(msg.GetDelta().GetLeases()) != 1 {
		t.Errorf("the end of a watcher is not told: %v", msg)
	}
}

func TestClockOfAWatchingNodeThatWentBack(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.watch("A", p.now+3_600_000, "presence")
	p.now -= 10
	a := p.ask(&messages.Subscribe{
		Aor: testAoR, Edge: "A", Incarnation: 2, Interest: &messages.Interest{Events: []*messages.EventInterest{{Event: "reg"}}},
		Stamp: &messages.Stamp{Ms: p.now, Incarnation: 7}, UntilMs: p.now + 1000,
	})
	if a.Writes != nil {
		t.Errorf("an old interest replaces a new one: %v", a.Writes)
	}
	p.now += 5000
	a = p.ask(&messages.Subscribe{
		Aor: testAoR, Edge: "A", Incarnation: 2, Interest: &messages.Interest{Events: []*messages.EventInterest{{Event: "reg"}}},
		Stamp: &messages.Stamp{Ms: p.now - 5010, Incarnation: 7}, UntilMs: p.now + 1000,
	})
	if f, ok := a.Reply.(*messages.Failure); !ok || f.Code != messages.FailureCode_FAILURE_CODE_CLOCK_BEHIND {
		t.Errorf("a clock that is behind: %v", a.Reply)
	}
}

// Who may have missed something is told the sum, and nobody else anything: the
// nodes whose interest is new here, or all of them to a node that is.
func TestWhoIsReminded(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("C", "c", 1, "sip:alice@192.0.2.1")
	if msg, _ := p.user.Remind(nil, p.rec, p.now); msg != nil {
		t.Errorf("reminded though nobody watches: %v", msg)
	}
	p.watch("A", p.now+3_600_000, "presence")
	before := p.rec.Clone()
	p.watch("B", p.now+3_600_000, "presence")
	msg, nodes := p.user.Remind(before, p.rec, p.now)
	if !slices.Equal(nodes, []string{"B"}) || !slices.Equal(msg.Watching, nodes) || msg.Sum != Sum(p.rec, p.now) || !msg.Delta.Empty() {
		t.Errorf("of a new interest: %v %v", nodes, msg)
	}
	if _, nodes = p.user.Remind(nil, p.rec, p.now); len(nodes) != 2 {
		t.Errorf("by a new owner: %v", nodes)
	}
	p.watch("A", 0)
	if _, nodes = p.user.Remind(nil, p.rec, p.now); !slices.Equal(nodes, []string{"B"}) {
		t.Errorf("with a node that has no watchers any more: %v", nodes)
	}
}
