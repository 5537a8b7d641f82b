package actors

import "hereis/messages"

// Renews tells whether a REGISTER does no more than keep the only binding of a
// user alive, as nearly all do, and until when: the lease's stamp, CSeq and
// expiry are then the request's, and all else stays as it is. It decides as
// Answer does, but says no to whatever is in any way unusual. Nothing of r or
// rec is kept.
func (u *User) Renews(r *messages.Register, rec *messages.Record, nowMS int64) (expiresMS int64, ok bool) {
	if len(rec.Leases) != 1 || rec.Floor != nil || len(rec.Ended) > 0 || r.Star || len(r.Contacts) != 1 || u.check(nowMS, r) != nil {
		return 0, false
	}
	l, c := rec.Leases[0], r.Contacts[0]
	requested := u.cfg.requested(r, c)
	if requested == 0 || l.Dead || l.ExpiresMs <= nowMS || !isBinding(l) ||
		string(l.Key) != c.Uri || c.InstanceId != "" || c.RegId != 0 ||
		l.CallId != r.CallId || l.Cseq >= r.Cseq || r.Stamp.Compare(l.Stamp) <= 0 ||
		l.Edge != r.Edge || l.Vouch != r.Incarnation || l.LifetimeMs != u.cfg.lifetimeMS() || !sameFlow(l.Flow, boundFlow(r, c)) {
		return 0, false
	}
	if !isBound(l.Payload, r, c, peek(l.Payload, bindingSince).sinceMS) {
		return 0, false
	}
	return r.Stamp.Ms + u.cfg.granted(requested, r.Stamp).Milliseconds(), true
}

// sameFlow is Same, and that either says as much of the flow as the other.
func sameFlow(a, b *messages.FlowID) bool {
	return (a == nil) == (b == nil) && a.Same(b) && a.GetStream() == b.GetStream()
}

// Begins tells whether a REGISTER for a user of whom nothing is known comes to one
// new binding and no more, and writes it. It decides as Answer does, but says no to
// whatever is in any way unusual. The lease shares r's memory and that of room, which
// is returned to be used again.
func (u *User) Begins(r *messages.Register, lease *messages.Lease, room []byte, nowMS int64) (used []byte, ok bool) {
	if r.Star || len(r.Contacts) != 1 || u.check(nowMS, r) != nil {
		return room, false
	}
	c := r.Contacts[0]
	requested := u.cfg.requested(r, c)
	if requested == 0 || c.InstanceId != "" || c.RegId != 0 {
		return room, false
	}
	room = append(room[:0], c.Uri...)
	room, err := packBinding(room, r, c, r.Stamp.Ms)
	if err != nil {
		return room, false
	}
	n := len(c.Uri)
	lease.Reset()
	lease.Key, lease.Payload = room[:n:n], room[n:]
	lease.Kind, lease.Edge, lease.Vouch = messages.LeaseKind_LEASE_KIND_BINDING, r.Edge, r.Incarnation
	lease.Flow, lease.Stamp = boundFlow(r, c), r.Stamp
	lease.CallId, lease.Cseq = r.CallId, r.Cseq
	lease.LifetimeMs = u.cfg.lifetimeMS()
	lease.ExpiresMs = r.Stamp.Ms + u.cfg.granted(requested, r.Stamp).Milliseconds()
	return room, true
}
