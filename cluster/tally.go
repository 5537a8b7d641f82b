package cluster

import (
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// A tally is what is shared with each member of one view, summed up by bucket
// and kept true at each change: the record as it was is taken out, and as it is
// goes in when it is old enough to have reached everybody. So a digest costs
// nothing that grows with the users, and only a new view, in which everybody
// shares something else, needs a walk through the table.

// youngMS is how long a change is left out: it may not have reached everybody.
const youngMS = 5000

// tally is of one view. An entry's counted says whether it has its record.
type tally struct {
	number uint32
	v      *view
	width  int
	with   []atomic.Pointer[counts] // by index in v.nodes

	// next is the shard to walk through, shards when all is in; rest are the
	// hashes of those of the shard before that are still to be counted. Guarded by
	// digestState.mu.
	next int
	rest []uint64
}

// counts are shared with one member, as in shared.
type counts struct {
	sums    []atomic.Uint64
	records atomic.Int64
}

func (t *tally) whole() bool { return t.next == shards && len(t.rest) == 0 }

// of are the counts of a node of the view.
func (t *tally) of(i int) *counts {
	if with := t.with[i].Load(); with != nil {
		return with
	}
	t.with[i].CompareAndSwap(nil, &counts{sums: make([]atomic.Uint64, t.width)})
	return t.with[i].Load()
}

// add puts a record in, or takes it out.
func (t *tally) add(c *Core, rec *messages.Record, hash uint64, out bool) {
	key := xxh3.HashString(rec.Aor)
	c.eachShared(t.v, rec, func(i int, scope string) {
		h := hash
		if scope != "" {
			h = hashPart(rec, scope)
		}
		if h == 0 {
			return
		}
		// Mixed with the AoR: two records of one bucket must not make up for each other.
		h, n := score(h, key), int64(1)
		if out {
			h, n = -h, -1
		}
		with := t.of(i)
		with.sums[key%uint64(t.width)].Add(h)
		with.records.Add(n)
	})
}

// sums are those of now, to be compared with a member's.
func (t *tally) sums() sums {
	out := sums{t.width, make(map[string]*shared)}
	for i := range t.with {
		with := t.with[i].Load()
		if with == nil {
			continue
		}
		copied := &shared{sums: make([]uint64, t.width), records: int(with.records.Load())}
		for b := range with.sums {
			copied.sums[b] = with.sums[b].Load()
		}
		out.with[t.v.nodes[i].Name] = copied
	}
	return out
}

// isYoung tells whether a record has changed after the time up to which the
// tally counts, in whole seconds.
func (c *Core) isYoung(rec *messages.Record) (sec int64, young bool) {
	sec = second(newest(rec))
	return sec, sec*1000 > c.tallyUntil.Load()
}

// count puts e's record in the tally, or files it to be put there in its time. s is locked, here and below.
func (c *Core) count(s *shard, e *entry) {
	if t := c.tally.Load(); t != nil {
		c.countGlance(t, s, glance{id: e.id, e: e}, e.rec)
	}
}

func (c *Core) countGlance(t *tally, s *shard, g glance, rec *messages.Record) {
	if sec, young := c.isYoung(rec); young {
		if s.young == nil {
			s.young = make(map[int64][]uint64)
		}
		s.young[sec] = append(s.young[sec], g.id)
		return
	}
	t.add(c, rec, g.hash(), false)
	g.setCounted(t.number)
}

// uncount takes e's record out of the tally, as it is about to change.
func (c *Core) uncount(e *entry) {
	if t := c.tally.Load(); t != nil && e.counted == t.number {
		t.add(c, e.rec, e.hash, true)
	}
	e.counted = 0
}

// mature counts what is not young any more.
func (c *Core) mature(s *shard) {
	until := c.tallyUntil.Load()
	if len(s.young) == 0 || until/1000 == s.matured {
		return
	}
	s.matured = until / 1000
	t := c.tally.Load()
	var room *messages.RecordRoom
	for sec, ids := range s.young {
		if sec*1000 > until {
			continue
		}
		if room == nil {
			room = &messages.RecordRoom{}
		}
		delete(s.young, sec)
		for _, id := range ids {
			s.at(id, func(g glance) {
				if t == nil || g.counted() == t.number {
					return
				}
				rec := g.read(room)
				if _, young := c.isYoung(rec); !young { // else it has been filed again
					t.add(c, rec, g.hash(), false)
					g.setCounted(t.number)
				}
			})
		}
	}
}

// keepTally sees to it that there is a tally of the present view, as fine as
// the records are many, and goes on with its walk. digests.mu is held.
func (c *Core) keepTally(v *view, newSlot bool) *tally {
	d := &c.digests
	t := c.tally.Load()
	switch {
	case len(v.nodes) == 1:
		c.tally.Store(nil)
		return nil
	case t == nil || t.v != v || newSlot && c.width(v) > 2*t.width:
		d.tallies++
		t = &tally{number: d.tallies, v: v, width: c.width(v), with: make([]atomic.Pointer[counts], len(v.nodes))}
		c.tally.Store(t)
	}
	for left := digestRecords; left > 0 && !t.whole(); {
		if len(t.rest) == 0 {
			t.rest = c.shards[t.next].all()
			t.next++
		}
		n := min(len(t.rest), left, scanChunk)
		c.countSome(t, &c.shards[t.next-1], t.rest[:n])
		t.rest = t.rest[n:]
		left -= max(n, 1)
	}
	return t
}

// countSome is a step of the walk: what has been changed since it began is in already.
func (c *Core) countSome(t *tally, s *shard, some []uint64) {
	var room messages.RecordRoom
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range some {
		s.at(id, func(g glance) {
			if g.counted() != t.number {
				c.countGlance(t, s, g, g.read(&room))
			}
		})
	}
}
