package load

import (
	"bytes"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"hereis/bench/sipmsg"
)

// answer is the devices' side: every user that registered from this socket.
// It answers OPTIONS, rings and answers INVITE, and takes ACK and BYE.
func (e *endpoint) answer(m *sipmsg.Message, from netip.AddrPort) {
	callID := string(m.Get("Call-ID"))
	to := replyTo(m, from)
	if !e.mine(m) {
		e.phase.Codes["invalid: request for another device"]++
		e.reply(m, to, from, 404, "Not Found", "")
		return
	}
	switch string(m.Method) {
	case "INVITE":
		e.answerInvite(m, callID, to, from)
	case "ACK":
		if c := e.calls[callID]; c != nil && !c.acked {
			c.acked = true
			e.phase.ACKs++
		}
	case "BYE":
		e.answerBye(m, callID, to, from)
	case "NOTIFY":
		status, reason := e.notify(m)
		e.reply(m, to, from, status, reason, "")
	case "OPTIONS", "CANCEL":
		e.reply(m, to, from, 200, "OK", "")
	default:
		e.reply(m, to, from, 501, "Not Implemented", "")
	}
}

// mine tells that the Request-URI is a Contact of this socket: a proxy must
// put the registered Contact there (RFC 3261 16.6 step 2).
func (e *endpoint) mine(m *sipmsg.Message) bool {
	addr, ok := sipmsg.AddrPort(m.URI)
	return ok && addr == e.line.local()
}

func uriUser(uri []byte) []byte {
	_, rest, _ := bytes.Cut(uri, []byte{':'})
	user, _, _ := bytes.Cut(rest, []byte{'@'})
	return user
}

// answerInvite sends 180 and 200 at once, and again if the INVITE comes again.
func (e *endpoint) answerInvite(m *sipmsg.Message, callID string, to, from netip.AddrPort) {
	if c := e.calls[callID]; c != nil {
		if !c.ended {
			e.write(c.ok, c.to)
		}
		return
	}
	e.phase.Answered++
	e.reply(m, to, from, 180, "Ringing", "")
	e.reply(m, to, from, 200, "OK", sdp)
	now := time.Now()
	e.calls[callID] = &answered{ok: slices.Clone(e.out.Bytes()), to: to, since: now, interval: e.cfg.T1}
	e.timer.add(now.Add(e.cfg.T1), event{call: callID})
}

// answerBye ends a call; it is remembered for timer J, so that a BYE that comes again gets its 200 again.
func (e *endpoint) answerBye(m *sipmsg.Message, callID string, to, from netip.AddrPort) {
	c := e.calls[callID]
	if c == nil {
		e.reply(m, to, from, 481, "Call/Transaction Does Not Exist", "")
		return
	}
	e.reply(m, to, from, 200, "OK", "")
	if c.ended {
		return
	}
	e.phase.BYEs++
	c.ended, c.ok, c.since = true, nil, time.Now()
	e.timer.add(c.since.Add(e.cfg.Timeout), event{call: callID})
}

// repeatAnswer repeats a 200 without ACK at intervals that double up to T2, and gives up after the timeout.
func (e *endpoint) repeatAnswer(callID string, now time.Time) {
	c := e.calls[callID]
	over := c != nil && now.Sub(c.since) >= e.cfg.Timeout
	switch {
	case c == nil:
	case over:
		if !c.acked && !c.ended {
			e.phase.NoACK++
		}
		delete(e.calls, callID)
	case c.acked || c.ended:
	default:
		e.write(c.ok, c.to)
		c.interval = min(2*c.interval, e.cfg.T2)
		e.timer.add(now.Add(c.interval), event{call: callID})
	}
}

// reply builds and sends a response; the tag is the same for each of a call.
func (e *endpoint) reply(m *sipmsg.Message, to, source netip.AddrPort, status int, reason, body string) {
	if string(m.Method) == "ACK" {
		return
	}
	h := fnv.New32a()
	h.Write(m.Get("Call-ID"))
	e.out.Response(m, status, reason, strconv.FormatUint(uint64(h.Sum32()), 36), source)
	user := string(uriUser(m.URI))
	if string(m.Method) == "INVITE" && status < 300 {
		e.out.Copy(m, "Record-Route")
		e.out.Header("Contact", "<", e.contact(user), ">")
	}
	e.out.Header("X-Bench-User", user)
	e.out.End("application/sdp", body)
	e.write(e.out.Bytes(), to)
}

// replyTo is where a response goes (RFC 3261 18.2.2, RFC 3581 4): the source
// if the top Via asks for it with rport, else the source's address and the port in Via.
func replyTo(m *sipmsg.Message, from netip.AddrPort) netip.AddrPort {
	via := firstValue(m.Get("Via"))
	if bytes.HasPrefix(via, []byte("SIP/2.0/TCP")) {
		return from // over the connection that the request came by
	}
	if _, ok := sipmsg.Param(via, "rport"); ok {
		return from
	}
	_, sentBy, _ := bytes.Cut(via, []byte{' '})
	sentBy, _, _ = bytes.Cut(sentBy, []byte{';'})
	addr, ok := sipmsg.AddrPort(append([]byte("sip:"), bytes.TrimSpace(sentBy)...))
	if !ok {
		return netip.AddrPortFrom(from.Addr(), 5060)
	}
	return netip.AddrPortFrom(from.Addr(), addr.Port())
}
