package cluster_test

import (
	"fmt"
	"slices"
	"testing"

	"hereis/cluster"
	"hereis/messages"
)

// cut takes a node away from the others, as the others' and its own
// membership see it after within ms.
func (w *world) cut(n *simNode) {
	n.side = 1
	w.spread(0)
	w.run(20)
}

// contacts are the Call-IDs found, with their edges.
func (w *world) found(n *simNode, aor string) map[string]string {
	w.t.Helper()
	got := map[string]string{}
	targets, _ := w.locate(n, aor)
	for _, t := range targets {
		got[t.CallId] = t.Edge
	}
	return got
}

func (w *world) mustFind(aor, id, edge string) {
	w.t.Helper()
	for _, n := range w.nodes {
		if !n.up {
			continue
		}
		if got := w.found(n, aor); got[id] != edge {
			w.t.Errorf("%s from %s: %s is at %q, want %q", aor, n.name, id, got[id], edge)
		}
	}
}

// third is a node that is neither.
func (w *world) third(a, b *simNode) *simNode {
	for _, n := range w.nodes {
		if n != a && n != b {
			return n
		}
	}
	return nil
}

// count makes an observer of what is sent from now on.
func (w *world) count() func() map[string]int {
	before := w.net.Sent()
	return func() map[string]int {
		diff := map[string]int{}
		for k, v := range w.net.Sent() {
			if v != before[k] {
				diff[k] = v - before[k]
			}
		}
		return diff
	}
}

func TestRule1_ALateRequestIsDroppedUnexecuted(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	aor := "sip:late@example.com"
	owner, backup := w.holders(w.nodes[0], aor)
	edge := w.third(owner, backup)
	r := &messages.Register{Aor: aor, CallId: "late", Cseq: 1, Edge: edge.name, Stamp: edge.core.NewStamp(w.now),
		Contacts: []*messages.RegisterContact{{Uri: "sip:late@192.0.2.1", ExpiresS: 600, HasExpires: true}}}
	env, err := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_REQUEST, r)
	if err != nil {
		t.Fatal(err)
	}
	env.Aor, env.Id, env.Incarnation, env.DeadlineMs = aor, 1, edge.inc, w.now-1
	owner.core.Receive(w.now, edge.name, env)
	w.run(50)
	if got := owner.core.Record(aor); got != nil {
		t.Errorf("executed: %v", got)
	}
	if got := owner.core.Stats().TooLate.Load(); got != 1 {
		t.Errorf("too late: got %d, want 1", got)
	}
}

func TestRule1_AnEdgeWithAClockBehindRetriesOnceAndWins(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:behind@example.com", "behind")
	w.mustRegister(d, w.nodes[0], 600)
	w.nodes[1].skew = -1500
	w.run(500)
	w.mustRegister(d, w.nodes[1], 600)
	w.run(500)
	w.mustFind(d.aor, d.id, "n2")
}

func TestRule3_ALateCloseOfTheOldFlowDoesNotTouchTheNewBinding(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:mover@example.com", "mover")
	d.stream = true
	w.mustRegister(d, w.nodes[0], 3600)
	old := d.flow
	w.mustRegister(d, w.nodes[1], 3600)
	w.nodes[0].flows.open[old.Counter] = false
	w.nodes[0].core.EndFlow(w.now, old)
	w.run(500)
	w.mustFind(d.aor, d.id, "n2")
	w.nodes[1].flows.open[d.flow.Counter] = false
	w.nodes[1].core.EndFlow(w.now, d.flow)
	w.run(500)
	for _, n := range w.nodes {
		if got := w.found(n, d.aor); len(got) != 0 {
			t.Errorf("from %s after its flow ended: %v", n.name, got)
		}
	}
}

func TestRule3_AnEdgeAnswersEndedForAFlowThatIsNotOpen(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:closed@example.com", "closed")
	d.stream = true
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.third(owner, backup)
	// The connection closes while the REGISTER is on its way to the owner.
	ok := make(chan bool, 1)
	w.register(d, edge, 3600, func(b bool, _ *messages.Failure) { ok <- b })
	edge.flows.open = map[uint64]bool{}
	edge.core.EndFlow(w.now, &messages.FlowID{Incarnation: edge.inc, Counter: edge.counter, Stream: true})
	w.run(1000)
	for _, n := range w.nodes {
		if got := w.found(n, d.aor); len(got) != 0 {
			t.Errorf("from %s: %v", n.name, got)
		}
	}
	for _, n := range []*simNode{owner, backup} {
		if !n.core.Record(d.aor).HasEnded(edge.name, d.flowOf(edge)) {
			t.Errorf("%s does not know that the flow has ended", n.name)
		}
	}
}

func (d *device) flowOf(n *simNode) *messages.FlowID {
	return &messages.FlowID{Incarnation: n.inc, Counter: n.counter, Stream: true}
}

