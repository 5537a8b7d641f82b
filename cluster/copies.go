package cluster

import (
	"slices"

	"hereis/messages"
)

// wait is a reply that waits for acknowledgements of copies (rule 5).
type wait struct {
	aor string
	// hash is what the record was when it was copied.
	hash     uint64
	need     []*neighbor
	deadline int64
	// missed: somebody whose copy was wanted cannot be reached.
	missed bool
	finish func(copied bool)
}

// awaitCopies lets the reply go when rule 5 allows: an add or refresh when one
// holder other than the asking edge has it, a removal or move when the other
// holder and the former edges have it too.
func (c *Core) awaitCopies(now int64, v *view, s *shard, e *entry, rq *request, a *Answer, after *effects) {
	owner, backup := v.place(rq.aor)
	mine := rq.asker == c.cfg.Name
	other := owner != none && backup != none
	finish := func(copied bool) {
		if !copied {
			c.stats.Undercopied.Add(1)
		}
		switch r := a.Reply.(type) {
		case *messages.Registered:
			r.Copied = other && (copied || !mine)
		case *messages.Removed:
			r.Copied = other && (copied || !mine)
		case *messages.Published:
			r.Copied = other && (copied || !mine)
		case *messages.MessageStored:
			r.Copied = other && (copied || !mine)
		case *messages.Subscribed:
			r.Copied = other && (copied || !mine)
		}
		rq.reply(a.Reply)
	}
	var need []*neighbor
	missed := false
	if e.x != nil && (a.All || mine) && !c.off.ReplyAtOnce {
		for i := range e.x.targets {
			t := &e.x.targets[i]
			holder := t.peer.name == v.name(owner) || t.peer.name == v.name(backup)
			switch {
			case t.peer.name == rq.asker || !holder && !(a.All && t.tell):
			case t.peer.down.Load():
				missed = true // repair sees to it
			default:
				need = append(need, t.peer)
			}
		}
	}
	if len(need) == 0 {
		after.add(func() { finish(!missed) })
		return
	}
	c.stats.Parked.Add(1)
	s.waits = append(s.waits, &wait{
		aor: e.aor, hash: e.hash, need: need, deadline: now + millis(c.cfg.CopyWait), missed: missed, finish: finish,
	})
}

// releaseWaits notes that p has what hashed to hash, or all of e.
func (c *Core) releaseWaits(s *shard, e *entry, p *neighbor, hash uint64, all bool, after *effects) {
	s.waits = slices.DeleteFunc(s.waits, func(w *wait) bool {
		if w.aor != e.aor || !all && w.hash != hash {
			return false
		}
		w.need = slices.DeleteFunc(w.need, func(n *neighbor) bool { return n == p })
		if len(w.need) > 0 {
			return false
		}
		c.stats.Parked.Add(-1)
		after.add(func() { w.finish(!w.missed) })
		return true
	})
}

// giveUpCopies lets go the replies that wait for nobody but p, which cannot be
// reached: repair brings it the copies when it is back.
func (c *Core) giveUpCopies(s *shard, p *neighbor) {
	var after effects
	s.mu.Lock()
	s.waits = slices.DeleteFunc(s.waits, func(w *wait) bool {
		n := len(w.need)
		w.need = slices.DeleteFunc(w.need, func(n *neighbor) bool { return n == p })
		w.missed = w.missed || len(w.need) < n
		if len(w.need) > 0 {
			return false
		}
		c.stats.Parked.Add(-1)
		after.add(func() { w.finish(false) })
		return true
	})
	s.mu.Unlock()
	after.run()
}

// expireWaits sends the replies that have waited long enough. s is locked.
func (c *Core) expireWaits(now int64, s *shard, after *effects) {
	if len(s.waits) == 0 {
		return
	}
	n := 0
	for ; n < len(s.waits) && s.waits[n].deadline <= now; n++ {
		w := s.waits[n]
		c.stats.Parked.Add(-1)
		after.add(func() { w.finish(false) })
	}
	s.waits = slices.Delete(s.waits, 0, n)
}
