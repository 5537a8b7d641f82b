package cluster

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// origin says where a change of a record comes from, and so who need not be told.
type origin struct {
	// from is the member that has it already, empty for this node itself.
	from string
	// gate: this node has executed a request of from, whose answer brings from its part.
	gate bool
	// reply: it is what a holder answered to this edge; the holders tell each other.
	reply bool
	// bulk: it came with a bulk message: others have it too, most likely.
	bulk bool
	// keeps: the caller stores this edge's part itself.
	keeps bool
	// urgent: somebody waits for the copies.
	urgent bool
	// tell names edges that must drop what they hold.
	tell []string
}

// apply merges in into the record of an AoR and does all that follows: it
// stores this edge's part, tells the other holder and former edges, and files
// the record's expiry. s is locked. It returns the entry, nil if there is
// none, and whether anything has changed.
func (c *Core) apply(now int64, v *view, s *shard, aor string, in *messages.Record, o origin, after *effects) (*entry, bool) {
	e := s.entry(aor)
	var before *messages.Record
	if e != nil {
		before = e.rec
		aor = e.aor // the other may be a part of a whole message
	} else {
		before = &messages.Record{Aor: aor}
	}
	owner, backup := v.place(aor)
	holder := owner == v.self || backup == v.self
	all := holder || (e != nil && e.x != nil && e.x.former)
	next := before.Clone()
	next.Aor = aor
	in = c.admit(now, before, in, c.mayForget(v), all)
	next.Merge(in)
	if owner == v.self && !o.gate {
		o.tell = append(o.tell, c.writeLosersAgain(now, before, in, next)...)
	}
	dropUnderFloor(next)
	mended := c.vouch(now, before, next) || len(o.tell) > 0
	won := next
	if !all {
		next = part(next, c.cfg.Name)
	}
	hash := hashPart(next, "")
	if (e == nil && next.Empty()) || (e != nil && hash == e.hash) {
		return e, false
	}
	if e == nil {
		e = s.add(aor, before)
		next.Aor = e.aor
	}
	c.hlc.observe(in, now)
	if c.debug {
		c.logChange(aor, in, o)
	}
	c.replace(s, e, next, hash)
	lost := c.superseded(now, before, won, after)
	if lost || !o.keeps {
		c.store(e, before)
	}
	c.fileDue(now, s, e)
	for _, name := range c.formerEdges(now, before, won, o.from) {
		if owner == v.self || o.gate {
			o.tell = append(o.tell, name)
		}
	}
	if mended && !o.gate {
		o.from = ""
	}
	if all || mended || gained(before, next) {
		c.spread(now, v, s, e, in, o, owner, backup)
	}
	if owner == v.self || (o.gate && holder) {
		c.changed(now, v, s, before, next, after)
		c.tell(v, now, before, next, o, after)
	}
	if next.Empty() && e.x == nil {
		s.remove(e)
	}
	return e, true
}

// againStep is added to the counter of the stamp that a loser is written again
// above: more than the stamps that a clock makes in a millisecond.
const againStep = 1 << 20

// writeLosersAgain gives the last word of a UA that lost by its stamp, because
// two sides of a cut took its requests by clocks that did not agree, a stamp
// just above the winner's (rule 2): no later than that, or it would come back
// above a removal of all that came after both; what such a removal has ended
// already is not written again. next is not shared yet. It names
// the edges of both.
func (c *Core) writeLosersAgain(now int64, before, in, next *messages.Record) (tell []string) {
	for _, l := range in.Leases {
		have := before.Lease(l.Key)
		if have == nil || have.CallId != l.CallId || have.Cseq == l.Cseq {
			continue
		}
		later, earlier := l, have
		if have.Cseq > l.Cseq {
			later, earlier = have, l
		}
		i := slices.Index(next.Leases, earlier)
		if i < 0 || leaseOver(later, now) || underFloor(next, later) {
			continue
		}
		c.hlc.observe(in, now)
		again := proto.CloneOf(later)
		again.Stamp = &messages.Stamp{
			Ms: earlier.Stamp.GetMs(), Counter: earlier.Stamp.GetCounter() + againStep, Incarnation: c.cfg.Incarnation,
		}
		if again.Stamp.Compare(earlier.Stamp) > 0 {
			next.Leases[i] = again
			tell = append(tell, later.Edge, earlier.Edge)
		}
	}
	return tell
}

