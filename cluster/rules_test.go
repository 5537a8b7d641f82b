package cluster_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

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
	// The owner believes the backup's acknowledgement of a copy that it never got.
	var round uint64
	for _, m := range owner.core.MemberStatus(w.now) {
		if m.Name == backup.name {
			round = m.Round
		}
	}
	decide := w.net.Decide
	w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
		if m, err := env.Open(); err == nil && to == backup.name {
			if p, ok := m.(*messages.Push); ok {
				ack := &messages.Ack{Incarnation: backup.inc, Round: round}
				for _, item := range p.Items {
					ack.Items = append(ack.Items, &messages.AckItem{Aor: item.Aor, Hash: item.Hash, Edge: item.Edge, Holder: true})
				}
				forged, _ := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, ack)
				w.after(1, func() { w.node(from).core.Receive(w.now, backup.name, forged) })
				return cluster.Fate{}
			}
		}
		return decide(from, to, env)
	}
	w.mustRegister(d, owner, 3600)
	w.run(1000)
	w.net.Decide = decide
	if backup.core.Record(d.aor) != nil {
		t.Fatal("the copy arrived all the same")
	}
	w.runUntil(65_000, "repaired", func() bool { return backup.core.Record(d.aor) != nil })
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

func TestRule13_APositiveComesFromTheBackupWhileTheOwnerIsSilent(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:hedge@example.com", "hedge")
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.third(owner, backup)
	w.mustRegister(d, edge, 3600)
	w.run(500)
	w.crash(owner) // and nobody knows it yet
	for _, n := range []*simNode{edge, backup} {
		began := w.now
		targets, code := w.locate(n, d.aor)
		if len(targets) != 1 {
			t.Errorf("from %s: %v, code %v", n.name, targets, code)
		}
		if took := w.now - began; took > 150 {
			t.Errorf("from %s: took %d ms", n.name, took)
		}
	}
}

func TestRule13_ANegativeOfTheBackupIsNotBelieved(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	owner, backup := w.holders(w.nodes[0], "sip:nobody@example.com")
	edge := w.third(owner, backup)
	if _, code := w.locate(edge, "sip:nobody@example.com"); code != messages.FailureCode_FAILURE_CODE_NOT_FOUND {
		t.Errorf("settled owner: got %v, want not found", code)
	}
	w.crash(owner)
	if _, code := w.locate(edge, "sip:nobody@example.com"); code != messages.FailureCode_FAILURE_CODE_RETRY {
		t.Errorf("silent owner: got %v, want retry", code)
	}
}

func TestRule13_ABindingThatTheDeadOwnerHadNotCopiedIsFoundAtItsEdge(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d := newDevice("sip:uncopied@example.com", "uncopied")
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.third(owner, backup)
	decide := w.net.Decide
	w.net.Decide = func(from, to string, env *messages.Envelope) cluster.Fate {
		if to == backup.name && env.Type == "hereis.Push" {
			return cluster.Fate{}
		}
		return decide(from, to, env)
	}
	w.mustRegister(d, edge, 3600)
	w.crash(owner)
	for _, n := range w.nodes {
		if !n.up || n == edge {
			continue
		}
		began := w.now
		if got := w.found(n, d.aor); got[d.id] != edge.name || w.now-began > 300 {
			t.Errorf("from %s: %v after %d ms", n.name, got, w.now-began)
		}
	}
}

func TestRule13_ARegisterFailsOverToTheBackup(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:failover@example.com", "failover")
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.third(owner, backup)
	w.crash(owner)
	began := w.now
	w.mustRegister(d, edge, 3600)
	if took := w.now - began; took > 1000 {
		t.Errorf("took %d ms", took)
	}
	if got := w.found(edge, d.aor); got[d.id] != edge.name {
		t.Errorf("found %v", got)
	}
}

func TestRule14_AloneAndRememberingOthersIsNotSettled(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.start(w.nodes[0], false)
	w.run(100)
	if !w.nodes[0].core.Settled() {
		t.Error("alone and remembering nobody: not settled")
	}
	w.settle()
	w.crash(w.nodes[1])
	w.spread(0)
	w.run(1000)
	if w.nodes[0].core.Settled() {
		t.Error("alone and remembering another: settled")
	}
	if _, code := w.locate(w.nodes[0], "sip:nobody@example.com"); code == messages.FailureCode_FAILURE_CODE_NOT_FOUND {
		t.Error("alone and remembering another: says not found")
	}
}

func TestRule14_AHolderThatStaysOneAnswersAtOnceWhenAnotherDies(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	d := newDevice("sip:stays@example.com", "stays")
	w.mustRegister(d, w.nodes[0], 3600)
	w.run(500)
	owner, backup := w.holders(w.nodes[0], d.aor)
	w.crash(w.third(owner, backup))
	// Reports are lost: only the shortcut can answer.
	w.net.Decide = func(_, _ string, env *messages.Envelope) cluster.Fate {
		if env.Type == "hereis.Report" || env.Type == "hereis.Pull" {
			return cluster.Fate{}
		}
		return cluster.Fate{DelayMS: []int64{1}}
	}
	w.spread(0)
	w.run(100)
	began := w.now
	if got := w.found(owner, d.aor); got[d.id] == "" || w.now-began > 10 {
		t.Errorf("found %v after %d ms", got, w.now-began)
	}
}

