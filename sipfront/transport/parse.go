package transport

import (
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Parser turns bytes into the message model, or says what is wrong with them.
// It is safe for concurrent use.
//
// It fills sipgo's message types without sipgo's own reader: a proxy needs
// methods as they came, several values on one line, LWS inside Via and quoted
// parameters read as RFC 3261 has them, and a cost that is linear in the bytes.
type Parser struct {
	limits Limits
	names  map[string]string
}

// NewParser makes a parser with these limits.
func NewParser(l Limits) *Parser { return &Parser{limits: l, names: headerNames()} }

// Parse reads one message that is alone in raw, as in a datagram: a body
// without Content-Length is the rest, one with a shorter Content-Length is cut
// (RFC 3261 18.3). One of req and res is set, or the error is a *Malformed. The
// message shares raw's body.
func (p *Parser) Parse(raw []byte) (req *sip.Request, res *sip.Response, err error) {
	var h head
	req, res, fault := p.parse(raw, &h)
	if fault != nil {
		return nil, nil, fault
	}
	return req, res, nil
}

func (p *Parser) parse(raw []byte, h *head) (*sip.Request, *sip.Response, *Malformed) {
	if err := p.guard(raw, h); err != nil {
		return nil, nil, err
	}
	return build(h)
}

// build makes a message of lines that passed the guard, and h.body.
func build(h *head) (*sip.Request, *sip.Response, *Malformed) {
	if hasPrefixFold(h.start, "SIP/") {
		res, err := startResponse(h.start)
		if err != nil {
			return nil, nil, err
		}
		f := newFields()
		if err := f.fill(&res.MessageData, h); err != nil {
			return nil, nil, err
		}
		return nil, res, f.mandatory()
	}
	req, err := startRequest(h)
	if err != nil {
		return nil, nil, err
	}
	f := newFields()
	if err := f.fill(&req.MessageData, h); err != nil {
		return nil, nil, err
	}
	if err := f.mandatory(); err != nil {
		return nil, nil, err
	}
	if f.cseq.MethodName != req.Method {
		return nil, nil, bad("CSeq method")
	}
	return req, nil, nil
}

// startRequest reads a Request-Line: exactly two spaces (7.1).
func startRequest(h *head) (*sip.Request, *Malformed) {
	method, ok := h.request()
	if !ok {
		return nil, bad("start line")
	}
	target, version, _ := strings.Cut(h.start[len(method)+1:], " ")
	if strings.TrimLeft(version, lws) != version || strings.TrimRight(version, lws) != version {
		return nil, bad("start line")
	}
	var u sip.Uri
	if err := ParseURI(target, &u); err != nil {
		return nil, bad("Request-URI")
	}
	if !strings.EqualFold(version, "SIP/2.0") {
		return nil, &Malformed{Status: 505, Reason: "version"}
	}
	// 19.1.1, table 1: no headers in a Request-URI.
	if len(u.Headers) > 0 {
		return nil, bad("Request-URI")
	}
	req := sip.NewRequest(sip.RequestMethod(method), u)
	return req, nil
}

// startResponse reads a Status-Line; its reason phrase may be empty (7.2).
func startResponse(s string) (*sip.Response, *Malformed) {
	version, rest, _ := strings.Cut(s, " ")
	code, reason, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	switch {
	case !strings.EqualFold(version, "SIP/2.0"):
		return nil, &Malformed{Status: 505, Reason: "version"}
	case err != nil || len(code) != 3 || n < 100 || n > 699:
		return nil, bad("status code")
	}
	return sip.NewResponse(int(n), reason), nil
}

// fields holds the headers that every message has, in one allocation, and what
// was seen so far.
type fields struct {
	via    sip.ViaHeader
	from   sip.FromHeader
	to     sip.ToHeader
	callID sip.CallIDHeader
	cseq   sip.CSeqHeader
	max    sip.MaxForwardsHeader
	length sip.ContentLengthHeader
	seen   seen
}

func newFields() *fields { return &fields{} }

// seen has a bit for each header of which there is one at most (7.3.1).
type seen uint16

const (
	seenVia seen = 1 << iota
	seenFrom
	seenTo
	seenCallID
	seenCSeq
	seenMaxForwards
	seenContentLength
	seenContentType
	seenExpires
	seenEvent
	seenMinExpires
)

// fill parses every line into m and sets the body.
func (f *fields) fill(m *sip.MessageData, h *head) *Malformed {
	for i := range h.lines {
		if err := f.header(m, &h.lines[i]); err != nil {
			return err
		}
	}
	body := h.body
	if f.seen&seenContentLength != 0 {
		if int(f.length) > len(body) {
			return bad("Content-Length")
		}
		body = body[:f.length]
	}
	if len(body) == 0 {
		body = nil
	}
	m.SetBody(body)
	return nil
}

// once refuses the second header of a kind.
func (f *fields) once(bit seen, name string) *Malformed {
	if f.seen&bit != 0 {
		return bad("second " + name)
	}
	f.seen |= bit
	return nil
}

func (f *fields) header(m *sip.MessageData, l *line) *Malformed {
	var (
		hdr sip.Header
		bit seen
		err error
	)
	switch l.name {
	case "Via":
		v := &f.via
		if f.seen&seenVia != 0 {
			v = &sip.ViaHeader{}
		}
		f.seen |= seenVia
		hdr, err = v, parseVia(l.value, v)
	case "From":
		hdr, bit, err = &f.from, seenFrom, parseNameAddr(l.value, &f.from.DisplayName, &f.from.Address, &f.from.Params)
	case "To":
		hdr, bit, err = &f.to, seenTo, parseNameAddr(l.value, &f.to.DisplayName, &f.to.Address, &f.to.Params)
	case "Call-ID":
		f.callID = sip.CallIDHeader(l.value)
		hdr, bit = &f.callID, seenCallID
		if l.value == "" || strings.ContainsAny(l.value, lws) {
			err = errHeader
		}
	case "CSeq":
		hdr, bit, err = &f.cseq, seenCSeq, parseCSeq(l.value, &f.cseq)
	case "Max-Forwards":
		// 20.22: 0 to 255.
		n, e := parseNumber(l.value, 255)
		f.max = sip.MaxForwardsHeader(n)
		hdr, bit, err = &f.max, seenMaxForwards, e
	case "Content-Length":
		n, e := parseNumber(l.value, 1<<31-1)
		f.length = sip.ContentLengthHeader(n)
		hdr, bit, err = &f.length, seenContentLength, e
	default:
		hdr, bit, err = otherHeader(l)
	}
	if err != nil {
		return bad(l.name)
	}
	if bit != 0 {
		if err := f.once(bit, l.name); err != nil {
			return err
		}
	}
	m.AppendHeader(hdr)
	return nil
}

// otherHeader builds a header that a message may lack.
func otherHeader(l *line) (hdr sip.Header, bit seen, err error) {
	switch l.name {
	case "Contact":
		c := &sip.ContactHeader{}
		if l.value == "*" {
			c.Address = sip.Uri{Wildcard: true, Host: "*"}
			return c, 0, nil
		}
		return c, 0, parseNameAddr(l.value, &c.DisplayName, &c.Address, &c.Params)
	case "Route":
		r := &sip.RouteHeader{}
		return r, 0, parseNameAddr(l.value, new(string), &r.Address, new(sip.HeaderParams))
	case "Record-Route":
		r := &sip.RecordRouteHeader{}
		return r, 0, parseNameAddr(l.value, new(string), &r.Address, new(sip.HeaderParams))
	case "Content-Type":
		c := sip.ContentTypeHeader(l.value)
		return &c, seenContentType, nil
	case "Expires":
		bit = seenExpires
	case "Event":
		bit = seenEvent
	case "Min-Expires":
		bit = seenMinExpires
	}
	return sip.NewHeader(l.name, l.value), bit, nil
}

// mandatory is RFC 3261 8.1.1, without Max-Forwards, which 16.3 lets a proxy
// supply. The top Via's protocol must be ours, or no answer could be sent.
func (f *fields) mandatory() *Malformed {
	switch {
	case f.seen&seenVia == 0:
		return bad("no Via")
	case f.seen&seenFrom == 0:
		return bad("no From")
	case f.seen&seenTo == 0:
		return bad("no To")
	case f.seen&seenCallID == 0:
		return bad("no Call-ID")
	case f.seen&seenCSeq == 0:
		return bad("no CSeq")
	case !strings.EqualFold(f.via.ProtocolName, "SIP") || f.via.ProtocolVersion != "2.0":
		return bad("Via")
	}
	return nil
}
