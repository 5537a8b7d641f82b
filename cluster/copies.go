package cluster

import (
	"slices"

	"google.golang.org/protobuf/proto"

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
	rq     *request
	reply  proto.Message
	// other: the AoR has two holders; mine: the asker is one of them, this node.
	other, mine bool
}

// finish lets a reply go, which may say whether another holder has a copy. The
// reply is nobody else's yet.
func (c *Core) finish(w *wait, copied bool, after *effects) {
	if !copied {
		c.stats.Undercopied.Add(1)
	}
	is := w.other && (copied || !w.mine)
	switch r := w.reply.(type) {
	case *messages.Registered:
		r.Copied = is
	case *messages.Removed:
		r.Copied = is
	case *messages.Published:
		r.Copied = is
	case *messages.MessageStored:
		r.Copied = is
	case *messages.Subscribed:
		r.Copied = is
	}
	after.reply(w.rq, w.reply)
}

// awaitCopies lets the reply go when rule 5 allows: an add or refresh when one
// holder other than the asking edge has it, a removal or move when the other
// holder and the former edges have it too. A repeat waits for whoever has yet to
// acknowledge what it repeats.
func (c *Core) awaitCopies(now int64, v *view, s *shard, e *entry, rq *request, a *Answer, after *effects) {
	owner, backup := v.place(rq.aor)
	w := wait{rq: rq, reply: a.Reply, other: owner != none && backup != none, mine: rq.asker == c.cfg.Name}
	// A former edge that has not dropped its lease shows that a move is repeated.
	all := a.All || a.Repeat && e.x != nil && slices.ContainsFunc(e.x.targets, func(t target) bool { return t.tell })
	if e.x != nil && (all || w.mine) && !c.off.ReplyAtOnce {
		for i := range e.x.targets {
			t := &e.x.targets[i]
			holder := t.peer.name == v.name(owner) || t.peer.name == v.name(backup)
			switch {
			case t.peer.name == rq.asker || !holder && !(all && t.tell):
			case t.peer.down.Load():
				w.missed = true // repair sees to it
			default:
				w.need = append(w.need, t.peer)
			}
		}
	}
	if len(w.need) == 0 {
		c.finish(&w, !w.missed, after)
		return
	}
	c.stats.Parked.Add(1)
	w.aor, w.hash, w.deadline = e.aor, e.hash, now+millis(c.cfg.CopyWait)
	kept := w // only a reply that waits is one more allocation
	s.waits = append(s.waits, &kept)
}

// releaseWaits notes that p has what hashed to hash of an AoR, or all of it.
func (c *Core) releaseWaits(s *shard, aor string, p *neighbor, hash uint64, all bool, after *effects) {
	s.waits = slices.DeleteFunc(s.waits, func(w *wait) bool {
		if w.aor != aor || !all && w.hash != hash {
			return false
		}
		w.need = slices.DeleteFunc(w.need, func(n *neighbor) bool { return n == p })
		if len(w.need) > 0 {
			return false
		}
		c.stats.Parked.Add(-1)
		c.finish(w, !w.missed, after)
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
		c.finish(w, false, &after)
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
		c.finish(w, false, after)
	}
	s.waits = slices.Delete(s.waits, 0, n)
}
