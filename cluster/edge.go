package cluster

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// vouch makes next true of this edge: a lease over a connection that is not
// open is ended (rule 3), one of an older incarnation that outlives its
// process is vouched for again (rule 12). It tells whether it has changed
// next, which is not shared yet.
func (c *Core) vouch(now int64, before, next *messages.Record) (mended bool) {
	for i, l := range next.Leases {
		if l.Edge != c.cfg.Name || !next.Alive(l, now) || c.off.OldLivesCount && l.Vouch < c.cfg.Incarnation {
			continue
		}
		isNew := !slices.Contains(before.Leases, l)
		if isNew {
			// Before the flow is looked at: one that closes now either is
			// found closed, or finds this AoR.
			c.flows.add(l.Flow, next.Aor)
		}
		switch {
		case l.Flow.GetStream() && (l.Flow.Incarnation != c.cfg.Incarnation || isNew && !c.parts.Flows.Open(l.Flow)):
			next.Ended = append(next.Ended, ended(l, now))
			mended = true
		case l.Vouch < c.cfg.Incarnation:
			again := proto.CloneOf(l)
			again.Vouch = c.cfg.Incarnation
			next.Leases[i] = again
			mended = true
		}
	}
	return mended
}

// superseded tells the front end which leases of this edge have been moved or
// removed, and whether there are any.
func (c *Core) superseded(now int64, before, won *messages.Record, after *effects) (lost bool) {
	for _, l := range before.Leases {
		if l.Edge != c.cfg.Name || slices.Contains(won.Leases, l) {
			continue
		}
		w := won.Lease(l.Key)
		if w == nil || w.Edge != c.cfg.Name || !w.Flow.Same(l.Flow) {
			c.flows.remove(l.Flow, before.Aor)
			c.reindex(won, l.Flow)
		}
		if before.Alive(l, now) && (w == nil || w.Edge != c.cfg.Name || w.Dead) {
			after.add(func() { c.parts.Flows.Superseded(l) })
			lost = lost || w == nil || w.Edge != c.cfg.Name
		}
	}
	return lost
}

// reindex keeps a flow findable for another lease of the same AoR over it.
func (c *Core) reindex(rec *messages.Record, flow *messages.FlowID) {
	for _, l := range rec.Leases {
		if l.Edge == c.cfg.Name && l.Flow.Same(flow) {
			c.flows.add(l.Flow, rec.Aor)
		}
	}
}

// unindex forgets the flows of leases that have been forgotten.
func (c *Core) unindex(before, next *messages.Record) {
	for _, l := range before.Leases {
		if l.Edge == c.cfg.Name && !slices.Contains(next.Leases, l) {
			c.flows.remove(l.Flow, before.Aor)
			c.reindex(next, l.Flow)
		}
	}
}

// store writes this edge's part of e if it is not what it was. Called with the
// shard locked, so that the writes of one key are in order.
func (c *Core) store(e *entry, before *messages.Record) {
	if !c.parts.Store.Keeps() {
		e.stored = true
		return
	}
	if hashPart(before, c.cfg.Name) == hashPart(e.rec, c.cfg.Name) {
		return
	}
	mine := part(e.rec, c.cfg.Name)
	if mine.Empty() && !e.stored {
		return
	}
	e.stored = !mine.Empty()
	c.parts.Store.Put(mine, func(err error) { c.written(mine.Aor, err) })
}

// Keep merges what a holder accepted from this edge and stores this edge's
// part; done is called when it is durable (rule 5).
func (c *Core) Keep(now int64, rec *messages.Record, done func(error)) {
	if rec.Empty() {
		done(nil)
		return
	}
	c.see(now)
	defer c.stir()
	var room [4]effect
	after := effects(room[:0])
	v := c.view.Load()
	s := c.shard(rec.Aor)
	s.mu.Lock()
	e := s.entry(rec.Aor)
	if e == nil || !holds(e.rec, rec) {
		e, _ = c.apply(now, v, s, rec.Aor, rec, origin{reply: true, keeps: true}, &after)
	}
	if e == nil {
		// Something else has won already: there is nothing to keep.
		after.add(func() { done(nil) })
	} else {
		e.stored = true
		stored := c.keptHere(v, e, done)
		if c.parts.Store.Keeps() {
			aor := e.aor
			c.parts.Store.Put(part(e.rec, c.cfg.Name), func(err error) {
				c.written(aor, err)
				stored(err)
			})
		} else {
			after.add(func() { stored(nil) })
		}
	}
	s.mu.Unlock()
	after.run()
}

