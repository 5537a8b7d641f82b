package messages

import (
	"bytes"
	"cmp"
)

// SkewBoundMS is how far, in milliseconds, the node times of two members may
// lie apart; a stamp further ahead of its holder's clock is refused
// (CONSISTENCY rule 9).
const SkewBoundMS = 2000

// Compare orders stamps by (ms, counter, incarnation). A nil stamp is below
// every other.
func (s *Stamp) Compare(o *Stamp) int {
	return cmp.Or(
		cmp.Compare(s.GetMs(), o.GetMs()),
		cmp.Compare(s.GetCounter(), o.GetCounter()),
		cmp.Compare(s.GetIncarnation(), o.GetIncarnation()),
	)
}

// Same tells whether two ids name the same flow.
func (f *FlowID) Same(o *FlowID) bool {
	return f.GetIncarnation() == o.GetIncarnation() && f.GetCounter() == o.GetCounter()
}

// Compare is the merge order of two leases of one key: (stamp, dead bit,
// vouch), ties by bytes of what remains, so that merging is commutative
// whatever a peer sends (rule 2).
func (l *Lease) Compare(o *Lease) int {
	if c := l.GetStamp().Compare(o.GetStamp()); c != 0 {
		return c
	}
	return cmp.Or(
		compareBool(l.GetDead(), o.GetDead()),
		cmp.Compare(l.GetVouch(), o.GetVouch()),
		cmp.Compare(l.GetExpiresMs(), o.GetExpiresMs()),
		cmp.Compare(l.GetEdge(), o.GetEdge()),
		cmp.Compare(l.GetFlow().GetIncarnation(), o.GetFlow().GetIncarnation()),
		cmp.Compare(l.GetFlow().GetCounter(), o.GetFlow().GetCounter()),
		cmp.Compare(l.GetCseq(), o.GetCseq()),
		cmp.Compare(l.GetCallId(), o.GetCallId()),
		cmp.Compare(l.GetLifetimeMs(), o.GetLifetimeMs()),
		bytes.Compare(l.GetPayload(), o.GetPayload()),
	)
}

// Compare orders floors by stamp, ties by the rest.
func (f *Floor) Compare(o *Floor) int {
	if c := f.GetStamp().Compare(o.GetStamp()); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(f.GetCseq(), o.GetCseq()),
		cmp.Compare(f.GetCallId(), o.GetCallId()),
		cmp.Compare(f.GetEdge(), o.GetEdge()),
		cmp.Compare(f.GetLifetimeMs(), o.GetLifetimeMs()),
	)
}

// Lease returns the lease of a key, or nil.
func (r *Record) Lease(key []byte) *Lease {
	for _, l := range r.GetLeases() {
		if bytes.Equal(l.Key, key) {
			return l
		}
	}
	return nil
}

// Empty tells whether nothing at all is known.
func (r *Record) Empty() bool {
	return len(r.GetLeases()) == 0 && r.GetFloor() == nil && len(r.GetEnded()) == 0
}

// HasEnded tells whether a flow of an edge is known to be over (rule 3).
func (r *Record) HasEnded(edge string, flow *FlowID) bool {
	for _, e := range r.GetEnded() {
		if e.Edge == edge && e.Flow.Same(flow) {
			return true
		}
	}
	return false
}

// Alive tells whether a lease of this record counts at node time nowMS: not
// dead, not expired, above the floor if it is a binding, on a flow that has not
// ended. Whether it can be reached is another question.
func (r *Record) Alive(l *Lease, nowMS int64) bool {
	return !l.GetDead() &&
		l.GetExpiresMs() > nowMS &&
		(r.GetFloor() == nil || l.GetKind() > LeaseKind_LEASE_KIND_BINDING || l.GetStamp().Compare(r.Floor.Stamp) > 0) &&
		!r.HasEnded(l.GetEdge(), l.GetFlow())
}

// Merge joins src into dst and tells whether dst changed. The operation is
// commutative, associative and idempotent; it has no limits, no clamping, no
// clock and no CSeq (rule 2). What src points to is shared, never written:
// messages are immutable once sent.
func (r *Record) Merge(src *Record) (changed bool) {
	for _, l := range src.GetLeases() {
		changed = r.mergeLease(l) || changed
	}
	if f := src.GetFloor(); f != nil && (r.Floor == nil || f.Compare(r.Floor) > 0) {
		r.Floor, changed = f, true
	}
	for _, e := range src.GetEnded() {
		changed = r.mergeEnded(e) || changed
	}
	return changed
}

func (r *Record) mergeLease(l *Lease) bool {
	for i, have := range r.Leases {
		if !bytes.Equal(have.Key, l.Key) {
			continue
		}
		if l.Compare(have) <= 0 {
			return false
		}
		r.Leases[i] = l
		return true
	}
	r.Leases = append(r.Leases, l)
	return true
}

func (r *Record) mergeEnded(e *Ended) bool {
	for i, have := range r.Ended {
		if have.Edge != e.Edge || !have.Flow.Same(e.Flow) {
			continue
		}
		// The later word lives longer; which one is a matter of storage only.
		if e.Ms < have.Ms || (e.Ms == have.Ms && e.LifetimeMs <= have.LifetimeMs) {
			return false
		}
		r.Ended[i] = e
		return true
	}
	r.Ended = append(r.Ended, e)
	return true
}

// Clone copies the record's own slices; leases, floor and ended flows are
// shared, as they are immutable.
func (r *Record) Clone() *Record {
	// Nearly all records have a lease or two.
	c := &struct {
		rec  Record
		room [2]*Lease
	}{}
	c.rec.Aor, c.rec.Floor = r.GetAor(), r.GetFloor()
	if len(r.GetLeases()) > 0 {
		c.rec.Leases = append(c.room[:0], r.Leases...)
	}
	c.rec.Ended = append([]*Ended(nil), r.GetEnded()...)
	return &c.rec
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// Interested tells whether the edge of a live lease of this kind is told when
// anything else in the record changes: one StateChanged for each such edge.
func (k LeaseKind) Interested() bool {
	return k == LeaseKind_LEASE_KIND_SUBSCRIPTION || k == LeaseKind_LEASE_KIND_MESSAGE
}
