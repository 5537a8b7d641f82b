package actors

import (
	"bytes"

	"hereis/messages"
)

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
	var room [512]byte
	payload, err := packBinding(room[:0], r, c, peek(l.Payload, bindingSince).sinceMS)
	if err != nil || !bytes.Equal(payload, l.Payload) {
		return 0, false
	}
	return r.Stamp.Ms + u.cfg.granted(requested, r.Stamp).Milliseconds(), true
}

// sameFlow is Same, and that either says as much of the flow as the other.
func sameFlow(a, b *messages.FlowID) bool {
	return (a == nil) == (b == nil) && a.Same(b) && a.GetStream() == b.GetStream()
}
