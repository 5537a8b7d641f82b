package cluster

import (
	"slices"

	"hereis/messages"
)

const (
	// scanRecords is how many records are looked at in one tick after a change
	// of view, and scanTicks in how many ticks all are, if these are more: the
	// walk must not take the machine from the lookups of that time.
	scanRecords = 200
	scanTicks   = 100
	// scanChunk is for how many of them the lock of their shard is held.
	scanChunk = 64
)

// scan is the walk through the whole table after a change of view, which finds
// who must be given what. It is guarded by viewMu.
type scan struct {
	// base is the view of the last complete walk, since all views after it:
	// who was a holder in each of them has what this node has, as far as it
	// has not been found otherwise.
	base  *view
	since []*view
	// next is the shard to look at; shards when the walk is complete.
	next   int
	active bool
	// rest are the hashes of those of the shard before next that are still to be looked at.
	rest []uint64
	// each is how many are looked at in one tick.
	each int
	// again: a member asked after the walk began; its sums would be too old.
	again bool
	// sums are of what is shared with each member, as the walk found it.
	sums sums
}

// beginScan starts a walk for a new view, from the beginning if one is under way.
func (c *Core) beginScan(v *view) {
	c.scan.since = append(c.scan.since, v)
	c.scan.again = false
	c.restartScan(v)
}

func (c *Core) restartScan(v *view) {
	all := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		all += s.n
		s.mu.Unlock()
	}
	c.scan.each = max(scanRecords, all/scanTicks)
	c.scan.next, c.scan.rest, c.scan.active, c.scan.sums = 0, nil, true, c.newSums(v)
}

// sumAgain starts a walk for the sums alone, after the present one if there is one.
func (c *Core) sumAgain() {
	if c.scan.active && c.scan.next > 0 {
		c.scan.again = true
	} else if !c.scan.active {
		c.restartScan(c.view.Load())
	}
}

func (c *Core) scanning() bool { return c.scan.active }

// tickScan goes on with the walk.
func (c *Core) tickScan(now int64) {
	c.viewMu.Lock()
	defer c.viewMu.Unlock()
	if !c.scan.active {
		return
	}
	v := c.view.Load()
	for seen := 0; seen < c.scan.each; {
		if len(c.scan.rest) == 0 {
			if c.scan.next == shards {
				break
			}
			c.scan.rest = c.shards[c.scan.next].all()
			c.scan.next++
			continue
		}
		n := min(len(c.scan.rest), scanChunk)
		c.scanSome(now, v, &c.shards[c.scan.next-1], c.scan.rest[:n])
		c.scan.rest = c.scan.rest[n:]
		seen += n
	}
	if c.scan.next < shards || len(c.scan.rest) > 0 {
		return
	}
	c.scan.rest = nil
	c.scan.base, c.scan.since, c.scan.active = v, nil, false
	if c.scan.again {
		c.scan.again = false
		c.sumAgain()
		return
	}
	c.askReports(now, v)
	c.answerReports(now, v)
}

// all are the hashes of a shard's AoRs.
func (s *shard) all() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids()
}

// walk calls f for all that this node has, with its shard locked, which is given
// back again and again: requests need it.
func (c *Core) walk(f func(s *shard, g glance)) {
	for i := range c.shards {
		s := &c.shards[i]
		for some := range slices.Chunk(s.all(), scanChunk) {
			s.mu.Lock()
			for _, id := range some {
				s.at(id, func(g glance) { f(s, g) })
			}
			s.mu.Unlock()
		}
	}
}

// scanSome looks at some entries of a shard. What has come to it since its
// entries were listed has been told to whom it must be by the view of now.
func (c *Core) scanSome(now int64, v *view, s *shard, some []uint64) {
	var room messages.RecordRoom
	var after effects
	s.mu.Lock()
	for _, id := range some {
		s.at(id, func(g glance) {
			rec := g.read(&room)
			if len(c.scan.since) > 0 && c.concerns(v, g, rec) {
				e := s.awaken(g)
				c.scanEntry(now, v, s, e, &after)
				if e.gone {
					return
				}
				g, rec = glance{id: id, e: e}, e.rec
			}
			if len(c.scan.since) > 0 {
				c.remind(now, v, g, rec, &after)
			}
			c.sum(v, rec, g.hash(), c.scan.sums)
		})
	}
	s.mu.Unlock()
	after.run()
}

