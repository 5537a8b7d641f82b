package transaction

import "math"

// Gist is what is kept of an answer that its user can write again, given the
// request once more: two numbers, where the whole answer takes half a kilobyte.
// Value is less than math.MaxUint32-1.
type Gist struct {
	At    int64
	Value uint32
}

// gists keep what answers to REGISTERs can be written from again, for as long as
// repeats come (64*T1, RFC 3261 17.2.2): nearly all that a registrar has to keep.
// They are a queue by age in one array, found by a table of places in it, and
// have no pointer for the collector to follow.
type gists struct {
	// ring has the entries from place head on, n of them, each at its place modulo
	// the ring's length, a power of two. Places count on for ever, modulo 2^32.
	ring    []gistEntry
	head, n uint32
	// table has, at or behind where it belongs, for each entry that can be found the
	// upper half of its hash with the lowest bit set, and its place; 0 is empty. It is twice as long as ring.
	table []uint64
	// bits is the binary logarithm of the table's length.
	bits uint
}

// gistEntry is of one request, by the hash of its key and that of its text.
type gistEntry struct {
	hash, text uint64
	// at and value are its Gist.
	at    int64
	value uint32
	// expires is in ms since the layer's epoch, modulo 2^32.
	expires uint32
}

const (
	// gistPending and gistDropped are values of those that have no answer so far,
	// and of those that are not to be found any more.
	gistPending = math.MaxUint32
	gistDropped = math.MaxUint32 - 1
	// gistSize is the memory of one, with its share of room that is free.
	gistSize = 96
	// leastGists is the length of the smallest ring.
	leastGists = 64
)

// bytes is the memory of all.
func (g *gists) bytes() int { return int(g.n) * gistSize }

func (g *gists) entry(place uint32) *gistEntry { return &g.ring[place&uint32(len(g.ring)-1)] }

// holds tells whether a place is one of a hash still.
func (g *gists) holds(place uint32, hash uint64) bool {
	return place-g.head < g.n && g.entry(place).hash == hash
}

// home is where an entry of the table belongs.
func (g *gists) home(slot uint64) uint32 { return uint32(slot >> (64 - g.bits)) }

func gistSlot(hash uint64, place uint32) uint64 { return (hash>>32|1)<<32 | uint64(place) }

// find is the entry of a hash, nil if there is none.
func (g *gists) find(hash uint64) (place uint32, e *gistEntry) {
	if g.n == 0 {
		return 0, nil
	}
	mark, mask := gistSlot(hash, 0), uint32(len(g.table)-1)
	for i := g.home(mark); g.table[i] != 0; i = (i + 1) & mask {
		if slot := g.table[i]; slot&^math.MaxUint32 == mark {
			if e := g.entry(uint32(slot)); e.hash == hash {
				return uint32(slot), e
			}
		}
	}
	return 0, nil
}

// pending tells whether a request is being seen to.
func (g *gists) pending(hash uint64) bool {
	_, e := g.find(hash)
	return e != nil && e.value == gistPending
}

// add appends an entry, instead of the one that has its hash, and returns its place.
func (g *gists) add(e gistEntry) uint32 {
	if place, old := g.find(e.hash); old != nil {
		g.drop(place)
	}
	if int(g.n) == len(g.ring) {
		g.resize(max(leastGists, 2*len(g.ring)))
	}
	place := g.head + g.n
	g.n++
	*g.entry(place) = e
	g.enter(gistSlot(e.hash, place))
	return place
}

// enter puts a slot into the table.
func (g *gists) enter(slot uint64) {
	i, mask := g.home(slot), uint32(len(g.table)-1)
	for g.table[i] != 0 {
		i = (i + 1) & mask
	}
	g.table[i] = slot
}

// drop makes an entry one that is not found any more. If it is not the newest its
// turn comes later.
func (g *gists) drop(place uint32) {
	e := g.entry(place)
	g.leave(gistSlot(e.hash, place))
	*e = gistEntry{value: gistDropped, expires: e.expires}
	for g.n > 0 && g.entry(g.head+g.n-1).value == gistDropped {
		g.n--
	}
}

// leave takes a slot out of the table. Those behind it move up that would not be
// found behind an empty one.
func (g *gists) leave(slot uint64) {
	i, mask := g.home(slot), uint32(len(g.table)-1)
	for g.table[i] != slot {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; g.table[j] != 0; j = (j + 1) & mask {
		if (j-g.home(g.table[j]))&mask >= (j-i)&mask {
			g.table[i] = g.table[j]
			i = j
		}
	}
	g.table[i] = 0
}

// pop takes the oldest one out, of which there is one. It tells whether it could be found.
func (g *gists) pop() bool {
	e := g.entry(g.head)
	found := e.value != gistDropped
	if found {
		g.leave(gistSlot(e.hash, g.head))
	}
	g.head++
	g.n--
	return found
}

// expire takes out those whose time is over, and gives back room that is not needed any more.
func (g *gists) expire(now uint32) {
	for g.n > 0 && int32(g.entry(g.head).expires-now) <= 0 {
		g.pop()
	}
	if len(g.ring) > leastGists && int(g.n) < len(g.ring)/8 {
		g.resize(len(g.ring) / 2)
	}
}

// resize makes room for so many.
func (g *gists) resize(n int) {
	old := *g
	g.ring, g.table, g.bits = make([]gistEntry, n), make([]uint64, 2*n), 1
	for 1<<g.bits < 2*n {
		g.bits++
	}
	for place := g.head; place != g.head+g.n; place++ {
		e := g.entry(place)
		if *e = *old.entry(place); e.value != gistDropped {
			g.enter(gistSlot(e.hash, place))
		}
	}
}
