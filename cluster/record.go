package cluster

import (
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// earlyMS is how long a dead key is kept at least, though everybody has
// acknowledged it (rule 4).
const earlyMS = 64_000

// The hash of a record is the sum of its elements' hashes, so that the hash of
// a part is the sum over that part. Of a lease it covers what an
// acknowledgement names: key, stamp, dead, vouch (rule 10), and what two
// holders that executed the same request may have written differently.

func hashLease(l *messages.Lease) uint64 {
	var room [512]byte
	b := append(room[:0], l.Key...)
	b = appendStamp(b, l.Stamp)
	b = binary.BigEndian.AppendUint64(b, l.Vouch)
	b = binary.BigEndian.AppendUint64(b, uint64(l.ExpiresMs))
	if l.Dead {
		b = append(b, 'x')
	}
	b = append(b, l.Payload...)
	return xxh3.Hash(append(b, l.Edge...))
}

func hashFloor(f *messages.Floor) uint64 {
	var room [96]byte
	b := appendStamp(append(room[:0], "floor"...), f.Stamp)
	return xxh3.Hash(append(b, f.Edge...))
}

func hashEnded(e *messages.Ended) uint64 {
	var room [96]byte
	b := append(room[:0], "ended"...)
	b = binary.BigEndian.AppendUint64(b, e.Flow.GetIncarnation())
	b = binary.BigEndian.AppendUint64(b, e.Flow.GetCounter())
	return xxh3.Hash(append(b, e.Edge...))
}

func appendStamp(b []byte, s *messages.Stamp) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(s.GetMs()))
	b = binary.BigEndian.AppendUint32(b, s.GetCounter())
	return binary.BigEndian.AppendUint64(b, s.GetIncarnation())
}

// hashPart is the hash of an edge's part of a record, of all of it if edge is empty.
func hashPart(r *messages.Record, edge string) (sum uint64) {
	for _, l := range r.GetLeases() {
		if edge == "" || l.Edge == edge {
			sum += hashLease(l)
		}
	}
	if f := r.GetFloor(); f != nil && (edge == "" || f.Edge == edge) {
		sum += hashFloor(f)
	}
	for _, e := range r.GetEnded() {
		if edge == "" || e.Edge == edge {
			sum += hashEnded(e)
		}
	}
	return sum
}

// part is what belongs to an edge: its leases, tombstones and ended flows, and
// the floor if it accepted it.
func part(r *messages.Record, edge string) *messages.Record {
	out := &messages.Record{Aor: r.Aor}
	for _, l := range r.Leases {
		if l.Edge == edge {
			out.Leases = append(out.Leases, l)
		}
	}
	if r.Floor != nil && r.Floor.Edge == edge {
		out.Floor = r.Floor
	}
	for _, e := range r.Ended {
		if e.Edge == edge {
			out.Ended = append(out.Ended, e)
		}
	}
	return out
}

// underFloor tells whether a lease was removed by the record's "Contact: *".
func underFloor(r *messages.Record, l *messages.Lease) bool {
	return r.Floor != nil && l.Kind <= messages.LeaseKind_LEASE_KIND_BINDING &&
		l.Stamp.Compare(r.Floor.Stamp) <= 0
}

// dropUnderFloor removes what the floor has removed: the floor itself speaks
// for these keys for as long as their tombstones would. r is not shared yet.
func dropUnderFloor(r *messages.Record) {
	if r.Floor != nil {
		r.Leases = slices.DeleteFunc(r.Leases, func(l *messages.Lease) bool { return underFloor(r, l) })
	}
}

// deadSince is the node time from which a lease of r is dead, expired or on an
// ended flow; false if it is alive.
func deadSince(r *messages.Record, l *messages.Lease, now int64) (int64, bool) {
	if r.Alive(l, now) {
		return 0, false
	}
	if l.Dead {
		return l.Stamp.GetMs(), true
	}
	since := l.ExpiresMs
	for _, e := range r.Ended {
		if e.Edge == l.Edge && e.Flow.Same(l.Flow) {
			since = min(since, e.Ms)
		}
	}
	return since, true
}

// Dead elements are kept until everybody has acknowledged them and they are
// old enough, or until nothing that they could still refute is alive (rule 4).

func leaseOver(l *messages.Lease, now int64) bool {
	last := max(l.Stamp.GetMs()+l.LifetimeMs, l.ExpiresMs)
	return last+messages.SkewBoundMS < now
}

func floorOver(f *messages.Floor, now int64) bool {
	return f.Stamp.GetMs()+f.LifetimeMs+messages.SkewBoundMS < now
}

func endedOver(e *messages.Ended, now int64) bool {
	return e.Ms+e.LifetimeMs+messages.SkewBoundMS < now
}

// early is rule 4's leave to forget before the longest lifetime is over: all
// have acknowledged it, in a settled view with no failed member.
type early struct {
	ok bool
	// goneMS is when the last member that is away went, 0 if none is: its disk
	// may bring back what it held then, for as long as that may live.
	goneMS int64
}

