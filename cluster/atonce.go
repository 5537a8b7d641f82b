package cluster

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// Most of what a registrar does is to hear from a device that it is where it
// was, or where it is. Where no other node has to know of that, because this one
// is alone, it is done in place: a record at rest is written, or a few numbers of
// it are, and it goes on resting.

// beginning is a shard's room for the record of a user who is not known yet.
type beginning struct {
	rec   messages.Record
	list  [1]*messages.Lease
	lease messages.Lease
	bytes []byte
}

// AtOnce takes in a REGISTER of this node's own that does no more than renew the
// only lease of a user at rest, or make the first one of a user. then is called
// once the lease is stored, from a goroutine of the store's, or before AtOnce
// returns if nothing is to be stored; it is told when the lease was written and
// when it expires, in node time, or why it could not be stored, and must not
// block. r, which must have room for a stamp and is given one, may not be changed
// until then, and nothing of it is kept beyond. False: nothing has been done, and
// the question is one for Ask.
func (c *Core) AtOnce(now int64, r *messages.Register, then func(nowMS, expiresMS int64, err error)) bool {
	id := xxh3.HashString(r.Aor)
	s := &c.shards[id>>58]
	s.mu.Lock()
	rec, ok := c.inPlace(now, s, id, r)
	keeps := ok && c.parts.Store.Keeps()
	var expiresMS int64
	if ok {
		expiresMS = rec.Leases[0].ExpiresMs
	}
	if keeps {
		// With the shard locked, so that the writes of one key are in order.
		c.parts.Store.Put(rec, func(err error) {
			if err != nil {
				c.written(strings.Clone(r.Aor), err)
			}
			then(now, expiresMS, err)
		})
	}
	s.mu.Unlock()
	if ok && !keeps {
		then(now, expiresMS, nil)
	}
	return ok
}

// inPlace writes the record of a user and tells what it is; it is good until s,
// which is locked, is worked with again.
func (c *Core) inPlace(now int64, s *shard, id uint64, r *messages.Register) (*messages.Record, bool) {
	if !c.isAlone(r.Aor) {
		return nil, false
	}
	at := packed(s.cells.get(id))
	switch {
	case at == nil && s.awake[id] == nil:
		return c.begin(now, s, id, r)
	case at != nil && !at.awake() && at.aor() == r.Aor:
		return c.renewed(now, s, id, at, r)
	}
	return nil, false
}

// renewed writes stamp, CSeq and expiry of the only lease in a cell.
func (c *Core) renewed(now int64, s *shard, id uint64, at packed, r *messages.Register) (*messages.Record, bool) {
	// The record shares the bytes that it is read from, and the cell may move.
	s.old = append(s.old[:0], at...)
	old := packed(s.old)
	rec := unpack(old.record(), old.aor(), &s.renewing)
	c.hlc.write(now, r.Stamp)
	expiresMS, ok := c.parts.Grains.Renews(r, rec, now)
	if !ok || !rec.Known() {
		return nil, false
	}
	l := rec.Leases[0]
	if l.Edge != c.cfg.Name || l.Flow.GetStream() {
		return nil, false // a connection may have closed meanwhile: vouch sees to that
	}
	l.Cseq, l.ExpiresMs = r.Cseq, expiresMS
	l.Stamp.Ms, l.Stamp.Counter, l.Stamp.Incarnation = r.Stamp.Ms, r.Stamp.Counter, r.Stamp.Incarnation
	return rec, c.writeInPlace(now, s, id, old[:old.begin()], rec)
}

// begin writes the first lease of a user.
func (c *Core) begin(now int64, s *shard, id uint64, r *messages.Register) (*messages.Record, bool) {
	if c.full(s) || c.watches.some.Load() || len(r.Aor) > math.MaxUint16 {
		return nil, false
	}
	b := &s.beginning
	c.hlc.write(now, r.Stamp)
	var ok bool
	if b.bytes, ok = c.parts.Grains.Begins(r, &b.lease, b.bytes, now); !ok || b.lease.Flow.GetStream() {
		return nil, false
	}
	b.list[0] = &b.lease
	b.rec.Aor, b.rec.Leases = r.Aor, b.list[:]
	var head [packedAoR]byte
	binary.LittleEndian.PutUint16(head[packedLen:], uint16(len(r.Aor)))
	s.old = append(append(s.old[:0], head[:]...), r.Aor...)
	if !c.writeInPlace(now, s, id, s.old, &b.rec) {
		return nil, false
	}
	s.n++
	return &b.rec, true
}

// writeInPlace puts rec, which has one lease of this edge's, into the cell of id.
// head is what the cell begins with; it shares nothing with the cell.
func (c *Core) writeInPlace(now int64, s *shard, id uint64, head packed, rec *messages.Record) bool {
	all, ok := rec.Pack(append(s.room[:0], head...))
	if !ok {
		return false
	}
	s.room = all
	at := packed(s.cells.get(id))
	if len(at) != len(all) {
		at = s.cells.put(id, len(all))
	}
	copy(at, all)
	at.setHash(hashLease(rec.Leases[0]))
	at.setCounted(0)
	at[packedFlags] |= flagStored
	s.accepted.note(now, rec)
	s.file(glance{id: id, at: at}, nextEvent(now, rec))
	c.stats.Asks.Add(1)
	c.stats.LocalAsks.Add(1)
	return true
}

// isAlone tells whether what this node says of a user is for nobody else to know
// or to say, as far as it must be asked in the ordinary way. The user's shard is
// locked.
func (c *Core) isAlone(aor string) bool {
	v := c.view.Load()
	return len(v.nodes) == 1 && c.tally.Load() == nil && c.complete(v, aor, "") &&
		!c.debug && c.off == (rules{}) && !c.asks.ended.Load() && c.stats.Parked.Load() < int64(c.cfg.MaxParked) &&
		c.handlers[registerType] == nil
}

// registerType is the name of a message that a node may be made to handle otherwise.
var registerType = messages.TypeName(&messages.Register{})
