package cluster

import (
	"strings"

	"hereis/messages"
)

// Nearly all users of a node are at rest: their records are kept packed, as
// bytes without a pointer in them. Whoever works with an entry gets it unpacked
// from shard.entry, and the next tick packs it again.

// unpackedRoom is up to how long a shard's list of unpacked entries is used again.
const unpackedRoom = 1024

// entry finds the entry of an AoR, with its record; nil if there is none. s is locked.
func (s *shard) entry(aor string) *entry {
	e := s.entries[aor]
	if e != nil {
		s.unpack(e)
	}
	return e
}

// unpack gives e its record. s is locked.
func (s *shard) unpack(e *entry) {
	if e.rec == nil {
		e.rec, e.packed = e.read(nil), ""
		s.unpacked = append(s.unpacked, e)
	}
}

// read is the record of e, whether packed or not, in a room that may be used
// again when nothing of it is needed any more; nil: in one of its own.
func (e *entry) read(room *messages.RecordRoom) *messages.Record {
	if e.rec != nil {
		return e.rec
	}
	rec, err := messages.Unpack(e.packed, e.aor, room)
	if err != nil {
		panic("cluster: a packed record cannot be read: " + err.Error())
	}
	return rec
}

// add makes the entry of an AoR, with an empty record. s is locked.
func (s *shard) add(aor string, rec *messages.Record) *entry {
	// The AoR may be a part of a whole request.
	e := &entry{aor: strings.Clone(aor), rec: rec}
	s.entries[e.aor] = e
	s.unpacked = append(s.unpacked, e)
	return e
}

// pack puts to rest what has been worked with since the last tick. s is locked.
func (s *shard) pack() {
	left := s.unpacked[:0]
	for _, e := range s.unpacked {
		if e.gone {
			continue
		}
		packed, ok := e.rec.Pack(s.room[:0])
		if !ok {
			left = append(left, e) // its text is no UTF-8: it stays as it is
			continue
		}
		e.packed, e.rec, s.room = string(packed), nil, packed
	}
	clear(s.unpacked[len(left):])
	s.unpacked = left
	if cap(left) > unpackedRoom && len(left) == 0 {
		s.unpacked = nil
	}
}
