package transport

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// receive takes a datagram to the handler, or refuses it. m has Flow, Reply, At
// and Raw; both are the socket's still.
func (t *Transport) receive(m *Message) {
	// 7.5: CRLF before the start line is no part of the message.
	m.Raw = bytes.TrimLeft(m.Raw, "\r\n")
	if !t.admits(m, nil) {
		return
	}
	fits := len(m.Raw) <= t.cfg.Limits.Datagram
	if fits && t.cfg.Plain != nil && t.cfg.Plain(m) {
		return
	}
	raw := append(make([]byte, 0, len(m.Raw)), m.Raw...)
	if fits {
		if x := t.parser.plain(raw); x != nil {
			x.Flow, x.Reply, x.At, x.Late = m.Flow, m.Reply, m.At, m.Late
			if h := x.head; h.Method != "" {
				x.Reply = replyFlow(h.Port, h.RPort, x.Flow)
			}
			t.handler(x)
			return
		}
	}
	m = &Message{Flow: m.Flow, Reply: m.Reply, At: m.At, Late: m.Late, Raw: raw}
	h, ok := t.heads.Get().(*head)
	if !ok {
		h = &head{}
	}
	h.shares = true
	switch err := t.parser.guard(m.Raw, h); {
	case !fits:
		// The head is likely whole: what there is of it is for the answer.
		t.refuse(m, h, &Malformed{Status: 513, Reason: "datagram too long"})
	case err != nil:
		t.refuse(m, h, err)
	default:
		t.build(m, h)
	}
	// A message has the strings of its lines, and not the lines.
	clear(h.lines)
	*h = head{lines: h.lines[:0]}
	t.heads.Put(h)
}

// build goes on with lines that passed the guard.
func (t *Transport) build(m *Message, h *head) {
	if len(h.body) > t.cfg.Limits.Body {
		t.refuse(m, h, &Malformed{Status: 513, Reason: "body too long"})
		return
	}
	req, res, err := build(h)
	if err != nil {
		t.refuse(m, h, err)
		return
	}
	m.Request, m.Response = req, res
	if req != nil {
		via := req.Via()
		stampVia(via, m.Flow.Remote())
		m.Reply = replyFlow(via.Port, via.Params.Has("rport"), m.Flow)
	}
	t.handler(m)
}

// stampVia applies RFC 3261 18.2.1 and RFC 3581 4 to the top Via of a request:
// received if sent-by is not the source or rport was asked for, rport filled in.
// Values that the client wrote there itself are replaced: they are ours to set.
func stampVia(via *sip.ViaHeader, from netip.AddrPort) {
	_, rport := via.Params.Get("rport")
	if rport {
		via.Params.Add("rport", strconv.Itoa(int(from.Port())))
	}
	if rport || !isHost(via.Host, from.Addr()) {
		via.Params.Add("received", from.Addr().Unmap().WithZone("").String())
	} else {
		via.Params.Remove("received")
	}
}

// isHost tells whether a sent-by is this address. A name never is.
func isHost(host string, addr netip.Addr) bool {
	host = unbracket(host)
	if last := host[len(host)-1]; !strings.Contains(host, ":") && (last < '0' || last > '9') {
		return false // a name: spare the error value
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap() == addr.Unmap()
}

// replyFlow is RFC 3261 18.2.2 with RFC 3581 4: back on the flow; over UDP
// without rport to the source's address and the port of sent-by, if it has any,
// where a closed connection's answers go too. A maddr is not followed: it would
// let any datagram aim our answers at a third party.
func replyFlow(port int, rport bool, flow Flow) Flow {
	if port == 0 {
		port = 5060
	}
	sentBy := netip.AddrPortFrom(flow.Remote().Addr(), uint16(port))
	switch f := flow.(type) {
	case *udpFlow:
		if !rport && f.remote != sentBy {
			return &udpFlow{socket: f.socket, remote: sentBy}
		}
	case *streamFlow:
		return &replyStream{streamFlow: f, sentBy: sentBy}
	}
	return flow
}

// replyStream answers on a connection, or after its end on a new one to sent-by (18.2.2).
type replyStream struct {
	*streamFlow
	sentBy netip.AddrPort
}

func (f *replyStream) Send(b []byte) error {
	err := f.streamFlow.Send(b)
	if !errors.Is(err, ErrFlowClosed) || f.transport != "tcp" {
		return err
	}
	again, err := f.t.dialTCP(f.sentBy)
	if err != nil {
		return err
	}
	return again.Send(b)
}

// TagPrefix begins every To tag that Hereis makes for a final response of its
// own. An ACK that carries one and matches no transaction acknowledges an
// answer given without state: it goes nowhere (RFC 3261 8.2.7).
const TagPrefix = "hereis-"

// refuse counts a malformed message, and answers it if it is a request with
// enough to answer to. ACK is never answered (17.1.1.3).
func (t *Transport) refuse(m *Message, h *head, why *Malformed) {
	t.count.refuse(why.Reason)
	answer := refusal(h, m.Flow.Remote(), why.Status)
	if answer == nil {
		t.count.dropped.Add(1)
		t.log.Debug("dropped message", "remote", m.Flow.Remote(), "err", why.Reason)
		return
	}
	t.count.refused.Add(1)
	t.log.Debug("refused request", "remote", m.Flow.Remote(), "status", why.Status, "err", why.Reason)
	t.answerTo(m, h, answer)
}

// answerTo sends an answer made without state to where the top Via says.
func (t *Transport) answerTo(m *Message, h *head, answer []byte) {
	reply := m.Flow
	if via, ok := h.first("Via"); ok {
		var v sip.ViaHeader
		if parseVia(via, &v) == nil {
			reply = replyFlow(v.Port, v.Params.Has("rport"), m.Flow)
		}
	}
	_ = reply.Send(answer) // counted by the flow; the client repeats
}

// refusal builds the answer to a broken request from its lines as they came
// (8.2.6), or returns nil.
func refusal(h *head, from netip.AddrPort, status int) []byte {
	method, ok := h.request()
	if _, via := h.first("Via"); !ok || !via || method == "ACK" {
		return nil
	}
	if _, ok := h.first("CSeq"); !ok {
		return nil
	}
	b := make([]byte, 0, 512)
	b = append(b, "SIP/2.0 "...)
	b = append(b, refusalPhrase(status)...)
	b = append(b, "\r\n"...)
	top, done := true, map[string]bool{}
	for _, l := range h.lines {
		value := l.value
		switch l.name {
		case "Via":
			if top {
				value = stampRaw(value, from)
			}
			top = false
		case "From", "Call-ID", "CSeq", "To":
			if done[l.name] {
				continue
			}
			done[l.name] = true
			if l.name == "To" && !strings.Contains(strings.ToLower(value), "tag") {
				value += ";tag=" + TagPrefix + "refused"
			}
		default:
			continue
		}
		b = append(append(append(append(b, l.name...), ": "...), value...), "\r\n"...)
	}
	if status == 503 {
		b = append(b, "Retry-After: 2\r\n"...)
	}
	return append(b, "Content-Length: 0\r\n\r\n"...)
}

func refusalPhrase(status int) string {
	switch status {
	case 503:
		return "503 Service Unavailable"
	case 505:
		return "505 Version Not Supported"
	case 513:
		return "513 Message Too Large"
	}
	return "400 Bad Request"
}

// stampRaw is stampVia for a Via that may not even parse.
func stampRaw(value string, from netip.AddrPort) string {
	var v sip.ViaHeader
	if parseVia(value, &v) != nil {
		return value
	}
	stampVia(&v, from)
	return v.Value()
}