func TestRule14_AFlappingMemberGetsNoPlacement(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	n := w.nodes[2]
	for range 2 {
		w.crash(n)
		w.spread(0)
		w.run(500)
		w.start(n, false)
		w.spread(0)
		w.run(500)
	}
	w.runUntil(10_000, "settled, itself too", w.allSettled)
	for i := range 50 {
		owner, backup := w.holders(w.nodes[i%3], fmt.Sprintf("sip:q%d@example.com", i))
		if owner == n || backup == n {
			t.Fatalf("a flapping member holds")
		}
	}
	w.run(31_000)
	w.runUntil(10_000, "settled again", w.allSettled)
	held := 0
	for i := range 50 {
		if owner, _ := w.holders(w.nodes[i%3], fmt.Sprintf("sip:q%d@example.com", i)); owner == n {
			held++
		}
	}
	if held == 0 {
		t.Error("stable for half a minute and still without placement")
	}
}

func TestRule16_WakingUpStartsANewRound(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	n := w.nodes[0]
	n.core.Woke(w.now)
	if n.core.Settled() {
		t.Error("settled at once after waking up")
	}
	w.runUntil(5000, "settled", w.allSettled)
}

func TestRule20_AReplyToAnotherQuestionIsDropped(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	aor := w.aorWith(func(owner, _ *simNode) bool { return owner != w.nodes[0] })
	var got proto.Message
	decide := w.net.Decide
	w.net.Decide = func(string, string, *messages.Envelope) cluster.Fate { return cluster.Fate{} }
	w.nodes[0].core.Ask(w.now, aor, &messages.Locate{Aor: aor}, w.now+500, func(m proto.Message, _ error) { got = m })
	forge := func(inc, id uint64, aor string) {
		env, _ := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_REPLY, &messages.Located{Final: true})
		env.Incarnation, env.Id, env.Aor = inc, id, aor
		w.nodes[0].core.Receive(w.now, "n2", env)
	}
	for id := range uint64(2000) {
		forge(w.nodes[0].inc-1, id, aor)
		forge(w.nodes[0].inc, id, "sip:bob@example.com")
	}
	w.run(1000)
	w.net.Decide = decide
	if f, ok := got.(*messages.Failure); !ok || f.Code != messages.FailureCode_FAILURE_CODE_RETRY {
		t.Errorf("got %v, want no answer", got)
	}
}

func TestRule20_AnUnknownTypeIsAnErrorReply(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.settle()
	var reply *messages.Envelope
	w.net.Attach("n2", func(_ int64, _ string, env *messages.Envelope) { reply = env })
	for _, typ := range []string{"hereis.NoSuch", ""} {
		w.nodes[0].core.Receive(w.now, "n2", &messages.Envelope{
			Kind: messages.EnvelopeKind_ENVELOPE_KIND_REQUEST, Type: typ, Payload: []byte{0xff}, Id: 7, Incarnation: 9,
		})
		w.run(50)
		m, err := reply.Open()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := m.(*messages.Failure); !ok || f.Code != messages.FailureCode_FAILURE_CODE_UNKNOWN_TYPE || reply.Id != 7 {
			t.Errorf("%q: got %v", typ, m)
		}
	}
	w.nodes[0].core.Receive(w.now, "n2", &messages.Envelope{Kind: messages.EnvelopeKind_ENVELOPE_KIND_EVENT, Type: "hereis.Push", Payload: []byte{0xff}})
	w.nodes[0].core.Receive(w.now, "n2", &messages.Envelope{})
}

func TestRule21_AGateForwardsOnceWhenItDisagrees(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:forward@example.com", "forward")
	owner, backup := w.holders(w.nodes[0], d.aor)
	edge := w.third(owner, backup)
	w.mustRegister(d, edge, 3600)
	w.run(100)
	var got *messages.Envelope
	w.net.Attach(edge.name, func(_ int64, _ string, env *messages.Envelope) {
		if env.Kind == messages.EnvelopeKind_ENVELOPE_KIND_REPLY {
			got = env
		}
	})
	env, _ := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_REQUEST, &messages.Locate{Aor: d.aor})
	env.Aor, env.Id, env.Incarnation = d.aor, 77, edge.inc
	backup.core.Receive(w.now, edge.name, env)
	w.run(50)
	if got == nil || got.Id != 77 || got.Type != "hereis.Located" {
		t.Errorf("got %v, want the owner's answer", got)
	}
	if n := backup.core.Stats().Forwards.Load(); n != 1 {
		t.Errorf("forwards: got %d, want 1", n)
	}
}

func TestRule14_QuarantineLeavesTwoHolders(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.settle()
	d := newDevice("sip:alone@example.com", "alone")
	w.mustRegister(d, w.nodes[0], 3600)
	for range 2 {
		for _, n := range w.nodes[1:] {
			w.crash(n)
			w.spread(0)
			w.run(300)
			w.start(n, false)
			w.spread(0)
			w.run(300)
		}
	}
	w.runUntil(10_000, "settled", w.allSettled)
	if owner, backup := w.holders(w.nodes[0], d.aor); owner == nil || backup == nil {
		t.Errorf("holders are %v and %v", owner, backup)
	}
	w.crash(w.nodes[0])
	w.run(300)
	w.start(w.nodes[0], true)
	w.spread(0)
	w.runUntil(10_000, "settled after a lost disk", w.allSettled)
	w.run(500)
	w.mustFind(d.aor, d.id, "n1")
}
