package actors

import (
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"time"

	"hereis/messages"
)

// remove asks as the client of a node would at node time ms.
func (p *replica) remove(ms int64, callID, binding string) *Answer {
	return p.ask(&messages.Remove{
		Aor: testAoR, Binding: binding, CallId: callID, Edge: "op", Incarnation: 9,
		Stamp: &messages.Stamp{Ms: ms, Incarnation: 9},
	})
}

func removedContacts(a *Answer) (contacts []string) {
	res, ok := a.Reply.(*messages.Removed)
	if !ok {
		return []string{showFailure(a)}
	}
	for _, l := range res.Removed {
		contacts = append(contacts, string(peek(l.Payload, bindingContact).contact))
	}
	slices.Sort(contacts)
	return contacts
}

func TestRemove_AllIsAFloorAndEndsEveryBinding(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "a", 1, "sip:a@192.0.2.1")
	p.register("n2", "b", 1, "sip:b@192.0.2.2|instance=urn:x|reg=1")
	p.advance(time.Second)
	a := p.remove(p.now, "operator-1", "")
	if got := removedContacts(a); !slices.Equal(got, []string{"sip:a@192.0.2.1", "sip:b@192.0.2.2"}) {
		t.Errorf("removed %v", got)
	}
	if !a.All || len(a.Tell) != 2 {
		t.Errorf("the reply waits for all: %v, tells %v; want both former edges", a.All, a.Tell)
	}
	if w := a.Reply.(*messages.Removed).Writes; w.GetFloor().GetEdge() != "op" {
		t.Errorf("the node that was asked keeps %v, want the floor", w)
	}
	if got := p.locate(); got != "NOT_FOUND" {
		t.Errorf("afterwards: %s", got)
	}
	// It is no ban.
	p.advance(time.Second)
	p.register("n1", "a", 2, "sip:a@192.0.2.1")
	if got := p.locate(); got != "sip:a@192.0.2.1" {
		t.Errorf("registered again: %s", got)
	}
}

func TestRemove_OneByKeyByHexAndByContact(t *testing.T) {
	key := outboundKey("urn:x", 1)
	for name, text := range map[string]string{
		"contact": "sip:b@EXAMPLE.net:5060;transport=udp", "equal": "sip:b@example.net:5060;transport=UDP",
		"key": string(key), "hex": "0x" + hex.EncodeToString(key),
	} {
		p := newReplica(DefaultLimits())
		p.register("n1", "a", 1, "sip:a@192.0.2.1")
		p.register("n2", "b", 1, "sip:b@example.net:5060;transport=udp|instance=urn:x|reg=1")
		p.advance(time.Second)
		a := p.remove(p.now, "operator-1", text)
		if got := removedContacts(a); !slices.Equal(got, []string{"sip:b@example.net:5060;transport=udp"}) {
			t.Errorf("%s: removed %v", name, got)
		}
		if !a.All || !slices.Equal(a.Tell, []string{"n2"}) {
			t.Errorf("%s: waits for all: %v, tells %v", name, a.All, a.Tell)
		}
		if got := p.locate(); got != "sip:a@192.0.2.1" {
			t.Errorf("%s: afterwards %s", name, got)
		}
	}
}

func TestRemove_WhatIsNotThere(t *testing.T) {
	p := newReplica(DefaultLimits())
	if got := removedContacts(p.remove(p.now, "operator-1", "")); got[0] != "NOT_FOUND" {
		t.Errorf("all of nobody: %v", got)
	}
	p.register("n1", "a", 1, "sip:a@192.0.2.1")
	p.advance(time.Second)
	if got := removedContacts(p.remove(p.now, "operator-1", "sip:b@192.0.2.1")); got[0] != "NOT_FOUND" {
		t.Errorf("another's contact: %v", got)
	}
	for _, text := range []string{"0x", "0xzz", "%%%", "sip:", "tel:+1"} {
		if got := removedContacts(p.remove(p.now, "operator-1", text)); got[0] != "NOT_FOUND" {
			t.Errorf("%q: %v", text, got)
		}
	}
	// A failed member may bring back what is not here.
	q := newReplica(DefaultLimits())
	q.failedMember = true
	if a := q.remove(q.now, "operator-1", ""); a.Writes.GetFloor() == nil {
		t.Errorf("with a failed member no floor is written: %v", a.Reply)
	}
}

func TestRule7_ARepeatedRemovalDoesNothingNew(t *testing.T) {
	for _, binding := range []string{"", "sip:a@192.0.2.1"} {
		p := newReplica(DefaultLimits())
		p.register("n1", "a", 1, "sip:a@192.0.2.1")
		p.advance(time.Second)
		p.remove(p.now, "operator-1", binding)
		at := p.now
		p.advance(time.Second)
		p.register("n1", "a", 2, "sip:a@192.0.2.1")
		a := p.remove(at, "operator-1", binding)
		if got := p.locate(); got != "sip:a@192.0.2.1" {
			t.Errorf("%q: the repeat ended a newer binding: %s", binding, got)
		}
		if binding == "" && (a.Writes != nil || a.Reply.(*messages.Removed).Writes.GetFloor() == nil) {
			t.Errorf("the repeat does not give back what is to be kept: %v", a.Reply)
		}
	}
}

func TestRule1_ARemovalOfAnEdgeWhoseClockIsBehindIsTriedAgain(t *testing.T) {
	for _, binding := range []string{"", "sip:a@192.0.2.1"} {
		p := newReplica(DefaultLimits())
		p.register("n1", "a", 1, "sip:a@192.0.2.1")
		p.advance(time.Second)
		a := p.remove(p.now-5000, "operator-1", binding)
		f, ok := a.Reply.(*messages.Failure)
		behind := ClockBehindError{}
		if !ok || !errors.As(FromFailure(f), &behind) || a.Writes != nil {
			t.Fatalf("%q: %v", binding, a.Reply)
		}
		if got := removedContacts(p.remove(behind.StampMS+1, "operator-1", binding)); len(got) != 1 || got[0] != "sip:a@192.0.2.1" {
			t.Errorf("%q: %v", binding, got)
		}
	}
}

func TestRemove_ADeviceThatRegistersLaterByStampStays(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "a", 1, "sip:a@192.0.2.1")
	at := p.now + 500
	p.advance(time.Second)
	p.register("n1", "a", 2, "sip:a@192.0.2.1")
	p.advance(time.Second)
	// The removal was on its way for longer than the binding is old.
	a := p.ask(&messages.Remove{
		Aor: testAoR, Binding: "sip:a@192.0.2.1", CallId: "operator-1", Edge: "op",
		Stamp: &messages.Stamp{Ms: at, Incarnation: 9}, AgeMs: p.now - at,
	})
	if got := removedContacts(a); len(got) != 0 || p.locate() != "sip:a@192.0.2.1" {
		t.Errorf("removed %v", got)
	}
}

func TestRemove_WithoutStampOrFromTheFuture(t *testing.T) {
	p := newReplica(DefaultLimits())
	p.register("n1", "a", 1, "sip:a@192.0.2.1")
	if got := showFailure(p.ask(&messages.Remove{Aor: testAoR, CallId: "x"})); got != "BAD_REQUEST" {
		t.Errorf("no stamp: %s", got)
	}
	if got := removedContacts(p.remove(p.now+60_000, "operator-1", ""))[0]; got != "CLOCK_AHEAD" {
		t.Errorf("a minute ahead: %s", got)
	}
}