// over tells whether what is dead since then, of a kind that lives lifetime ms
// at most, may be forgotten.
func (x early) over(since, lifetime, now int64) bool {
	return x.ok && since+earlyMS < now && (x.goneMS == 0 || x.goneMS+lifetime+messages.SkewBoundMS < now)
}

// forget returns r without what may be forgotten, or r itself if that is nothing.
func forget(r *messages.Record, now int64, soon early) *messages.Record {
	dropLease := func(l *messages.Lease) bool {
		since, dead := deadSince(r, l, now)
		return dead && (leaseOver(l, now) || soon.over(since, l.LifetimeMs, now))
	}
	dropEnded := func(e *messages.Ended) bool { return endedOver(e, now) || soon.over(e.Ms, e.LifetimeMs, now) }
	dropFloor := r.Floor != nil && (floorOver(r.Floor, now) || soon.over(r.Floor.Stamp.GetMs(), r.Floor.LifetimeMs, now))
	if !dropFloor && !slices.ContainsFunc(r.Leases, dropLease) && !slices.ContainsFunc(r.Ended, dropEnded) {
		return r
	}
	out := &messages.Record{Aor: r.Aor}
	for _, l := range r.Leases {
		if !dropLease(l) {
			out.Leases = append(out.Leases, l)
		}
	}
	for _, e := range r.Ended {
		if !dropEnded(e) || slices.ContainsFunc(out.Leases, func(l *messages.Lease) bool {
			return l.Edge == e.Edge && l.Flow.Same(e.Flow)
		}) {
			out.Ended = append(out.Ended, e)
		}
	}
	if !dropFloor {
		out.Floor = r.Floor
	}
	return out
}

// admit is what of in may be merged into have: without dead elements that have
// been forgotten here and refute nothing that is here, which would otherwise
// go round for ever. all is false at a node that is only an edge: it takes its
// own part, and of the rest what has won over it.
func (c *Core) admit(now int64, have, in *messages.Record, soon early, all bool) *messages.Record {
	kept := forget(in, now, soon)
	if kept == in && all {
		return in
	}
	out := &messages.Record{Aor: in.Aor, Floor: in.Floor}
	for _, l := range in.Leases {
		mine := have.Lease(l.Key)
		if (slices.Contains(kept.Leases, l) && (all || l.Edge == c.cfg.Name)) || mine != nil {
			out.Leases = append(out.Leases, l)
		}
	}
	for _, e := range in.Ended {
		if (slices.Contains(kept.Ended, e) && (all || e.Edge == c.cfg.Name)) ||
			slices.ContainsFunc(have.GetLeases(), func(l *messages.Lease) bool { return l.Edge == e.Edge && l.Flow.Same(e.Flow) }) {
			out.Ended = append(out.Ended, e)
		}
	}
	if kept.Floor == nil && len(have.GetLeases()) == 0 {
		out.Floor = nil
	}
	return out
}

// origin says where a change of a record comes from, and so who need not be told.
type origin struct {
	// from is the member that has it already, empty for this node itself.
	from string
	// gate: this node has executed a request of from, whose answer brings from its part.
	gate bool
	// reply: it is what a holder answered to this edge; the holders tell each other.
	reply bool
	// bulk: it came with a bulk message: others have it too, most likely.
	bulk bool
	// keeps: the caller stores this edge's part itself.
	keeps bool
	// urgent: somebody waits for the copies.
	urgent bool
	// tell names edges that must drop what they hold.
	tell []string
}

// apply merges in into the record of an AoR and does all that follows: it
// stores this edge's part, tells the other holder and former edges, and files
// the record's expiry. s is locked. It returns the entry, nil if there is
// none, and whether anything has changed.
func (c *Core) apply(now int64, v *view, s *shard, aor string, in *messages.Record, o origin, after *effects) (*entry, bool) {
	e := s.entries[aor]
	before := &messages.Record{Aor: aor}
	if e != nil {
		before = e.rec
	}
	owner, backup := v.place(aor)
	holder := owner == v.self || backup == v.self
	all := holder || (e != nil && e.x != nil && e.x.former)
	next := before.Clone()
	next.Aor = aor
	in = c.admit(now, before, in, c.mayForget(v), all)
	next.Merge(in)
	if owner == v.self && !o.gate {
		o.tell = append(o.tell, c.writeLosersAgain(now, before, in, next)...)
	}
	dropUnderFloor(next)
	mended := c.vouch(now, before, next) || len(o.tell) > 0
	won := next
	if !all {
		next = part(next, c.cfg.Name)
	}
	hash := hashPart(next, "")
	if (e == nil && next.Empty()) || (e != nil && hash == e.hash) {
		return e, false
	}
	if e == nil {
		e = &entry{}
		s.entries[aor] = e
	}
	c.hlc.observe(in, now)
	if c.debug {
		c.logChange(aor, in, o)
	}
	e.rec, e.hash = next, hash
	lost := c.superseded(now, before, won, after)
	if lost || !o.keeps {
		c.store(e, before)
	}
	c.fileDue(now, s, e)
	for _, name := range c.formerEdges(now, before, won, o.from) {
		if owner == v.self || o.gate {
			o.tell = append(o.tell, name)
		}
	}
	if mended && !o.gate {
		o.from = ""
	}
	if all || mended || gained(before, next) {
		c.spread(now, v, s, e, in, o, owner, backup)
	}
	if owner == v.self || (o.gate && holder) {
		c.changed(now, before, next, after)
	}
	if next.Empty() && e.x == nil {
		c.remove(s, e)
	}
	return e, true
}

