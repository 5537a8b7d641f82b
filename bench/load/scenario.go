package load

import (
	"bytes"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"hereis/bench/sipmsg"
)

// scenario makes the requests of a unit and judges their final answers.
type scenario interface {
	// ready tells that there is something to start now.
	ready(e *endpoint) bool
	// begin builds and sends the first request.
	begin(e *endpoint, u *unit)
	// build writes the request that the unit has come to into u.req.
	build(e *endpoint, u *unit)
	// final takes in a valid final answer to the request that is outstanding.
	final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time)
	// held goes on after a pause that final began.
	held(e *endpoint, u *unit, now time.Time)
}

// code is a status as a key of Phase.Codes.
func code(status int) string { return strconv.Itoa(status) }

func userName(user uint64) string { return "u" + strconv.FormatUint(user, 10) }

// aor is a user's address of record.
func (e *endpoint) aor(user uint64) string { return "sip:" + userName(user) + "@" + e.cfg.Domain }

// caller is who asks for a user: the next one.
func (e *endpoint) caller(user uint64) uint64 {
	return e.cfg.First + (user-e.cfg.First+1)%e.cfg.Users
}

// contact is the address of one of our users, or of a caller, at this endpoint.
func (e *endpoint) contact(user string) string {
	if e.cfg.Transport == TCP {
		return "sip:" + user + "@" + e.addr + ";transport=tcp"
	}
	return "sip:" + user + "@" + e.addr
}

// via is a Via value up to its branch.
func (e *endpoint) via() string {
	if e.cfg.Transport == TCP {
		return "SIP/2.0/TCP " + e.addr + ";rport;branch="
	}
	return "SIP/2.0/UDP " + e.addr + ";rport;branch="
}

// common writes Via, Max-Forwards, From, To, Call-ID, CSeq and credentials.
func (e *endpoint) common(u *unit, w *sipmsg.Builder, method, from, to, toTag string) {
	w.Header("Via", e.via(), e.branch(u))
	w.Int("Max-Forwards", 70, "")
	w.Header("From", "<", from, ">;tag=", u.fromTag)
	if toTag != "" {
		w.Header("To", "<", to, ">;tag=", toTag)
	} else {
		w.Header("To", "<", to, ">")
	}
	w.Header("Call-ID", u.callID)
	w.Int("CSeq", u.cseq, method)
	w.Raw(u.auth)
}

// registering is the scenarios Register, Refresh and Storm: one REGISTER a unit.
type registering struct {
	// base is which registration of its user the first round is; each further round adds one.
	base uint64
	// measured tells targets from registrars.
	measured bool
}

// cseqStep is the CSeqs that one registration may use: for credentials, and when a server tells to come again.
const cseqStep = 1024

func (s registering) begin(e *endpoint, u *unit) {
	u.expires = e.cfg.Expires
	if s.measured {
		s.place(e, u, e.cfg.target(u.user))
	} else {
		s.place(e, u, e.cfg.registrar(u.user))
	}
}

// place sends a REGISTER to a node.
func (s registering) place(e *endpoint, u *unit, node netip.AddrPort) {
	u.method, u.cseq, u.dst = "REGISTER", cseqStep*(s.base+u.round), node
	registration(e, u)
	s.build(e, u)
	e.send(u, time.Now())
}

// registration gives a unit the Call-ID and From tag of its user's REGISTERs.
func registration(e *endpoint, u *unit) {
	u.callID = userName(u.user) + "-" + e.cfg.Run
	u.fromTag = "f" + userName(u.user)
}

func (registering) build(e *endpoint, u *unit) {
	aor := e.aor(u.user)
	registrar := "sip:" + e.cfg.Domain
	u.authUser, u.authURI = userName(u.user), registrar
	u.req.Request("REGISTER", registrar)
	e.common(u, &u.req, "REGISTER", aor, aor, "")
	u.req.Header("Contact", "<", e.contact(userName(u.user)), ">")
	u.req.Int("Expires", uint64(u.expires), "")
	u.req.End("", "")
}

func (s registering) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	e.record("register", u, now)
	if m.Status == 200 && e.cfg.Expires > 0 && !e.bound(u, m) {
		e.end(u, false, "invalid: 200 without our Contact and its expires")
		return
	}
	e.end(u, m.Status == 200, code(m.Status))
}

