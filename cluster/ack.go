package cluster

import (
	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// saw notes what a peer says of its own view.
func (p *neighbor) saw(incarnation, round, digest uint64) {
	if incarnation == p.incarnation && round >= p.seenRound.Load() {
		p.seenRound.Store(round)
		p.seenDigest.Store(digest)
	}
}

// newAck acknowledges items, in this node's present view.
func (c *Core) newAck(v *view, items ...*messages.AckItem) *messages.Ack {
	a := &messages.Ack{Items: items}
	c.date(a, v)
	return a
}

// date says which view of this node's an acknowledgement is given in.
func (c *Core) date(a *messages.Ack, v *view) {
	a.Incarnation, a.Round, a.Digest, a.Unstored = c.cfg.Incarnation, v.round, v.digest, c.unstored.any()
}

// ackOfOne is an acknowledgement of one item, as nearly all are, in one piece of
// memory. It must not be copied.
type ackOfOne struct {
	ack  messages.Ack
	item messages.AckItem
	list [1]*messages.AckItem
}

// onAck counts acknowledgements, for the incarnation and the round that they
// were given in, and takes in what has won.
func (c *Core) onAck(now int64, from string, m *messages.Ack) {
	v := c.view.Load()
	p := v.peer(from)
	if p == nil || p.incarnation != m.Incarnation && !c.off.AnyAck {
		return
	}
	old := m.Round < p.seenRound.Load() && !c.off.AnyAck
	p.saw(m.Incarnation, m.Round, m.Digest)
	p.unstored.Store(m.Unstored)
	var after effects
	for _, item := range m.Items {
		c.ackItem(now, v, p, item, old, &after)
	}
	if m.Batch != 0 {
		p.bulk.acked(m.Batch)
	}
	after.run()
}

func (c *Core) ackItem(now int64, v *view, p *neighbor, item *messages.AckItem, old bool, after *effects) {
	id := xxh3.HashString(item.Aor)
	s := &c.shards[id>>58]
	s.mu.Lock()
	defer s.mu.Unlock()
	// The record is at rest, most likely, and stays so.
	g, ok := s.look(id, item.Aor)
	if !ok {
		return
	}
	if item.Winner != nil {
		g.e = s.awaken(g)
	}
	t := g.extra().target(p)
	switch {
	case old:
	case item.Want:
		if t != nil {
			t.light = false
			c.enqueue(g.e, t)
		}
	case c.counts(v, s, g, p, t, item):
		if t != nil {
			g.e.x.drop(p)
		}
		c.releaseWaits(s, item.Aor, p, item.Hash, true, after)
	case item.Holder || t != nil && t.tell:
		c.releaseWaits(s, item.Aor, p, item.Hash, false, after)
	}
	if item.Winner != nil {
		c.apply(now, v, s, item.Aor, item.Winner, origin{from: p.name}, after)
	}
	if g.e != nil {
		c.acknowledged(v, s, g.e)
	}
}

// counts tells whether an acknowledgement is for all of a record that p should have.
func (c *Core) counts(v *view, s *shard, g glance, p *neighbor, t *target, item *messages.AckItem) bool {
	if c.off.AnyAck {
		return true
	}
	i := v.index(p.name)
	if holds := v.holds(i, item.Aor); holds && !item.Holder && (t == nil || !t.tell) {
		return false // it does not know yet that it is a holder
	}
	if item.Edge == "" {
		return item.Hash == g.hash()
	}
	// Mostly, the edge's part is all that there is.
	return item.Edge == c.scope(v, item.Aor, g.extra(), i) &&
		(item.Hash == g.hash() || item.Hash == hashPart(g.read(&s.skimmed), item.Edge))
}

// acknowledged lets go what nobody need be told any more: a former holder's
// copy, and what the entry needed for the telling. s is locked.
func (c *Core) acknowledged(v *view, s *shard, e *entry) {
	if e.gone || e.x == nil || len(e.x.targets) > 0 {
		return
	}
	if e.x.former && !v.holds(v.self, e.aor) {
		s.unpack(e)
		e.x.former = false
		next := part(e.rec, c.cfg.Name)
		c.replace(s, e, next, hashPart(next, ""))
	}
	c.rest(e)
	switch {
	case e.x != nil:
	case s.empty(e):
		s.remove(e)
	default:
		s.settle(e)
	}
}
