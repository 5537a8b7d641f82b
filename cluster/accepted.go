package cluster

import (
	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// acceptedMS is how long the time of accepting a lease is remembered at least:
// longer than any request that could have been made before it may still be
// under way (RFC 3261 17.1.2.2, Timer F).
const acceptedMS = 64_000

// accepted remembers when this holder accepted a lease, or a floor (rule 1): the
// last one of each key, as hashes. What was accepted in the present period is in
// new, what was in the one before it in old; nothing in either is a pointer. It
// is guarded by its shard's mutex.
type accepted struct {
	new, old map[uint64]acceptance
	// since is when the present period began.
	since int64
}

// acceptance is of one stamp, at a node time.
type acceptance struct {
	stamp uint64
	ms    int64
}

// note remembers what is written now, unless its stamp says as much: what is not
// remembered counts as accepted at the time of its stamp.
func (a *accepted) note(now int64, writes *messages.Record) {
	a.expire(now)
	if a.new == nil {
		a.new = make(map[uint64]acceptance)
	}
	for _, l := range writes.Leases {
		if l.Stamp.GetMs() == now {
			continue
		}
		a.new[acceptedKey(writes.Aor, l.Key)] = acceptance{hashStamp(l.Stamp), now}
	}
	if f := writes.Floor; f != nil && f.Stamp.GetMs() != now {
		a.new[acceptedKey(writes.Aor, nil)] = acceptance{hashStamp(f.Stamp), now}
	}
}

// expire ends a period, and forgets the one before it.
func (a *accepted) expire(now int64) {
	if now-a.since <= acceptedMS {
		return
	}
	a.old, a.new = a.new, nil
	if now-a.since > 2*acceptedMS {
		a.old = nil
	}
	a.since = now
}

// at is when this holder accepted what is now the lease of a key, or the floor
// for nil; 0 if it came as a copy, or longer ago than anybody need know.
func (a *accepted) at(e *entry, key []byte) int64 {
	if e == nil {
		return 0
	}
	present := e.rec.GetFloor().GetStamp()
	if key != nil {
		present = e.rec.Lease(key).GetStamp()
	}
	id := acceptedKey(e.aor, key)
	got, ok := a.new[id]
	if !ok {
		got = a.old[id]
	}
	if got.stamp != hashStamp(present) {
		return 0
	}
	return got.ms
}

// acceptedKey names a lease of an AoR, or for nil its floor.
func acceptedKey(aor string, key []byte) uint64 {
	var room [256]byte
	b := append(append(room[:0], aor...), 0)
	if key != nil {
		b = append(append(b, 1), key...)
	}
	return xxh3.Hash(b)
}

func hashStamp(s *messages.Stamp) uint64 {
	var room [20]byte
	return xxh3.Hash(appendStamp(room[:0], s))
}
