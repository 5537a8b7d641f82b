package cluster

import (
	"sync/atomic"
	"time"
)

// A node at which nothing happens need not be told the time every 10 ms: when a
// tick has left nothing that is due before the next second, the ticks pause until
// then, or until something happens.

// idleTick is the time between the ticks of an idle node, in ms: what is due by
// the second, as an expiry is, is looked at as soon as its second has come.
const idleTick = 1000

// stirring is what wakes the ticks.
type stirring struct {
	// stirred: something has happened since the last tick began.
	stirred atomic.Bool
	// asleep: the ticks pause, and rouse is to be kicked.
	asleep atomic.Bool
	// rouse has one slot, as one kick is enough; the ticker reads it.
	rouse chan struct{}
	// ticks counts them.
	ticks atomic.Uint64
}

// stir tells that something has happened that a tick may have to go on with.
// Whoever leaves such a thing calls it after that: the ticks may have begun to
// pause before.
func (c *Core) stir() {
	s := &c.stirring
	if s.stirred.Load() {
		return
	}
	s.stirred.Store(true)
	if s.asleep.Load() && s.asleep.CompareAndSwap(true, false) {
		select {
		case s.rouse <- struct{}{}:
		default:
		}
	}
}

// see keeps ticked near now while the ticks pause, once they have begun.
func (c *Core) see(now int64) {
	if last := c.ticked.Load(); last != 0 && now > last+2*tickEvery.Milliseconds() {
		c.ticked.Store(now)
	}
}

// pause is how long the next tick may wait. When it is more than tickEvery, rouse
// is kicked if something happens meanwhile.
func (c *Core) pause(now int64) time.Duration {
	s := &c.stirring
	if s.stirred.Load() || !c.idle() {
		return tickEvery
	}
	s.asleep.Store(true)
	if s.stirred.Load() {
		// It has happened since; who did it may not have seen that this sleeps.
		s.asleep.Store(false)
		return tickEvery
	}
	return time.Duration(idleTick-now%idleTick) * time.Millisecond
}

// idle tells whether there is nothing here that the next ticks would go on with,
// but what is due by the second.
func (c *Core) idle() bool {
	return c.idleView() && c.idleAsks() && c.idleDigests() && c.idleWatches() && c.idleUnstored() && c.idleShards()
}

// idleView: nobody is waited for, and nobody waits for this node.
func (c *Core) idleView() bool {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	if !c.settled.Load() || c.scanning() || len(c.flapping) > 0 {
		return false
	}
	v := c.view.Load()
	for i := range v.nodes {
		p := v.nodes[i].peer
		if p != nil && (p.wants != nil && !p.answered || !p.bulk.idle()) {
			return false
		}
	}
	return true
}

func (q *bulkQueue) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.aors) == q.first && len(q.window)+len(q.acks) == 0
}

func (c *Core) idleAsks() bool {
	c.asks.mu.Lock()
	defer c.asks.mu.Unlock()
	return len(c.asks.open) == 0
}

func (c *Core) idleDigests() bool {
	d := &c.digests
	d.mu.Lock()
	defer d.mu.Unlock()
	t := c.tally.Load()
	return d.done && (t == nil || t.whole())
}

func (c *Core) idleWatches() bool {
	t := &c.watches
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.follows) == 0
}

func (c *Core) idleUnstored() bool {
	c.deaf.mu.Lock()
	defer c.deaf.mu.Unlock()
	return len(c.deaf.nodes) == 0 && !c.unstored.some.Load()
}

func (c *Core) idleShards() bool {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		idle := len(s.busy)+len(s.retries)+len(s.waits)+len(s.pulls) == 0
		s.mu.Unlock()
		if !idle {
			return false
		}
	}
	return true
}
