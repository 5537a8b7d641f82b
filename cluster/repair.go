package cluster

import (
	"slices"

	"hereis/messages"
)

// The one loop (rule 10): whatever a node holds is pushed to {its edge, owner,
// backup} until acknowledged. It is replication, announce, hand-over, drain,
// rejoin, heal and lost disk. The first push of a write goes out at once; all
// else goes through a queue for each peer, in messages of bounded size, of
// which a bounded number may be unacknowledged.

const (
	retrySlotMS  = 50
	firstRetryMS = 50
	lastRetryMS  = 2000
	// replyGraceMS is how long an edge waits for the second holder's own word.
	replyGraceMS = 100
	// edgeGraceMS is how long a holder waits for the edge's word that it has
	// kept what it was answered, before it pushes that to the edge.
	edgeGraceMS = 2000
	// windowLostMS gives back the window of a bulk message that is not acknowledged.
	windowLostMS = 1000
)

// target is a member that has not acknowledged an entry's record.
type target struct {
	peer *neighbor
	// nextMS is when it may be pushed (again).
	nextMS int64
	tries  uint8
	// queued: the entry stands in the peer's bulk queue.
	queued bool
	// light: the hash is offered first, as the peer most likely has the record.
	light bool
	// tell: a former edge, which need not be a holder to acknowledge.
	tell bool
	// handover: "done" is not said to the peer before it acknowledges (rule 14).
	handover bool
}

// addTarget notes that a peer must acknowledge e, and pushes at once what is a
// write of now. e's shard is locked.
func (c *Core) addTarget(now int64, s *shard, e *entry, t target, o origin) {
	if e.x == nil {
		e.x = &extra{}
		e.x.targets = e.x.room[:0]
	}
	have := e.x.target(t.peer)
	if have == nil {
		e.x.targets = append(e.x.targets, target{peer: t.peer, light: t.light, tell: t.tell, nextMS: t.nextMS})
		have = &e.x.targets[len(e.x.targets)-1]
	} else {
		have.light = have.light && t.light
		have.tell = have.tell && t.tell
		if t.nextMS != 0 {
			return // it is asked again in any case
		}
	}
	if t.handover {
		markHandover(have)
	}
	switch {
	case t.nextMS != 0:
		c.fileRetry(s, e, have.nextMS)
	case t.light:
		c.enqueue(e, have)
	default:
		c.pushNow(now, s, e, have, o.urgent)
	}
}

func markHandover(t *target) {
	if !t.handover {
		t.handover = true
		t.peer.handover.Add(1)
	}
}

func (x *extra) target(p *neighbor) *target {
	if x == nil {
		return nil
	}
	for i := range x.targets {
		if x.targets[i].peer == p {
			return &x.targets[i]
		}
	}
	return nil
}

// drop removes a target.
func (x *extra) drop(p *neighbor) {
	if t := x.target(p); t != nil {
		if t.handover {
			p.handover.Add(-1)
		}
		x.targets = slices.DeleteFunc(x.targets, func(t target) bool { return t.peer == p })
	}
}

// enqueue hands e to the peer's bulk queue. What goes that way is either a
// hand-over or has failed once: "done" waits for it.
func (c *Core) enqueue(e *entry, t *target) {
	markHandover(t)
	if !t.queued {
		t.queued = true
		t.peer.bulk.push(e.aor)
	}
}

// pushNow sends one record by itself; it may ride unless somebody waits for it.
func (c *Core) pushNow(now int64, s *shard, e *entry, t *target, urgent bool) {
	c.stats.Copies.Add(1)
	v := c.view.Load()
	m := s.pushed.of(e)
	m.Incarnation, m.Round, m.Digest, m.Urgent = c.cfg.Incarnation, v.round, v.digest, urgent
	if urgent {
		c.event(t.peer, m)
	} else {
		c.ride(t.peer, m)
	}
	m.Items[0].Record = nil
	c.sent(now, s, e, t)
}

// pushOfOne is a shard's room for the record that it pushes: there is one at a
// time, and what is sent is not kept.
type pushOfOne struct {
	m    messages.Push
	item messages.PushItem
	list [1]*messages.PushItem
}

func (p *pushOfOne) of(e *entry) *messages.Push {
	p.item.Aor, p.item.Hash, p.item.Record = e.aor, e.hash, e.rec
	p.list[0], p.m.Items = &p.item, p.list[:]
	return &p.m
}

// sent times the repetition of a push.
func (c *Core) sent(now int64, s *shard, e *entry, t *target) {
	t.nextMS = now + min(int64(firstRetryMS)<<min(t.tries, 6), lastRetryMS)
	if t.tries < 255 {
		t.tries++
	}
	c.fileRetry(s, e, t.nextMS)
}

// hurry pushes again, now, what a peer has not acknowledged: it could not take
// it before, as there was no stream to it, or as it was in another view and no
// holder there, and the waits between the tries have grown meanwhile. What has
// been tried once is tried again in a moment anyway.
func (c *Core) hurry(p *neighbor) {
	if p.handover.Load() == 0 {
		return // all that has failed once is a hand-over
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.waiting(func(e *entry) {
			if t := e.x.target(p); t != nil && t.tries > 1 {
				t.tries = 0
				c.enqueue(e, t)
			}
		})
		s.mu.Unlock()
	}
}

// fileRetry makes e be looked at when ms has come.
func (c *Core) fileRetry(s *shard, e *entry, ms int64) {
	slot := max(ms/retrySlotMS+1, s.retrySlot+1)
	if e.x.retrySlot != 0 && e.x.retrySlot <= slot {
		return
	}
	e.x.retrySlot = slot
	s.retries[slot] = append(s.retries[slot], e)
}

// retry queues what has not been acknowledged in time. s is locked.
func (c *Core) retry(now int64, s *shard) {
	to := now / retrySlotMS
	if to-s.retrySlot > int64(len(s.retries))+100 {
		for slot := range s.retries {
			if slot <= to {
				c.retrySlot(now, s, slot)
			}
		}
		s.retrySlot = to
	}
	for s.retrySlot < to {
		s.retrySlot++
		c.retrySlot(now, s, s.retrySlot)
	}
}

func (c *Core) retrySlot(now int64, s *shard, slot int64) {
	list := s.retries[slot]
	delete(s.retries, slot)
	for _, e := range list {
		if e.gone || e.x == nil || e.x.retrySlot != slot {
			continue
		}
		e.x.retrySlot = 0
		for i := range e.x.targets {
			t := &e.x.targets[i]
			switch {
			case t.queued:
			case t.nextMS > now:
				c.fileRetry(s, e, t.nextMS)
			default:
				if t.tries > 0 {
					c.stats.Retries.Add(1)
				}
				c.enqueue(e, t)
			}
		}
	}
}
