package sipfront

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

// errMessage says that a message lacks what every message must have.
var errMessage = errors.New("malformed message")

// request is a request as the core reads it: the lines that came in, with
// those parts split off that routing needs. Nothing in it changes after
// parseRequest; what is sent on is a draft made from it.
type request struct {
	msg *transport.Message
	asked
	target  uri
	version string
	headers []header
	body    string

	// vias are the Via values, topmost first; the topmost has received and
	// rport as the socket saw them (RFC 3261 18.2.1, RFC 3581 4).
	vias    []string
	from    string
	to      string
	fromTag string
	toTag   string
	// maxForwards is -1 if the header is absent.
	maxForwards int
	// maxBreadth is -1 if the header is absent.
	maxBreadth int
	// routes are the Route values, topmost first.
	routes []string
	// plain is what a plain request stands in, nil for others.
	plain *plain
	// direct: its top Via is known to be where it came from.
	direct bool
	// viaRoom and routeRoom are of vias and routes, while they are few.
	viaRoom, routeRoom [2]string
}

// asked is what is told of a request when it is answered.
type asked struct {
	method, callID string
	cseq           uint32
	// at is when it came; zero for one of this node's own.
	at time.Time
}

// parseRequest reads a request from the bytes as received: the parser's model
// loses quoting, letter case and the order of values that a proxy must keep.
//
// With an error comes what could be read, for the answer.
func parseRequest(msg *transport.Message) (*request, error) {
	start, headers, body, err := splitMessage(msg.Text())
	if err != nil {
		return nil, err
	}
	r := &request{msg: msg, asked: asked{at: msg.At}, headers: headers, body: body, maxForwards: -1, maxBreadth: -1}
	r.vias, r.routes = r.viaRoom[:0], r.routeRoom[:0]
	for _, h := range headers {
		if e := r.take(h); e != nil {
			err = e
		}
	}
	if len(r.vias) == 0 || r.from == "" || r.to == "" || r.callID == "" {
		return r, errMessage
	}
	if msg.Flow != nil {
		r.vias[0] = stampVia(r.vias[0], msg.Flow.Remote())
	}
	method, rest, ok := strings.Cut(start, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	r.method, r.version = method, version
	if !ok || !ok2 || !isToken(method) {
		return r, errMessage
	}
	if err != nil {
		return r, err
	}
	r.target, err = parseURI(target)
	return r, err
}

// take keeps the parts of one header field that routing needs.
func (r *request) take(h header) error {
	switch h.name {
	case "Via":
		r.vias = splitValues(r.vias, h.value)
	case "From":
		r.from = h.value
		r.fromTag, _ = param(addrParams(h.value), "tag")
	case "To":
		r.to = h.value
		r.toTag, _ = param(addrParams(h.value), "tag")
	case "Call-ID":
		r.callID = h.value
	case "CSeq":
		number, _, ok := cutSpace(h.value)
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || !ok {
			return errMessage
		}
		r.cseq = uint32(n)
	case "Max-Forwards":
		n, err := strconv.ParseUint(h.value, 10, 32)
		if err != nil {
			return errMessage
		}
		r.maxForwards = int(min(n, 255))
	case "Max-Breadth":
		n, err := strconv.ParseUint(h.value, 10, 32)
		if err != nil {
			return errMessage
		}
		r.maxBreadth = int(min(n, 1<<16))
	case "Route":
		r.routes = splitValues(r.routes, h.value)
	}
	return nil
}

// topVia is the first Via, read.
func (r *request) topVia() (via, error) {
	if x := r.plain; x != nil {
		return via{transport: "udp", host: lower(x.host), port: x.sentPort}, nil
	}
	return parseVia(r.vias[0])
}

// values returns all values of a header field that takes a list.
func (r *request) values(name string) (vs []string) {
	for _, h := range r.headers {
		if h.name == name {
			vs = splitValues(vs, h.value)
		}
	}
	return vs
}

// value returns the first header field of a name.
func (r *request) value(name string) (string, bool) {
	for _, h := range r.headers {
		if h.name == name {
			return h.value, true
		}
	}
	return "", false
}

// draft is a message in the making: own slices, shared strings.
type draft struct {
	method string
	target uri
	// via is this node's own Via value, with branch and sentBy in it; vias are those below it.
	via    string
	branch string
	sentBy netip.AddrPort
	vias   []string
	routes []string
	// first are the header fields of this copy alone, headers those of all copies:
	// of a request that is forwarded, those that came, without what is of one hop
	// and with hops as Max-Forwards (RFC 3261 16.6 steps 1 and 3).
	first, headers []header
	forwarded      bool
	hops           int
	body           string
}

// bytes writes the draft as a message.
func (d *draft) bytes() []byte { return d.append(make([]byte, 0, d.size())) }

// append writes the draft as a message behind b.
func (d *draft) append(b []byte) []byte {
	b = append(append(append(append(b, d.method...), ' '), d.target.text...), " SIP/2.0\r\n"...)
	d.each(func(name, value string) { b = appendHeader(b, name, value) })
	return append(append(b, "\r\n"...), d.body...)
}

// size is the length of what bytes would write.
func (d *draft) size() int {
	n := len(d.method) + len(d.target.text) + len("  SIP/2.0\r\n\r\n") + len(d.body)
	d.each(func(name, value string) { n += len(name) + len(value) + len(": \r\n") })
	return n
}

// each calls f for the header fields in the order in which they are sent.
func (d *draft) each(f func(name, value string)) {
	f("Via", d.via)
	for _, v := range d.vias {
		f("Via", v)
	}
	for _, v := range d.routes {
		f("Route", v)
	}
	for _, h := range d.first {
		f(h.name, h.value)
	}
	if d.forwarded {
		d.eachForwarded(f)
	} else {
		for _, h := range d.headers {
			f(h.name, h.value)
		}
	}
	f("Content-Length", strconv.Itoa(len(d.body)))
}

// eachForwarded is each for the header fields of a request that is forwarded.
func (d *draft) eachForwarded(f func(name, value string)) {
	seen := false
	for _, h := range d.headers {
		switch h.name {
		case "Via", "Route", "Content-Length", "Max-Breadth", markHeader:
		case "Max-Forwards":
			seen = true
			f(h.name, strconv.Itoa(d.hops))
		default:
			f(h.name, h.value)
		}
	}
	if !seen {
		f("Max-Forwards", strconv.Itoa(d.hops))
	}
}

// outgoing is the draft as the transaction layer takes it.
func (d *draft) outgoing() transaction.Outgoing {
	return transaction.Outgoing{Method: d.method, Branch: d.branch, SentBy: d.sentBy, Raw: d.bytes()}
}

// setVia writes this node's own Via, for a flow by which the request leaves.
func (d *draft) setVia(out transport.Flow, sentBy netip.AddrPort, branch []byte) {
	d.sentBy = sentBy
	var room [256]byte
	b := append(room[:0], "SIP/2.0/"...)
	b = append(append(b, strings.ToUpper(out.Transport())...), ' ')
	b = append(sentBy.AppendTo(b), ";branch="...)
	at := len(b)
	d.via = string(append(b, branch...))
	d.branch = d.via[at:]
}

func appendHeader(b []byte, name, value string) []byte {
	return append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
}

// splitMessage cuts a message into start line, header fields and body.
func splitMessage(raw string) (start string, headers []header, body string, err error) {
	start, rest, ok := cutLine(raw)
	if !ok || start == "" || strings.IndexByte(start, '\r') >= 0 {
		return "", nil, "", errMessage
	}
	headers = make([]header, 0, strings.Count(rest, "\n"))
	length := -1
	for {
		var line string
		if line, rest, ok = cutLine(rest); !ok {
			return "", nil, "", errMessage
		}
		if line == "" {
			break
		}
		if strings.IndexByte(line, '\r') >= 0 {
			// A CR of its own is a line end to others.
			return "", nil, "", errMessage
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(headers) == 0 {
				return "", nil, "", errMessage
			}
			h := &headers[len(headers)-1]
			h.value = trim(h.value + " " + trim(line))
			continue
		}
		colon := strings.IndexByte(line, ':')
		if colon < 0 {
			return "", nil, "", errMessage
		}
		name, value := line[:colon], line[colon+1:]
		headers = append(headers, header{canonicalName(trimRight(name)), trim(value)})
	}
	for _, h := range headers {
		if h.name == "Content-Length" {
			if length, err = strconv.Atoi(h.value); err != nil || length < 0 {
				return "", nil, "", errMessage
			}
		}
	}
	// RFC 3261 18.3: what follows the body in a datagram is no part of it.
	if length >= 0 {
		if length > len(rest) {
			return "", nil, "", errMessage
		}
		rest = rest[:length]
	}
	return start, headers, rest, nil
}

// cutSpace cuts s at its first white space, which it drops.
func cutSpace(s string) (before, after string, ok bool) {
	for i := 0; i < len(s); i++ {
		if isLWS(s[i]) {
			return s[:i], trimLeft(s[i:]), true
		}
	}
	return s, "", false
}

func cutLine(s string) (line, rest string, ok bool) {
	end := strings.IndexByte(s, '\n')
	if end < 0 {
		return strings.TrimSuffix(s, "\r"), "", false
	}
	line, rest = s[:end], s[end+1:]
	if end > 0 && s[end-1] == '\r' {
		line = s[:end-1]
	}
	return line, rest, true
}

// trim takes off the white space of RFC 3261 25.1 at both ends, and no other:
// what else looks like it belongs to the value.
func trim(s string) string { return trimLeft(trimRight(s)) }

func trimLeft(s string) string {
	for s != "" && isLWS(s[0]) {
		s = s[1:]
	}
	return s
}

func trimRight(s string) string {
	for s != "" && isLWS(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isLWS(c byte) bool { return c == ' ' || c == '\t' }
