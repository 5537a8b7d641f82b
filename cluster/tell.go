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

// deafTable has the nodes that something could not be told to.
type deafTable struct {
	mu    sync.Mutex
	nodes map[string]deaf
}

// deaf is a node that has missed something.
type deaf struct {
	// incarnation is of its life, 0 if this node never met it: the next one asks anyway.
	incarnation uint64
	// parted: there was no stream to it. It asks when there is one again.
	parted bool
}

// tell sends what a change of a record means to the nodes that have an interest in it.
func (c *Core) tell(v *view, now int64, before, next *messages.Record, after *effects) {
	msg, nodes := c.parts.Grains.Tell(before, next, now)
	if msg == nil {
		return
	}
	after.add(func() {
		for _, name := range nodes {
			if name == c.cfg.Name {
				c.deliver(name, msg)
				continue
			}
			p := v.peer(name)
			if p == nil {
				// It may live, and not know that it counts as failed here.
				c.noteDeaf(name, deaf{incarnation: c.lastLife(name)})
				continue
			}
			c.stats.Tells.Add(1)
			if !c.ride(p, msg) {
				c.noteDeaf(name, deaf{incarnation: p.incarnation, parted: p.down.Load()})
			}
		}
	})
}

// lastLife is the incarnation in which a node was met last, 0 if it never was.
func (c *Core) lastLife(name string) uint64 {
	if incarnation, ok := c.lives.Load(name); ok {
		return incarnation.(uint64)
	}
	return 0
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

func (c *Core) noteDeaf(name string, d deaf) {
	c.deaf.mu.Lock()
	defer c.deaf.mu.Unlock()
	if c.deaf.nodes == nil {
		c.deaf.nodes = make(map[string]deaf)
	}
	if have, ok := c.deaf.nodes[name]; ok {
		d.parted = d.parted && have.parted
	}
	c.deaf.nodes[name] = d
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
		d := missed[name]
		switch p := v.peer(name); {
		case p == nil:
			c.noteDeaf(name, d)
		case d.incarnation != 0 && d.incarnation != p.incarnation, d.parted && !p.down.Load():
			// It asks, or has asked, by itself.
		case !c.event(p, &messages.StateLost{}):
			c.noteDeaf(name, d)
		}
	}
}
