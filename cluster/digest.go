package cluster

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// Digests find what slipped through: at the same node times every node sends
// the sums of what it shares with each peer (tally.go); where a bucket differs, the
// sums of its parts are compared, and both sides offer what is in those that
// differ (rule 10). So a difference costs about as much as it is large: with a
// million users, a thousand that differ are in nearly every bucket of a digest.

const (
	// digestBuckets is how many sums a digest has at most, a power of two: 16 KiB of them.
	digestBuckets = 2048
	// fineBuckets is into how many parts a table is summed up at most, a power of two.
	fineBuckets = 1 << 16
	// bucketRecords is about how many records a part is to have.
	bucketRecords = 4
	// digestRecords is how many records are counted in one tick after a change of view.
	digestRecords = 512
)

// digestState is what is compared in the present slot. mu also guards the walk
// of the tally.
type digestState struct {
	mu   sync.Mutex
	slot int64
	view uint64
	// done: sums are of slot, or there are none for it.
	done bool
	sums sums
	// early are digests of peers that came before this node had its sums.
	early map[string]*messages.Digests
	// tallies numbers them.
	tallies uint32
}

// timeTally says up to which time changes are counted: what is young is left
// out, and until a slot's sums are taken, what is young at its beginning.
func (c *Core) timeTally(now int64) {
	d := &c.digests
	d.mu.Lock()
	defer d.mu.Unlock()
	at := now
	if slot := c.slot(now); slot != d.slot || !d.done {
		at = slot
	}
	c.tallyUntil.Store(at - youngMS)
}

// slot is the node time at which the digests of now were due.
func (c *Core) slot(now int64) int64 {
	every := millis(c.cfg.DigestEvery)
	return now / every * every
}

// tickDigests keeps the tally, and sends its sums when a slot has begun.
func (c *Core) tickDigests(now int64) {
	d := &c.digests
	v := c.view.Load()
	d.mu.Lock()
	slot := c.slot(now)
	begins := d.slot != slot
	if begins {
		first := d.slot == 0
		d.slot, d.view, d.done = slot, v.digest, first || !c.settled.Load()
		d.sums, d.early = sums{}, make(map[string]*messages.Digests)
	}
	t := c.keepTally(v, begins)
	if d.done || t == nil || d.view != v.digest {
		d.done = true
		d.mu.Unlock()
		return
	}
	if !t.whole() {
		d.mu.Unlock()
		return
	}
	d.done, d.sums = true, t.sums()
	early, mine := d.early, d.sums
	d.early = make(map[string]*messages.Digests)
	d.mu.Unlock()
	for i := range v.nodes {
		if p := v.nodes[i].peer; p != nil && c.cfg.Name < p.name {
			// One side sends: the other finds the differences and says them.
			c.event(p, &messages.Digests{SlotMs: slot, View: v.digest, Buckets: mine.packed(p.name, digestBuckets)})
		}
	}
	for from, m := range early {
		c.onDigests(now, from, m)
	}
}

// sums are what is shared with members.
type sums struct {
	// width is the number of buckets, a power of two.
	width int
	with  map[string]*shared // by name
}

// shared is what is shared with one member: sums by bucket, of how many records.
type shared struct {
	sums    []uint64
	records int
}

// newSums are for a walk through the table as it is.
func (c *Core) newSums(v *view) sums { return sums{c.width(v), make(map[string]*shared)} }

// width is in how many buckets the table is summed up: with many records they are finer.
func (c *Core) width(v *view) int {
	records := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		records += s.n
		s.mu.Unlock()
	}
	// A record is shared with one or two of the others.
	return bucketsFor(2*records/max(1, len(v.nodes)-1), digestBuckets, fineBuckets)
}

// bucketsFor is how many buckets records are worth.
func bucketsFor(records, least, most int) int {
	size := least
	for size < records/bucketRecords && size < most {
		size *= 2
	}
	return size
}

// sum adds a record to the sums of those who share it.
func (c *Core) sum(v *view, rec *messages.Record, hash uint64, all sums) {
	key := xxh3.HashString(rec.Aor)
	c.eachShared(v, rec, func(i int, scope string) {
		h := hash
		if scope != "" {
			h = hashPart(rec, scope)
		}
		if h == 0 {
			return
		}
		with := all.with[v.nodes[i].Name]
		if with == nil {
			with = &shared{sums: make([]uint64, all.width)}
			all.with[v.nodes[i].Name] = with
		}
		with.records++
		// Mixed with the AoR: two records of one bucket must not make up for each other.
		with.sums[key%uint64(all.width)] += score(h, key)
	})
}

// of are the sums of what is shared with a member, nil if that is nothing.
func (all sums) of(name string) []uint64 {
	if with := all.with[name]; with != nil {
		return with.sums
	}
	return nil
}

// fold makes fewer buckets of sums.
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

