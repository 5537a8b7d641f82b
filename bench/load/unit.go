package load

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"hereis/bench/sipmsg"
)

// unit is one registration, lookup or call under way, with the client
// transaction that is outstanding. Its request is kept for retransmission.
type unit struct {
	gen  uint32 // raised at each use, so that answers to an earlier use are told apart
	slot int
	step int // what the scenario has come to
	tx   int // which request of the unit: each has a branch of its own
	busy bool
	// waiting: the request has no final answer; provisional: it has a 1xx.
	waiting, provisional bool
	// nth numbers the units of all endpoints together.
	nth, user, round uint64
	due, sent        time.Time
	interval         time.Duration
	req              sipmsg.Builder
	dst              netip.AddrPort
	method           string
	cseq             uint64
	callID, fromTag  string
	// ack is the last ACK for a 2xx, repeated with it (13.2.2.4).
	ack    []byte
	ackDst netip.AddrPort
	ackTx  int  // the INVITE's transaction
	bye    bool // a BYE is due after the hold time
	// auth is the header line with credentials, once a server has asked for them;
	// authUser and authURI are whose, and the Request-URI.
	auth, authUser, authURI string
	// from is the caller's address; expires, what a REGISTER asks for.
	from    string
	expires int
	// answered is the status of what waits for a NOTIFY too; notified, that it has come.
	answered int
	notified bool
	etag     string
}

// send begins a client transaction for the request in u.req.
func (e *endpoint) send(u *unit, now time.Time) {
	u.sent, u.waiting, u.provisional = now, true, false
	u.interval = e.cfg.T1
	e.writeRequest(u)
	e.after(u, now.Add(u.interval))
}

func (e *endpoint) writeRequest(u *unit) {
	if e.device != nil {
		e.device(u.user)
	}
	e.write(u.req.Bytes(), u.dst)
}

// branch names the transaction; parseBranch finds it again in an answer.
func (e *endpoint) branch(u *unit) string {
	b := make([]byte, 0, 64)
	b = append(b, branchPrefix...)
	b = append(b, e.cfg.Run...)
	for _, n := range []uint64{uint64(e.index), uint64(u.slot), uint64(u.gen), uint64(u.tx)} {
		b = append(b, '.')
		b = strconv.AppendUint(b, n, 10)
	}
	return string(b)
}

// branchPrefix begins with the magic cookie (RFC 3261 8.1.1.7).
const branchPrefix = "z9hG4bKb"

// find is the unit that an answer is for, with the request of it that it answers; nil if it is for none.
func (e *endpoint) find(branch []byte) (u *unit, tx int) {
	rest, ok := bytes.CutPrefix(branch, []byte(branchPrefix+e.cfg.Run+"."))
	if !ok {
		return nil, 0
	}
	var n [4]uint64
	for i := range n {
		var one []byte
		one, rest, _ = bytes.Cut(rest, []byte{'.'})
		v, err := strconv.ParseUint(string(one), 10, 32)
		if err != nil {
			return nil, 0
		}
		n[i] = v
	}
	if n[0] != uint64(e.index) || n[1] >= uint64(len(e.units)) {
		return nil, 0
	}
	u = &e.units[n[1]]
	if !u.busy || uint64(u.gen) != n[2] {
		return nil, 0
	}
	return u, int(n[3])
}

// response takes in one answer: it is matched, validated as RFC 3261 8.1.3 and
// 17.1.3 say, and handed to the scenario.
func (e *endpoint) response(m *sipmsg.Message, now time.Time) {
	via := m.Get("Via")
	branch, _ := sipmsg.Param(firstValue(via), "branch")
	u, tx := e.find(branch)
	if u == nil {
		e.stray(m, branch)
		return
	}
	if tx != u.tx || !u.waiting {
		if m.Status/100 == 2 && tx == u.ackTx && len(u.ack) > 0 {
			e.write(u.ack, u.ackDst) // the 2xx came again: its ACK was lost
		} else {
			e.phase.Stray++
		}
		return
	}
	wrong := e.check(u, m)
	if m.Status < 200 && wrong == "" {
		u.provisional = true
		return
	}
	u.waiting = false
	if wrong != "" {
		e.end(u, false, "invalid: "+wrong)
		return
	}
	if e.challenged(u, m) || e.paced(u, m, now) {
		return
	}
	e.work.scenario.final(e, u, m, now)
}

// check says what is wrong with an answer to u's request, or nothing.
func (e *endpoint) check(u *unit, m *sipmsg.Message) string {
	num, method, ok := m.CSeq()
	fromTag, _ := sipmsg.Param(m.Get("From"), "tag")
	_, toTag := sipmsg.Param(m.Get("To"), "tag")
	switch {
	case m.Count("Via") != 1:
		return "not one Via"
	case string(m.Get("Call-ID")) != u.callID:
		return "other Call-ID"
	case !ok || uint64(num) != u.cseq || string(method) != u.method:
		return "other CSeq"
	case string(fromTag) != u.fromTag:
		return "other From tag"
	case m.Status > 100 && !toTag:
		return "no To tag"
	}
	return ""
}