func TestRule5_ARefreshCostsARequestAReplyACopyAndRidingAcknowledgements(t *testing.T) {
	w := newWorld(t, 1, 8)
	w.settle()
	d := newDevice("sip:cost@example.com", "cost")
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.third(owner, backup)
	w.mustRegister(d, edge, 3600)
	w.run(3000)
	sent := w.count()
	w.mustRegister(d, edge, 3600)
	w.run(3000)
	got := sent()
	// The backup acknowledges to the owner and to the edge, the edge to the owner: all three ride.
	want := map[string]int{"hereis.Register": 1, "hereis.Registered": 1, "hereis.Push": 1, "hereis.Ack": 3}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("messages of one refresh: got %v, want %v", got, want)
	}
	sent = w.count()
	w.locate(edge, d.aor)
	w.run(1000)
	got, want = sent(), map[string]int{"hereis.Locate": 1, "hereis.Located": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("messages of one lookup: got %v, want %v", got, want)
	}
}

func TestRule5_AnOwnerThatIsTheEdgeWaitsForTheBackupAndThenSaysSo(t *testing.T) {
	for _, cut := range []bool{false, true} {
		w := newWorld(t, 1, 3)
		w.settle()
		d := newDevice("sip:own@example.com", "own")
		owner, backup := w.holders(w.nodes[0], d.aor)
		if cut {
			backup.side = 1 // and nobody knows it yet
		}
		r := &messages.Register{Aor: d.aor, CallId: d.id, Cseq: 1, Edge: owner.name, Stamp: owner.core.NewStamp(w.now),
			Incarnation: owner.inc, Contacts: []*messages.RegisterContact{{Uri: "sip:own@192.0.2.1", ExpiresS: 600, HasExpires: true}}}
		began := w.now
		reg, ok := w.ask(owner, d.aor, r).(*messages.Registered)
		if !ok {
			t.Fatalf("cut %v: no 200", cut)
		}
		if reg.Copied == cut {
			t.Errorf("cut %v: copied is %v", cut, reg.Copied)
		}
		if took := w.now - began; took > 300 || cut && took < 200 {
			t.Errorf("cut %v: took %d ms", cut, took)
		}
		if got, want := owner.core.Stats().Undercopied.Load() == 1, cut; got != want {
			t.Errorf("cut %v: counted %v", cut, got)
		}
	}
}

func TestRule5_AFormerEdgeDropsItsLeaseBeforeTheMoveIsAnswered(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d := newDevice("sip:moves@example.com", "moves")
	owner, backup := w.holders(w.nodes[0], d.aor)
	a := w.third(owner, backup)
	var b *simNode
	for _, n := range w.nodes {
		if n != owner && n != backup && n != a {
			b = n
		}
	}
	w.mustRegister(d, a, 3600)
	w.run(1000)
	w.mustRegister(d, b, 3600)
	if got := a.core.Record(d.aor); got != nil {
		t.Errorf("%s keeps %v", a.name, got)
	}
	w.run(100)
	if len(a.disk.recs) != 0 {
		t.Errorf("%s stores %v", a.name, a.disk.recs)
	}
	if len(a.flows.superseded) != 1 {
		t.Errorf("%s: front end was told %d times, want once", a.name, len(a.flows.superseded))
	}
}

func TestRule10_EverythingLostButOneEdgesDiskComesBack(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:back@example.com", "back")
	w.mustRegister(d, w.nodes[0], 3600)
	w.run(500)
	for _, n := range w.nodes {
		w.crash(n)
	}
	w.run(1000)
	for _, n := range w.nodes {
		w.start(n, n != w.nodes[0])
	}
	w.spread(300)
	w.runUntil(10_000, "settled", w.allSettled)
	w.mustFind(d.aor, d.id, "n1")
}

func TestRule10_DigestsFindWhatSlippedThrough(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:slip@example.com", "slip")
	owner, backup := w.holders(w.nodes[0], d.aor)
	slip := w.slipThrough(backup, func(string) bool { return true })
	w.mustRegister(d, owner, 3600)
	w.run(1000)
	slip()
	if backup.core.Record(d.aor) != nil {
		t.Fatal("the copy arrived all the same")
	}
	w.runUntil(65_000, "repaired", func() bool { return backup.core.Record(d.aor) != nil })
}

