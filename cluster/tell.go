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

// deafTable has the nodes that an event could not be sent to.
type deafTable struct {
	mu    sync.Mutex
	nodes map[string]struct{}
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
			if p == nil || p.down.Load() {
				continue // it asks when it is back
			}
			c.stats.Tells.Add(1)
			if !c.ride(p, msg) {
				c.noteDeaf(name)
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

func (c *Core) noteDeaf(name string) {
	c.deaf.mu.Lock()
	defer c.deaf.mu.Unlock()
	if c.deaf.nodes == nil {
		c.deaf.nodes = make(map[string]struct{})
	}
	c.deaf.nodes[name] = struct{}{}
}

// tickDeaf tells nodes whose queue was full that they have missed something.
func (c *Core) tickDeaf() {
	c.deaf.mu.Lock()
	if len(c.deaf.nodes) == 0 {
		c.deaf.mu.Unlock()
		return
	}
	names := slices.Sorted(maps.Keys(c.deaf.nodes))
	c.deaf.nodes = nil
	c.deaf.mu.Unlock()
	v := c.view.Load()
	for _, name := range names {
		p := v.peer(name)
		if p == nil || p.down.Load() {
			continue
		}
		if !c.event(p, &messages.StateLost{}) {
			c.noteDeaf(name)
		}
	}
}
