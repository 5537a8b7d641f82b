package cluster

import (
	"encoding/binary"
	"math"
	"strings"
	"unsafe"

	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// Nearly all users of a node are at rest: their records are kept packed in the
// cells of their shard, with no pointer for any of them, so that what they cost
// the garbage collector does not grow with their number. Whoever works with one
// gets its entry from shard.entry; the next tick packs it again, and lets the
// entry go unless somebody has yet to acknowledge the record.
//
// Cells go by the hash of the AoR. Of two AoRs with one hash only one can be at
// rest; the other's entry stays as it is.

// busyRoom is up to how long a shard's list of busy entries is used again.
const busyRoom = 1024

// table has the records of a shard.
type table struct {
	// n counts them.
	n int
	// awake are the entries, by the hash of the AoR, linked by next.
	awake map[uint64]*entry
	// cells have what is packed, also of entries without rec.
	cells cells
	// busy are the entries that have been worked with since the last tick; room
	// is where they are packed.
	busy []*entry
	room []byte
}

// entry is one AoR at this node that is worked with, or waits for others. There
// is one at most, whatever the node's roles. It is guarded by its shard's mutex;
// a record never changes once it is here.
type entry struct {
	aor string
	// id is the hash of aor.
	id uint64
	// rec is nil while the record is in the cell.
	rec  *messages.Record
	hash uint64
	// x is nil unless the entry waits for something.
	x *extra
	// due is the second at which the entry is looked at, 0 for none.
	due uint32
	// counted is the tally that has the record, 0 for none (tally.go).
	counted uint32
	// stored: the disk has this edge's part.
	stored bool
	// celled: the cell of id is this AoR's.
	celled bool
	// listed: the entry stands in busy.
	listed bool
	// gone: this is not the AoR's entry any more; lists may still point to it.
	gone bool
	next *entry
}

// packed is the content of a cell: what the entry had, then the AoR and its record.
type packed []byte

const (
	packedDue     = 0
	packedCounted = 4
	packedHash    = 8
	packedFlags   = 16
	packedLen     = 17
	packedAoR     = 19

	// flagStored is entry.stored; flagAwake: there is an entry, and the cell has
	// no more than the record, if that.
	flagStored, flagAwake = 1, 2
)

func (p packed) due() uint32          { return binary.LittleEndian.Uint32(p[packedDue:]) }
func (p packed) counted() uint32      { return binary.LittleEndian.Uint32(p[packedCounted:]) }
func (p packed) setDue(sec uint32)    { binary.LittleEndian.PutUint32(p[packedDue:], sec) }
func (p packed) setHash(hash uint64)  { binary.LittleEndian.PutUint64(p[packedHash:], hash) }
func (p packed) setCounted(by uint32) { binary.LittleEndian.PutUint32(p[packedCounted:], by) }
func (p packed) hash() uint64         { return binary.LittleEndian.Uint64(p[packedHash:]) }
func (p packed) awake() bool          { return p[packedFlags]&flagAwake != 0 }

// note writes what an entry has beside its record.
func (p packed) note(e *entry) {
	p.setDue(e.due)
	p.setHash(e.hash)
	p.setCounted(e.counted)
	p[packedFlags] = flagAwake
	if e.stored {
		p[packedFlags] |= flagStored
	}
}

// aor and record share the cell's bytes: they are good until the cells change.
func (p packed) aor() string    { return textOf(p[packedAoR:p.begin()]) }
func (p packed) record() string { return textOf(p[p.begin():]) }

func (p packed) begin() int { return packedAoR + int(binary.LittleEndian.Uint16(p[packedLen:])) }

// textOf is b as a string, without a copy.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// glance is a look at an entry or at a cell without one, for as long as the
// shard is locked and the table does not change.
type glance struct {
	id uint64
	e  *entry
	at packed
}

func (g glance) aor() string {
	if g.e != nil {
		return g.e.aor
	}
	return g.at.aor()
}

func (g glance) hash() uint64 {
	if g.e != nil {
		return g.e.hash
	}
	return g.at.hash()
}

func (g glance) due() uint32 {
	if g.e != nil {
		return g.e.due
	}
	return g.at.due()
}

func (g glance) setDue(sec uint32) {
	if g.e != nil {
		g.e.due = sec
	} else {
		g.at.setDue(sec)
	}
}

func (g glance) counted() uint32 {
	if g.e != nil {
		return g.e.counted
	}
	return g.at.counted()
}

func (g glance) setCounted(by uint32) {
	if g.e != nil {
		g.e.counted = by
	} else {
		g.at.setCounted(by)
	}
}

// extra is the entry's; nil at rest.
func (g glance) extra() *extra {
	if g.e != nil {
		return g.e.x
	}
	return nil
}

// read is the record, in a room that may be used again when nothing of it is
// needed any more. It is as short-lived as the glance.
func (g glance) read(room *messages.RecordRoom) *messages.Record {
	if g.e != nil && g.e.rec != nil {
		return g.e.rec
	}
	return unpack(g.at.record(), g.aor(), room)
}

// keep is the record to be kept.
func (g glance) keep() *messages.Record {
	if g.e != nil && g.e.rec != nil {
		return g.e.rec
	}
	return unpack(strings.Clone(g.at.record()), strings.Clone(g.aor()), nil)
}

func unpack(text, aor string, room *messages.RecordRoom) *messages.Record {
	rec, err := messages.Unpack(text, aor, room)
	if err != nil {
		panic("cluster: a packed record cannot be read: " + err.Error())
	}
	return rec
}

// entry finds the entry of an AoR, or makes it of its cell, with its record; nil
// if there is none. The shard is locked, here and below.
func (t *table) entry(aor string) *entry { return t.entryOf(xxh3.HashString(aor), aor) }

func (t *table) entryOf(id uint64, aor string) *entry {
	if e := t.find(id, aor); e != nil {
		return t.unpack(e)
	}
	if at := packed(t.cells.get(id)); at != nil && !at.awake() && at.aor() == aor {
		return t.awaken(glance{id: id, at: at})
	}
	return nil
}

// look is a look at an AoR; false if there is none.
func (t *table) look(id uint64, aor string) (glance, bool) {
	if e := t.find(id, aor); e != nil {
		return t.glance(e), true
	}
	at := packed(t.cells.get(id))
	return glance{id: id, at: at}, at != nil && !at.awake() && at.aor() == aor
}

// find finds the entry of an AoR, whose record may be packed.
func (t *table) find(id uint64, aor string) *entry {
	for e := t.awake[id]; e != nil; e = e.next {
		if e.aor == aor {
			return e
		}
	}
	return nil
}

// awaken is the entry of what is seen, with its record.
func (t *table) awaken(g glance) *entry {
	if g.e != nil {
		return t.unpack(g.e)
	}
	text, n := strings.Clone(textOf(g.at[packedAoR:])), g.at.begin()-packedAoR
	e := t.link(g, text[:n])
	e.rec = unpack(text[n:], e.aor, nil)
	return t.unpack(e)
}

// hold is the entry of what is seen, for somebody who wants no more than its
// extra: without it, it would never go to rest.
func (t *table) hold(g glance) *entry {
	if g.e != nil {
		return g.e
	}
	return t.link(g, strings.Clone(g.at.aor()))
}

// link makes the entry of a cell that has none.
func (t *table) link(g glance, aor string) *entry {
	e := &entry{
		aor: aor, id: g.id, hash: g.at.hash(), due: g.at.due(), counted: g.at.counted(),
		stored: g.at[packedFlags]&flagStored != 0, celled: true,
	}
	g.at[packedFlags] |= flagAwake
	t.insert(e)
	return e
}

func (t *table) insert(e *entry) {
	if t.awake == nil {
		t.awake = make(map[uint64]*entry)
	}
	e.next = t.awake[e.id]
	t.awake[e.id] = e
}

func (t *table) unlink(e *entry) {
	e.gone = true
	if first := t.awake[e.id]; first != e {
		for first.next != e {
			first = first.next
		}
		first.next = e.next
	} else if e.next != nil {
		t.awake[e.id] = e.next
	} else {
		delete(t.awake, e.id)
	}
}

// unpack gives e its record.
func (t *table) unpack(e *entry) *entry {
	if e.rec == nil {
		e.rec = unpack(strings.Clone(packed(t.cells.get(e.id)).record()), e.aor, nil)
	}
	if !e.listed {
		e.listed = true
		t.busy = append(t.busy, e)
	}
	return e
}

// add makes the entry of an AoR.
func (t *table) add(aor string, rec *messages.Record) *entry {
	return t.addAs(xxh3.HashString(aor), aor, rec)
}

func (t *table) addAs(id uint64, aor string, rec *messages.Record) *entry {
	// The AoR may be a part of a whole request.
	e := &entry{aor: strings.Clone(aor), id: id, rec: rec}
	t.insert(e)
	t.n++
	return t.unpack(e)
}

// remove takes an entry out of the table.
func (t *table) remove(e *entry) {
	if e.gone {
		return
	}
	if e.celled {
		t.cells.remove(e.id)
	}
	t.unlink(e)
	t.n--
}

// pack puts to rest what has been worked with since the last tick.
func (t *table) pack() {
	for _, e := range t.busy {
		e.listed = false
		if e.gone || !t.store(e) {
			continue // its text is no UTF-8, or another has its cell: it stays as it is
		}
		e.rec = nil
		if e.x == nil {
			packed(t.cells.get(e.id))[packedFlags] &^= flagAwake
			t.unlink(e)
		}
	}
	clear(t.busy)
	t.busy = t.busy[:0]
	if cap(t.busy) > busyRoom {
		t.busy = nil
	}
}

// empty tells whether an entry's record has nothing in it.
func (t *table) empty(e *entry) bool {
	if e.rec != nil {
		return e.rec.Empty()
	}
	return packed(t.cells.get(e.id)).record() == ""
}

// settle lets an entry go that has no record, and waits for nothing any more:
// what its cell has is all there is to know.
func (t *table) settle(e *entry) {
	if e.rec != nil {
		return // pack sees to it
	}
	at := packed(t.cells.get(e.id))
	at.note(e)
	at[packedFlags] &^= flagAwake
	t.unlink(e)
}

// store writes an entry to its cell, and tells whether that could be done.
func (t *table) store(e *entry) bool {
	if len(e.aor) > math.MaxUint16 || !e.celled && t.cells.get(e.id) != nil {
		return false
	}
	record, ok := e.rec.Pack(t.room[:0])
	if !ok {
		return false
	}
	t.room, e.celled = record, true
	at := packed(t.cells.put(e.id, packedAoR+len(e.aor)+len(record)))
	at.note(e)
	binary.LittleEndian.PutUint16(at[packedLen:], uint16(len(e.aor)))
	copy(at[packedAoR+copy(at[packedAoR:], e.aor):], record)
	return true
}

// each calls f for everything in the table until it returns false. f must not change it.
func (t *table) each(f func(g glance) bool) {
	going := true
	t.waiting(func(e *entry) {
		if going {
			going = f(t.glance(e))
		}
	})
	if going {
		t.cells.each(func(id uint64, content []byte) bool {
			at := packed(content)
			return at.awake() || f(glance{id: id, at: at})
		})
	}
}

// waiting calls f for every entry.
func (t *table) waiting(f func(e *entry)) {
	for _, e := range t.awake {
		for ; e != nil; e = e.next {
			f(e)
		}
	}
}

func (t *table) glance(e *entry) glance {
	g := glance{id: e.id, e: e}
	if e.rec == nil {
		g.at = t.cells.get(e.id)
	}
	return g
}

// at calls f for each AoR with a hash. f may awaken it, and change it then.
func (t *table) at(id uint64, f func(g glance)) {
	for e := t.awake[id]; e != nil; {
		next := e.next
		f(t.glance(e))
		e = next
	}
	if at := packed(t.cells.get(id)); at != nil && !at.awake() {
		f(glance{id: id, at: at})
	}
}

// ids are the hashes of all AoRs.
func (t *table) ids() []uint64 {
	out := make([]uint64, 0, t.n)
	t.cells.each(func(key uint64, _ []byte) bool {
		out = append(out, key)
		return true
	})
	for id, e := range t.awake {
		if t.cells.get(e.id) == nil {
			out = append(out, id)
		}
	}
	return out
}