// concerns tells whether a new view may make a difference to an entry: not if
// it is at rest, at a holder or with nothing but this edge's part, and all who
// have something of it are who they were.
// Most are, and are not unpacked.
func (c *Core) concerns(v *view, g glance, rec *messages.Record) bool {
	owner, backup := v.place(rec.Aor)
	holder := owner == v.self || backup == v.self
	if g.extra() != nil || !holder && hashPart(rec, c.cfg.Name) != g.hash() {
		return true
	}
	for _, i := range [...]int{owner, backup} {
		if i != none && i != v.self && !c.heldThroughout(&v.nodes[i], rec.Aor) {
			return true
		}
	}
	for _, l := range rec.Leases {
		i := v.index(l.Edge)
		if holder && i != none && (l.Flow.GetStream() && l.Flow.Incarnation < v.nodes[i].Incarnation ||
			i != v.self && !alwaysIn(l.Edge, v.nodes[i].Incarnation, c.scan.base, c.scan.since)) {
			return true
		}
	}
	return false
}

// scanEntry finds who must be told of e in a new view.
func (c *Core) scanEntry(now int64, v *view, s *shard, e *entry, after *effects) {
	aor := e.aor
	c.retarget(v, e)
	owner, backup := v.place(aor)
	holder := owner == v.self || backup == v.self
	if holder {
		c.endOldStreams(now, v, s, e, after)
		if e.x != nil {
			e.x.former = false
		}
	} else if hashPart(e.rec, c.cfg.Name) != e.hash {
		if e.x == nil {
			e.x = &extra{}
		}
		e.x.former = true
	}
	former := e.x != nil && e.x.former
	for _, i := range [...]int{owner, backup} {
		if i == none || i == v.self {
			continue
		}
		n := &v.nodes[i]
		known := c.heldThroughout(n, aor)
		if former || !known {
			c.addTarget(now, s, e, target{peer: n.peer, handover: true, light: known || !c.primary(v, aor)}, origin{bulk: true})
		}
	}
	if owner == v.self {
		for _, l := range e.rec.Leases {
			if i := v.index(l.Edge); i != none && i != v.self && i != backup &&
				!alwaysIn(l.Edge, v.nodes[i].Incarnation, c.scan.base, c.scan.since) {
				c.addTarget(now, s, e, target{peer: v.nodes[i].peer, handover: true, light: true}, origin{bulk: true})
			}
		}
	}
	c.acknowledged(v, s, e)
}

// retarget drops targets that are not in the view, and makes a hand-over of
// what the others have not acknowledged yet.
func (c *Core) retarget(v *view, e *entry) {
	if e.x == nil {
		return
	}
	for i := len(e.x.targets) - 1; i >= 0; i-- {
		t := &e.x.targets[i]
		if v.peer(t.peer.name) != t.peer && !c.off.WaitForAbsent {
			e.x.drop(t.peer)
			continue
		}
		markHandover(t)
	}
}

// heldThroughout tells whether a member was a holder of an AoR in every view
// since the last walk.
func (c *Core) heldThroughout(n *viewNode, aor string) bool {
	if !c.scan.base.holder(n.Name, n.Incarnation, aor) {
		return false
	}
	for _, w := range c.scan.since {
		if !w.holder(n.Name, n.Incarnation, aor) {
			return false
		}
	}
	return true
}

// primary tells whether it is on this node to send a record whole to a new
// holder, while others that have it offer its hash: it was the owner, or was
// the backup of an owner that is gone.
func (c *Core) primary(v *view, aor string) bool {
	owner, backup := c.scan.base.place(aor)
	self := c.scan.base.self
	return owner == self || backup == self && !v.live(c.scan.base.name(owner))
}

// endOldStreams ends what was registered over connections of an edge's former
// life: a connection cannot outlive its process (rule 12).
func (c *Core) endOldStreams(now int64, v *view, s *shard, e *entry, after *effects) {
	if c.off.OldLivesCount {
		return
	}
	var in *messages.Record
	for _, l := range e.rec.Leases {
		i := v.index(l.Edge)
		if i == none || !l.Flow.GetStream() || !e.rec.Alive(l, now) || l.Flow.Incarnation >= v.nodes[i].Incarnation {
			continue
		}
		if in == nil {
			in = &messages.Record{Aor: e.aor}
		}
		in.Ended = append(in.Ended, ended(l, now))
	}
	if in != nil {
		c.apply(now, v, s, in.Aor, in, origin{bulk: true}, after)
	}
}

// ended is the fact that the flow of a lease is over.
func ended(l *messages.Lease, now int64) *messages.Ended {
	return &messages.Ended{Edge: l.Edge, Flow: l.Flow, Ms: now, LifetimeMs: max(l.LifetimeMs, l.ExpiresMs-now)}
}
