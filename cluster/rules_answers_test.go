package cluster_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/cluster"
	"hereis/messages"
)

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