// stray counts an answer to nothing that is outstanding. A final one to an
// INVITE that failed is acknowledged all the same (17.1.1.3): it comes again
// because its ACK was lost. The Request-URI is the address in To here.
func (e *endpoint) stray(m *sipmsg.Message, branch []byte) {
	e.phase.Stray++
	num, method, ok := m.CSeq()
	if !ok || string(method) != "INVITE" || m.Status < 300 || !bytes.HasPrefix(branch, []byte(branchPrefix)) {
		return
	}
	uri := sipmsg.URI(m.Get("To"))
	e.out.Request("ACK", string(uri))
	e.out.Copy(m, "Via")
	e.out.Int("Max-Forwards", 70, "")
	e.out.Copy(m, "From")
	e.out.Copy(m, "To")
	e.out.Copy(m, "Call-ID")
	e.out.Int("CSeq", uint64(num), "ACK")
	e.out.End("", "")
	e.write(e.out.Bytes(), e.cfg.Targets[0])
}

// paced waits as long as a 503 says (RFC 3261 21.5.4), if the run is to do so,
// and frees the slot meanwhile. It tells whether it does.
func (e *endpoint) paced(u *unit, m *sipmsg.Message, now time.Time) bool {
	if !e.cfg.Retry || m.Status != 503 || u.method != "REGISTER" {
		return false
	}
	value, _, _ := bytes.Cut(m.Get("Retry-After"), []byte{';'})
	value, _, _ = bytes.Cut(value, []byte{'('})
	seconds, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 16)
	if err != nil {
		return false
	}
	e.phase.Paced++
	e.later.add(now.Add(time.Duration(seconds)*time.Second), postponement{
		due: u.due, user: u.user, nth: u.nth, round: u.round, cseq: u.cseq + 1, dst: u.dst, expires: u.expires,
	})
	u.busy, u.waiting = false, false
	e.live--
	e.free = append(e.free, u.slot)
	return true
}

// postponement is a unit that begins again later.
type postponement struct {
	due              time.Time
	user, nth, round uint64
	cseq             uint64
	dst              netip.AddrPort
	expires          int
}

func (e *endpoint) resume(p postponement) {
	u := e.take()
	u.due, u.user, u.nth, u.round = p.due, p.user, p.nth, p.round
	u.method, u.cseq, u.dst, u.expires = "REGISTER", p.cseq, p.dst, p.expires
	registration(e, u)
	e.work.scenario.build(e, u)
	e.send(u, time.Now())
}

func firstValue(line []byte) []byte {
	first, _, _ := bytes.Cut(line, []byte{','})
	return first
}

// event is a timer of a unit's step, or of a call that is answered.
type event struct {
	slot int
	gen  uint32
	tx   int
	call string
}

func (e *endpoint) after(u *unit, at time.Time) {
	e.timer.add(at, event{slot: u.slot, gen: u.gen, tx: u.tx})
}

// fire handles what is due: retransmission by timers A, E and G, the end by B and F, and the BYE after a hold.
func (e *endpoint) fire(now time.Time) {
	for e.timer.due(now) {
		ev := e.timer.take()
		if ev.call != "" {
			e.repeatAnswer(ev.call, now)
			continue
		}
		u := &e.units[ev.slot]
		if !u.busy || u.gen != ev.gen || u.tx != ev.tx {
			continue
		}
		if u.bye {
			u.bye = false
			e.work.scenario.held(e, u, now)
			continue
		}
		switch {
		case u.waiting:
			e.retransmit(u, now)
		case u.answered != 0 && !u.notified && now.Sub(u.sent) >= e.cfg.Timeout:
			e.unwatch(u)
			e.end(u, false, "no NOTIFY")
		}
	}
}

func (e *endpoint) retransmit(u *unit, now time.Time) {
	if now.Sub(u.sent) >= e.cfg.Timeout {
		e.unwatch(u)
		e.end(u, false, "timeout")
		return
	}
	invite := u.method == "INVITE"
	if e.cfg.Transport == TCP { // reliable: nothing is repeated (17.1.1.2, 17.1.2.2)
		e.after(u, u.sent.Add(e.cfg.Timeout))
		return
	}
	if !(invite && u.provisional) {
		e.phase.Retransmissions++
		e.tally.retransmissions.Add(1)
		e.writeRequest(u)
	}
	switch {
	case invite: // timer A doubles without bound (17.1.1.2)
		u.interval *= 2
	case u.provisional: // timer E in Proceeding (17.1.2.2)
		u.interval = e.cfg.T2
	default:
		u.interval = min(2*u.interval, e.cfg.T2)
	}
	e.after(u, earlier(now.Add(u.interval), u.sent.Add(e.cfg.Timeout)))
}