// With many users a few that differ are in many buckets, and yet only these
// are offered, and few others.
func TestRule10_DigestsOfManyUsersOfferWhatDiffers(t *testing.T) {
	const users, lost = 16_000, 1000
	w := newWorld(t, 1, 2)
	w.settle()
	missing := make(map[string]bool)
	end := w.slipThrough(w.nodes[1], func(aor string) bool { return missing[aor] })
	for i := range users {
		d := newDevice(fmt.Sprintf("sip:m%d@example.com", i), "m")
		if owner, _ := w.holders(w.nodes[0], d.aor); owner == w.nodes[0] && len(missing) < lost {
			missing[d.aor] = true
		}
		w.register(d, w.nodes[0], 3600, func(bool, *messages.Failure) {})
		if i%100 == 0 {
			w.run(10)
		}
	}
	w.run(1000)
	end()
	offered := func() (n int64) {
		for _, m := range w.nodes {
			n += m.core.Stats().Offers.Load()
		}
		return n
	}
	before, gone := offered(), 0
	for aor := range missing {
		if w.nodes[1].core.Record(aor) == nil {
			gone++
		}
	}
	if gone < lost/2 {
		t.Fatalf("%d of %d copies have not arrived, want most", gone, lost)
	}
	w.runUntil(65_000, "repaired", func() bool {
		for aor := range missing {
			if w.nodes[1].core.Record(aor) == nil {
				return false
			}
		}
		return true
	})
	if got := offered() - before; got > 6*lost {
		t.Errorf("%d records were offered for %d that differed, of %d", got, gone, users)
	}
}

// slipThrough loses what is pushed of some AoRs to a node, and makes the pusher
// believe in its acknowledgement.
func (w *world) slipThrough(to *simNode, which func(aor string) bool) (end func()) {
	decide := w.net.Decide
	w.net.Decide = func(from, name string, env *messages.Envelope) cluster.Fate {
		m, err := env.Open()
		p, ok := m.(*messages.Push)
		if err != nil || !ok || name != to.name || !slices.ContainsFunc(p.Items, func(i *messages.PushItem) bool { return which(i.Aor) }) {
			return decide(from, name, env)
		}
		ack := &messages.Ack{Incarnation: to.inc, Batch: p.Batch}
		for _, m := range w.node(from).core.MemberStatus(w.now) {
			if m.Name == to.name {
				ack.Round = m.Round
			}
		}
		for _, item := range p.Items {
			ack.Items = append(ack.Items, &messages.AckItem{Aor: item.Aor, Hash: item.Hash, Edge: item.Edge, Holder: true})
		}
		forged, _ := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, ack)
		w.after(1, func() { w.node(from).core.Receive(w.now, to.name, forged) })
		return cluster.Fate{}
	}
	return func() { w.net.Decide = decide }
}

func TestRule11_AFreshOwnerAsksBeforeItAnswers(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	var devices []*device
	for i := range 20 {
		d := newDevice(fmt.Sprintf("sip:f%d@example.com", i), fmt.Sprintf("f%d", i))
		w.mustRegister(d, w.nodes[i%3], 3600)
		devices = append(devices, d)
	}
	w.run(500)
	n := &simNode{name: "n4", disk: &disk{recs: map[string]*messages.Record{}}}
	w.nodes = append(w.nodes, n)
	w.start(n, false)
	w.spread(0)
	w.run(5)
	for _, d := range devices {
		if got := w.found(n, d.aor); got[d.id] != d.edge.name {
			t.Errorf("%s from the new node: %v, want %s", d.aor, got, d.edge.name)
		}
	}
	for _, n := range w.nodes {
		if got := n.core.Stats().Broadcasts.Load(); got != 0 {
			t.Errorf("%s: %d broadcasts, want none: the other holders know", n.name, got)
		}
	}
}

func TestRule12_StreamsEndWithTheirProcessAndUDPIsVouchedForAgain(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w := newWorld(t, 1, 3)
		w.settle()
		udp, tcp := newDevice("sip:two@example.com", "udp"), newDevice("sip:two@example.com", "tcp")
		tcp.stream = true
		owner, backup := w.holders(w.nodes[0], udp.aor)
		edge := w.third(owner, backup)
		w.mustRegister(udp, edge, 3600)
		w.mustRegister(tcp, edge, 3600)
		w.run(500)
		w.crash(edge)
		w.spread(0)
		w.run(200)
		w.start(edge, lost)
		w.spread(0)
		w.runUntil(10_000, "settled", w.allSettled)
		w.run(500)
		for _, n := range w.nodes {
			if got := w.found(n, udp.aor); got["udp"] != edge.name || got["tcp"] != "" {
				t.Errorf("lost %v, from %s: %v, want udp alone", lost, n.name, got)
			}
		}
		for _, l := range edge.core.Record(udp.aor).GetLeases() {
			if l.CallId == "udp" && l.Vouch != edge.inc {
				t.Errorf("lost %v: vouch %d, want %d", lost, l.Vouch, edge.inc)
			}
		}
		if len(edge.disk.recs) != 1 {
			t.Errorf("lost %v: %d records on disk, want 1", lost, len(edge.disk.recs))
		}
	}
}
