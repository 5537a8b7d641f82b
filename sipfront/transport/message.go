package transport

import (
	"time"
	"unsafe"

	"github.com/emiago/sipgo/sip"
)

// Message is one SIP message as it came in. Exactly one of Request and Response is
// set, or neither, if it is plain (scan.go): then Model reads it when somebody
// wants it.
type Message struct {
	Request  *sip.Request
	Response *sip.Response
	// Raw is the message as received, owned by this value; it is not changed any
	// more once a handler has it. The parsed message shares it.
	Raw []byte
	// Flow is where it came from.
	Flow Flow
	// Reply is where RFC 3261 18.2.2 and RFC 3581 send the responses to a
	// request: Flow itself, or over UDP without rport the sent-by port of the
	// top Via. Nil means Flow.
	Reply Flow
	// At is when it came: to the socket, if that is known, or when it was read.
	At time.Time
	// Late: nothing has been read in time from its socket for a while. New work that
	// comes by it is better refused at once.
	Late bool

	// head is of a plain message, and parser the one that found it so.
	head   *Head
	parser *Parser
}

// plainMessage is a plain message with its head, in one piece.
type plainMessage struct {
	Message
	is Head
}

// Text is Raw as a string that shares its memory.
func (m *Message) Text() string { return shared(m.Raw) }

// shared is b, which is not changed any more, as a string.
func shared(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Head is what transactions know the message by.
func (m *Message) Head() *Head {
	if m.head != nil {
		return m.head
	}
	if m.Response != nil {
		return headOf(&Head{Status: m.Response.StatusCode}, &m.Response.MessageData)
	}
	return headOf(&Head{Method: string(m.Request.Method)}, &m.Request.MessageData)
}

// model is what Head and its callers read of a message's header fields.
type model interface {
	Via() *sip.ViaHeader
	To() *sip.ToHeader
	CSeq() *sip.CSeqHeader
}

// headOf fills h in. What nobody has parsed may lack anything.
func headOf(h *Head, m model) *Head {
	if cseq := m.CSeq(); cseq != nil {
		h.CSeqMethod = string(cseq.MethodName)
	}
	if via := m.Via(); via != nil {
		h.Host, h.Port, h.Network = via.Host, via.Port, via.Transport
		h.Branch, _ = via.Params.Get("branch")
		h.RPort = via.Params.Has("rport")
	}
	if to := m.To(); to != nil {
		h.ToTag, h.InDialog = to.Params.Get("tag")
	}
	return h
}

// Model is the message as sipgo's types have it; one of the two is nil. The top
// Via of a request has what the socket knows of its sender.
func (m *Message) Model() (*sip.Request, *sip.Response) {
	if m.head == nil {
		return m.Request, m.Response
	}
	req, res, _ := m.parser.Parse(m.Raw) // what is plain is well-formed
	if req != nil && m.Flow != nil && m.Flow.Remote().IsValid() {
		stampVia(req.Via(), m.Flow.Remote())
	}
	return req, res
}

// Message is Parse for who wants the message as the sockets hand it on. raw is
// the message's from now on.
func (p *Parser) Message(raw []byte) (*Message, error) {
	if m := p.plain(raw); m != nil {
		return m, nil
	}
	req, res, err := p.Parse(raw)
	return &Message{Request: req, Response: res, Raw: raw}, err
}

// plain is a plain message, nil for another.
func (p *Parser) plain(raw []byte) *Message {
	m := &plainMessage{Message: Message{Raw: raw}}
	if !p.scan(m.Text(), &m.is) {
		return nil
	}
	m.head, m.parser = &m.is, p
	return &m.Message
}
