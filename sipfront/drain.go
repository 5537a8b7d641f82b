package sipfront

import (
	"slices"
	"time"

	"hereis/actors"
	"hereis/messages"
)

// drainSpread is the most by which Retry-After of a draining node is
// lengthened at random, in seconds, so that its devices do not come to the
// others all at once.
const drainSpread = 5

// SetDraining makes the node refuse new flows and new calls, or take them
// again. Requests within dialogs, those that come for a device of this edge by
// its flow, and questions that are no call go on.
func (s *Server) SetDraining(draining bool) { s.draining.Store(draining) }

// refusesNew tells whether a request would bind a device to a draining node: a
// REGISTER that does more than ask or remove, or an INVITE or SUBSCRIBE that begins
// a dialog and asks for a user here.
func (s *Server) refusesNew(r *request, p *plan) bool {
	if !s.draining.Load() || r.toTag != "" {
		return false
	}
	return r.method == "REGISTER" && (p.way == wayNode || p.way == wayUser) && registers(r) ||
		(r.method == "INVITE" || r.method == "SUBSCRIBE") && p.way == wayUser
}

// registers tells whether a REGISTER makes or refreshes a binding. A device that
// goes is let go by any node: its binding would outlive the drain.
func registers(r *request) bool {
	q := &messages.Register{}
	if v, ok := r.value("Expires"); ok {
		q.ExpiresS, q.HasExpires = parseExpires(v), true
	}
	contacts, _, err := parseContacts(r.values("Contact"))
	return err != nil || slices.ContainsFunc(contacts, func(c *messages.RegisterContact) bool { return lasts(q, c) })
}

// drainingError is 503 with a Retry-After that is spread (RFC 3261 21.5.4).
func (s *Server) drainingError() error {
	after := uint64(s.cfg.RetryAfter) + s.rand()%drainSpread
	return actors.RetryAfterError{Err: actors.ErrOverloaded, After: time.Duration(after) * time.Second}
}