// bound tells that the 200 lists the Contact that was registered, with a lifetime (10.3 step 8).
func (e *endpoint) bound(u *unit, m *sipmsg.Message) (found bool) {
	want := []byte(e.contact(userName(u.user)))
	m.Values("Contact", func(v []byte) {
		expires, _ := sipmsg.Param(v, "expires")
		n, err := strconv.ParseUint(string(expires), 10, 32)
		found = found || bytes.Equal(sipmsg.URI(v), want) && err == nil && n > 0
	})
	return found
}

func (registering) held(*endpoint, *unit, time.Time) {}
func (registering) ready(*endpoint) bool             { return true }

// locating asks a node for a user with an OPTIONS that the user's device
// answers (a proxy), or with a redirect or a refusal, as Config.Accept says.
type locating struct{}

func (locating) begin(e *endpoint, u *unit) {
	e.toUser(u)
	e.options(u, u.dst)
}

// options asks a node for u's user.
func (e *endpoint) options(u *unit, node netip.AddrPort) {
	e.dialog(u)
	u.method, u.cseq, u.dst = "OPTIONS", 1, node
	locating{}.build(e, u)
	e.send(u, time.Now())
}

func (locating) build(e *endpoint, u *unit) {
	to := e.aor(u.user)
	u.from, u.authUser, u.authURI = e.aor(e.caller(u.user)), userName(e.caller(u.user)), to
	u.req.Request("OPTIONS", to)
	e.common(u, &u.req, "OPTIONS", u.from, to, "")
	u.req.Header("Contact", "<", e.contact("bench"), ">")
	u.req.End("", "")
}

func (locating) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	e.record("options", u, now)
	ok := e.cfg.accepts(m.Status)
	if ok && m.Status == 200 && !bytes.Equal(m.Get("X-Bench-User"), []byte(userName(u.user))) {
		e.end(u, false, "invalid: answered by another user")
		return
	}
	e.end(u, ok, code(m.Status))
}

func (locating) held(*endpoint, *unit, time.Time) {}
func (locating) ready(*endpoint) bool             { return true }

// asking asks every node for every user, in turn. With begun it follows a
// work beside it: it asks for users as they register, and then "not found" is
// an answer as good as any.
type asking struct {
	nodes []netip.AddrPort
	begun *atomic.Uint64
}

func (s asking) ready(e *endpoint) bool {
	nth := e.next*uint64(e.work.endpoints) + uint64(e.index)
	return s.begun == nil || nth/uint64(len(s.nodes)) < s.begun.Load()
}

func (s asking) begin(e *endpoint, u *unit) {
	nodes := uint64(len(s.nodes))
	u.user = e.cfg.First + u.nth/nodes%e.cfg.Users
	e.options(u, s.nodes[u.nth%nodes])
}

func (asking) build(e *endpoint, u *unit) { locating{}.build(e, u) }

func (s asking) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	if s.begun != nil && (m.Status == 404 || m.Status == 480) {
		e.end(u, true, code(m.Status))
		return
	}
	locating{}.final(e, u, m, now)
}

func (asking) held(*endpoint, *unit, time.Time) {}

// toUser gives a unit a user out of order, a dialog of its own and a target.
func (e *endpoint) toUser(u *unit) {
	nth := u.round*e.cfg.Users + (u.user - e.cfg.First)
	u.user = e.cfg.First + mix(nth)%e.cfg.Users
	for e.cfg.Scenario == Mix && churns(u.user) && u.user < e.cfg.First+e.cfg.Users-1 {
		u.user++ // who may be away is not asked for
	}
	u.dst = e.cfg.target(u.user)
	e.dialog(u)
}

// dialog gives a unit a Call-ID and a From tag of its own.
func (e *endpoint) dialog(u *unit) {
	id := strconv.Itoa(e.index) + "." + strconv.Itoa(u.slot) + "." + strconv.FormatUint(uint64(u.gen), 10)
	u.callID = "c" + id + "-" + e.cfg.Run
	u.fromTag = "c" + id
}

// mix scatters consecutive numbers (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
