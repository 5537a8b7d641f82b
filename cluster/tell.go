package cluster

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// The nodes that have an interest in a record (watchers of a user, say) are told
// of its changes: one event for each node. An event may be lost with its
// connection, or with its sender; so it carries a sum by which the receiver
// finds that it has missed one, and the receiver asks again when the owner has
// changed or its stream has come back. A full queue is made good for here.
//
// An owner may have taken something in while it was none, told nobody, and be
// the owner again before a node with an interest has seen it change: so who comes
// to own a record, or to know of an interest in one, reminds the nodes of it.

// deafTable has the nodes that something could not be told to.
type deafTable struct {
	mu sync.Mutex
	// nodes tells of each whether it was for want of a stream alone: then it asks
	// when there is one again.
	nodes map[string]bool
}

// tell sends what a change of a record means to the nodes that have an interest in it.
func (c *Core) tell(v *view, now int64, before, next *messages.Record, o origin, after *effects) {
	msg, nodes := c.parts.Grains.Tell(before, next, now)
	if msg == nil && !o.gate {
		msg, nodes = c.parts.Grains.Remind(before, next, now)
	}
	if msg != nil {
		c.tellNodes(v, msg, nodes, after)
	}
}

// remind tells the nodes with an interest in a record, which this node owns and
// did not own in every view since the last walk, what they should know by now.
func (c *Core) remind(now int64, v *view, g glance, rec *messages.Record, after *effects) {
	if !slices.ContainsFunc(rec.Leases, func(l *messages.Lease) bool { return l.Kind.Interested() }) ||
		!ownedBy(v, rec.Aor) || c.ownedThroughout(rec.Aor) {
		return
	}
	if msg, nodes := c.parts.Grains.Remind(nil, g.keep(), now); msg != nil {
		c.tellNodes(v, msg, nodes, after)
	}
}

// ownedThroughout tells whether this node was the owner of an AoR in every view
// since the last walk.
func (c *Core) ownedThroughout(aor string) bool {
	if !ownedBy(c.scan.base, aor) {
		return false
	}
	for _, w := range c.scan.since {
		if !ownedBy(w, aor) {
			return false
		}
	}
	return true
}

func (c *Core) tellNodes(v *view, msg *messages.StateChanged, nodes []string, after *effects) {
	after.add(func() {
		for _, name := range nodes {
			if name == c.cfg.Name {
				c.deliver(name, msg)
				continue
			}
			p := v.peer(name)
			if p == nil {
				// It may live, and not know that it counts as failed here; or this is a
				// new life of it, which has asked already.
				c.noteDeaf(name, false)
				continue
			}
			c.stats.Tells.Add(1)
			if !c.ride(p, msg) {
				c.noteDeaf(name, p.down.Load())
			}
		}
	})
}

// deliver gives an event to who takes its type.
func (c *Core) deliver(from string, msg proto.Message) {
	hearers := c.hearers[messages.TypeName(msg)]
	if hearers == nil {
		c.stats.BadMessages.Add(1)
		return
	}
	for _, h := range hearers {
		h(from, msg)
	}
}

func (c *Core) noteDeaf(name string, parted bool) {
	c.deaf.mu.Lock()
	defer c.deaf.mu.Unlock()
	if c.deaf.nodes == nil {
		c.deaf.nodes = make(map[string]bool)
	}
	was, known := c.deaf.nodes[name]
	c.deaf.nodes[name] = parted && (was || !known)
}

// tickDeaf tells nodes that they have missed something, as soon as it can.
func (c *Core) tickDeaf() {
	c.deaf.mu.Lock()
	if len(c.deaf.nodes) == 0 {
		c.deaf.mu.Unlock()
		return
	}
	missed := c.deaf.nodes
	c.deaf.nodes = nil
	c.deaf.mu.Unlock()
	v := c.view.Load()
	for _, name := range slices.Sorted(maps.Keys(missed)) {
		p := v.peer(name)
		if p != nil && missed[name] && !p.down.Load() {
			continue // it asks
		}
		if p == nil || !c.event(p, &messages.StateLost{}) {
			c.noteDeaf(name, missed[name])
		}
	}
}
