package actors

import (
	"bytes"
	"cmp"
	"slices"

	"hereis/messages"
)

// limit applies the number of bindings that a user may have (rule 8): bindings
// of edges that are gone give way first, oldest first; then the policy decides.
// A REGISTER that adds nothing is never refused.
func (t *update) limit() error {
	if len(t.q.Record.GetLeases())+len(t.writes) <= t.cfg.MaxBindings {
		return nil
	}
	if t.newKeys() > 0 && t.keys()+t.newKeys() > t.cfg.maxKeys() {
		return RetryAfterError{Err: ErrOverloaded, After: retryUnsettled}
	}
	others := t.others()
	excess := t.alive() + len(others) - t.cfg.MaxBindings
	if excess <= 0 || t.cfg.Policy == Reject && t.added == 0 {
		return nil
	}
	if t.q.StandIn {
		// The owner alone evicts: two holders that choose by different
		// knowledge would together evict too many.
		if t.cfg.Policy == Reject {
			return RetryAfterError{Err: ErrRetry, After: retryUnsettled}
		}
		return nil
	}
	gone := others
	if t.cfg.Policy == Reject {
		gone = slices.DeleteFunc(gone, func(l *messages.Lease) bool { return t.q.LiveEdge(l.Edge) })
	}
	if excess > len(gone) && t.added > 0 {
		return ErrTooManyBindings
	}
	for _, l := range gone[:min(excess, len(gone))] {
		t.evict(l)
	}
	return nil
}

// keys counts the bindings that the record has, dead ones included.
func (t *update) keys() (n int) {
	for _, l := range t.q.Record.GetLeases() {
		if isBinding(l) {
			n++
		}
	}
	return n
}

// newKeys counts writes of keys that the record has not.
func (t *update) newKeys() (n int) {
	for _, w := range t.writes {
		if t.q.Record.Lease(w.Key) == nil {
			n++
		}
	}
	return n
}

// alive counts the live bindings among the writes.
func (t *update) alive() (n int) {
	for _, w := range t.writes {
		if !w.Dead {
			n++
		}
	}
	return n
}

// others are the live bindings that this REGISTER does not touch, in the order
// in which they give way.
func (t *update) others() []*messages.Lease {
	var others []*messages.Lease
	touched := func(key []byte) bool {
		same := func(w *messages.Lease) bool { return bytes.Equal(w.Key, key) }
		return slices.ContainsFunc(t.writes, same)
	}
	for _, l := range t.q.Record.GetLeases() {
		if isBinding(l) && t.q.Record.Alive(l, t.q.NowMS) && !touched(l.Key) &&
			(t.floor == nil || l.Stamp.Compare(t.floor.Stamp) > 0) {
			others = append(others, l)
		}
	}
	live := make(map[string]bool)
	for _, l := range others {
		live[l.Edge] = t.q.LiveEdge(l.Edge)
	}
	slices.SortFunc(others, func(a, b *messages.Lease) int {
		if live[a.Edge] != live[b.Edge] {
			if live[b.Edge] {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Stamp.Compare(b.Stamp), bytes.Compare(a.Key, b.Key))
	})
	return others
}

// evict ends a binding of another device. The tombstone keeps that device's
// Call-ID and CSeq: its next refresh counts, a repeat of an old one does not.
func (t *update) evict(l *messages.Lease) {
	stamp := t.r.Stamp
	if stamp.Compare(l.Stamp) <= 0 {
		stamp = t.q.above(l.Stamp)
	}
	dead := t.lease(l.Key, stamp, nil)
	dead.Dead, dead.CallId, dead.Cseq = true, l.CallId, l.Cseq
	t.writes = append(t.writes, dead)
	t.all = true
	t.tellEdge(l.Edge)
}
