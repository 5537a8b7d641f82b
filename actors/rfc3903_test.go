package actors

import (
	"cmp"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// publishArgs is a PUBLISH for a replica; without body it has none.
type publishArgs struct {
	match, tag, body, call, edge string
	id                           string // empty: one of the tag
	cseq                         uint32
	expires                      int64 // -1: no Expires
}

// to sends it and shows what came of it.
func (a publishArgs) to(p *replica) string {
	m := &messages.Publish{
		Aor: "sip:alice@example.com", Event: "presence", IfMatch: a.match, EntityTag: a.tag, Id: cmp.Or(a.id, "id-"+a.tag),
		Body: []byte(a.body), ContentType: "application/pidf+xml", CallId: a.call, Cseq: a.cseq,
		Stamp: &messages.Stamp{Ms: p.now, Counter: a.cseq, Incarnation: edgeIncarnation(a.edge)}, Edge: a.edge, Incarnation: 1, From: "udp 192.0.2.1:5060",
	}
	if a.body == "" {
		m.ContentType = ""
	}
	if a.expires >= 0 {
		m.ExpiresS, m.HasExpires = uint32(a.expires), true
	}
	return showPublished(p.ask(m))
}

func showPublished(a *Answer) string {
	switch r := a.Reply.(type) {
	case *messages.Published:
		return fmt.Sprintf("%s %d", r.EntityTag, r.ExpiresS)
	case *messages.Failure:
		return FromFailure(r).Error()
	}
	return fmt.Sprintf("%T", a.Reply)
}

func (p *replica) publications() (list []*messages.Publication) {
	for _, l := range p.rec.Leases {
		if l.Kind == messages.LeaseKind_LEASE_KIND_PUBLICATION && p.rec.Alive(l, p.now) {
			pub := &messages.Publication{}
			if proto.Unmarshal(l.Payload, pub) != nil {
				panic("payload")
			}
			list = append(list, pub)
		}
	}
	return list
}

func TestRFC3903_4_LifeOfAPublication(t *testing.T) {
	p := newReplica(DefaultLimits())
	check(t, "initial", publishArgs{tag: "e1", body: "open", call: "c1", edge: "A", cseq: 1, expires: 600}.to(p), "e1 600")
	p.now += 1000
	check(t, "refresh", publishArgs{match: "e1", tag: "e2", call: "c1", edge: "A", cseq: 2, expires: -1}.to(p), "e2 3600")
	pubs := p.publications()
	if len(pubs) != 1 || string(pubs[0].Body) != "open" || pubs[0].ChangedMs != startMS {
		t.Errorf("after a refresh: %v", pubs)
	}
	p.now += 1000
	check(t, "modify at another node", publishArgs{match: "e2", tag: "e3", body: "closed", call: "c9", edge: "B", cseq: 7, expires: -1}.to(p), "e3 3600")
	pubs = p.publications()
	if len(pubs) != 1 || string(pubs[0].Body) != "closed" || pubs[0].ChangedMs != startMS+2000 {
		t.Errorf("after a modification: %v", pubs)
	}
	check(t, "remove", publishArgs{match: "e3", tag: "e4", call: "c9", edge: "B", cseq: 8, expires: 0}.to(p), "e4 0")
	if n := len(p.publications()); n != 0 {
		t.Errorf("after a removal: %d", n)
	}
	check(t, "refresh what is removed", publishArgs{match: "e4", tag: "e5", call: "c9", edge: "B", cseq: 9, expires: -1}.to(p), "no such entity-tag")
}

func TestRFC3903_6_3_UnknownEntityTagIs412(t *testing.T) {
	p := newReplica(DefaultLimits())
	check(t, "no publication", publishArgs{match: "e0", tag: "e1", body: "x", call: "c1", edge: "A", cseq: 1, expires: -1}.to(p), "no such entity-tag")
	publishArgs{tag: "e1", body: "open", call: "c1", edge: "A", cseq: 2, expires: 60}.to(p)
	publishArgs{match: "e1", tag: "e2", body: "busy", call: "c1", edge: "A", cseq: 3, expires: 60}.to(p)
	check(t, "entity-tag before", publishArgs{match: "e1", tag: "e3", body: "x", call: "c2", edge: "A", cseq: 3, expires: -1}.to(p), "no such entity-tag")
	p.now += 61_000
	check(t, "expired", publishArgs{match: "e2", tag: "e4", call: "c1", edge: "A", cseq: 4, expires: -1}.to(p), "no such entity-tag")
}

func TestRFC3903_6_4_Intervals(t *testing.T) {
	p := newReplica(DefaultLimits())
	check(t, "too brief", publishArgs{tag: "e1", body: "x", call: "c1", edge: "A", cseq: 1, expires: 59}.to(p), "interval too brief: minimum 1m0s")
	check(t, "too long", publishArgs{tag: "e2", body: "x", call: "c1", edge: "A", cseq: 2, expires: 1 << 31}.to(p), "e2 7200")
	check(t, "nothing asked", publishArgs{tag: "e3", body: "x", call: "c1", edge: "A", cseq: 3, expires: -1}.to(p), "e3 3600")
}

func TestRFC3903_6_InitialNeedsABodyAndALife(t *testing.T) {
	p := newReplica(DefaultLimits())
	for _, a := range []publishArgs{
		{tag: "e1", call: "c1", edge: "A", cseq: 1, expires: -1},
		{tag: "e1", body: "x", call: "c1", edge: "A", cseq: 1, expires: 0},
	} {
		check(t, "initial", a.to(p), "bad request: initial publication without body or life")
	}
}

func TestRFC3903_RepeatGetsTheSameEntityTag(t *testing.T) {
	p := newReplica(DefaultLimits())
	publishArgs{tag: "e1", body: "x", call: "c1", edge: "A", cseq: 1, expires: -1}.to(p)
	check(t, "initial", publishArgs{tag: "e9", body: "x", call: "c1", edge: "B", cseq: 1, expires: -1}.to(p), "e1 3600")
	publishArgs{match: "e1", tag: "e2", body: "y", call: "c1", edge: "A", cseq: 2, expires: -1}.to(p)
	check(t, "modification", publishArgs{match: "e1", tag: "e8", body: "y", call: "c1", edge: "A", cseq: 2, expires: -1}.to(p), "e2 3600")
	publishArgs{match: "e2", tag: "e3", call: "c1", edge: "A", cseq: 3, expires: 0}.to(p)
	check(t, "removal", publishArgs{match: "e2", tag: "e7", call: "c1", edge: "A", cseq: 3, expires: 0}.to(p), "e3 0")
}

// The first answer was lost with its edge, which has not stored the publication:
// the edge of the repeat must, before it says 200.
func TestRule5_ARepeatedPublishIsKeptByTheEdgeThatAnswersIt(t *testing.T) {
	p := newReplica(DefaultLimits())
	publishArgs{tag: "e1", body: "x", call: "c1", edge: "A", cseq: 1, expires: -1}.to(p)
	p.now += 1000
	check(t, "repeat", publishArgs{tag: "e9", body: "x", call: "c1", edge: "B", cseq: 1, expires: -1}.to(p), "e1 3599")
	if l := p.rec.Leases[0]; len(p.rec.Leases) != 1 || l.Edge != "B" || l.Stamp.Ms != p.now {
		t.Errorf("got %v, want one lease, of B", p.rec.Leases)
	}
}

// Two sides of a cut take a request and its repeat for the first: it is one publication.
func TestRule23_ARepeatOnTheOtherSideOfACutIsTheSamePublication(t *testing.T) {
	if a, b := PublicationID("c1", 1), PublicationID("c1", 1); a != b || a == PublicationID("c1", 2) || a == PublicationID("c2", 1) {
		t.Error("the id is not the request's own")
	}
	here, there := newReplica(DefaultLimits()), newReplica(DefaultLimits())
	first := publishArgs{id: PublicationID("c1", 1), tag: "e1", body: "x", call: "c1", edge: "A", cseq: 1, expires: -1}
	first.to(here)
	first.tag, first.edge, there.now = "e2", "B", there.now+3000
	first.to(there)
	here.now = there.now
	here.copyFrom(there)
	if list := here.publications(); len(list) != 1 || list[0].EntityTag != "e2" {
		t.Errorf("got %v, want the later of the two", list)
	}
}

func TestPublicationsAreLimitedAndLeaveBindingsAlone(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxPublications, limits.MaxBindings = 2, 1
	p := newReplica(limits)
	for i, want := range []string{"t0 3600", "t1 3600", "too many publications"} {
		got := publishArgs{tag: fmt.Sprint("t", i), body: "x", call: fmt.Sprint("c", i), edge: "A", cseq: 1, expires: -1}.to(p)
		check(t, "publication", got, want)
	}
	check(t, "REGISTER beside publications", show(p.register("A", "r", 1, "sip:alice@192.0.2.1")), "sip:alice@192.0.2.1;3600@A")
	if n := len(p.publications()); n != 2 {
		t.Errorf("%d publications after a REGISTER", n)
	}
	p.now++
	check(t, "Contact: *", show(p.ask(expires(request(p.now, "A", "r", 2, "*"), 0))), "")
	if n := len(p.publications()); n != 2 {
		t.Errorf("%d publications after Contact: *", n)
	}
}
