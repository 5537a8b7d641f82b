package cluster_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// An answer in part: a stand-in's copy may lack a binding that others have, and
// devices that have gone may be all that is in it. Rule 13.

// seeker is somebody who looks for a user and takes what there is, in parts.
type seeker struct {
	// parts are the devices of each part, last those of the whole answer.
	parts  [][]string
	last   []string
	code   messages.FailureCode
	done   bool
	forget func()
}

func (w *world) seek(n *simNode, aor string) *seeker {
	k := &seeker{}
	ids := func(reply proto.Message) (ids []string) {
		r, ok := reply.(*messages.Located)
		if !ok {
			w.t.Fatalf("answer %T", reply)
		}
		for _, t := range r.Targets {
			ids = append(ids, t.CallId)
		}
		slices.Sort(ids)
		return ids
	}
	n.core.Lookup(w.now, aor, &messages.Locate{Aor: aor}, 0, func(reply proto.Message, forget func()) {
		k.parts, k.forget = append(k.parts, ids(reply)), forget
	}, func(reply proto.Message, err error) {
		k.done = true
		if f, ok := reply.(*messages.Failure); ok {
			k.code = f.Code
			return
		}
		if err != nil {
			w.t.Errorf("%v", err)
			return
		}
		k.last = ids(reply)
	})
	return k
}

func (k *seeker) found(ids ...string) func() bool {
	return func() bool {
		return slices.ContainsFunc(append(k.parts, k.last), func(part []string) bool { return slices.Equal(part, ids) })
	}
}

// incomplete is a user of whose two devices the backup knows one alone, with the
// edge of both; nothing that is pushed reaches the backup until end.
func incomplete(t *testing.T) (w *world, aor string, owner, backup, edge *simNode, end func()) {
	w = newWorld(t, 1, 4)
	w.settle()
	aor = "sip:two@example.com"
	owner, backup = w.holders(w.nodes[0], aor)
	edge = w.third(owner, backup)
	w.mustRegister(newDevice(aor, "gone"), edge, 3600)
	w.run(1000)
	end = w.filter(func(_, to string, env *messages.Envelope) bool { return to != backup.name || env.Type != "hereis.Push" })
	w.mustRegister(newDevice(aor, "live"), edge, 3600)
	if n := len(backup.core.Record(aor).GetLeases()); n != 1 {
		t.Fatalf("the backup has %d", n)
	}
	return w, aor, owner, backup, edge, end
}

func TestRule13_TheOwnersWordFollowsThatOfItsStandIn(t *testing.T) {
	w, aor, owner, backup, edge, _ := incomplete(t)
	for _, asker := range []*simNode{edge, backup, w.others(aor)[1]} {
		slow := w.filter(func(from, _ string, env *messages.Envelope) bool {
			return from != owner.name || env.Kind != messages.EnvelopeKind_ENVELOPE_KIND_REPLY
		})
		k := w.seek(asker, aor)
		w.runUntil(200, "the stand-in has answered", k.found("gone"))
		if k.done {
			t.Errorf("from %s: done with %v", asker.name, k.last)
		}
		slow()
		w.runUntil(500, "the owner has answered", k.found("gone", "live"))
		if !k.done || k.code != 0 {
			t.Errorf("from %s: done %v, %v", asker.name, k.done, k.code)
		}
	}
}

// The owner is dead, and nobody knows it yet; its backup has asked all when the
// devices that it knew have not answered after a while.
func TestRule13_WhatADeadOwnerHadNotCopiedFollows(t *testing.T) {
	for _, atBackup := range []bool{false, true} {
		w, aor, owner, backup, edge, _ := incomplete(t)
		w.crash(owner)
		asker := w.nodes[slices.IndexFunc(w.nodes, func(n *simNode) bool { return n.up && n != backup && n != edge })]
		if atBackup {
			asker = backup
		}
		k := w.seek(asker, aor)
		w.runUntil(200, "the stand-in has answered", k.found("gone"))
		w.runUntil(1500, "the edges have been asked", k.found("gone", "live"))
		if k.done {
			t.Errorf("from %s: done, with a dead owner", asker.name)
		}
	}
}

// An owner that has just taken over does not know all while a member is silent: it
// is asked again, until it does.
func TestRule11_WhatANewOwnerLacksFollows(t *testing.T) {
	w, aor, owner, backup, edge, end := incomplete(t)
	end()
	silent := w.filter(func(from, _ string, _ *messages.Envelope) bool { return from != edge.name })
	w.crash(owner)
	w.spread(0)
	w.run(50)
	k := w.seek(backup, aor)
	w.runUntil(1000, "the new owner has answered", k.found("gone"))
	if k.done {
		t.Errorf("done, though %s is silent", edge.name)
	}
	silent()
	w.runUntil(1000, "it knows all", k.found("gone", "live"))
}

// Who has tried all that a stand-in named, without success, asks in full.
func TestRule13_ALookupInFullIsAnsweredByAStandInThatHasAskedAll(t *testing.T) {
	w, aor, owner, backup, _, _ := incomplete(t)
	w.crash(owner)
	if targets, _ := w.locate(backup, aor); len(targets) != 1 {
		t.Errorf("at first: %v", targets)
	}
	reply := w.ask(backup, aor, &messages.Locate{Aor: aor, Full: true})
	if r, ok := reply.(*messages.Located); !ok || len(r.Targets) != 2 {
		t.Errorf("in full: %v", reply)
	}
}

// Who needs the owner's word no more is not told it, and nobody is asked again.
func TestRule13_AnAnswerInPartMayDo(t *testing.T) {
	w, aor, owner, _, edge, _ := incomplete(t)
	w.crash(owner)
	k := w.seek(edge, aor)
	w.runUntil(200, "the stand-in has answered", k.found("gone"))
	k.forget()
	k.forget()
	sent := w.count()
	w.run(5000)
	if n := sent()["hereis.Locate"]; n != 0 || k.done {
		t.Errorf("%d questions after it, done %v", n, k.done)
	}
	for _, m := range edge.core.MemberStatus(w.now) {
		if m.InFlight != 0 {
			t.Errorf("%d answers of %s are waited for", m.InFlight, m.Name)
		}
	}
}
