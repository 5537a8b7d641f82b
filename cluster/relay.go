package cluster

import (
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Two members may be without a stream to each other while both are members by
// the word of others: a route is broken one way, a firewall has it in for a
// pair. Each then sends to the other by a third node. So the two still report
// and pull (rules 11 and 14), answer and copy, and nobody who has the two for
// holders is refused. What is relayed may be lost like anything else.

// relayAfterMS is how long there must have been no stream to a member before
// others are troubled: streams are opened and lost as members come and go.
const relayAfterMS = 500

// relay hands env to a third member for one that there is no stream to; false
// if that is not so, or there is nobody to hand it to.
func (c *Core) relay(to string, env *messages.Envelope) bool {
	if c.off.NoRelay {
		return false
	}
	v := c.view.Load()
	p := v.peer(to)
	if p == nil {
		return false
	}
	// With a stream its queue is full: that is no reason to fill another's. And
	// a member that has just come, or gone, has none either.
	if since := p.aloneMS.Load(); since == 0 || c.ticked.Load() < since+relayAfterMS {
		return false
	}
	payload, err := proto.Marshal(env)
	if err != nil {
		return false
	}
	wrapped, err := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT,
		&messages.Relay{From: c.cfg.Name, To: to, Envelope: payload})
	if err != nil {
		return false
	}
	n := len(v.nodes)
	first := int(c.relays.Add(1) % uint64(n))
	for i := range n {
		by := v.nodes[(first+i)%n].peer
		if by != nil && by != p && !by.down.Load() && c.parts.Network.Send(by.name, wrapped) {
			c.stats.Relayed.Add(1)
			return true
		}
	}
	return false
}

// onRelay takes in what has come by a third node, or hands it on for others:
// only for the node that it comes from, and only by a stream of its own.
func (c *Core) onRelay(now int64, from string, m *messages.Relay) {
	env := &messages.Envelope{}
	if err := proto.Unmarshal(m.Envelope, env); err != nil || env.Type == messages.TypeName(m) {
		c.stats.BadMessages.Add(1)
		return
	}
	v := c.view.Load()
	switch {
	case m.To == c.cfg.Name:
		if v.peer(m.From) != nil {
			c.Receive(now, m.From, env)
		}
	case m.From != from:
		c.stats.BadMessages.Add(1)
	default:
		again, err := messages.Wrap(messages.EnvelopeKind_ENVELOPE_KIND_EVENT, m)
		if p := v.peer(m.To); err != nil || p == nil || !c.parts.Network.Send(p.name, again) {
			c.stats.SendDrops.Add(1)
			return
		}
		c.stats.Relayed.Add(1)
	}
}
