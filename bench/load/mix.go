package load

import (
	"time"

	"hereis/bench/sipmsg"
)

// Mix is a day's profile in small: devices renew their registrations, move to
// another node from time to time, and some come and go; meanwhile users are
// called and looked up. Users who come and go are not asked for, so that every
// answer but the expected one is an error.

const (
	// churnOneIn users unregister and register again.
	churnOneIn = 20
	// moveEvery rounds a user registers at the next node.
	moveEvery = 8
	// callShare of asks are calls, in percent; the others are lookups.
	callShare = 25
	// deviceShare of the rate is registrations, in percent.
	deviceShare = 50
)

// churns tells that a user comes and goes.
func churns(user uint64) bool { return mix(user)%churnOneIn == 0 }

// living is the devices' side: one REGISTER a unit, or two for who comes and goes.
type living struct{ registering }

func (s living) begin(e *endpoint, u *unit) {
	u.expires = e.cfg.Expires
	if churns(u.user) {
		u.expires = 0
	}
	node := u.user + (u.round+u.user%moveEvery)/moveEvery
	s.place(e, u, e.cfg.registrar(node))
}

// final registers again who has gone.
func (s living) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	if m.Status == 200 && u.expires == 0 {
		if e.bound(u, m) {
			e.end(u, false, "invalid: 200 with the Contact that was removed")
			return
		}
		e.record("unregister", u, now)
		u.expires, u.auth = e.cfg.Expires, ""
		u.cseq = u.cseq/2*2 + 2
		u.tx++
		s.build(e, u)
		e.send(u, now)
		return
	}
	s.registering.final(e, u, m, now)
}

// mixed is the askers' side.
type mixed struct{}

func (mixed) ready(*endpoint) bool { return true }

func (s mixed) of(u *unit) scenario {
	if mix(u.nth)%100 < callShare {
		return calling{}
	}
	return locating{}
}

func (s mixed) begin(e *endpoint, u *unit)               { s.of(u).begin(e, u) }
func (s mixed) build(e *endpoint, u *unit)               { s.of(u).build(e, u) }
func (s mixed) held(e *endpoint, u *unit, now time.Time) { s.of(u).held(e, u, now) }
func (s mixed) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	s.of(u).final(e, u, m, now)
}