// writeLosersAgain gives the last word of a UA that lost by its stamp, because
// two sides of a cut took its requests by clocks that did not agree, a stamp
// above the winner's (rule 2). next is not shared yet. It names the edges of both.
func (c *Core) writeLosersAgain(now int64, before, in, next *messages.Record) (tell []string) {
	for _, l := range in.Leases {
		have := before.Lease(l.Key)
		if have == nil || have.CallId != l.CallId || have.Cseq == l.Cseq {
			continue
		}
		later, earlier := l, have
		if have.Cseq > l.Cseq {
			later, earlier = have, l
		}
		i := slices.Index(next.Leases, earlier)
		if i < 0 || leaseOver(later, now) {
			continue
		}
		c.hlc.observe(in, now)
		again := proto.CloneOf(later)
		again.Stamp = c.hlc.next(now)
		if again.Stamp.Compare(earlier.Stamp) > 0 {
			next.Leases[i] = again
			tell = append(tell, later.Edge, earlier.Edge)
		}
	}
	return tell
}

// gained tells whether next has anything that before had not.
func gained(before, next *messages.Record) bool {
	return next.Floor != nil && next.Floor != before.Floor ||
		len(next.Ended) > len(before.Ended) ||
		slices.ContainsFunc(next.Leases, func(l *messages.Lease) bool { return !slices.Contains(before.Leases, l) })
}

// mayForget is rule 4's condition for forgetting early, the acknowledgements apart.
func (c *Core) mayForget(v *view) early {
	return early{ok: c.settled.Load() && len(v.failed) == 0, goneMS: c.goneMS.Load()}
}

// formerEdges are the edges whose lease or tombstone has been superseded by
// another edge's word, so that they must drop it (rule 5).
func (c *Core) formerEdges(now int64, before, won *messages.Record, except string) (names []string) {
	for _, l := range before.Leases {
		if l.Edge == c.cfg.Name || l.Edge == except || leaseOver(l, now) {
			continue
		}
		if w := won.Lease(l.Key); w == nil || w.Edge != l.Edge {
			names = append(names, l.Edge)
		}
	}
	return names
}

// spread makes targets of all who must learn of a change (rule 10).
func (c *Core) spread(now int64, v *view, s *shard, e *entry, in *messages.Record, o origin, owner, backup int) {
	for _, i := range [...]int{owner, backup} {
		if i == none || i == v.self || v.nodes[i].Name == o.from && !o.gate {
			continue
		}
		t := target{peer: v.nodes[i].peer}
		switch {
		case o.reply:
			// The holders copy to each other, and the second one acknowledges
			// to this edge as well: only if that does not come is it asked.
			t.light, t.nextMS = true, now+replyGraceMS
		case o.bulk:
			t.light = true
		}
		c.addTarget(now, s, e, t, o)
	}
	if o.gate {
		if i := v.index(o.from); i != none && i != v.self && i != owner && i != backup {
			// The answer brings its part, if it arrives.
			c.addTarget(now, s, e, target{peer: v.nodes[i].peer, light: true, nextMS: now + edgeGraceMS}, o)
		}
		for _, l := range in.Leases {
			// The loser that is written again belongs to its own edge (rule 2).
			if l.Edge != o.from {
				o.tell = append(o.tell, l.Edge)
			}
		}
	}
	for _, name := range o.tell {
		if p := v.peer(name); p != nil {
			c.addTarget(now, s, e, target{peer: p, tell: true}, o)
		}
	}
	if !o.gate && !o.reply && owner == v.self {
		c.askToVouch(now, v, s, e, in, o)
	}
}

// askToVouch offers leases that have come from others to edges that have
// restarted since they vouched: they may have lost them with their disk (rule 12).
func (c *Core) askToVouch(now int64, v *view, s *shard, e *entry, in *messages.Record, o origin) {
	for _, l := range in.Leases {
		if p := v.peer(l.Edge); p != nil && l.Edge != o.from && l.Vouch < p.incarnation && e.rec.Alive(l, now) &&
			slices.Contains(e.rec.Leases, l) {
			c.addTarget(now, s, e, target{peer: p, light: true}, o)
		}
	}
}

// changed publishes what a change of a record means to watchers.
func (c *Core) changed(now int64, before, next *messages.Record, after *effects) {
	if ev := c.parts.Grains.Changed(before, next, now); ev != nil {
		ev.Node = c.cfg.Name
		after.add(func() { c.publish(ev) })
	}
}

// remove takes an entry out of the table.
func (c *Core) remove(s *shard, e *entry) {
	if s.entries[e.rec.Aor] == e {
		delete(s.entries, e.rec.Aor)
	}
	e.gone = true
}