// gained tells whether next has anything that before had not.
func gained(before, next *messages.Record) bool {
	return next.Floor != nil && next.Floor != before.Floor ||
		len(next.Ended) > len(before.Ended) ||
		slices.ContainsFunc(next.Leases, func(l *messages.Lease) bool { return !slices.Contains(before.Leases, l) })
}

// mayForget is rule 4's condition for forgetting early, the acknowledgements apart.
func (c *Core) mayForget(v *view) early {
	return early{ok: c.settled.Load() && len(v.failed) == 0 && !c.unstored.nearby.Load(), goneMS: c.goneMS.Load()}
}

// formerEdges are the edges whose lease or tombstone has been superseded by
// another edge's word, so that they must drop it (rule 5).
func (c *Core) formerEdges(now int64, before, won *messages.Record, except string) (names []string) {
	for _, l := range before.Leases {
		if l.Edge == c.cfg.Name || l.Edge == except || leaseOver(l, now) {
			continue
		}
		if w := won.Lease(l.Key); w == nil || w.Edge != l.Edge {
			names = append(names, l.Edge)
		}
	}
	return names
}

// spread makes targets of all who must learn of a change (rule 10).
func (c *Core) spread(now int64, v *view, s *shard, e *entry, in *messages.Record, o origin, owner, backup int) {
	for _, i := range [...]int{owner, backup} {
		if i == none || i == v.self || v.nodes[i].Name == o.from && !o.gate {
			continue
		}
		t := target{peer: v.nodes[i].peer}
		switch {
		case o.reply:
			// The holders copy to each other, and the second one acknowledges
			// to this edge as well: only if that does not come is it asked.
			t.light, t.nextMS = true, now+replyGraceMS
		case o.bulk:
			t.light = true
		}
		c.addTarget(now, s, e, t, o)
	}
	if o.gate {
		if i := v.index(o.from); i != none && i != v.self && i != owner && i != backup {
			// The answer brings its part, if it arrives.
			c.addTarget(now, s, e, target{peer: v.nodes[i].peer, light: true, nextMS: now + edgeGraceMS}, o)
		}
		for _, l := range in.Leases {
			// The loser that is written again belongs to its own edge (rule 2).
			if l.Edge != o.from {
				o.tell = append(o.tell, l.Edge)
			}
		}
	}
	for _, name := range o.tell {
		if p := v.peer(name); p != nil {
			c.addTarget(now, s, e, target{peer: p, tell: true}, o)
		}
	}
	if !o.gate && !o.reply && owner == v.self {
		c.askToVouch(now, v, s, e, in, o)
	}
}

// askToVouch offers leases that have come from others to edges that have
// restarted since they vouched: they may have lost them with their disk (rule 12).
func (c *Core) askToVouch(now int64, v *view, s *shard, e *entry, in *messages.Record, o origin) {
	for _, l := range in.Leases {
		if p := v.peer(l.Edge); p != nil && l.Edge != o.from && l.Vouch < p.incarnation && e.rec.Alive(l, now) &&
			slices.Contains(e.rec.Leases, l) {
			c.addTarget(now, s, e, target{peer: p, light: true}, o)
		}
	}
}

// changed tells followers of a change that can be seen. s is locked.
func (c *Core) changed(now int64, v *view, s *shard, before, next *messages.Record, after *effects) {
	if !c.parts.Grains.Changed(before, next, now) {
		return
	}
	order := c.changes.Add(1)
	if !c.watches.some.Load() {
		return // who begins to follow now lists this user after this, as it is by then
	}
	ev := &messages.UserEvent{
		Aor: next.Aor, Ms: now, Node: c.cfg.Name, Record: c.parts.Grains.Shown(next),
		Incarnation: c.cfg.Incarnation, Order: order,
		Complete: c.complete(v, next.Aor, "") || s.completed(next.Aor, v.round),
	}
	after.add(func() { c.publish(now, ev) })
}

// replace gives e another record. s is locked.
func (c *Core) replace(s *shard, e *entry, next *messages.Record, hash uint64) {
	c.uncount(e)
	e.rec, e.hash = next, hash
	c.count(s, e)
}
