package sipfront

import (
	"time"

	"hereis/actors"
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
// REGISTER, or an INVITE that begins a dialog and asks for a user here.
func (s *Server) refusesNew(r *request, p *plan) bool {
	if !s.draining.Load() || r.toTag != "" {
		return false
	}
	return r.method == "REGISTER" && (p.way == wayNode || p.way == wayUser) ||
		(r.method == "INVITE" || r.method == "SUBSCRIBE") && p.way == wayUser
}

// drainingError is 503 with a Retry-After that is spread (RFC 3261 21.5.4).
func (s *Server) drainingError() error {
	after := uint64(s.cfg.RetryAfter) + s.rand()%drainSpread
	return actors.RetryAfterError{Err: actors.ErrOverloaded, After: time.Duration(after) * time.Second}
}
