package cluster

import (
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

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
