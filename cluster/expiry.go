package cluster

import (
	"slices"

	"hereis/messages"
)

// Expiry needs no timer for each binding: an entry stands in the list of the
// one second at which it must next be looked at. A refresh leaves it where it
// is; it is filed again when that second comes.

// second is the first whole second not before ms.
func second(ms int64) int64 { return (ms + 999) / 1000 }

// fileDue files an entry for its next event, if it is not filed before it. s is locked.
func (c *Core) fileDue(now int64, s *shard, e *entry) {
	s.file(glance{id: e.id, e: e}, nextEvent(now, e.rec))
}

// file has what is seen looked at in a second, 0 for never, if it is not looked at before it.
func (s *shard) file(g glance, next int64) {
	if due := int64(g.due()); next == 0 || (due != 0 && due <= next) {
		return
	}
	next = max(next, s.dueSec+1)
	g.setDue(uint32(next))
	s.due[next] = append(s.due[next], g.id)
}

// nextEvent is the second at which something in a record comes to its end, 0 for never.
func nextEvent(now int64, rec *messages.Record) int64 {
	var next int64
	at := func(ms int64) {
		if sec := second(max(ms, now+1)); next == 0 || sec < next {
			next = sec
		}
	}
	// A dead element is looked at when it may be forgotten early, and then
	// once in earlyMS until it may.
	dead := func(since, over int64) { at(min(max(since+earlyMS+1, now+earlyMS/4), over+1)) }
	for _, l := range rec.Leases {
		if since, is := deadSince(rec, l, now); is {
			dead(since, max(l.Stamp.GetMs()+l.LifetimeMs, l.ExpiresMs)+messages.SkewBoundMS)
		} else {
			at(l.ExpiresMs)
		}
	}
	if f := rec.Floor; f != nil {
		dead(f.Stamp.GetMs(), f.Stamp.GetMs()+f.LifetimeMs+messages.SkewBoundMS)
	}
	for _, x := range rec.Ended {
		dead(x.Ms, x.Ms+x.LifetimeMs+messages.SkewBoundMS)
	}
	return next
}

// expire looks at every entry whose second has come. s is locked.
func (c *Core) expire(now int64, s *shard, after *effects) {
	v := c.view.Load()
	if s.dueSec == 0 {
		s.dueSec = now/1000 - 1
	}
	if now/1000-s.dueSec > int64(len(s.due))+60 {
		// The clock has been set far ahead: only what is filed is looked at.
		var secs []int64
		for sec := range s.due {
			if sec <= now/1000 {
				secs = append(secs, sec)
			}
		}
		slices.Sort(secs)
		for _, sec := range secs {
			c.expireSecond(now, v, s, sec, after)
		}
		s.dueSec = now / 1000
	}
	for s.dueSec < now/1000 {
		s.dueSec++
		c.expireSecond(now, v, s, s.dueSec, after)
	}
}

func (c *Core) expireSecond(now int64, v *view, s *shard, sec int64, after *effects) {
	list := s.due[sec]
	delete(s.due, sec)
	for _, id := range list {
		s.at(id, func(g glance) {
			if int64(g.due()) != sec {
				return
			}
			e := s.awaken(g)
			e.due = 0
			c.look(now, v, s, e, sec, after)
		})
	}
}

// look publishes what has expired since second sec, forgets what may be
// forgotten, and files the entry again.
func (c *Core) look(now int64, v *view, s *shard, e *entry, sec int64, after *effects) {
	before := e.rec
	if owner, _ := v.place(before.Aor); owner == v.self {
		if was := justBefore(before, now, sec); was != nil {
			c.changed(now, v, s, was, before, after)
		}
	}
	soon := c.mayForget(v)
	soon.ok = soon.ok && (e.x == nil || len(e.x.targets) == 0)
	if next := forget(before, now, soon); next != before {
		c.replace(s, e, next, hashPart(next, ""))
		c.store(e, before)
		c.unindex(before, next)
	}
	c.rest(e)
	if e.rec.Empty() && e.x == nil {
		s.remove(e)
		return
	}
	c.fileDue(now, s, e)
}

// rest frees what the entry needs no more.
func (c *Core) rest(e *entry) {
	if x := e.x; x != nil && len(x.targets) == 0 && !x.former &&
		(x.completeRound == 0 || c.settled.Load()) {
		e.x = nil
	}
}

// justBefore is rec as it was before the leases that expired since second sec
// did so, or nil if none did: their expiry is put just after now, so that who
// compares the two sees them go.
func justBefore(rec *messages.Record, now, sec int64) *messages.Record {
	var was *messages.Record
	for i, l := range rec.Leases {
		if l.Dead || l.ExpiresMs > now || second(l.ExpiresMs) < sec {
			continue
		}
		if was == nil {
			was = rec.Clone()
		}
		was.Leases[i] = &messages.Lease{
			Key: l.Key, Kind: l.Kind, Edge: l.Edge, Flow: l.Flow, Stamp: l.Stamp, Vouch: l.Vouch,
			CallId: l.CallId, Cseq: l.Cseq, ExpiresMs: now + 1, LifetimeMs: l.LifetimeMs, Payload: l.Payload,
		}
	}
	return was
}
