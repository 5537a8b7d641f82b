package load

import (
	"net/netip"
	"slices"
	"time"

	"hereis/bench/sipmsg"
)

// sdp is a body as a phone sends it; no media flows.
const sdp = "v=0\r\no=bench 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"

// calling is INVITE, 200, ACK, BYE, 200 (RFC 3261 13, 15).
type calling struct{}

// The steps of a call.
const (
	stepINVITE = iota
	stepBYE
)

func (calling) ready(*endpoint) bool { return true }

func (c calling) begin(e *endpoint, u *unit) {
	e.toUser(u)
	u.method, u.cseq = "INVITE", 1
	c.build(e, u)
	e.send(u, time.Now())
}

func (calling) build(e *endpoint, u *unit) {
	to := e.aor(u.user)
	u.from, u.authUser, u.authURI = e.aor(e.caller(u.user)), userName(e.caller(u.user)), to
	u.req.Request("INVITE", to)
	e.common(u, &u.req, "INVITE", u.from, to, "")
	u.req.Header("Contact", "<", e.contact("bench"), ">")
	u.req.End("application/sdp", sdp)
}

func (c calling) final(e *endpoint, u *unit, m *sipmsg.Message, now time.Time) {
	if u.step == stepBYE {
		e.phase.record("bye", now.Sub(u.sent))
		e.end(u, m.Status == 200, code(m.Status))
		return
	}
	e.record("invite", u, now)
	if m.Status >= 300 {
		e.ackFailure(u, m)
		e.end(u, e.cfg.accepts(m.Status), code(m.Status))
		return
	}
	if !e.ackSuccess(u, m) {
		e.end(u, false, "invalid: 200 to INVITE without a usable Contact")
		return
	}
	u.ackTx, u.step = u.tx, stepBYE
	u.tx++
	if e.cfg.Hold > 0 {
		u.bye = true
		e.after(u, now.Add(e.cfg.Hold))
		return
	}
	c.held(e, u, now)
}

// held sends the BYE, which follows the same way as the ACK.
func (calling) held(e *endpoint, u *unit, now time.Time) {
	var ack sipmsg.Message
	if err := ack.Scan(slices.Clone(u.ack)); err != nil {
		panic(err) // our own message
	}
	u.method, u.dst = "BYE", u.ackDst
	u.cseq++
	u.req.Request("BYE", string(ack.URI))
	u.req.Header("Via", e.via(), e.branch(u))
	u.req.Int("Max-Forwards", 70, "")
	for _, name := range []string{"Route", "From", "To", "Call-ID"} {
		u.req.Copy(&ack, name)
	}
	u.req.Int("CSeq", u.cseq, "BYE")
	u.req.End("", "")
	e.send(u, now)
}

// ackSuccess acknowledges a 2xx end to end: to its Contact, through the
// reversed Record-Route (12.1.2, 13.2.2.4). Strict routers are not served.
func (e *endpoint) ackSuccess(u *unit, m *sipmsg.Message) bool {
	contact := sipmsg.URI(firstContact(m))
	if len(contact) == 0 {
		return false
	}
	var routes []string
	m.Values("Record-Route", func(v []byte) { routes = append(routes, string(v)) })
	slices.Reverse(routes)
	next := contact
	if len(routes) > 0 {
		next = sipmsg.URI([]byte(routes[0]))
	}
	dst, ok := sipmsg.AddrPort(next)
	if !ok {
		dst = u.dst // a host name: the node that routed the INVITE is its own next hop
	}
	var w sipmsg.Builder
	w.Into(u.ack)
	w.Request("ACK", string(contact))
	w.Header("Via", e.via(), e.branch(u), "a")
	w.Int("Max-Forwards", 70, "")
	for _, r := range routes {
		w.Header("Route", r)
	}
	w.Header("From", "<", u.from, ">;tag=", u.fromTag)
	w.Copy(m, "To")
	w.Header("Call-ID", u.callID)
	w.Int("CSeq", u.cseq, "ACK")
	w.End("", "")
	u.ack, u.ackDst = w.Bytes(), dst
	e.write(u.ack, u.ackDst)
	return true
}

func firstContact(m *sipmsg.Message) (first []byte) {
	m.Values("Contact", func(v []byte) {
		if first == nil {
			first = v
		}
	})
	return first
}

// ackFailure acknowledges a 300 to 699 hop by hop, in the INVITE's transaction (17.1.1.3).
func (e *endpoint) ackFailure(u *unit, m *sipmsg.Message) {
	e.out.Request("ACK", e.aor(u.user))
	e.out.Header("Via", e.via(), e.branch(u))
	e.out.Int("Max-Forwards", 70, "")
	e.out.Header("From", "<", u.from, ">;tag=", u.fromTag)
	e.out.Copy(m, "To")
	e.out.Header("Call-ID", u.callID)
	e.out.Int("CSeq", u.cseq, "ACK")
	e.out.End("", "")
	e.write(e.out.Bytes(), u.dst)
}

// answered is a call on the answering side, from its INVITE to its BYE.
type answered struct {
	ok       []byte // the 200, repeated until the ACK comes (13.3.1.4)
	to       netip.AddrPort
	since    time.Time
	interval time.Duration
	// ended: its BYE has come; since is then the time of that.
	acked, ended bool
}
