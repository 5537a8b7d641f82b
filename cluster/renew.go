package cluster

import (
	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// Most of what a registrar does is to hear from a device that it is where it
// was. Where nobody else has to know of that, because this node is alone and
// has no disk, it is done in place: a few numbers of a record at rest are
// written anew, and it goes on resting.

// Renew takes in a REGISTER of this node's own if it does no more than renew the
// only lease of a user at rest, and tells until when the lease lives then, in
// node time. r has room for a stamp, which it is given, and is not kept. False:
// nothing has been done, and the question is one for Ask.
func (c *Core) Renew(now int64, r *messages.Register) (expiresMS int64, ok bool) {
	id := xxh3.HashString(r.Aor)
	s := &c.shards[id>>58]
	s.mu.Lock()
	defer s.mu.Unlock()
	at := packed(s.cells.get(id))
	if at == nil || at.awake() || at.aor() != r.Aor || !c.renewsHere(r.Aor) {
		return 0, false
	}
	g := glance{id: id, at: at}
	rec := g.read(&s.renewed)
	c.hlc.write(now, r.Stamp)
	if expiresMS, ok = c.parts.Grains.Renews(r, rec, now); !ok || !rec.Known() {
		return 0, false
	}
	l := rec.Leases[0]
	if l.Edge != c.cfg.Name || l.Flow.GetStream() {
		return 0, false // a connection may have closed meanwhile: vouch sees to that
	}
	l.Cseq, l.ExpiresMs = r.Cseq, expiresMS
	l.Stamp.Ms, l.Stamp.Counter, l.Stamp.Incarnation = r.Stamp.Ms, r.Stamp.Counter, r.Stamp.Incarnation
	// All that is made of the record's strings is made now: they are the cell's.
	hash, next := hashLease(l), nextEvent(now, rec)
	s.accepted.note(now, rec)
	if g.at, ok = s.rewrite(g, rec); !ok {
		return 0, false
	}
	g.at.setHash(hash)
	g.at.setCounted(0)
	g.at[packedFlags] |= flagStored
	s.file(g, next)
	c.stats.Asks.Add(1)
	c.stats.LocalAsks.Add(1)
	return expiresMS, true
}

// renewsHere tells whether what this node says of a user is neither stored nor
// told to anybody, nor left to others to say. The user's shard is locked.
func (c *Core) renewsHere(aor string) bool {
	v := c.view.Load()
	return len(v.nodes) == 1 && c.tally.Load() == nil && !c.parts.Store.Keeps() && c.complete(v, aor, "") &&
		!c.debug && c.off == (rules{}) && !c.asks.ended.Load() && c.stats.Parked.Load() < int64(c.cfg.MaxParked) &&
		c.handlers[registerType] == nil
}

// registerType is the name of a message that a node may be made to handle otherwise.
var registerType = messages.TypeName(&messages.Register{})

// rewrite puts another record of the same AoR in a cell.
func (t *table) rewrite(g glance, rec *messages.Record) (packed, bool) {
	all, ok := rec.Pack(append(t.room[:0], g.at[:g.at.begin()]...))
	if !ok {
		return nil, false
	}
	t.room = all
	at := g.at
	if len(at) != len(all) {
		at = t.cells.put(g.id, len(all))
	}
	copy(at, all)
	return at, true
}
