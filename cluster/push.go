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
	ack := c.newAck(v)
	ack.Batch = m.Batch
	var edges []edgeAck
	var after effects
	for _, item := range m.Items {
		ack.Items = append(ack.Items, c.takeItem(now, v, from, item, m.Batch != 0, &edges, &after))
	}
	if p := v.peer(from); p != nil && (m.Urgent || m.Batch != 0) {
		c.event(p, ack)
	} else if p != nil {
		c.ride(p, ack)
	}
	for _, a := range edges {
		if p := v.peer(a.edge); p != nil {
			c.ride(p, c.newAck(v, a.item))
		}
	}
	after.run()
}

// edgeAck is an acknowledgement for the edge of a lease that another has pushed.
type edgeAck struct {
	edge string
	item *messages.AckItem
}

// takeItem merges one record, or compares its hash. It adds to edges what is
// acknowledged to the edges of what is new, so that these need not push it.
func (c *Core) takeItem(now int64, v *view, from string, item *messages.PushItem, bulk bool, edges *[]edgeAck, after *effects) *messages.AckItem {
	s := c.shard(item.Aor)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(item.Aor)
	ack := &messages.AckItem{Aor: item.Aor, Hash: item.Hash, Edge: item.Edge, Holder: v.holds(v.self, item.Aor)}
	if item.Record == nil {
		ack.Want = e == nil || hashPart(e.rec, item.Edge) != item.Hash
		return ack
	}
	e, changed := c.apply(now, v, s, item.Aor, item.Record, origin{from: from, bulk: bulk}, after)
	if e == nil {
		return ack
	}
	ack.Winner = winner(e.rec, item.Record)
	if changed && !bulk && ack.Holder {
		for _, l := range item.Record.Leases {
			told := slices.ContainsFunc(*edges, func(a edgeAck) bool { return a.edge == l.Edge && a.item.Aor == item.Aor })
			if l.Edge != from && l.Edge != c.cfg.Name && l.Edge != "" && !told {
				*edges = append(*edges, edgeAck{l.Edge, &messages.AckItem{
					Aor: item.Aor, Edge: l.Edge, Hash: hashPart(e.rec, l.Edge), Holder: true,
				}})
			}
		}
	}
	return ack
}

// winner is what of have has won over something in pushed, or nil.
func winner(have, pushed *messages.Record) *messages.Record {
	w := &messages.Record{Aor: have.Aor}
	if have.Floor != nil && have.Floor.Compare(pushed.Floor) > 0 && (pushed.Floor != nil || len(pushed.Leases) > 0) {
		w.Floor = have.Floor
	}
	for _, l := range pushed.Leases {
		if mine := have.Lease(l.Key); mine != nil && mine.Compare(l) > 0 {
			w.Leases = append(w.Leases, mine)
		}
		for _, x := range have.Ended {
			if x.Edge == l.Edge && x.Flow.Same(l.Flow) && !pushed.HasEnded(x.Edge, x.Flow) {
				w.Ended = append(w.Ended, x)
			}
		}
	}
	if w.Empty() {
		return nil
	}
	return w
}
