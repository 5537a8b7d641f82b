package cluster

import (
	"slices"

	"hereis/messages"
)

// scope is the edge whose part of a record this node and node i share, empty if
// they share all of it. x is its entry's.
func (c *Core) scope(v *view, aor string, x *extra, i int) string {
	switch {
	case !v.holds(i, aor):
		return v.nodes[i].Name
	case !v.holds(v.self, aor) && (x == nil || !x.former):
		return c.cfg.Name
	}
	return ""
}

// onPush merges what a peer sent and acknowledges it.
func (c *Core) onPush(now int64, from string, m *messages.Push) {
	v := c.view.Load()
	if p := v.peer(from); p != nil {
		p.saw(m.Incarnation, m.Round, m.Digest)
	}
	one := &ackOfOne{}
	ack := &one.ack
	c.date(ack, v)
	ack.Batch, ack.Items = m.Batch, one.list[:0]
	var edges []edgeAck
	var after effects
	for i, item := range m.Items {
		word := &one.item
		if i > 0 {
			word = &messages.AckItem{}
		}
		c.takeItem(now, v, from, item, word, m.Batch != 0, &edges, &after)
		ack.Items = append(ack.Items, word)
	}
	if p := v.peer(from); p != nil && (m.Urgent || m.Batch != 0) {
		c.event(p, ack)
	} else if p != nil {
		c.ride(p, ack)
	}
	for _, a := range edges {
		if p := v.peer(a.edge); p != nil {
			c.date(&a.one.ack, v)
			c.ride(p, &a.one.ack)
		}
	}
	after.run()
}

// edgeAck is an acknowledgement for the edge of a lease that another has pushed.
type edgeAck struct {
	edge string
	one  *ackOfOne
}

func newEdgeAck(edge, aor string, hash uint64) edgeAck {
	one := &ackOfOne{}
	one.item.Aor, one.item.Edge, one.item.Hash, one.item.Holder = aor, edge, hash, true
	one.list[0], one.ack.Items = &one.item, one.list[:]
	return edgeAck{edge, one}
}

// takeItem merges one record, or compares its hash, and says so in ack. It adds to
// edges what is acknowledged to the edges of what is new, so that these need not
// push it.
func (c *Core) takeItem(now int64, v *view, from string, item *messages.PushItem, ack *messages.AckItem, bulk bool, edges *[]edgeAck, after *effects) {
	s := c.shard(item.Aor)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(item.Aor)
	ack.Aor, ack.Hash, ack.Edge, ack.Holder = item.Aor, item.Hash, item.Edge, v.holds(v.self, item.Aor)
	if item.Record == nil {
		ack.Want = e == nil || hashPart(e.rec, item.Edge) != item.Hash
		return
	}
	e, changed := c.apply(now, v, s, item.Aor, item.Record, origin{from: from, bulk: bulk}, after)
	if e == nil {
		return
	}
	ack.Winner = winner(e.rec, item.Record)
	if changed && !bulk && ack.Holder {
		for _, l := range item.Record.Leases {
			told := slices.ContainsFunc(*edges, func(a edgeAck) bool { return a.edge == l.Edge && a.one.item.Aor == item.Aor })
			if l.Edge != from && l.Edge != c.cfg.Name && l.Edge != "" && !told {
				*edges = append(*edges, newEdgeAck(l.Edge, item.Aor, hashPart(e.rec, l.Edge)))
			}
		}
	}
}

// winner is what of have has won over something in pushed, or nil.
func winner(have, pushed *messages.Record) *messages.Record {
	var floor *messages.Floor
	var leases []*messages.Lease
	var ended []*messages.Ended
	if have.Floor != nil && have.Floor.Compare(pushed.Floor) > 0 && (pushed.Floor != nil || len(pushed.Leases) > 0) {
		floor = have.Floor
	}
	for _, l := range pushed.Leases {
		if mine := have.Lease(l.Key); mine != nil && mine.Compare(l) > 0 {
			leases = append(leases, mine)
		}
		for _, x := range have.Ended {
			if x.Edge == l.Edge && x.Flow.Same(l.Flow) && !pushed.HasEnded(x.Edge, x.Flow) {
				ended = append(ended, x)
			}
		}
	}
	if floor == nil && len(leases)+len(ended) == 0 {
		return nil
	}
	return &messages.Record{Aor: have.Aor, Leases: leases, Floor: floor, Ended: ended}
}
