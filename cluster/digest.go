package cluster

import (
	"slices"
	"sync"

	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// Digests find what slipped through: at the same node times every node sums up
// what it shares with each peer and sends the sums; where a bucket differs,
// both sides offer what is in it (rule 10).

const (
	// digestBuckets is how many sums a digest has at most, a power of two: 16 KiB of them.
	digestBuckets = 2048
	// digestMarginMS leaves out what is too young to have reached everybody.
	digestMarginMS = 5000
	// digestRecords is how many records are summed in one tick.
	digestRecords = 512
)

// digestState is the walk for the present slot. mu also guards the walk, so
// that a tick and a message do not see half a sum.
type digestState struct {
	mu   sync.Mutex
	slot int64
	view uint64
	next int
	done bool
	sums sums
	// early are digests of peers that came before the walk was complete.
	early map[string]*messages.Digests
}

// tickDigests walks on, and sends the sums when the walk is complete.
func (c *Core) tickDigests(now int64) {
	d := &c.digests
	every := millis(c.cfg.DigestEvery)
	v := c.view.Load()
	d.mu.Lock()
	if slot := now / every * every; d.slot != slot {
		first := d.slot == 0
		d.slot, d.view, d.next, d.done = slot, v.digest, 0, first || !c.settled.Load()
		d.sums, d.early = make(sums), make(map[string]*messages.Digests)
	}
	if d.done || d.view != v.digest {
		d.mu.Unlock()
		return
	}
	for seen := 0; d.next < shards && seen < digestRecords; d.next++ {
		seen += c.sumShard(v, &c.shards[d.next], d)
	}
	if d.next < shards {
		d.mu.Unlock()
		return
	}
	d.done = true
	early, mine := d.early, d.sums
	d.early = make(map[string]*messages.Digests)
	slot := d.slot
	d.mu.Unlock()
	for i := range v.nodes {
		if p := v.nodes[i].peer; p != nil && c.cfg.Name < p.name {
			// One side sends: the other finds the differences and says them.
			c.event(p, &messages.Digests{SlotMs: slot, View: v.digest, Buckets: mine.packed(p.name)})
		}
	}
	for from, m := range early {
		c.onDigests(now, from, m)
	}
}

// sumShard adds a shard's records to the sums of the peers that share them.
func (c *Core) sumShard(v *view, s *shard, d *digestState) int {
	var room messages.RecordRoom
	all := s.all()
	for some := range slices.Chunk(all, scanChunk) {
		s.mu.Lock()
		for _, e := range some {
			if e.gone {
				continue
			}
			if rec := e.read(&room); newest(rec) <= d.slot-digestMarginMS {
				c.sum(v, e, rec, d.sums)
			}
		}
		s.mu.Unlock()
	}
	return len(all)
}

// sums are what is shared with members, by name and bucket.
type sums map[string][]uint64

// sum adds a record to the sums of those who share it.
func (c *Core) sum(v *view, e *entry, rec *messages.Record, all sums) {
	c.eachShared(v, rec, func(i int, scope string) {
		h := e.hash
		if scope != "" {
			h = hashPart(rec, scope)
		}
		if h == 0 {
			return
		}
		of := all[v.nodes[i].Name]
		if of == nil {
			of = make([]uint64, digestBuckets)
			all[v.nodes[i].Name] = of
		}
		// Mixed with the AoR: two records of one bucket must not make up for each other.
		of[bucket(e.aor)] += score(h, xxh3.HashString(e.aor))
	})
}

// fold makes fewer buckets of sums, about one for four records.
func fold(of []uint64, size int) []uint64 {
	if len(of) <= size {
		return of
	}
	out := make([]uint64, size)
	for i, s := range of {
		out[i%size] += s
	}
	return out
}

// packed are the sums to send: as many buckets as the records are worth.
func (all sums) packed(name string) []uint64 {
	of, used := all[name], 0
	for _, s := range of {
		if s != 0 {
			used++
		}
	}
	size := 16
	for size < used && size < digestBuckets {
		size *= 2
	}
	return fold(of, size)
}

// differing compares this node's sums with a peer's, in the peer's number of
// buckets; no sums at all are zeros.
func differing(mine, theirs []uint64) (buckets []uint32, of int) {
	of = len(theirs)
	if of == 0 {
		of = digestBuckets
	}
	mine = fold(mine, of)
	at := func(s []uint64, i int) uint64 {
		if i < len(s) {
			return s[i]
		}
		return 0
	}
	for i := range of {
		if at(mine, i) != at(theirs, i) {
			buckets = append(buckets, uint32(i))
		}
	}
	return buckets, of
}

func bucket(aor string) int { return int(xxh3.HashString(aor) % digestBuckets) }

// newest is the node time of the last change of a record, as both sides see it.
func newest(r *messages.Record) int64 {
	ms := r.GetFloor().GetStamp().GetMs()
	for _, l := range r.Leases {
		ms = max(ms, l.Stamp.GetMs())
	}
	for _, e := range r.Ended {
		ms = max(ms, e.Ms)
	}
	return ms
}

// eachShared calls f for every other member that has business with rec, with the
// edge whose part of it is shared. A member that is neither a holder nor an
// edge here shares nothing, nor do two that hold nothing.
func (c *Core) eachShared(v *view, rec *messages.Record, f func(i int, scope string)) {
	owner, backup := v.place(rec.Aor)
	if owner != v.self && backup != v.self {
		for _, i := range [...]int{owner, backup} {
			if i != none {
				f(i, c.cfg.Name)
			}
		}
		return
	}
	for _, i := range [...]int{owner, backup} {
		if i != none && i != v.self {
			f(i, "")
		}
	}
	told := make([]int, 0, 4)
	edge := func(name string) {
		i := v.index(name)
		if i == none || i == v.self || i == owner || i == backup {
			return
		}
		for _, t := range told {
			if t == i {
				return
			}
		}
		told = append(told, i)
		f(i, name)
	}
	for _, l := range rec.Leases {
		edge(l.Edge)
	}
	for _, x := range rec.Ended {
		edge(x.Edge)
	}
	if rec.Floor != nil {
		edge(rec.Floor.Edge)
	}
}

// onDigests compares a peer's sums with those of the same time and view.
func (c *Core) onDigests(now int64, from string, m *messages.Digests) {
	d := &c.digests
	v := c.view.Load()
	if m.View != v.digest {
		return
	}
	d.mu.Lock()
	if m.SlotMs > d.slot || m.SlotMs == d.slot && !d.done {
		if m.SlotMs == d.slot {
			d.early[from] = m
		}
		d.mu.Unlock()
		return
	}
	mine, same := d.sums[from], m.SlotMs == d.slot && d.view == v.digest
	d.mu.Unlock()
	if !same {
		return
	}
	out := &messages.Differs{SlotMs: m.SlotMs, View: m.View}
	buckets, of := differing(mine, m.Buckets)
	out.Buckets, out.Of = buckets, uint32(of)
	if p := v.peer(from); p != nil && len(out.Buckets) > 0 {
		c.event(p, out)
		c.offerBuckets(now, v, p, buckets, of)
	}
}

// onDiffers offers what is in the buckets that differ.
func (c *Core) onDiffers(now int64, from string, m *messages.Differs) {
	v := c.view.Load()
	if p := v.peer(from); p != nil && m.View == v.digest && m.Of > 0 {
		c.offerBuckets(now, v, p, m.Buckets, int(m.Of))
	}
}

// offerBuckets offers a peer all that it shares in some buckets.
func (c *Core) offerBuckets(now int64, v *view, p *neighbor, buckets []uint32, of int) {
	c.stats.Differing.Add(int64(len(buckets)))
	want := make(map[int]bool, len(buckets))
	for _, b := range buckets {
		want[int(b)] = true
	}
	var room messages.RecordRoom
	for i := range c.shards {
		s := &c.shards[i]
		for some := range slices.Chunk(s.all(), scanChunk) {
			s.mu.Lock()
			for _, e := range some {
				if e.gone || !want[bucket(e.aor)%of] {
					continue
				}
				c.eachShared(v, e.read(&room), func(i int, _ string) {
					if v.nodes[i].peer == p {
						s.unpack(e)
						c.addTarget(now, s, e, target{peer: p, light: true}, origin{bulk: true})
					}
				})
			}
			s.mu.Unlock()
		}
	}
}