// packed are the sums to send: as many buckets as the records are worth, most at most.
func (all sums) packed(name string, most int) []uint64 {
	with := all.with[name]
	if with == nil {
		return nil
	}
	return fold(with.sums, bucketsFor(with.records, 16, min(most, all.width)))
}

// differing compares this node's sums with a peer's, in the smaller number of
// buckets; no sums at all are zeros.
func differing(mine, theirs []uint64) (buckets []uint32, of int) {
	switch {
	case len(mine) == 0 && len(theirs) == 0:
		return nil, digestBuckets
	case len(theirs) == 0:
		theirs = make([]uint64, len(mine))
	case len(mine) == 0:
		mine = make([]uint64, len(theirs))
	}
	of = min(len(mine), len(theirs))
	mine, theirs = fold(mine, of), fold(theirs, of)
	for i := range of {
		if mine[i] != theirs[i] {
			buckets = append(buckets, uint32(i))
		}
	}
	return buckets, of
}

// parts are the sums of the parts of some buckets, as Differs has them.
func parts(mine []uint64, buckets []uint32, of int) (sums []uint64) {
	for _, b := range buckets {
		for i := int(b); i < len(mine); i += of {
			sums = append(sums, mine[i])
		}
	}
	return sums
}

// differingParts compares this node's sums with a peer's parts, in the smaller
// number of them; false if those make no sense.
func differingParts(mine []uint64, m *messages.Differs) (buckets []uint32, of int, ok bool) {
	coarse, fine := int(m.Of), int(m.Fine)
	if bits.OnesCount(uint(coarse)) != 1 || bits.OnesCount(uint(fine)) != 1 || fine < coarse || fine > fineBuckets ||
		len(m.Sums) != len(m.Buckets)*(fine/coarse) {
		return nil, 0, false
	}
	of = min(fine, max(len(mine), coarse))
	theirs := make(map[uint32]uint64)
	for n, sum := range m.Sums {
		i := int(m.Buckets[n/(fine/coarse)]) + n%(fine/coarse)*coarse
		theirs[uint32(i%of)] += sum
	}
	if len(mine) > 0 {
		mine = fold(mine, of)
	}
	for i, sum := range theirs {
		if int(i) >= len(mine) && sum != 0 || int(i) < len(mine) && mine[i] != sum {
			buckets = append(buckets, i)
		}
	}
	slices.Sort(buckets)
	return buckets, of, true
}

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
	mine, same := d.sums.of(from), m.SlotMs == d.slot && d.view == v.digest
	d.mu.Unlock()
	p := v.peer(from)
	if !same || p == nil {
		return
	}
	buckets, of := differing(mine, m.Buckets)
	if len(buckets) == 0 {
		return
	}
	out := &messages.Differs{SlotMs: m.SlotMs, View: m.View, Buckets: buckets, Of: uint32(of)}
	if len(mine) > of {
		// The peer names the parts that differ, and only then is anything offered.
		out.Fine, out.Sums = uint32(len(mine)), parts(mine, buckets, of)
	}
	c.event(p, out)
	if out.Fine == 0 {
		c.offerBuckets(now, v, p, buckets, of, m.SlotMs-youngMS)
	}
}

// onDiffers offers what is in the buckets that differ, or first finds the parts that do.
func (c *Core) onDiffers(now int64, from string, m *messages.Differs) {
	v := c.view.Load()
	p := v.peer(from)
	if p == nil || m.View != v.digest || m.Of == 0 {
		return
	}
	buckets, of := m.Buckets, int(m.Of)
	if m.Fine != 0 {
		d := &c.digests
		d.mu.Lock()
		mine, same := d.sums.of(from), m.SlotMs == d.slot && d.done && d.view == v.digest
		d.mu.Unlock()
		var ok bool
		if buckets, of, ok = differingParts(mine, m); !ok || !same || len(buckets) == 0 {
			return // the next digest shows what is left
		}
		c.event(p, &messages.Differs{SlotMs: m.SlotMs, View: m.View, Buckets: buckets, Of: uint32(of)})
	}
	c.offerBuckets(now, v, p, buckets, of, m.SlotMs-youngMS)
}

// offerBuckets offers a peer all that it shares in some buckets and that has not
// changed after a node time.
func (c *Core) offerBuckets(now int64, v *view, p *neighbor, buckets []uint32, of int, until int64) {
	c.stats.Differing.Add(int64(len(buckets)))
	want := make(map[uint64]bool, len(buckets))
	for _, b := range buckets {
		want[uint64(b)] = true
	}
	var room messages.RecordRoom
	c.walk(func(s *shard, g glance) {
		if !want[g.id%uint64(of)] {
			return
		}
		rec, offer := g.read(&room), false
		if newest(rec) > until {
			return
		}
		c.eachShared(v, rec, func(i int, _ string) { offer = offer || v.nodes[i].peer == p })
		if offer {
			c.addTarget(now, s, s.hold(g), target{peer: p, light: true}, origin{bulk: true})
		}
	})
}