// keptHere is done with a word to the owner that this edge's part of e is
// stored; done alone if the owner is here, or pushes to this node anyway. e's
// shard is locked.
func (c *Core) keptHere(v *view, e *entry, done func(error)) func(error) {
	owner, backup := v.place(e.aor)
	if owner == none || owner == v.self || backup == v.self {
		return done
	}
	peer := v.nodes[owner].peer
	item := &messages.AckItem{Aor: e.aor, Edge: c.cfg.Name, Hash: hashPart(e.rec, c.cfg.Name)}
	return func(err error) {
		if err == nil {
			peer.bulk.ack(item)
			c.stir()
		}
		done(err)
	}
}

// holds tells whether all of part is in rec already, by identity: what this node
// decided itself, or took from the answer, is the same lease.
func holds(rec, part *messages.Record) bool {
	for _, l := range part.Leases {
		if !slices.Contains(rec.Leases, l) {
			return false
		}
	}
	return (part.Floor == nil || part.Floor == rec.Floor) && len(part.Ended) == 0
}

// EndFlow ends what is registered over a flow of this node.
func (c *Core) EndFlow(now int64, flow *messages.FlowID) {
	c.see(now)
	defer c.stir()
	v := c.view.Load()
	for _, aor := range c.flows.on(flow) {
		var after effects
		s := c.shard(aor)
		s.mu.Lock()
		if e := s.entry(aor); e != nil {
			in := &messages.Record{Aor: aor}
			for _, l := range e.rec.Leases {
				switch {
				case l.Edge != c.cfg.Name || !l.Flow.Same(flow) || len(in.Ended) > 0:
				case c.off.CloseRemoves:
					dead := proto.CloneOf(l)
					dead.Dead, dead.Stamp = true, c.hlc.next(now)
					in.Leases = append(in.Leases, dead)
				default:
					in.Ended = append(in.Ended, ended(l, now))
				}
			}
			c.apply(now, v, s, aor, in, origin{}, &after)
		}
		s.mu.Unlock()
		after.run()
	}
}

// loadRoom is up to how many records of a shard are worked with while they are
// loaded: packed soon, they are still in the processor's caches, which costs two
// thirds of what it does a thousand records later.
const loadRoom = 16

// Load takes this edge's leases from its store: its clock goes above every stamp
// that is not of the future, no expiry is believed beyond the longest lifetime,
// streams of former processes have ended and the rest is vouched for again (rules
// 9, 12). What was granted would be a closer bound, but the clock that is asked here
// may be behind, and step forward when it meets the others.
func (c *Core) Load(now int64) error {
	v := c.view.Load()
	err := c.parts.Store.Load(func(rec *messages.Record) error {
		in := &messages.Record{Aor: rec.Aor, Floor: rec.Floor, Ended: rec.Ended}
		c.RaiseClock(now, rec.GetFloor().GetStamp().GetMs())
		for _, l := range rec.Leases {
			c.RaiseClock(now, l.GetStamp().GetMs())
			if l.LifetimeMs > 0 && l.ExpiresMs > now+l.LifetimeMs {
				l = proto.CloneOf(l)
				l.ExpiresMs = now + l.LifetimeMs
			}
			in.Leases = append(in.Leases, l)
		}
		var after effects
		s := c.shard(rec.Aor)
		s.mu.Lock()
		defer s.mu.Unlock()
		if e, _ := c.apply(now, v, s, rec.Aor, in, origin{keeps: true}, &after); e != nil {
			e.stored = true
			if !onlyVouched(rec, e.rec) {
				c.store(e, rec)
			}
		}
		if len(s.busy) >= loadRoom {
			s.pack()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cluster: load leases: %w", err)
	}
	return nil
}

// onlyVouched tells that loaded has what is on disk, vouched for again. That
// need not be written: the next process vouches for what it loads anyway, with
// an incarnation above this one.
func onlyVouched(disk, loaded *messages.Record) bool {
	return len(loaded.Leases) == len(disk.Leases) && len(loaded.Ended) == len(disk.Ended) && loaded.Floor == disk.Floor
}
